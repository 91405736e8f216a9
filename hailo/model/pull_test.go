package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/hailo/fetch"
)

// hub is a server of model files that can be made to misbehave.
type hub struct {
	*httptest.Server
	files    map[string]string                                                 // content by base name
	handle   func(w http.ResponseWriter, r *http.Request, content string) bool // true: it answered
	requests atomic.Int32
	ranges   []string // Range header of each request
}

func newHub(t testing.TB) *hub {
	h := &hub{files: map[string]string{}}
	for name, text := range contents {
		h.files[name] = text
	}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		h.ranges = append(h.ranges, r.Header.Get("Range"))
		content, ok := h.files[path.Base(r.URL.Path)]
		if h.handle != nil && h.handle(w, r, content) {
			return
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256([]byte(content))
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}))
	t.Cleanup(h.Close)
	return h
}

// hubCatalog is an empty catalog that knows one model whose files are on the hub. want changes what is
// known of t.onnx.
func hubCatalog(t testing.TB, h *hub, want File) *Catalog {
	s := testCatalog(t)
	m := s.Known[0]
	for name, f := range m.Files {
		if name != "p.npy" {
			f.URL = strings.Replace(f.URL, "https://host", h.URL, 1)
		} else {
			f.URL = h.URL + "/p.npy"
		}
		if name == "t.onnx" {
			f.Bytes, f.SHA256 = want.Bytes, want.SHA256
		}
		m.Files[name] = f
	}
	return s
}

func sumOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func (h *hub) pull(ctx context.Context, s *Catalog, which Part) error {
	return s.Pull(ctx, Preferred, PullOptions{Which: which, Client: h.Client()})
}

