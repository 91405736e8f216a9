package main

import (
	"path/filepath"
	"reflect"
	"testing"
)

// TestIndexByFleet: the services of a fleet make the same rows as this process, with prompts too.
func TestIndexByFleet(t *testing.T) {
	dir, own, asked := madeImages(t, 100, 64), filepath.Join(t.TempDir(), "v.ndjson"), filepath.Join(t.TempDir(), "v.ndjson")
	put(t, dir, map[string]string{"broken.jpg": "no image"})
	sim := []string{"--model", "demo", "--backend", "sim"}
	index := func(out string, args ...string) result {
		return runProgram(t, command(t.TempDir(), append(append([]string{"index", dir, "--out", out}, sim...), args...)...))
	}
	index(own).expect(t, exitOK)
	index(asked, "--fleet").expect(t, exitUsage, "no fleet.url")
	f := startFleet(t)
	for _, node := range f.nodes {
		node.serving(t)
	}
	t.Setenv("HAILO_CLIP_FLEET_URL", f.url)
	t.Setenv("HAILO_CLIP_FLEET_NODE", "index")
	until(t, "workers are there", func() bool { return index(asked, "--fleet").code == exitOK })
	index(asked, "--fleet").expect(t, exitOK, "0 rows", "101 unchanged")
	a, b := indexed(t, own), indexed(t, asked)
	for path := range a {
		if a[path].Key != b[path].Key || !reflect.DeepEqual(a[path].Embedding, b[path].Embedding) || (a[path].Error == "") != (b[path].Error == "") {
			t.Errorf("%s: %+v, %+v", path, a[path], b[path])
		}
	}
	labels := filepath.Join(t.TempDir(), "v.ndjson")
	index(labels, "--fleet", "-p", "a cat", "-p", "a dog").expect(t, exitOK, "101 rows")
	for path, row := range indexed(t, labels) {
		if row.Error == "" && len(row.Matches) != 2 {
			t.Errorf("%s: %+v", path, row)
		}
	}
	runProgram(t, command(t.TempDir(), "index", dir, "--out", labels, "--fleet", "--url", "http://127.0.0.1:1")).expect(t, exitUsage, "--fleet goes neither with --url")
}
