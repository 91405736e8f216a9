package model

import (
	"cmp"
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
	"testing/synctest"
	"time"
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

// hubStore is an empty store that knows one model whose files are on the hub. want changes what is
// known of t.onnx.
func hubStore(t testing.TB, h *hub, want File) *Catalog {
	s := testStore(t)
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
	s := hubStore(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
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
	m, reason, err := s.Resolve("auto")
	if err != nil || !m.HasCPU() || !m.HasNPU() {
		t.Errorf("%q, %v", reason, err)
	}
	if sum, err := m.FileSHA256("v.onnx"); err != nil || sum != sumOf(contents["v.onnx"]) {
		t.Errorf("digest %q, %v", sum, err)
	}
	if err := s.Pull(t.Context(), Preferred, options); err != nil || h.requests.Load() != int32(len(contents)) {
		t.Errorf("all there, and yet: %d requests, %v", h.requests.Load(), err)
	}
}

// A digest that is not in the manifest is recorded, and the file is held to it.
func TestPullHoldsToFirstDigest(t *testing.T) {
	h := newHub(t)
	s := hubStore(t, h, File{})
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

func TestPullResumes(t *testing.T) {
	content := "\x08" + strings.Repeat("0123456789", 10_000)
	known := File{Bytes: int64(len(content)), SHA256: sumOf(content)}
	for name, c := range map[string]struct {
		part      string // what is there of t.onnx
		validator bool   // and what it is a part of,
		url       string // if not of the file that is pulled
		want      File   // what is known of it
		handle    func(h *hub, w http.ResponseWriter, r *http.Request) bool
		ranges    []string
	}{
		"known digest":            {part: content[:1000], want: known, ranges: []string{"bytes=1000-"}},
		"same file on the server": {part: content[:1000], validator: true, ranges: []string{"bytes=1000-"}},
		"another file there now":  {part: "\x08other", validator: true, ranges: []string{"bytes=6-"}}, // If-Range gets all of it
		"part of another address": {part: "\x08other", validator: true, url: "https://host/x", want: known, ranges: []string{""}},
		"nothing known":           {part: content[:1000], ranges: []string{""}},
		"whole":                   {part: content, want: known, ranges: nil},
		"whole, size not known":   {part: content, want: File{SHA256: known.SHA256}, ranges: []string{"bytes=100001-"}},
		"too long":                {part: content + "x", want: known, ranges: []string{""}},
		"server ignores ranges": {part: content[:1000], want: known, ranges: []string{"bytes=1000-"}, handle: func(h *hub, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}},
		"breaks twice": {want: known, ranges: []string{"", "bytes=40000-", "bytes=80000-"}, handle: func(h *hub, w http.ResponseWriter, r *http.Request) bool {
			if len(h.ranges) == 3 {
				return false
			}
			w.Header().Set("ETag", `"`+known.SHA256+`"`)
			from := 40_000 * (len(h.ranges) - 1)
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
			if from > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			io.WriteString(w, content[from:from+40_000])
			return true
		}},
	} {
		h := newHub(t)
		h.files["t.onnx"] = content
		s := hubStore(t, h, c.want)
		s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
		if c.handle != nil {
			h.handle = func(w http.ResponseWriter, r *http.Request, _ string) bool { return c.handle(h, w, r) }
		}
		if c.part != "" {
			write(t, s.path("t.onnx.part"), c.part)
		}
		if c.validator {
			sum := sumOf(content)
			if !strings.HasPrefix(content, c.part) {
				sum = sumOf(c.part)
			}
			write(t, s.path("t.onnx.part"+validatorSuffix), fmt.Sprintf(`{"url": %q, "etag": "\"%s\""}`, cmp.Or(c.url, s.Known[0].Files["t.onnx"].URL), sum))
		}
		if err := h.pull(t.Context(), s, AllParts); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := os.ReadFile(s.path("t.onnx")); err != nil || string(got) != content {
			t.Errorf("%s: %d bytes differ (%v)", name, len(got), err)
		}
		if !slices.Equal(h.ranges, c.ranges) || !slices.Equal(s.folder(t), []string{"t.onnx"}) {
			t.Errorf("%s: asked for %q, want %q; files %v", name, h.ranges, c.ranges, s.folder(t))
		}
	}
}

func TestPullRefuses(t *testing.T) {
	answer := func(status int, header, body string) func(*hub, http.ResponseWriter, *http.Request) {
		return func(_ *hub, w http.ResponseWriter, _ *http.Request) {
			if k, v, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(k, v)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	text := contents["t.onnx"]
	sized := File{Bytes: int64(len(text))}
	for name, c := range map[string]struct {
		want   File
		handle func(h *hub, w http.ResponseWriter, r *http.Request)
		is     error
		says   string
		keeps  bool // the part
	}{
		"not found":          {File{}, answer(404, "", "<Error>"), ErrDownload, "404 Not Found", false},
		"forbidden":          {File{}, answer(403, "", "<Error>"), ErrDownload, "403 Forbidden", false},
		"server error":       {File{}, answer(500, "", ""), ErrDownload, "500", false},
		"no content":         {File{}, answer(204, "", ""), ErrDownload, "204", false},
		"range not asked":    {File{}, answer(206, "Content-Range: bytes 0-5/6", text), ErrDownload, "asked for bytes 0", false},
		"login page":         {File{}, answer(200, "Content-Type: text/html; charset=utf-8", "<html>"), ErrDownload, "web page", false},
		"error as XML":       {File{}, answer(200, "Content-Type: application/xml", "<Error/>"), ErrFile, "not a .onnx file", false},
		"empty":              {File{}, answer(200, "Content-Type: x/y", ""), ErrFile, "empty", false},
		"compressed":         {File{}, answer(200, "Content-Encoding: gzip", text), ErrDownload, "gzip", false},
		"wrong size":         {sized, answer(200, "Content-Type: x/y", text+"!"), ErrDownload, "want 6", false},
		"wrong digest":       {File{SHA256: someSHA}, answer(200, "Content-Type: x/y", text), ErrFile, "want " + someSHA, false},
		"size not said":      {File{}, flushed(text), ErrDownload, "how long", false},
		"longer than known":  {sized, flushed(text + "!"), ErrDownload, "more than 6", false},
		"shorter than known": {sized, flushed(text[:5]), ErrFile, "want 6", false},
		"broken off":         {sized, answer(200, "Content-Length: 6", text[:3]), ErrDownload, "stopped after 3 bytes", true},
		"redirect to http": {File{}, func(h *hub, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, strings.Replace(h.URL, "https", "http", 1)+"/t.onnx", http.StatusFound)
		}, ErrDownload, "not https", false},
		"redirects for ever": {File{}, func(h *hub, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/t.onnx", http.StatusFound)
		}, ErrDownload, "too many redirects", false},
	} {
		h := newHub(t)
		s := hubStore(t, h, c.want)
		s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
		h.handle = func(w http.ResponseWriter, r *http.Request, _ string) bool { c.handle(h, w, r); return true }
		err := h.pull(t.Context(), s, AllParts)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "t.onnx") {
			t.Errorf("%s: %v, want %v that says %q", name, err, c.is, c.says)
		}
		got := s.folder(t)
		if slices.Contains(got, "t.onnx") || slices.Contains(got, "t.onnx.part") != c.keeps {
			t.Errorf("%s: files %v", name, got)
		}
	}
}

// Bytes that were not asked for must not get into the part.
func TestPullWrongRange(t *testing.T) {
	text := contents["t.onnx"]
	for _, answer := range []string{"bytes 2-5/6", "bytes 3-4/6", "bytes 0-5/6", "bytes 3-5/*", "3-5/6", ""} {
		h := newHub(t)
		s := hubStore(t, h, File{SHA256: sumOf(text)})
		s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
		write(t, s.path("t.onnx.part"), text[:3])
		h.handle = func(w http.ResponseWriter, r *http.Request, _ string) bool {
			w.Header().Set("Content-Range", answer)
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, text[3:])
			return true
		}
		err := h.pull(t.Context(), s, AllParts)
		if !errors.Is(err, ErrDownload) || !strings.Contains(err.Error(), "asked for bytes 3") {
			t.Errorf("%q: %v", answer, err)
		}
		if part, _ := os.ReadFile(s.path("t.onnx.part")); string(part) != text[:3] {
			t.Errorf("%q: the part is %q", answer, part)
		}
	}
}

// flushed answers in chunks, without a length.
func flushed(body string) func(*hub, http.ResponseWriter, *http.Request) {
	return func(_ *hub, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "x/y")
		w.(http.Flusher).Flush()
		io.WriteString(w, body)
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

func TestPullCancelled(t *testing.T) {
	h := newHub(t)
	s := hubStore(t, h, File{SHA256: sumOf(contents["t.onnx"])})
	s.Known[0].Files = map[string]File{"t.onnx": s.Known[0].Files["t.onnx"]}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the user")
	hang(h, func() {})
	err := s.Pull(ctx, Preferred, PullOptions{Client: h.Client(), Progress: func(string, int64, int64) { cancel(stop) }})
	if !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
	if part, _ := os.ReadFile(s.path("t.onnx.part")); string(part) != contents["t.onnx"][:3] {
		t.Errorf("part %q", part)
	}
	h.handle = nil
	if err := h.pull(t.Context(), s, AllParts); err != nil {
		t.Errorf("resumed: %v", err)
	}
	if last := h.ranges[len(h.ranges)-1]; last != "bytes=3-" {
		t.Errorf("resumed from %q", last)
	}
}

// slowReader gives one byte at a time, after a wait. It ends early when ctx does, as a body does.
type slowReader struct {
	ctx   context.Context
	waits []time.Duration
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.waits) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(r.waits[0]):
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
	r.waits = r.waits[1:]
	return copy(p, "x"), nil
}

// A download may take as long as it likes, but not stop for longer than the stall timeout.
func TestDownloadStalls(t *testing.T) {
	for name, c := range map[string]struct {
		waits []time.Duration
		want  error
	}{
		"slow":    {slices.Repeat([]time.Duration{stallTimeout - time.Second}, 20), nil},
		"stalled": {[]time.Duration{time.Second, 2 * stallTimeout, time.Second}, errStalled},
	} {
		part := filepath.Join(t.TempDir(), "t.onnx.part")
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			d := &download{url: "https://host/t.onnx", part: part, stall: stallTimeout, progress: func(int64, int64) {}}
			err := d.write(ctx, cancel, &slowReader{ctx, c.waits}, 0, int64(len(c.waits)))
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		})
	}
}

func TestPullBusy(t *testing.T) {
	h := newHub(t)
	s := hubStore(t, h, File{})
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
	s := testStore(t)
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
	s := testStore(t)
	if err := s.Pull(t.Context(), "x", PullOptions{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	for name, o := range map[string]PullOptions{
		"no address":   {Which: NPUPart, FromDir: ""},
		"unknown part": {Which: "gpu"},
		"bad release":  {Zoo: "5"},
	} {
		s := testStore(t, "e.npy", "i.hef")
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
	if err := checkSpace(t.TempDir(), 1<<60); err == nil || !strings.Contains(explainDisk(err, "/models").Error(), "no room in /models") {
		t.Errorf("room for an exabyte: %v", err)
	}
}