// folder lists the files of the model folder, but for digests.json.
func (s *Catalog) folder(t testing.TB) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(s.path("x")))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != recordsFile {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestPull(t *testing.T) {
	h := newHub(t)
	s := hubCatalog(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	var heard []string
	options := PullOptions{Client: h.Client(), Progress: func(file string, done, total int64) {
		if done == total {
			heard = append(heard, file)
		}
	}}
	options.Which = CPUPart
	if err := s.Pull(t.Context(), Preferred, options); err != nil {
		t.Fatal(err)
	}
	if got, want := s.folder(t), s.Known[0].PartFiles(CPUPart); !slices.Equal(got, want) || !slices.Equal(heard, want) {
		t.Errorf("files %v, heard of %v, want %v", got, heard, want)
	}
	options.Which = AllParts
	if err := s.Pull(t.Context(), Preferred, options); err != nil {
		t.Fatal(err)
	}
	if got := s.folder(t); len(got) != len(contents) || h.requests.Load() != int32(len(contents)) {
		t.Errorf("files %v after %d requests", got, h.requests.Load())
	}
	for name, want := range contents {
		if got, err := os.ReadFile(s.path(name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	m, reason, err := s.Resolve(t.Context(), "auto")
	if err != nil || !m.HasCPU() || !m.HasNPU() {
		t.Errorf("%q, %v", reason, err)
	}
	if sum := m.files["v.onnx"].SHA256; sum != sumOf(contents["v.onnx"]) {
		t.Errorf("digest %q", sum)
	}
	if err := s.Pull(t.Context(), Preferred, options); err != nil || h.requests.Load() != int32(len(contents)) {
		t.Errorf("all there, and yet: %d requests, %v", h.requests.Load(), err)
	}
}

// A digest that is not in the manifest is recorded, and the file is held to it.
func TestPullHoldsToFirstDigest(t *testing.T) {
	h := newHub(t)
	s := hubCatalog(t, h, File{})
	if err := h.pull(t.Context(), s, CPUPart); err != nil {
		t.Fatal(err)
	}
	h.files["t.onnx"] = "\x08\x07tixt"
	if err := os.Remove(s.path("t.onnx")); err != nil {
		t.Fatal(err)
	}
	err := h.pull(t.Context(), s, CPUPart)
	if !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "first pull") {
		t.Errorf("changed file: %v", err)
	}
	if got := s.folder(t); slices.Contains(got, "t.onnx") || slices.Contains(got, "t.onnx.part") {
		t.Errorf("it stayed: %v", got)
	}
	h.files["t.onnx"] = contents["t.onnx"]
	if err := h.pull(t.Context(), s, CPUPart); err != nil {
		t.Errorf("the old file again: %v", err)
	}
	// Another release of the model zoo is another file, and its own digest is held to.
	f := s.Known[0].Files["i.hef"]
	f.SHA256 = sumOf("\x01HEFv5.2.0") // known, but only for the manifest's own release
	s.Known[0].Files["i.hef"] = f
	options := PullOptions{Which: NPUPart, Client: h.Client()}
	for _, release := range []string{"v5.2.0", "v5.1.0"} {
		options.Zoo = release
		h.files["i.hef"] = "\x01HEF" + release
		if err := s.Pull(t.Context(), Preferred, options); err != nil {
			t.Errorf("release %s: %v", release, err)
		}
		if got, err := os.ReadFile(s.path("i.hef")); err != nil || string(got) != "\x01HEF"+release {
			t.Errorf("release %s: %q, %v", release, got, err)
		}
		if _, err := s.Verify(t.Context(), Preferred); err != nil {
			t.Errorf("release %s: %v", release, err)
		}
		m, err := s.manifest(Preferred, "")
		if err != nil {
			t.Fatal(err)
		}
		files, err := s.files(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Name == "i.hef" && f.Zoo != release || f.Name == "t.onnx" && f.Zoo != "" {
				t.Errorf("%s is said to be of release %q of the zoo", f.Name, f.Zoo)
			}
		}
	}
}

// hang sends three bytes of t.onnx and then nothing until the client goes.
func hang(h *hub, onSent func()) {
	h.handle = func(w http.ResponseWriter, r *http.Request, content string) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		io.WriteString(w, content[:3])
		w.(http.Flusher).Flush()
		onSent()
		<-r.Context().Done()
		return true
	}
}

// What fetch refuses, and what only the kind of the file tells.
func TestPullRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		want    File
		content string
		is      error
		says    string
	}{
		"not found":    {File{}, "", fetch.ErrDownload, "404 Not Found"},
		"error as XML": {File{}, "<Error/>", ErrFile, "not a .onnx file"},
		"empty":        {File{}, " ", ErrFile, "empty"},
		"wrong digest": {File{SHA256: someSHA}, contents["t.onnx"], ErrFile, "want " + someSHA},
		"wrong size":   {File{Bytes: 7}, contents["t.onnx"], fetch.ErrDownload, "want 7"},
	} {
		h := newHub(t)
		s := hubCatalog(t, h, c.want)
		s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
		if h.files["t.onnx"] = strings.TrimSpace(c.content); c.content == "" {
			delete(h.files, "t.onnx")
		}
		err := h.pull(t.Context(), s, AllParts)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "t.onnx") {
			t.Errorf("%s: %v, want %v that says %q", name, err, c.is, c.says)
		}
		if got := s.folder(t); len(got) != 0 {
			t.Errorf("%s: files %v", name, got)
		}
	}
}

// A pull that was cancelled goes on with its part, and leaves the file alone in the end.
func TestPullResumes(t *testing.T) {
	h := newHub(t)
	s := hubCatalog(t, h, File{SHA256: sumOf(contents["t.onnx"])})
	s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the user")
	hang(h, func() {})
	err := s.Pull(ctx, Preferred, PullOptions{Client: h.Client(), Progress: func(string, int64, int64) { cancel(stop) }})
	if !errors.Is(err, stop) || !slices.Equal(s.folder(t), []string{"t.onnx.part", "t.onnx.part.from"}) {
		t.Errorf("cancelled: files %v, %v", s.folder(t), err)
	}
	h.handle = nil
	if err := h.pull(t.Context(), s, AllParts); err != nil || !slices.Equal(s.folder(t), []string{"t.onnx"}) {
		t.Errorf("resumed: files %v, %v", s.folder(t), err)
	}
	if last := h.ranges[len(h.ranges)-1]; last != "bytes=3-" {
		t.Errorf("resumed from %q", last)
	}
}

