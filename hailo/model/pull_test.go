package model

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo/fetch"
	"hailoclip/hailo/internal/assert"
)

// hub is a server of model files.
type hub struct {
	*httptest.Server
	files  map[string]string // content by base name; without one: 404
	ranges []string          // Range header of each request
}

func newHub(t testing.TB) *hub {
	h := &hub{files: maps.Clone(contents)}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ranges = append(h.ranges, r.Header.Get("Range"))
		content, ok := h.files[path.Base(r.URL.Path)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}))
	t.Cleanup(h.Close)
	return h
}

// hubCatalog is an empty catalog that knows one model whose files are on the hub; only are those that it
// has, all if there are none. want changes what is known of t.onnx.
func hubCatalog(t testing.TB, h *hub, want File, only ...string) *Catalog {
	c := testCatalog(t)
	known := c.Known[0].Files
	for name, f := range known {
		if len(only) > 0 && !slices.Contains(only, name) {
			delete(known, name)
			continue
		}
		if f.URL = strings.Replace(f.URL, "https://host", h.URL, 1); f.URL == "" {
			f.URL = h.URL + "/" + name
		}
		if name == "t.onnx" {
			f.Bytes, f.SHA256 = want.Bytes, want.SHA256
		}
		known[name] = f
	}
	return c
}

func (h *hub) pull(t testing.TB, c *Catalog, which Part) error {
	return c.Pull(t.Context(), Preferred, PullOptions{Which: which, Client: h.Client()})
}

// folder lists the files of the model folder, but for digests.json.
func (c *Catalog) folder(t testing.TB) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(c.path("x")))
	if !errors.Is(err, fs.ErrNotExist) {
		assert.Must(t, err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != recordsFile {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

func TestPull(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	var heard []string
	options := PullOptions{Client: h.Client(), Which: CPUPart, Progress: func(file string, done, total int64) {
		if done == total {
			heard = append(heard, file)
		}
	}}
	assert.Must(t, c.Pull(t.Context(), Preferred, options))
	want := strings.Join(c.Known[0].PartFiles(CPUPart), " ")
	assert.Equal(t, c.folder(t), want, "files")
	assert.Equal(t, strings.Join(heard, " "), want, "heard of")
	options.Which = AllParts
	for range 2 { // the second time all is there
		assert.Must(t, c.Pull(t.Context(), Preferred, options))
		assert.True(t, len(h.ranges) == len(contents), "%d requests", len(h.ranges))
	}
	for name, want := range contents {
		assert.Equal(t, read(c.path(name)), want, "%s", name)
	}
	m, reason, err := c.Resolve(t.Context(), "auto")
	assert.Must(t, err)
	assert.True(t, m.HasCPU() && m.HasNPU() && m.files["v.onnx"].SHA256 == sumOf(contents["v.onnx"]), "%q", reason)
}

// A digest that is not in the manifest is recorded, and the file is held to it.
func TestPullHoldsToFirstDigest(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{})
	assert.Must(t, h.pull(t, c, CPUPart))
	h.files["t.onnx"] = "\x08\x07tixt"
	assert.Must(t, os.Remove(c.path("t.onnx")))
	assert.ErrorSays(t, h.pull(t, c, CPUPart), ErrFile, "recorded at the first pull", "changed file")
	assert.True(t, !strings.Contains(c.folder(t), "t.onnx"), "it stayed: %v", c.folder(t))
	h.files["t.onnx"] = contents["t.onnx"]
	assert.Must(t, h.pull(t, c, CPUPart))
	// Another release of the model zoo is another file, and its own digest is held to.
	f := c.Known[0].Files["i.hef"]
	f.SHA256 = sumOf("\x01HEFv5.2.0") // known, but only for the manifest's own release
	c.Known[0].Files["i.hef"] = f
	for _, release := range []string{"v5.2.0", "v5.1.0"} {
		h.files["i.hef"] = "\x01HEF" + release
		assert.Must(t, c.Pull(t.Context(), Preferred, PullOptions{Which: NPUPart, Client: h.Client(), Zoo: release}))
		files, err := c.Verify(t.Context(), Preferred)
		assert.Must(t, err)
		assert.Equal(t, read(c.path("i.hef")), "\x01HEF"+release)
		for _, f := range files {
			if f.Name == "i.hef" && f.Zoo != release || f.Name == "t.onnx" && f.Zoo != "" {
				t.Errorf("%s is said to be of release %q of the zoo", f.Name, f.Zoo)
			}
		}
	}
}

// What fetch refuses, and what only the kind of the file tells.
func TestPullRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		want    File
		content string // "": none
		is      error
		says    string
	}{
		"not found":    {File{}, "", fetch.ErrDownload, "404 Not Found"},
		"error as XML": {File{}, "<Error/>", ErrFile, "not a .onnx file"},
		"empty":        {File{}, " ", ErrFile, "empty"},
		"wrong digest": {File{SHA256: someSHA}, contents["t.onnx"], ErrFile, "want " + someSHA},
	} {
		h := newHub(t)
		c := hubCatalog(t, h, tt.want, "t.onnx")
		if h.files["t.onnx"] = strings.TrimSpace(tt.content); tt.content == "" {
			delete(h.files, "t.onnx")
		}
		assert.ErrorSays(t, h.pull(t, c, AllParts), tt.is, "t.onnx", "%s", name)
		assert.ErrorSays(t, h.pull(t, c, AllParts), tt.is, tt.says, "%s", name)
		assert.Equal(t, c.folder(t), "", "%s: files", name)
	}
}

