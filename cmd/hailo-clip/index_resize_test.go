package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/fleet/broker"
	"hailoclip/stages"
)

// last is the status that "index --json" has printed last.
func (r result) last(t *testing.T) (p indexProgress) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &p); err != nil {
		t.Fatal(err, r.stdout, r.stderr)
	}
	return p
}

// TestIndexResized: a service and a fleet make the same rows of smaller copies, under the keys of the images, and they do not mix with
// those of whole images.
func TestIndexResized(t *testing.T) {
	t.Parallel()
	b, err := broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := madeImages(t, 30, 512)
	put(t, dir, map[string]string{"broken.jpg": "no image", "cut.jpg": string(must(os.ReadFile(dir + "/000/000001.jpg"))[:100]), "small.jpg": string(must(os.ReadFile(madeImages(t, 1, 64) + "/000/000000.jpg")))})
	sim := []string{"--model", "demo", "--backend", "sim"}
	r := serve(t, t.TempDir(), append(sim, "--set=fleet.url="+b.URL(), "--set=fleet.node=porch")...)
	out := func(name string) string { return filepath.Join(t.TempDir(), name+".ndjson") }
	index := func(out string, args ...string) result {
		c := command(t.TempDir(), append([]string{"index", dir, "--json", "--out", out}, args...)...)
		c.Env = append(c.Env, "HAILO_CLIP_FLEET_URL="+b.URL(), "HAILO_CLIP_FLEET_NODE=index")
		return runProgram(t, c)
	}
	whole, byURL, byFleet, labels := out("whole"), out("url"), out("fleet"), out("labels")
	until(t, "workers are there", func() bool { return index(byFleet, "--fleet", "--resize", "128").code == exitOK })
	all, small := index(whole, "--url", r.url).last(t), index(byURL, "--url", r.url, "--resize", "128").last(t)
	if all.Sent <= small.Sent || small.Bytes != all.Bytes || small.Failed != 2 || small.Stored != 31 {
		t.Errorf("%+v, whole %+v", small, all)
	}
	w, u, f := indexed(t, whole), indexed(t, byURL), indexed(t, byFleet)
	for path, row := range u {
		other := f[path]
		if row.Key != other.Key || !reflect.DeepEqual(row.Embedding, other.Embedding) || (row.Error == "") != (other.Error == "") {
			t.Errorf("%s: %+v, by the fleet %+v", path, row, other)
		}
		if hash, _, _ := strings.Cut(row.Key, "."); row.Key == w[path].Key || !strings.HasPrefix(w[path].Key, hash+".") || (row.Error == "") != (w[path].Error == "") {
			t.Errorf("%s: key %s, of the whole image %s", path, row.Key, w[path].Key)
		}
		if same := reflect.DeepEqual(row.Embedding, w[path].Embedding); same != (row.Error != "" || strings.HasSuffix(path, "small.jpg")) {
			t.Errorf("%s: as of the whole image: %v", path, same)
		}
	}
	index(labels, "--fleet", "--resize", "128", "-p", "a cat", "-p", "a dog", "--model", "demo", "--backend", "sim").expect(t, exitOK)
	for _, sink := range []string{byURL, byFleet, labels} {
		runProgram(t, command(t.TempDir(), "index", "verify", "--out", sink)).expect(t, exitOK, "33 rows for 33 images: 0 missing")
	}
	index(whole, "--url", r.url, "--resize", "128").expect(t, exitUsage, "another job", "resized-128")
	index(byURL, "--url", r.url, "--resize", "256").expect(t, exitUsage, "another job", "resized-256")
	index(byURL, "--url", r.url).expect(t, exitUsage, "another job")
	index(byFleet, "--url", r.url, "--resize", "128").expect(t, exitOK, `"rows":0`) // whoever has encoded them, they are the same
	index(out("x"), append(sim, "--resize", "128")...).expect(t, exitUsage, "--resize is for images that are sent")
	index(out("x"), "--url", r.url, "--resize", "63").expect(t, exitUsage, "64 to 4096")
	r.stop(t)
}

// TestResizeFigures prints what --resize 256 saves, and how much vectors of the demo model differ by it, over the images of ../shared/data.
func TestResizeFigures(t *testing.T) {
	t.Parallel()
	const data = "../../../shared/data"
	if _, err := os.Stat(data); err != nil {
		t.Skip(err)
	}
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu")
	var rows [2]map[string][]float32
	var totals [2]indexProgress
	for i, args := range [][]string{{}, {"--resize", "256"}} {
		out := filepath.Join(t.TempDir(), "v.ndjson")
		done := runProgram(t, command(t.TempDir(), append([]string{"index", data, "--json", "--out", out, "--url", r.url}, args...)...))
		done.expect(t, exitOK)
		totals[i], rows[i] = done.last(t), map[string][]float32{}
		for path, row := range indexed(t, out) {
			rows[i][path] = row.Embedding
		}
	}
	var cosines []float64
	for path, whole := range rows[0] {
		if small := rows[1][path]; len(small) != len(whole) {
			t.Errorf("%s: %d numbers, %d of the whole image", path, len(small), len(whole))
		} else if whole != nil && !slices.Equal(small, whole) {
			cosines = append(cosines, stages.Cosine(small, whole))
		}
	}
	slices.Sort(cosines)
	if len(cosines) == 0 || totals[1].Sent >= totals[0].Sent {
		t.Fatalf("%d copies were sent, %d bytes of %d", len(cosines), totals[1].Sent, totals[0].Sent)
	}
	t.Logf("%d contents, %d of them as smaller copies: %d bytes an image, without --resize %d; cosine of the vectors: at least %.4f, median %.4f",
		totals[0].Encoded, len(cosines), totals[1].Sent/totals[1].Encoded, totals[0].Sent/totals[0].Encoded, cosines[0], cosines[len(cosines)/2])
	if cosines[0] < 0.9 {
		t.Error("a copy is no longer like its image")
	}
	r.stop(t)
}
