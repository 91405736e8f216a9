package model

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"hailoclip/hailo/internal/assert"
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
	assert.Must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
}

// read returns the content of a file, "" where it is not there.
func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

func sumOf(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

// embedded are the files of contents, as part of a program.
func embedded() fs.FS {
	files := fstest.MapFS{}
	for name, text := range contents {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}

// testCatalog is a catalog that knows the full manifest, under the name that "auto" prefers, with these
// files in its folder. "demo" is built in.
func testCatalog(t testing.TB, files ...string) *Catalog {
	builtin := assert.Value(Embedded(knownFull(t, `"name": "full"`, `"name": "demo"`), embedded()))
	c := &Catalog{Dir: filepath.Join(t.TempDir(), "models"), Vendor: t.TempDir(), Builtin: builtin}
	c.Known = []Manifest{knownFull(t, `"name": "full"`, `"name": "`+Preferred+`"`)}
	for _, name := range files {
		write(t, c.path(name), contents[name])
	}
	return c
}

// pulledCatalog has all files installed, from the folder that is returned.
func pulledCatalog(t testing.TB) (c *Catalog, from string) {
	c, from = testCatalog(t), t.TempDir()
	for name, text := range contents {
		write(t, filepath.Join(from, name), text)
	}
	assert.Must(t, c.Pull(t.Context(), Preferred, PullOptions{FromDir: from}))
	return c, from
}

func (c *Catalog) path(name string) string { return filepath.Join(c.Dir, Preferred, name) }

// resolveError is the error of Resolve.
func (c *Catalog) resolveError(t testing.TB, name string) error {
	_, _, err := c.Resolve(t.Context(), name)
	return err
}

// state is what List says of a model.
func (c *Catalog) state(t testing.TB, name string) Installed {
	t.Helper()
	list := assert.Value(c.List(t.Context()))
	i := slices.IndexFunc(list, func(in Installed) bool { return in.Manifest.Name == name })
	assert.MustTrue(t, i >= 0, "%s is not in the list", name)
	return list[i]
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
		catalog := testCatalog(t, c.files...)
		m, reason, err := catalog.Resolve(t.Context(), c.ask)
		if err != nil {
			reason = err.Error()
		}
		assert.True(t, (err == nil) == (c.model != "") && (err != nil || m.Name == c.model), "%s: %v, want %q", name, m, c.model)
		assert.True(t, strings.Contains(reason, c.says), "%s: %q, want %q", name, reason, c.says)
		in := catalog.state(t, Preferred)
		assert.True(t, in.CPU == c.cpu && in.NPU == c.npu, "%s: CPU %q, NPU %q, want %q, %q", name, in.CPU, in.NPU, c.cpu, c.npu)
		if c.files == nil {
			assert.Error(t, assert.Err(os.Stat(catalog.Dir)), "%s: the folder was made", name)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	c := testCatalog(t)
	assert.ErrorIs(t, c.resolveError(t, Preferred), ErrNotInstalled, "not installed")
	assert.ErrorIs(t, c.resolveError(t, "x"), ErrUnknown, "unknown")
	c.Builtin = nil
	assert.ErrorIs(t, c.resolveError(t, "auto"), ErrNotInstalled, "nothing built in")
}

func TestVendorResources(t *testing.T) {
	c := testCatalog(t)
	for _, name := range npuFiles {
		write(t, filepath.Join(c.Vendor, c.Known[0].Files[name].Vendor), contents[name])
	}
	write(t, filepath.Join(c.Vendor, "npy/p.npy"), "<Error>not found</Error>")
	assert.ErrorSays(t, c.resolveError(t, Preferred), nil, "p.npy is not a .npy file", "with an error page")
	write(t, filepath.Join(c.Vendor, "npy/p.npy"), contents["p.npy"])
	m, reason, err := c.Resolve(t.Context(), "auto")
	assert.Must(t, err)
	assert.MustTrue(t, m.Name == Preferred && m.HasNPU() && m.HasNPUText() && !m.HasCPU(), "%v", m)
	assert.True(t, strings.Contains(reason, c.Vendor), "%q", reason)
	path, ok := m.Path("tokenizer.json")
	assert.True(t, ok && path == filepath.Join(c.Vendor, "json/clip_tokenizer.json"), "tokenizer at %q", path)
	write(t, c.path("tokenizer.json"), `{"own":1}`) // the models folder comes first
	m, _, err = c.Resolve(t.Context(), "auto")
	assert.Must(t, err)
	assert.Equal(t, string(assert.Value(m.ReadFile("tokenizer.json"))), `{"own":1}`)
}

func TestOwnModelFolder(t *testing.T) {
	c := testCatalog(t)
	write(t, filepath.Join(c.Dir, "mine", manifestFile), strings.Replace(fullManifest, `"full"`, `"mine"`, 1))
	write(t, filepath.Join(c.Dir, "broken", manifestFile), `{"name": "broken"}`)
	write(t, filepath.Join(c.Dir, "other", manifestFile), fullManifest)
	for _, name := range cpuFiles {
		write(t, filepath.Join(c.Dir, "mine", name), contents[name])
	}
	m, _, err := c.Resolve(t.Context(), "mine")
	assert.True(t, err == nil && m.HasCPU(), "own model: %v", err)
	in := c.state(t, "mine")
	assert.True(t, in.CPU == Complete && in.NPU == Missing, "own model: CPU %q, NPU %q", in.CPU, in.NPU)
	for _, name := range []string{"broken", "other"} {
		assert.ErrorSays(t, c.resolveError(t, name), ErrManifest, name, "%s", name)
		assert.ErrorSays(t, c.state(t, name).Files[0].Err, ErrManifest, name, "%s in the list", name)
	}
}

// A digest in the manifest holds for files that somebody put there, too.
func TestFileAgainstManifest(t *testing.T) {
	c := testCatalog(t, npuFiles...)
	files := c.Known[0].Files
	f := files["i.hef"]
	f.SHA256 = someSHA
	files["i.hef"] = f
	assert.ErrorSays(t, c.resolveError(t, Preferred), nil, someSHA, "wrong digest")
	f.SHA256, f.Bytes = "", 1234
	files["i.hef"] = f
	assert.ErrorSays(t, c.resolveError(t, Preferred), nil, "want 1234", "wrong size")
}

func TestDigest(t *testing.T) {
	c := testCatalog(t, append(cpuFiles[:3:3], npuFiles...)...)
	m, _, err := c.Resolve(t.Context(), Preferred)
	assert.Must(t, err)
	digest := func(m *Model, names ...string) string {
		t.Helper()
		d, err := m.Digest(t.Context(), names...)
		assert.MustTrue(t, err == nil && hexSHA256.MatchString(d), "%q, %v", d, err)
		return d
	}
	d := digest(m, "t.onnx", "tokenizer.json")
	assert.True(t, digest(c.Builtin, "t.onnx", "tokenizer.json") == d, "equal files, embedded and on disk, differ")
	other := *m
	other.ContextLength++
	assert.True(t, digest(m, "t.hef", "tokenizer.json") != d, "other files have the same digest")
	assert.True(t, digest(&other, "t.onnx", "tokenizer.json") != d, "another context length has the same digest")
	image := func(m *Model) string { return assert.Value(m.ImageDigest(t.Context(), "t.onnx", "tokenizer.json")) }
	assert.True(t, image(m) != d, "an image encoder has the digest of a text encoder")
	assert.True(t, image(m) == image(&other), "the context length counts for images")
	other.Mean[2]++
	assert.True(t, image(m) != image(&other), "another mean has the same digest")
	write(t, c.path("t.onnx"), "\x08\x07tixt")
	assert.True(t, digest(m, "t.onnx", "tokenizer.json") != d, "a changed file has the same digest")
	assert.ErrorSays(t, assert.Err(m.Digest(t.Context(), "none")), fs.ErrNotExist, "none", "no such file")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, assert.Err(m.Digest(ctx, "t.onnx")), context.Canceled, "cancelled")
}

func TestDamagedRecords(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":  "x",
		"no digest": `{"t.onnx": {"bytes": 1}}`,
		"huge":      strings.Repeat(" ", maxManifest+1),
	} {
		c := testCatalog(t, cpuFiles...)
		write(t, c.path(recordsFile), text)
		assert.ErrorSays(t, c.resolveError(t, Preferred), nil, recordsFile, "%s", name)
		in := c.state(t, Preferred)
		assert.ErrorSays(t, in.Files[len(in.Files)-1].Err, nil, recordsFile, "%s in the list", name)
	}
}

// TestNewTimeIsNoted has the time of files change, as after a copy: who reads them notes it, if they are
// the same.
func TestNewTimeIsNoted(t *testing.T) {
	c, from := pulledCatalog(t)
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	touch := func() {
		t.Helper()
		later = later.Add(time.Hour)
		for name := range contents {
			assert.Must(t, os.Chtimes(c.path(name), later, later))
		}
	}
	noted := func(name string) bool {
		t.Helper()
		r := assert.Value(readRecords(filepath.Dir(c.path(name))))
		return r[name].ModTime.Equal(later)
	}
	for name, read := range map[string]func() error{
		"resolve": func() error { return c.resolveError(t, Preferred) },
		"pull":    func() error { return c.Pull(t.Context(), Preferred, PullOptions{FromDir: from}) },
		"verify":  func() error { _, err := c.Verify(t.Context(), Preferred); return err },
	} {
		touch()
		assert.MustTrue(t, !noted("t.onnx"), "%s: noted before", name)
		assert.NoError(t, read(), "%s", name)
		assert.True(t, noted("t.onnx") && noted("i.hef"), "%s: not noted", name)
	}
	write(t, c.path("t.onnx"), strings.Repeat("\x08", len(contents["t.onnx"])))
	touch()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := c.Resolve(ctx, Auto)
	for _, err := range []error{err, assert.Err(c.Verify(ctx, Preferred)), assert.Err(c.List(ctx))} {
		assert.ErrorIs(t, err, context.Canceled, "cancelled")
	}
	assert.True(t, !noted("i.hef"), "noted, although it was cancelled")
	assert.ErrorSays(t, assert.Err(c.Verify(t.Context(), Preferred)), ErrFile, "t.onnx", "another file")
	assert.True(t, !noted("t.onnx") && noted("i.hef"), "another file: what was noted is wrong")
}

func TestVerify(t *testing.T) {
	c, _ := pulledCatalog(t)
	for _, name := range []string{Preferred, "demo"} {
		files, err := c.Verify(t.Context(), name)
		assert.MustTrue(t, err == nil && len(files) == len(contents), "%s: %d files, %v", name, len(files), err)
		for _, f := range files {
			assert.Equal(t, f.SHA256, sumOf(contents[f.Name]), "%s: %s", name, f.Name)
			assert.Equal(t, f.Bytes, int64(len(contents[f.Name])), "%s: %s", name, f.Name)
		}
	}
	// The same size and time: only Verify notices.
	info := assert.Value(os.Stat(c.path("t.onnx")))
	write(t, c.path("t.onnx"), "\x08\x07tixt")
	assert.Must(t, os.Chtimes(c.path("t.onnx"), time.Time{}, info.ModTime()), c.resolveError(t, Preferred))
	assert.ErrorSays(t, assert.Err(c.Verify(t.Context(), Preferred)), ErrFile, "t.onnx", "verify")
	// Another time: everybody does, and the NPU goes on without it.
	assert.Must(t, os.Chtimes(c.path("t.onnx"), time.Time{}, info.ModTime().Add(time.Second)))
	m, reason, err := c.Resolve(t.Context(), Preferred)
	assert.Must(t, err)
	assert.True(t, !m.HasCPU() && m.HasNPU() && strings.Contains(reason, "left out"), "changed file: %q", reason)
	builtin := parseManifest(t, fullManifest, `"name": "full"`, `"name": "demo"`, `"bytes": 9, `, ``)
	c.Builtin = assert.Value(Embedded(builtin, embedded()))
	assert.ErrorSays(t, assert.Err(c.Verify(t.Context(), "demo")), ErrFile, "i.hef has SHA-256", "built in")
}

func TestRemove(t *testing.T) {
	c, _ := pulledCatalog(t)
	freed, err := c.Remove(Preferred)
	assert.True(t, err == nil && freed >= 70, "removed %d bytes, %v", freed, err)
	if c.folder(t) != "" || os.Remove(c.Dir) == nil { // the lock is in it
		t.Errorf("files are left, or the models folder is gone too: %s", c.folder(t))
	}
	for name, is := range map[string]error{Preferred: ErrNotInstalled, "demo": nil, "..": ErrUnknown, "nothing": ErrUnknown} {
		assert.ErrorSays(t, assert.Err(c.Remove(name)), is, "", "%s", name)
	}
}

func TestEmbeddedModelRefuses(t *testing.T) {
	assert.ErrorIs(t, assert.Err(Embedded(knownFull(t), fstest.MapFS{})), fs.ErrNotExist, "no files")
	_, err := Embedded(parseManifest(t, fullManifest, `"bytes": 9`, `"bytes": 10`), embedded())
	assert.ErrorSays(t, err, nil, "says 10", "wrong size")
}

func TestModelFiles(t *testing.T) {
	c := testCatalog(t, append(cpuFiles[:3:3], "p.npy")...)
	write(t, c.path("e.npy"), string(npyFile(1, header23, npyBytes(1, 2, 3, 4, 5, 6))))
	write(t, c.path("tokenizer.json"), read("../demo/tokenizer.json"))
	m, _, err := c.Resolve(t.Context(), Preferred)
	assert.Must(t, err)
	rows, cols, data, err := m.ReadNpy("e.npy")
	assert.True(t, err == nil && rows == 2 && cols == 3 && data[5] == 6, "matrix %d x %d %v, %v", rows, cols, data, err)
	_, _, _, err = m.ReadNpy("p.npy")
	assert.ErrorSays(t, err, ErrNpy, "p.npy", "damaged matrix")
	assert.Equal(t, assert.Value(m.LoadTokenizer()).Size(), 4096, "tokenizer")
	assert.ErrorSays(t, assert.Err(c.Builtin.LoadTokenizer()), token.ErrFile, "tokenizer.json", "damaged tokenizer")
	for name, m := range map[string]*Model{"disk": m, "embedded": c.Builtin} {
		assert.Equal(t, string(assert.Value(m.ReadFile("t.onnx"))), contents["t.onnx"], "%s", name)
		assert.ErrorSays(t, assert.Err(m.ReadFile("none")), fs.ErrNotExist, "none", "%s", name)
		_, ok := m.Path("t.onnx")
		assert.True(t, ok != m.Embedded(), "%s: on disk %t, embedded %t", name, ok, m.Embedded())
	}
}

// A model in the folder must not be called as one that is known, or built in.
func TestForeignAliases(t *testing.T) {
	for alias, says := range map[string]string{"free": "", Preferred: "both " + Preferred, "demo": "both demo", "taken": "both " + Preferred} {
		c := testCatalog(t)
		c.Known[0].Aliases = []string{"taken"}
		write(t, filepath.Join(c.Dir, "own", manifestFile), strings.Replace(fullManifest, `"name": "full"`, `"name": "own", "aliases": ["`+alias+`"]`, 1))
		m, err := c.Manifest("own")
		if says == "" {
			assert.True(t, err == nil && m.AnswersTo(alias), "%s: %v", alias, err)
		} else {
			assert.ErrorSays(t, err, ErrManifest, says, "%s", alias)
		}
	}
}

// A model whose tokenizer cannot be read is listed and pulled, but not opened.
func TestTokenizerKind(t *testing.T) {
	c := testCatalog(t, cpuFiles...)
	c.Known = []Manifest{knownFull(t, append(sigLIP, `"full"`, `"`+Preferred+`"`)...)}
	assert.Equal(t, c.state(t, Preferred).CPU, Complete)
	m, _, err := c.Resolve(t.Context(), Preferred)
	assert.Must(t, err)
	assert.ErrorSays(t, assert.Err(m.LoadTokenizer()), ErrTokenizerKind, "tokenizer_kind sentencepiece")
}

// TestPipesAreRefused has a pipe that nobody writes to in place of each file that is read. Each would hang.
func TestPipesAreRefused(t *testing.T) {
	c, from := testCatalog(t), t.TempDir()
	pipe := func(path string) {
		t.Helper()
		assert.Must(t, os.MkdirAll(filepath.Dir(path), 0o700), syscall.Mkfifo(path, 0o600))
	}
	pipe(filepath.Join(c.Dir, "m", manifestFile))
	assert.ErrorIs(t, c.state(t, "m").Files[0].Err, safefile.ErrNotRegular, "manifest")
	pipe(filepath.Join(from, "t.onnx"))
	c.Known[0].Files = map[string]File{"t.onnx": {}}
	err := c.Pull(t.Context(), Preferred, PullOptions{FromDir: from})
	assert.ErrorSays(t, err, ErrFile, safefile.ErrNotRegular.Error(), "copied")
	pipe(c.path("t.onnx"))
	assert.ErrorIs(t, c.state(t, Preferred).Files[0].Err, safefile.ErrNotRegular, "installed")
	pipe(c.path(recordsFile))
	assert.ErrorIs(t, c.resolveError(t, Preferred), safefile.ErrNotRegular, "records")
}