func TestPullBusy(t *testing.T) {
	h := newHub(t)
	s := hubCatalog(t, h, File{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan struct{}, 16)
	hang(h, func() { sent <- struct{}{} })
	done := make(chan error)
	go func() { done <- h.pull(ctx, s, CPUPart) }()
	<-sent
	if err := h.pull(t.Context(), s, CPUPart); !errors.Is(err, ErrBusy) {
		t.Errorf("second pull: %v", err)
	}
	if _, err := s.Remove(Preferred); !errors.Is(err, ErrBusy) {
		t.Errorf("remove: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("first pull: %v", err)
	}
	if _, err := s.Remove(Preferred); err != nil {
		t.Errorf("remove afterwards: %v", err)
	}
}

func TestPullFromDir(t *testing.T) {
	s := testCatalog(t)
	vendor := t.TempDir()
	for name, f := range s.Known[0].Files {
		if f.Vendor != "" {
			write(t, filepath.Join(vendor, f.Vendor), contents[name])
		}
	}
	options := PullOptions{FromDir: vendor, Which: NPUPart}
	if err := s.Pull(t.Context(), Preferred, options); err != nil {
		t.Fatal(err)
	}
	if got := s.folder(t); len(got) != len(npuFiles) {
		t.Errorf("files %v", got)
	}
	options.Which = CPUPart
	if err := s.Pull(t.Context(), Preferred, options); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "t.onnx") {
		t.Errorf("files that are not there: %v", err)
	}
	write(t, filepath.Join(vendor, "t.onnx"), "<html>")
	if err := s.Pull(t.Context(), Preferred, options); !errors.Is(err, ErrFile) {
		t.Errorf("a web page: %v", err)
	}
	if err := os.Remove(filepath.Join(vendor, "t.onnx")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(vendor, "t.onnx"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(t.Context(), Preferred, options); !errors.Is(err, ErrFile) {
		t.Errorf("a folder: %v", err)
	}
}

func TestPullErrors(t *testing.T) {
	s := testCatalog(t)
	if err := s.Pull(t.Context(), "x", PullOptions{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	for name, o := range map[string]PullOptions{
		"no address":   {Which: NPUPart, FromDir: ""},
		"unknown part": {Which: "gpu"},
		"bad release":  {Zoo: "5"},
	} {
		s := testCatalog(t, "e.npy", "i.hef")
		s.Known[0].Files = map[string]File{"p.npy": {}}
		s.Known[0].NPU = &NPUFiles{Image: "p.npy", Text: "p.npy", TokenEmbedding: "p.npy", TextProjection: "p.npy", Zoo: "v5.2.0"}
		s.Known[0].Tokenizer = "p.npy"
		if err := s.Pull(t.Context(), Preferred, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := s.Pull(t.Context(), "demo", PullOptions{}); err == nil {
		t.Error("the built-in model: no error")
	}
	s.Dir = "/dev/null/models"
	if err := s.Pull(t.Context(), Preferred, PullOptions{}); err == nil {
		t.Error("a folder that cannot be made: no error")
	}
}

// TestUnpinned pulls files of which the manifest has no digest: since when they are held to that of the first
// pull is told, also of records that older versions wrote, and a file that has changed is refused.
func TestUnpinned(t *testing.T) {
	h := newHub(t)
	s := hubCatalog(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	before := time.Now().Add(-time.Minute)
	if err := h.pull(t.Context(), s, CPUPart); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		files, err := s.Verify(t.Context(), Preferred)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Path == "" {
				continue
			}
			if unpinned := !f.Recorded.IsZero(); unpinned == (f.Name == "t.onnx") || unpinned && (f.Recorded.Before(before) || f.Recorded.After(time.Now())) {
				t.Errorf("%s: %s is recorded at %v", when, f.Name, f.Recorded)
			}
		}
	}
	check("after the pull")
	dir := filepath.Dir(s.path("x"))
	old, err := readRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, rec := range old {
		rec.Recorded = time.Time{}
		old[name] = rec
	}
	if err := old.write(dir); err != nil {
		t.Fatal(err)
	}
	check("with records of an older version")

	name := s.Known[0].CPU.Image
	if err := os.Remove(s.path(name)); err != nil {
		t.Fatal(err)
	}
	h.files[name] = "\x08" + strings.Repeat("y", len(contents[name])-1)
	if err := h.pull(t.Context(), s, CPUPart); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "recorded at the first pull") {
		t.Errorf("a file that has changed: %v", err)
	}
}
