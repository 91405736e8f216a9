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
		must(t, err)
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
	must(t, c.Pull(t.Context(), Preferred, options))
	want := strings.Join(c.Known[0].PartFiles(CPUPart), " ")
	if got := c.folder(t); got != want || strings.Join(heard, " ") != want {
		t.Errorf("files %v, heard of %v, want %v", got, heard, want)
	}
	options.Which = AllParts
	for range 2 { // the second time all is there
		must(t, c.Pull(t.Context(), Preferred, options))
		if len(h.ranges) != len(contents) {
			t.Errorf("%d requests", len(h.ranges))
		}
	}
	for name, want := range contents {
		if got := read(c.path(name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	m, reason, err := c.Resolve(t.Context(), "auto")
	if err != nil || !m.HasCPU() || !m.HasNPU() || m.files["v.onnx"].SHA256 != sumOf(contents["v.onnx"]) {
		t.Errorf("%q, %v", reason, err)
	}
}

// A digest that is not in the manifest is recorded, and the file is held to it.
func TestPullHoldsToFirstDigest(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{})
	must(t, h.pull(t, c, CPUPart))
	h.files["t.onnx"] = "\x08\x07tixt"
	must(t, os.Remove(c.path("t.onnx")))
	refused(t, "changed file", h.pull(t, c, CPUPart), ErrFile, "recorded at the first pull")
	if got := c.folder(t); strings.Contains(got, "t.onnx") {
		t.Errorf("it stayed: %v", got)
	}
	h.files["t.onnx"] = contents["t.onnx"]
	must(t, h.pull(t, c, CPUPart))
	// Another release of the model zoo is another file, and its own digest is held to.
	f := c.Known[0].Files["i.hef"]
	f.SHA256 = sumOf("\x01HEFv5.2.0") // known, but only for the manifest's own release
	c.Known[0].Files["i.hef"] = f
	for _, release := range []string{"v5.2.0", "v5.1.0"} {
		h.files["i.hef"] = "\x01HEF" + release
		must(t, c.Pull(t.Context(), Preferred, PullOptions{Which: NPUPart, Client: h.Client(), Zoo: release}))
		files, err := c.Verify(t.Context(), Preferred)
		if got := read(c.path("i.hef")); err != nil || got != "\x01HEF"+release {
			t.Errorf("release %s: %q, %v", release, got, err)
		}
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
		refused(t, name, h.pull(t, c, AllParts), tt.is, "t.onnx")
		refused(t, name, h.pull(t, c, AllParts), tt.is, tt.says)
		if got := c.folder(t); got != "" {
			t.Errorf("%s: files %v", name, got)
		}
	}
}

func TestPullResumes(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{SHA256: sumOf(contents["t.onnx"])}, "t.onnx")
	write(t, c.path("t.onnx.part"), contents["t.onnx"][:3])
	must(t, h.pull(t, c, AllParts))
	if c.folder(t) != "t.onnx" || read(c.path("t.onnx")) != contents["t.onnx"] || !slices.Equal(h.ranges, []string{"bytes=3-"}) {
		t.Errorf("files %v, asked for %q", c.folder(t), h.ranges)
	}
	must(t, os.Chtimes(c.path("t.onnx"), time.Time{}, time.Now().Add(time.Hour))) // it has to be read
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	refused(t, "cancelled", c.Pull(ctx, Preferred, PullOptions{}), context.Canceled, "")
}

func TestPullBusy(t *testing.T) {
	c := testCatalog(t, cpuFiles...)
	unlock, err := c.lock(Preferred)
	must(t, err)
	refused(t, "second pull", c.Pull(t.Context(), Preferred, PullOptions{}), ErrBusy, Preferred)
	_, err = c.Remove(Preferred)
	refused(t, "remove", err, ErrBusy, Preferred)
	unlock()
	_, err = c.Remove(Preferred)
	must(t, err)
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
	must(t, pull(NPUPart))
	if got := c.folder(t); got != strings.Join(c.Known[0].PartFiles(NPUPart), " ") {
		t.Errorf("files %v", got)
	}
	refused(t, "files that are not there", pull(CPUPart), fs.ErrNotExist, "t.onnx")
	write(t, filepath.Join(vendor, "t.onnx"), "<html>")
	refused(t, "a web page", pull(CPUPart), ErrFile, filepath.Join(vendor, "t.onnx")+" is not a .onnx file")
	must(t, os.Remove(filepath.Join(vendor, "t.onnx")))
	must(t, os.Mkdir(filepath.Join(vendor, "t.onnx"), 0o755))
	refused(t, "a folder", pull(CPUPart), ErrFile, "t.onnx")
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
		refused(t, name, c.Pull(t.Context(), tt.model, tt.options), tt.is, tt.says)
	}
	c := testCatalog(t)
	c.Dir = "/dev/null/models"
	refused(t, "a folder that cannot be made", c.Pull(t.Context(), Preferred, PullOptions{}), nil, "not a directory")
}

// TestUnpinned pulls files of which the manifest has no digest: since when they are held to that of the first
// pull is told, also of records that older versions wrote.
func TestUnpinned(t *testing.T) {
	h := newHub(t)
	c := hubCatalog(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	before := time.Now().Add(-time.Minute)
	must(t, h.pull(t, c, CPUPart))
	dir := filepath.Dir(c.path("x"))
	for _, when := range []string{"after the pull", "with records of an older version"} {
		files, err := c.Verify(t.Context(), Preferred)
		must(t, err)
		for _, f := range files {
			unpinned := !f.Recorded.IsZero()
			if f.Path != "" && (unpinned == (f.Name == "t.onnx") || unpinned && (f.Recorded.Before(before) || f.Recorded.After(time.Now()))) {
				t.Errorf("%s: %s is recorded at %v", when, f.Name, f.Recorded)
			}
		}
		old, err := readRecords(dir)
		must(t, err)
		for name, rec := range old {
			rec.Recorded = time.Time{}
			old[name] = rec
		}
		must(t, old.write(dir))
	}
}
