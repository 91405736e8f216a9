package model

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"hailoclip/hailo/safefile"
	"hailoclip/hailo/token"
)

// contents is a plausible content for each file of fullManifest.
var contents = map[string]string{
	"tokenizer.json": `{"version": "1.0"}`,
	"v.onnx":         "\x08\x07vision",
	"t.onnx":         "\x08\x07text",
	"i.hef":          "\x01HEFimage",
	"t.hef":          "\x01HEFtext",
	"e.npy":          npyMagic + "embedding",
	"p.npy":          npyMagic + "projection",
}

// knownFull is fullManifest without what is known of i.hef, which is not what contents has.
func knownFull(t testing.TB, edits ...string) Manifest {
	return parseManifest(t, fullManifest, append(edits, `, "bytes": 9, "sha256": "`+someSHA+`"`, ``)...)
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testCatalog is a catalog that knows the full manifest, under the name that "auto" prefers, with these
// files in its folder.
func testCatalog(t testing.TB, files ...string) *Catalog {
	s := &Catalog{Dir: filepath.Join(t.TempDir(), "models"), Vendor: t.TempDir()}
	s.Known = []Manifest{knownFull(t, `"name": "full"`, `"name": "`+Preferred+`"`)}
	for _, name := range files {
		write(t, s.path(name), contents[name])
	}
	builtin := parseManifest(t, fullManifest, `"name": "full"`, `"name": "demo"`, `, "bytes": 9, "sha256": "`+someSHA+`"`, ``)
	fsys := fstest.MapFS{}
	for name, text := range contents {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	var err error
	if s.Builtin, err = Embedded(builtin, fsys); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Catalog) path(name string) string { return filepath.Join(s.Dir, Preferred, name) }

func (s *Catalog) state(t testing.TB, name string) Installed {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range list {
		if in.Manifest.Name == name {
			return in
		}
	}
	t.Fatalf("%s is not in the list", name)
	return Installed{}
}

var (
	cpuFiles = []string{"tokenizer.json", "v.onnx", "t.onnx"}
	npuFiles = []string{"tokenizer.json", "i.hef", "t.hef", "e.npy", "p.npy"}
)

func TestResolve(t *testing.T) {
	for name, c := range map[string]struct {
		files    []string
		ask      string
		model    string // "": an error
		says     string // part of the reason or of the error
		cpu, npu State
	}{
		"auto, nothing":       {nil, "auto", "demo", "models pull " + Preferred, Missing, Missing},
		"no name, nothing":    {nil, "", "demo", "none of its files", Missing, Missing},
		"auto, CPU":           {cpuFiles, "auto", Preferred, "for CPU", Complete, Missing},
		"auto, NPU":           {npuFiles, "auto", Preferred, "for NPU", Missing, Complete},
		"auto, both":          {append(cpuFiles[:3:3], npuFiles...), "auto", Preferred, "CPU and NPU", Complete, Complete},
		"auto, no tokenizer":  {cpuFiles[1:], "auto", "demo", "missing: ", Partial, Missing},
		"auto, tokenizer":     {cpuFiles[:1], "auto", "demo", "missing: ", Missing, Missing},
		"NPU image, CPU text": {[]string{"tokenizer.json", "i.hef", "t.onnx"}, Preferred, Preferred, "for NPU", Partial, Partial},
		"by name, nothing":    {nil, Preferred, "", "hailo-clip models pull " + Preferred, Missing, Missing},
		"by name, part":       {cpuFiles[:2], Preferred, "", "missing: e.npy, i.hef, p.npy, t.hef, t.onnx", Partial, Missing},
		"built in":            {cpuFiles, "demo", "demo", "built in", Complete, Missing},
		"unknown":             {nil, "clip", "", `"clip"; known are ` + Preferred + ", demo", Missing, Missing},
		"path":                {nil, "../x", "", "known are", Missing, Missing},
	} {
		s := testCatalog(t, c.files...)
		m, reason, err := s.Resolve(t.Context(), c.ask)
		if err != nil {
			reason = err.Error()
		}
		if (err == nil) != (c.model != "") || err == nil && m.Name != c.model || !strings.Contains(reason, c.says) {
			t.Errorf("%s: %v, %q; want %q and %q", name, m, reason, c.model, c.says)
		}
		if in := s.state(t, Preferred); in.CPU != c.cpu || in.NPU != c.npu {
			t.Errorf("%s: CPU %q, NPU %q, want %q, %q", name, in.CPU, in.NPU, c.cpu, c.npu)
		}
		if _, err := os.Stat(s.Dir); c.files == nil && err == nil {
			t.Errorf("%s: the folder was made", name)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	s := testCatalog(t)
	if _, _, err := s.Resolve(t.Context(), Preferred); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("not installed: %v", err)
	}
	if _, _, err := s.Resolve(t.Context(), "x"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	s.Builtin = nil
	if _, _, err := s.Resolve(t.Context(), "auto"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("nothing built in: %v", err)
	}
}

func TestVendorResources(t *testing.T) {
	s := testCatalog(t)
	write(t, filepath.Join(s.Vendor, "models/hailo10h/i.hef"), contents["i.hef"])
	write(t, filepath.Join(s.Vendor, "models/hailo10h/t.hef"), contents["t.hef"])
	write(t, filepath.Join(s.Vendor, "json/clip_tokenizer.json"), contents["tokenizer.json"])
	write(t, filepath.Join(s.Vendor, "npy/e.npy"), contents["e.npy"])
	write(t, filepath.Join(s.Vendor, "npy/p.npy"), "<Error>not found</Error>")
	_, _, err := s.Resolve(t.Context(), Preferred)
	if err == nil || !strings.Contains(err.Error(), "p.npy is not a .npy file") {
		t.Errorf("with an error page: %v", err)
	}
	write(t, filepath.Join(s.Vendor, "npy/p.npy"), contents["p.npy"])
	m, reason, err := s.Resolve(t.Context(), "auto")
	if err != nil || m.Name != Preferred || !m.HasNPU() || !m.HasNPUText() || m.HasCPU() || !strings.Contains(reason, s.Vendor) {
		t.Fatalf("%v, %q, %v", m, reason, err)
	}
	if path, ok := m.Path("tokenizer.json"); !ok || path != filepath.Join(s.Vendor, "json/clip_tokenizer.json") {
		t.Errorf("tokenizer at %q", path)
	}
	write(t, s.path("tokenizer.json"), `{"own":1}`) // the models folder comes first
	if m, _, err = s.Resolve(t.Context(), "auto"); err != nil {
		t.Fatal(err)
	}
	if data, err := m.ReadFile("tokenizer.json"); err != nil || string(data) != `{"own":1}` {
		t.Errorf("tokenizer %q, %v", data, err)
	}
}

func TestOwnModelFolder(t *testing.T) {
	s := testCatalog(t)
	write(t, filepath.Join(s.Dir, "mine", manifestFile), strings.Replace(fullManifest, `"full"`, `"mine"`, 1))
	write(t, filepath.Join(s.Dir, "broken", manifestFile), `{"name": "broken"}`)
	write(t, filepath.Join(s.Dir, "other", manifestFile), fullManifest)
	for _, name := range cpuFiles {
		write(t, filepath.Join(s.Dir, "mine", name), contents[name])
	}
	if m, _, err := s.Resolve(t.Context(), "mine"); err != nil || !m.HasCPU() {
		t.Errorf("own model: %v", err)
	}
	if in := s.state(t, "mine"); in.CPU != Complete || in.NPU != Missing {
		t.Errorf("own model: CPU %q, NPU %q", in.CPU, in.NPU)
	}
	for _, name := range []string{"broken", "other"} {
		if _, _, err := s.Resolve(t.Context(), name); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if in := s.state(t, name); !errors.Is(in.Files[0].Err, ErrManifest) {
			t.Errorf("%s in the list: %+v", name, in)
		}
	}
}

// A digest in the manifest holds for files that somebody put there, too.
func TestFileAgainstManifest(t *testing.T) {
	s := testCatalog(t, npuFiles...)
	s.Known[0].Files = maps.Clone(s.Known[0].Files)
	f := s.Known[0].Files["i.hef"]
	f.SHA256 = someSHA
	s.Known[0].Files["i.hef"] = f
	_, _, err := s.Resolve(t.Context(), Preferred)
	if err == nil || !strings.Contains(err.Error(), someSHA) {
		t.Errorf("wrong digest: %v", err)
	}
	f.SHA256, f.Bytes = "", 1234
	s.Known[0].Files["i.hef"] = f
	if _, _, err := s.Resolve(t.Context(), Preferred); err == nil || !strings.Contains(err.Error(), "want 1234") {
		t.Errorf("wrong size: %v", err)
	}
}

func TestDigest(t *testing.T) {
	s := testCatalog(t, append(cpuFiles[:3:3], npuFiles...)...)
	m, _, err := s.Resolve(t.Context(), Preferred)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(m *Model, names ...string) string {
		t.Helper()
		d, err := m.Digest(t.Context(), names...)
		if err != nil || !hexSHA256.MatchString(d) {
			t.Fatalf("%q, %v", d, err)
		}
		return d
	}
	d := digest(m, "t.onnx", "tokenizer.json")
	if e := digest(s.Builtin, "t.onnx", "tokenizer.json"); e != d {
		t.Error("equal files, embedded and on disk, differ")
	}
	if digest(m, "t.hef", "tokenizer.json") == d {
		t.Error("other files have the same digest")
	}
	other := *m
	other.ContextLength++
	if digest(&other, "t.onnx", "tokenizer.json") == d {
		t.Error("another context length has the same digest")
	}
	write(t, s.path("t.onnx"), "\x08\x07tixt")
	if digest(m, "t.onnx", "tokenizer.json") == d {
		t.Error("a changed file has the same digest")
	}
	if _, err := m.Digest(t.Context(), "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestDamagedRecords(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":  "x",
		"no digest": `{"t.onnx": {"bytes": 1}}`,
		"huge":      strings.Repeat(" ", maxManifest+1),
	} {
		s := testCatalog(t, cpuFiles...)
		write(t, s.path(recordsFile), text)
		if _, _, err := s.Resolve(t.Context(), Preferred); err == nil || !strings.Contains(err.Error(), recordsFile) {
			t.Errorf("%s: %v", name, err)
		}
		if in := s.state(t, Preferred); in.Files[len(in.Files)-1].Err == nil {
			t.Errorf("%s: not in the list: %+v", name, in.Files)
		}
	}
}

// TestNewTimeIsNoted has the time of files change, as after a copy: who reads them notes it, if they are
// the same.
func TestNewTimeIsNoted(t *testing.T) {
	s := testCatalog(t)
	from := t.TempDir()
	for name, text := range contents {
		write(t, filepath.Join(from, name), text)
	}
	if err := s.Pull(t.Context(), Preferred, PullOptions{Which: AllParts, FromDir: from}); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	touch := func() {
		t.Helper()
		later = later.Add(time.Hour)
		for name := range contents {
			if err := os.Chtimes(s.path(name), later, later); err != nil {
				t.Fatal(err)
			}
		}
	}
	noted := func(name string) bool {
		t.Helper()
		r, err := readRecords(filepath.Dir(s.path(name)))
		if err != nil {
			t.Fatal(err)
		}
		return r[name].ModTime.Equal(later)
	}
	for name, read := range map[string]func() error{
		"resolve": func() error { _, _, err := s.Resolve(t.Context(), Preferred); return err },
		"pull": func() error {
			return s.Pull(t.Context(), Preferred, PullOptions{Which: AllParts, FromDir: from})
		},
		"verify": func() error { _, err := s.Verify(t.Context(), Preferred); return err },
	} {
		if touch(); noted("t.onnx") {
			t.Fatal(name, ": noted before")
		}
		if err := read(); err != nil || !noted("t.onnx") || !noted("i.hef") {
			t.Errorf("%s: not noted, %v", name, err)
		}
	}
	write(t, s.path("t.onnx"), strings.Repeat("\x08", len(contents["t.onnx"])))
	touch()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, Preferred); !errors.Is(err, context.Canceled) || noted("i.hef") {
		t.Error("cancelled: ", err)
	}
	if _, _, err := s.Resolve(ctx, Auto); !errors.Is(err, context.Canceled) || noted("i.hef") {
		t.Error("cancelled at the start: ", err)
	}
	if _, err := s.Verify(t.Context(), Preferred); !errors.Is(err, ErrFile) || noted("t.onnx") || !noted("i.hef") {
		t.Error("another file: ", err)
	}
}

func TestVerifyAndRemove(t *testing.T) {
	s := testCatalog(t)
	from := t.TempDir()
	for name, text := range contents {
		write(t, filepath.Join(from, name), text)
	}
	if err := s.Pull(t.Context(), Preferred, PullOptions{FromDir: from}); err != nil {
		t.Fatal(err)
	}
	files, err := s.Verify(t.Context(), Preferred)
	if err != nil || len(files) != len(contents) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if f.SHA256 == "" || f.Bytes != int64(len(contents[f.Name])) {
			t.Errorf("%+v", f)
		}
	}
	// The same size and time: only Verify notices.
	info, err := os.Stat(s.path("t.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.path("t.onnx"), "\x08\x07tixt")
	if err := os.Chtimes(s.path("t.onnx"), time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Resolve(t.Context(), Preferred); err != nil {
		t.Errorf("same size and time: %v", err)
	}
	if _, err := s.Verify(t.Context(), Preferred); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "t.onnx") {
		t.Errorf("verify: %v", err)
	}
	// Another time: everybody does, and the NPU goes on without it.
	if err := os.Chtimes(s.path("t.onnx"), time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	m, reason, err := s.Resolve(t.Context(), Preferred)
	if err != nil || m.HasCPU() || !m.HasNPU() || !strings.Contains(reason, "left out") {
		t.Errorf("changed file: %q, %v", reason, err)
	}
	if files, err := s.Verify(t.Context(), "demo"); err != nil || len(files) != len(contents) {
		t.Errorf("built in: %d files, %v", len(files), err)
	}

	freed, err := s.Remove(Preferred)
	if err != nil || freed < 70 {
		t.Errorf("removed %d bytes, %v", freed, err)
	}
	if _, err := os.Stat(filepath.Dir(s.path(""))); err != nil {
		t.Error("the models folder is gone too")
	}
	if _, err := os.Stat(s.path("t.onnx")); err == nil {
		t.Error("files are left")
	}
	if _, err := s.Remove(Preferred); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("again: %v", err)
	}
	for _, name := range []string{"demo", "..", "nothing"} {
		if _, err := s.Remove(name); err == nil {
			t.Errorf("removed %q", name)
		}
	}
}

func TestEmbeddedModelRefuses(t *testing.T) {
	m := knownFull(t)
	if _, err := Embedded(m, fstest.MapFS{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	fsys := fstest.MapFS{}
	for name, text := range contents {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	if _, err := Embedded(parseManifest(t, fullManifest, `"bytes": 9`, `"bytes": 10`), fsys); err == nil || !strings.Contains(err.Error(), "says 10") {
		t.Errorf("wrong size: %v", err)
	}
}

func TestModelFiles(t *testing.T) {
	disk := testCatalog(t, cpuFiles...)
	write(t, disk.path("e.npy"), string(npyFile(1, header23, npyBytes(1, 2, 3, 4, 5, 6))))
	write(t, disk.path("p.npy"), contents["p.npy"])
	demo, err := os.ReadFile("../demo/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	write(t, disk.path("tokenizer.json"), string(demo))
	m, _, err := disk.Resolve(t.Context(), Preferred)
	if err != nil {
		t.Fatal(err)
	}
	if rows, cols, data, err := m.ReadNpy("e.npy"); err != nil || rows != 2 || cols != 3 || data[5] != 6 {
		t.Errorf("matrix %d x %d %v, %v", rows, cols, data, err)
	}
	if _, _, _, err := m.ReadNpy("p.npy"); !errors.Is(err, ErrNpy) || !strings.Contains(err.Error(), "p.npy") {
		t.Errorf("damaged matrix: %v", err)
	}
	if tok, err := m.LoadTokenizer(); err != nil || tok.Size() != 4096 {
		t.Errorf("tokenizer: %v", err)
	}
	for name, m := range map[string]*Model{"disk": m, "embedded": disk.Builtin} {
		if data, err := m.ReadFile("t.onnx"); err != nil || string(data) != contents["t.onnx"] {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if _, err := m.ReadFile("none"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: no such file: %v", name, err)
		}
		if _, ok := m.Path("t.onnx"); ok == m.Embedded() {
			t.Errorf("%s: on disk %t, embedded %t", name, ok, m.Embedded())
		}
	}
	if _, err := disk.Builtin.LoadTokenizer(); !errors.Is(err, token.ErrFile) || !strings.Contains(err.Error(), "tokenizer.json") {
		t.Errorf("damaged tokenizer: %v", err)
	}
}

// TestPipesAreRefused has a pipe that nobody writes to in place of each file that is read. Each would hang.
func TestPipesAreRefused(t *testing.T) {
	s := testCatalog(t)
	pipe := func(path string) string {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pipe(filepath.Join(s.Dir, "m", manifestFile))
	if in := s.state(t, "m"); !errors.Is(in.Files[0].Err, safefile.ErrNotRegular) {
		t.Error(in)
	}
	from := filepath.Dir(pipe(filepath.Join(t.TempDir(), "t.onnx")))
	s.Known[0].Files = map[string]File{"t.onnx": {}}
	if err := s.Pull(t.Context(), Preferred, PullOptions{FromDir: from}); !errors.Is(err, ErrFile) || !errors.Is(err, safefile.ErrNotRegular) {
		t.Error(err)
	}
	pipe(s.path("t.onnx"))
	if in := s.state(t, Preferred); !errors.Is(in.Files[0].Err, safefile.ErrNotRegular) {
		t.Error(in)
	}
	pipe(s.path(recordsFile))
	if _, _, err := s.Resolve(t.Context(), Preferred); !errors.Is(err, safefile.ErrNotRegular) {
		t.Error(err)
	}
}
