package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hailoclip/api/bulk"
)

// madeImages makes a tree of n different small JPEGs, side pixels wide and high, in folders of 1,000.
func madeImages(t testing.TB, n, side int) string {
	t.Helper()
	dir := t.TempDir()
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			img.Set(x, y, color.RGBA{uint8(x), uint8(y), uint8(x * y / side), 255})
		}
	}
	var b bytes.Buffer
	for i := range n {
		for d := range 64 { // a block of its own, which JPEG keeps
			img.Set(i%(side/8)*8+d%8, i/(side/8)%(side/8)*8+d/8, color.RGBA{uint8(i * 7), uint8(i >> 6), uint8(255 - i + i>>14*16), 255}) // 262,144 of them
		}
		b.Reset()
		if err := jpeg.Encode(&b, img, nil); err != nil {
			t.Fatal(err)
		}
		put(t, dir, map[string]string{fmt.Sprintf("%03d/%06d.jpg", i/1000, i): b.String()})
	}
	return dir
}

// aged makes the files of a folder so old that an index does not look at them again for fear that they have just changed.
func aged(t testing.TB, dir string) {
	t.Helper()
	at := time.Now().Add(-time.Hour)
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, at, at))
	}); err != nil {
		t.Fatal(err)
	}
}

// indexed are the rows of a file by path.
func indexed(t testing.TB, path string) map[string]bulk.Row {
	t.Helper()
	rows := map[string]bulk.Row{}
	for line := range bytes.Lines(must(os.ReadFile(path))) {
		var r bulk.Row
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if _, is := rows[r.Path]; is {
			t.Errorf("%s is there twice", r.Path)
		}
		rows[r.Path] = r
	}
	return rows
}

// TestIndex: embeddings and classifications, what cannot be used, a second run, what status and verify say of it.
func TestIndex(t *testing.T) {
	t.Parallel()
	dir, out, state := madeImages(t, 40, 64), filepath.Join(t.TempDir(), "v.ndjson"), t.TempDir()
	put(t, dir, map[string]string{"broken.jpg": "no image", "again.jpg": string(must(os.ReadFile(dir + "/000/000007.jpg")))})
	aged(t, dir)
	index := func(args ...string) result {
		return runProgram(t, command(state, append([]string{"index", "--model", "demo", "--backend", "sim"}, args...)...))
	}
	index(dir, "--out", out).expect(t, exitOK, "v.ndjson: 42 images (1 without a usable image); 42 rows", "41 images encoded", "broken.jpg: not a usable image")
	rows := indexed(t, out)
	again, broken := rows[dir+"/again.jpg"], rows[dir+"/broken.jpg"]
	if first := rows[dir+"/000/000007.jpg"]; len(rows) != 42 || again.Key != first.Key || !reflect.DeepEqual(again.Embedding, first.Embedding) || len(first.Embedding) != 512 {
		t.Errorf("%d rows, %s, %s, %d", len(rows), again.Key, first.Key, len(first.Embedding))
	}
	if broken.Error == "" || broken.Embedding != nil || broken.Model != "demo" {
		t.Errorf("%+v", broken)
	}
	index(dir, "--out", out).expect(t, exitOK, "0 rows", "42 unchanged")
	index("status", "--out", out).expect(t, exitOK, "complete", "stored 41", "unusable 1", "contents 41", "broken.jpg: not a usable image")
	index("verify", "--out", out).expect(t, exitOK, "42 rows for 42 images: 0 missing, 0 double, 0 foreign")
	index(dir, "--out", out, "-p", "a cat").expect(t, exitUsage, "another job", "name another --out", out+".journal")

	padded := command(state, "index", "--model", "demo", "--backend", "sim", dir, "--out", out)
	padded.Env = append(padded.Environ(), "HAILO_CLIP_CLIP_FIT=pad")
	runProgram(t, padded).expect(t, exitUsage, "another job", "pad-exact")

	labels := filepath.Join(t.TempDir(), "labels.ndjson")
	index(dir, "--out", labels, "-p", "a cat", "-p", "a dog", "-p", "a bird", "-k", "2", "--json").expect(t, exitOK, `"stored":41`, `"enumerated":true`)
	if r := indexed(t, labels)[dir+"/000/000001.jpg"]; len(r.Matches) != 2 || r.Embedding != nil || r.Matches[0].Score < r.Matches[1].Score || !strings.HasPrefix(r.Matches[0].Label, "a ") {
		t.Errorf("%+v", r)
	}

	text := must(os.ReadFile(out))
	if err := os.WriteFile(out, append(bytes.Clone(text[:bytes.IndexByte(text, '\n')+1]), text...), 0o644); err != nil {
		t.Fatal(err)
	}
	index("verify", "--out", out).expect(t, exitFailed, "1 double")
	index("verify", "--out", out, "--repair").expect(t, exitFailed, "1 double", "made anew by the next run")
	index(dir, "--out", out).expect(t, exitOK, "1 rows", "41 unchanged")
	index("verify", "--out", out).expect(t, exitOK, "42 rows for 42 images: 0 missing, 0 double")
	if err := os.Truncate(labels, int64(len(must(os.ReadFile(labels)))-50)); err != nil {
		t.Fatal(err)
	}
	index(dir, "--out", labels, "-p", "a cat", "-p", "a dog", "-p", "a bird", "-k", "2").expect(t, exitFailed, "others have changed it", "index verify --out "+labels+" --repair")
	index("verify", "--out", labels, "--repair").expect(t, exitFailed, "1 missing", "has no end")
	index(dir, "--out", labels, "-p", "a cat", "-p", "a dog", "-p", "a bird", "-k", "2").expect(t, exitOK, "1 rows", "41 unchanged")
	index("verify", "--out", labels).expect(t, exitOK, "42 rows for 42 images: 0 missing, 0 double, 0 foreign")
	index("verify", "--out", filepath.Join(t.TempDir(), "v.ndjson")).expect(t, exitFailed, "there is no journal")
	index(filepath.Join(dir, "nowhere"), "--out", out).expect(t, exitUsage)
	for _, args := range [][]string{{"--max-image-bytes=0"}, {"--max-image-bytes=9223372036854775807"}, {"--fleet", "--max-image-bytes=67108865"}} {
		index(append([]string{dir, "--out", out}, args...)...).expect(t, exitUsage, "--max-image-bytes", "out of bounds: 1 to")
	}
	index(dir, "--out", filepath.Join(dir, "v.xyz")).expect(t, exitFailed, "no sink has this suffix")
}

