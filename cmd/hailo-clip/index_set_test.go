package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"hailoclip/api/fleet/broker"
)

// setsToIndexBy use all that scoring has, but for examples, which the test adds to the first.
const setsToIndexBy = `prompt_sets:
  pets:
    labels:
    - {name: cat, prompts: [a cat, a photo of a cat], threshold: {enter: 0.6, exit: 0.4}}
    - {name: dog, prompts: [a dog, a hound], pool: max}
    - {name: fog, prompts: [fog], negative: true}
    background: {prompts: [a street]}
    templates: ["{}", "a photo of {}, outside"]
    temperature: 2.5
    min_margin: 0.01
  gate:
    labels:
    - {name: open, prompts: [an open gate], negation: [a closed gate]}
    - {name: lit, prompts: [a lamp that is on]}
    background: {prompts: [a wall]}
    activation: pair
  plain:
    labels: [{name: red}, {name: green}, {name: blue}]
    activation: none
    min_cosine: 0.2
`

// TestIndexFleetSet classifies by prompt sets of the fleet, of a running service, of the state folder and of the configuration: to the bit
// as a service does, and never by two versions of one.
func TestIndexFleetSet(t *testing.T) {
	t.Parallel()
	b, err := broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir, state, file := madeImages(t, 30, 64), t.TempDir(), filepath.Join(t.TempDir(), "sets.yaml")
	put(t, dir, map[string]string{"broken.jpg": "no image"})
	if err := os.WriteFile(file, []byte(setsToIndexBy), 0o644); err != nil {
		t.Fatal(err)
	}
	sim := []string{"--model", "demo", "--backend", "sim"}
	r := serve(t, state, append(sim, "--set=fleet.url="+b.URL(), "--set=fleet.node=porch")...)
	until(t, "sets can be changed", func() bool {
		return runProgram(t, command(t.TempDir(), "prompt-sets", "import", file, "--url", r.url)).code == exitOK
	})
	for label, image := range map[string]string{"cat": "/000/000003.jpg", "dog": "/000/000004.jpg"} {
		runProgram(t, command(t.TempDir(), "prompt-sets", "add", "pets", label, dir+image, "--url", r.url)).expect(t, exitOK)
	}
	exported := filepath.Join(t.TempDir(), "all.yaml")
	all := runProgram(t, command(t.TempDir(), "prompt-sets", "export", "--url", r.url))
	if err := os.WriteFile(exported, []byte(all.stdout), 0o644); err != nil || all.code != exitOK {
		t.Fatal(err, all.stderr)
	}
	names := []string{"pets", "gate", "plain"}
	want := map[string]string{} // rows of the service, by set
	for _, name := range names {
		want[name] = filepath.Join(t.TempDir(), "v.ndjson")
		runProgram(t, command(t.TempDir(), "index", dir, "--url", r.url, "--prompt-set", name, "-k", "0", "--out", want[name])).expect(t, exitOK, "31 rows")
	}
	index := func(state, out string, env []string, args ...string) result {
		c := command(state, append(append([]string{"index", dir, "--fleet", "--out", out, "-k", "0"}, sim...), args...)...)
		c.Env = append(append(c.Env, "HAILO_CLIP_FLEET_URL="+b.URL(), "HAILO_CLIP_FLEET_NODE=index"), env...)
		return runProgram(t, c)
	}
	compare := func(from, state string, env []string, args ...string) (outs []string) {
		t.Helper()
		for _, name := range names {
			out := filepath.Join(t.TempDir(), "v.ndjson")
			index(state, out, env, append(args, "--prompt-set", name)...).expect(t, exitOK, "31 rows")
			rows, found := indexed(t, want[name]), indexed(t, out)
			for path, row := range rows {
				if row.Error == "" && len(row.Matches) < 2 {
					t.Fatalf("%s: %+v", path, row)
				}
				if row.Error == "" && !reflect.DeepEqual(row, found[path]) || (row.Error == "") != (found[path].Error == "") {
					t.Errorf("%s, %s, %s: %+v, and by the fleet %+v", from, name, path, row, found[path])
				}
			}
			outs = append(outs, out)
		}
		return outs
	}
	alone := "HAILO_CLIP_FLEET_SHARE=false"
	outs := compare("the fleet", t.TempDir(), nil)
	compare("the service", state, []string{alone, "HAILO_CLIP_SERVER_PORT=" + must(url.Parse(r.url)).Port()})
	compare("the configuration", t.TempDir(), []string{alone}, "--config", exported)
	index(t.TempDir(), want["pets"]+".ndjson", []string{alone}, "--prompt-set", "pets").expect(t, exitFailed, "there is no such prompt set", "pets")
	index(t.TempDir(), want["pets"]+".ndjson", nil, "--prompt-set", "../pets").expect(t, exitFailed, "nor the fleet")

	other := serve(t, t.TempDir(), append(sim, "--set=fleet.url="+b.URL(), "--set=fleet.node=attic")...)
	r.stop(t)
	compare("the state folder", state, []string{alone})

	index(t.TempDir(), outs[0], nil, "--prompt-set", "pets").expect(t, exitOK, "0 rows")
	changed := filepath.Join(t.TempDir(), "plain.json")
	if err := os.WriteFile(changed, must(json.Marshal(map[string]any{"labels": []any{map[string]any{"name": "mauve"}, map[string]any{"name": "red"}}})), 0o644); err != nil {
		t.Fatal(err)
	}
	runProgram(t, command(t.TempDir(), "prompt-sets", "put", changed, "--url", other.url)).expect(t, exitOK)
	index(t.TempDir(), outs[2], nil, "--prompt-set", "plain").expect(t, exitUsage, "another job", "prompt set plain", "version")
	if rows := string(must(os.ReadFile(outs[2]))); strings.Contains(rows, "mauve") {
		t.Error("rows of two versions are mixed")
	}
	index(t.TempDir(), outs[2]+".ndjson", nil, "--prompt-set", "plain", "--backend", "cpu").expect(t, exitOK) // prompts alone: another image encoder is no matter
	index(t.TempDir(), outs[0]+".ndjson", nil, "--prompt-set", "pets", "--backend", "cpu").expect(t, exitFailed, "has examples", "another image encoder")
	other.stop(t)
}