func TestPullResumes(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{SHA256: sumOf(contents["t.onnx"])}, "t.onnx")
	write(t, c.path("t.onnx.part"), contents["t.onnx"][:3])
	assert.Must(t, h.pull(t, c, AllParts))
	assert.Equal(t, c.folder(t), "t.onnx", "files")
	assert.Equal(t, read(c.path("t.onnx")), contents["t.onnx"])
	assert.Diff(t, []string{"bytes=3-"}, h.ranges)
	assert.Must(t, os.Chtimes(c.path("t.onnx"), time.Time{}, time.Now().Add(time.Hour))) // it has to be read
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, c.Pull(ctx, Preferred, PullOptions{}), context.Canceled, "cancelled")
}

func TestPullBusy(t *testing.T) {
	c := testCatalog(t, cpuFiles...)
	unlock, err := c.lock(Preferred)
	assert.Must(t, err)
	assert.ErrorSays(t, c.Pull(t.Context(), Preferred, PullOptions{}), ErrBusy, Preferred, "second pull")
	assert.ErrorSays(t, assert.Err(c.Remove(Preferred)), ErrBusy, Preferred, "remove")
	unlock()
	_ = assert.Value(c.Remove(Preferred))
}

func TestPullFromDir(t *testing.T) {
	c := testCatalog(t)
	vendor := t.TempDir()
	for name, f := range c.Known[0].Files {
		if f.Vendor != "" {
			write(t, filepath.Join(vendor, f.Vendor), contents[name])
		}
	}
	pull := func(which Part) error {
		return c.Pull(t.Context(), Preferred, PullOptions{FromDir: vendor, Which: which})
	}
	assert.Must(t, pull(NPUPart))
	assert.Equal(t, c.folder(t), strings.Join(c.Known[0].PartFiles(NPUPart), " "), "files")
	assert.ErrorSays(t, pull(CPUPart), fs.ErrNotExist, "t.onnx", "files that are not there")
	write(t, filepath.Join(vendor, "t.onnx"), "<html>")
	assert.ErrorSays(t, pull(CPUPart), ErrFile, filepath.Join(vendor, "t.onnx")+" is not a .onnx file", "a web page")
	assert.Must(t, os.Remove(filepath.Join(vendor, "t.onnx")))
	assert.Must(t, os.Mkdir(filepath.Join(vendor, "t.onnx"), 0o755))
	assert.ErrorSays(t, pull(CPUPart), ErrFile, "t.onnx", "a folder")
}

func TestPullErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		model   string
		options PullOptions
		is      error
		says    string
	}{
		"unknown":      {"x", PullOptions{}, ErrUnknown, "x"},
		"built in":     {"demo", PullOptions{}, nil, "nothing to pull"},
		"no address":   {Preferred, PullOptions{Which: NPUPart}, nil, "--from-dir"},
		"unknown part": {Preferred, PullOptions{Which: "gpu"}, nil, "gpu"},
		"bad release":  {Preferred, PullOptions{Zoo: "5"}, nil, "such as v5"},
	} {
		c := testCatalog(t, "e.npy", "i.hef")
		c.Known[0].Files = map[string]File{"p.npy": {}}
		c.Known[0].NPU = &NPUFiles{Image: "p.npy", Text: "p.npy", TokenEmbedding: "p.npy", TextProjection: "p.npy", Zoo: "v5.2.0"}
		c.Known[0].Tokenizer = "p.npy"
		assert.ErrorSays(t, c.Pull(t.Context(), tt.model, tt.options), tt.is, tt.says, "%s", name)
	}
	c := testCatalog(t)
	c.Dir = "/dev/null/models"
	assert.ErrorSays(t, c.Pull(t.Context(), Preferred, PullOptions{}), nil, "not a directory", "a folder that cannot be made")
}

// TestUnpinned pulls files of which the manifest has no digest: since when they are held to that of the first
// pull is told, also of records that older versions wrote.
func TestUnpinned(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	before := time.Now().Add(-time.Minute)
	assert.Must(t, h.pull(t, c, CPUPart))
	dir := filepath.Dir(c.path("x"))
	for _, when := range []string{"after the pull", "with records of an older version"} {
		files := assert.Value(c.Verify(t.Context(), Preferred))
		for _, f := range files {
			unpinned := !f.Recorded.IsZero()
			if f.Path != "" && (unpinned == (f.Name == "t.onnx") || unpinned && (f.Recorded.Before(before) || f.Recorded.After(time.Now()))) {
				t.Errorf("%s: %s is recorded at %v", when, f.Name, f.Recorded)
			}
		}
		old := assert.Value(readRecords(dir))
		for name, rec := range old {
			rec.Recorded = time.Time{}
			old[name] = rec
		}
		assert.Must(t, old.write(dir))
	}
}