// TestIndexByService: a service makes the same rows, with a prompt set too.
func TestIndexByService(t *testing.T) {
	t.Parallel()
	dir, own, asked := madeImages(t, 100, 64), filepath.Join(t.TempDir(), "v.ndjson"), filepath.Join(t.TempDir(), "v.ndjson")
	put(t, dir, map[string]string{"broken.jpg": "no image"})
	runProgram(t, command(t.TempDir(), "index", dir, "--model", "demo", "--backend", "sim", "--out", own)).expect(t, exitOK)
	r := serve(t, t.TempDir(), "--config", configFile(t,
		"clip: {model: demo, backend: sim}\nprompt_sets:\n  pets:\n    labels: [{name: cat}, {name: dog}]\n"))
	runProgram(t, command(t.TempDir(), "index", dir, "--url", r.url, "--out", asked)).expect(t, exitOK, "101 rows")
	a, b := indexed(t, own), indexed(t, asked)
	for path := range a {
		if a[path].Key != b[path].Key || !reflect.DeepEqual(a[path].Embedding, b[path].Embedding) || (a[path].Error == "") != (b[path].Error == "") {
			t.Errorf("%s: %+v, %+v", path, a[path], b[path])
		}
	}
	labels := filepath.Join(t.TempDir(), "v.ndjson")
	runProgram(t, command(t.TempDir(), "index", dir, "--url", r.url, "--prompt-set", "pets", "--out", labels)).expect(t, exitOK, "101 rows")
	for path, row := range indexed(t, labels) {
		if row.Error == "" && (len(row.Matches) != 2 || row.Matches[0].Label != "cat" && row.Matches[0].Label != "dog") {
			t.Errorf("%s: %+v", path, row)
		}
	}
	runProgram(t, command(t.TempDir(), "index", dir, "--url", r.url, "--prompt-set", "none", "--out", labels+".ndjson")).expect(t, exitFailed, "none")
	r.stop(t)
	padded := serve(t, t.TempDir(), "--config", configFile(t, "clip: {model: demo, backend: sim, fit: pad}\n"))
	runProgram(t, command(t.TempDir(), "index", dir, "--url", padded.url, "--out", asked)).expect(t, exitUsage, "another job", "pad-exact")
}

// TestIndexKilled kills the program at random moments until it comes to its end: the rows are those of a run without kills.
func TestIndexKilled(t *testing.T) {
	t.Parallel()
	images := 500
	switch {
	case testing.Short():
		images = 200
	case os.Getenv("HAILO_TEST_INDEX_KILLS") != "":
		images = 5000
	}
	dir, whole, out, state := madeImages(t, images, 64), filepath.Join(t.TempDir(), "v.ndjson"), filepath.Join(t.TempDir(), "v.ndjson"), t.TempDir()
	put(t, dir, map[string]string{"broken.jpg": "no image", "again.jpg": string(must(os.ReadFile(dir + "/000/000003.jpg")))})
	runProgram(t, command(t.TempDir(), "index", dir, "--model", "demo", "--backend", "sim", "--out", whole)).expect(t, exitOK)
	random := rand.New(rand.NewPCG(3, 4))
	kills := 0
	for patience := 1000; ; patience += 100 {
		c := command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(random.IntN(patience))*time.Millisecond, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			break
		}
		if c.ProcessState.Exited() {
			t.Fatal(err)
		}
		if kills++; kills == 500 {
			t.Fatal("it never comes to its end")
		}
	}
	want, got := indexed(t, whole), indexed(t, out)
	if len(want) != images+2 || !reflect.DeepEqual(want, got) {
		t.Errorf("%d rows, %d without kills, and they differ", len(got), len(want))
	}
	runProgram(t, command(state, "index", "verify", "--out", out)).expect(t, exitOK)
	t.Log(kills, "kills")
}

// TestIndexFullDisk: a disk that is full ends the index with what is stored; with more room it goes on.
func TestIndexFullDisk(t *testing.T) {
	t.Parallel()
	needPrograms(t, "bash")
	dir, out, state := madeImages(t, 700, 64), filepath.Join(t.TempDir(), "v.ndjson"), t.TempDir()
	index := func() *exec.Cmd {
		return command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out)
	}
	for _, blocks := range []string{"300", "1500", "2500"} { // of 1 KiB, for a file; a row has about 6
		r := runProgram(t, by(index(), "bash", "-c", "ulimit -f "+blocks+`; exec "$0" "$@"`))
		r.expect(t, exitFailed, "file too large")
	}
	runProgram(t, index()).expect(t, exitOK)
	if n := len(indexed(t, out)); n != 700 {
		t.Errorf("%d rows", n)
	}
	runProgram(t, command(state, "index", "verify", "--out", out)).expect(t, exitOK)
}

// TestIndexSpeed prints images/s against what the chip can do, what an image costs, and a second pass: "make index-bench".
func TestIndexSpeed(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("HAILO_TEST_INDEX"))
	if err != nil {
		t.Skip("HAILO_TEST_INDEX is not set")
	}
	const chip = 335 // images/s of the simulated chip
	dir, out, state := madeImages(t, n, 256), filepath.Join(t.TempDir(), "v.ndjson"), t.TempDir()
	for _, pass := range []string{"first pass", "second pass"} {
		c := command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out, "--json")
		start := time.Now()
		r := runProgram(t, c)
		took := time.Since(start)
		r.expect(t, exitOK)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		var last indexProgress
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Stored != int64(n) {
			t.Fatal(err, r.stdout)
		}
		used := c.ProcessState.SysUsage().(*syscall.Rusage)
		cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		t.Logf("%s of %d images: %v, of that indexing at %.1f images/s (%.1f %% of %d); %v of processor an image, with those of the simulated chip; %d MiB of memory at most",
			pass, n, took.Round(time.Millisecond), last.Rate, 100*last.Rate/chip, chip, (cpu / time.Duration(n)).Round(time.Microsecond), used.Maxrss>>10)
	}
	for _, path := range []string{out, out + ".journal"} {
		t.Logf("%s: %d bytes an image", filepath.Ext(path), must(os.Stat(path)).Size()/int64(n))
	}
}

// TestIndexInterrupted: Ctrl-C leaves what is done, and says how to go on; while it goes on, status tells.
func TestIndexInterrupted(t *testing.T) {
	t.Parallel()
	dir, out, state := madeImages(t, 2000, 64), filepath.Join(t.TempDir(), "v.ndjson"), t.TempDir()
	r := start(t, command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out))
	until(t, "rows are there", func() bool {
		info, err := os.Stat(out)
		return err == nil && info.Size() > 0
	})
	runProgram(t, command(state, "index", "status", "--out", out)).expect(t, exitOK, "being made by process", "images")
	runProgram(t, command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out)).expect(t, exitFailed, "being made by another process")
	r.end(t, syscall.SIGINT, exitInterrupted)
	if log := r.logged(); !strings.Contains(log, "rows are stored; the same command goes on from there") {
		t.Error(log)
	}
	runProgram(t, command(state, "index", "status", "--out", out)).expect(t, exitOK, "not complete")
	before := len(indexed(t, out))
	res := runProgram(t, command(state, "index", dir, "--model", "demo", "--backend", "sim", "--out", out))
	res.expect(t, exitOK, fmt.Sprintf("%d rows", 2000-before))
	if n := len(indexed(t, out)); n != 2000 || before == 0 {
		t.Errorf("%d rows, before %d", n, before)
	}
}
