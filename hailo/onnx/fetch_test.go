package onnx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/safefile"
)

const (
	libraryName = "libonnxruntime-" + FetchVersion + "-linux-amd64.so"
	releaseName = "onnxruntime-linux-x64-" + FetchVersion + "/lib/libonnxruntime.so." + FetchVersion
)

// tgz packs files, given as name, content, name, content.
func tgz(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		assert.Must(t, w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o755, Typeflag: tar.TypeReg}))
		assert.Must(t, assert.Err(w.Write([]byte(files[i+1]))))
	}
	assert.Must(t, w.Close(), z.Close())
	return b.String()
}

// testBuild is a build with this tarball. Its published library is "the published library".
func testBuild(t *testing.T, tarball string) build {
	b := builds["amd64"]
	sum := func(text string) string { return assert.Value(safefile.Sum(t.Context(), strings.NewReader(text))) }
	b.library, b.digest, b.bytes = sum("the published library"), sum(tarball), int64(len(tarball))
	return b
}

// site serves a release, or fails the test where nothing should ask for it.
func site(t *testing.T, serve http.HandlerFunc) string {
	t.Helper()
	if serve == nil {
		serve = func(http.ResponseWriter, *http.Request) { t.Error("the release page was asked") }
	}
	s := httptest.NewServer(serve)
	t.Cleanup(func() { s.Close(); http.DefaultClient.CloseIdleConnections() })
	return s.URL
}

// left lists what is in a folder.
func left(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	for _, e := range assert.Value(os.ReadDir(dir)) {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestFetch(t *testing.T) {
	const installed, part = libraryName + " " + libraryName + ".sha256", "onnxruntime-linux-x64-" + FetchVersion + ".tgz.part"
	good := tgz(t, "onnxruntime-linux-x64-"+FetchVersion+"/LICENSE", "MIT", releaseName, "the vendor's library")
	lacking := tgz(t, "onnxruntime/package.json", "{}")
	dir := filepath.Join(t.TempDir(), "new", "lib")
	path := filepath.Join(dir, libraryName)
	for _, tt := range []struct {
		name    string
		there   string // a library
		tarball string // of the release
		comes   string // of it, "": nobody asks
		library string // that is there in the end
		err     string
		left    string
	}{
		{"another tarball", "", good, strings.Repeat("x", len(good)), "", "SHA-256", ""},
		{"no library", "", lacking, lacking, "", "holds no library", ""},
		{"no tarball", "", "no gzip, whatever this is", "no gzip, whatever this is", "", "gzip", ""},
		{"cut short", "", good[:60], good[:60], "", "unexpected EOF", ""},
		{"breaks off", "", good, good[:60], "", "stopped after 60 bytes", part + " " + part + ".from"},
		{"goes on", "", good, good, "the vendor's library", "", installed},
		{"there", "", good, "", "the vendor's library", "", installed},
		{"damaged", "another library", good, good, "the vendor's library", "", installed},
		{"published elsewhere", "the published library", good, "", "the published library", "", installed},
	} {
		var serve http.HandlerFunc
		if tt.comes != "" {
			serve = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/gzip")
				http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(strings.NewReader(tt.comes), 0, int64(len(tt.tarball))))
			}
		}
		if tt.there != "" {
			assert.Must(t, os.WriteFile(path, []byte(tt.there), 0o600))
		}
		b := testBuild(t, tt.tarball)
		err := b.fetch(t.Context(), site(t, serve), path, func(done, total int64) {
			assert.True(t, done <= total && total == b.bytes, "%s: progress %d of %d", tt.name, done, total)
		})
		assert.Says(t, err, tt.err, "%s", tt.name)
		data, _ := os.ReadFile(path)
		assert.Equal(t, string(data), tt.library, "%s: installed", tt.name)
		assert.Equal(t, left(t, dir), tt.left, "%s: left", tt.name)
	}
}

// Two at once do not write into one file, also where the folder is a link; links in it are not followed.
func TestFetchTwice(t *testing.T) {
	dir, kept := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "kept")
	tarball := tgz(t, releaseName, "the vendor's library")
	b := testBuild(t, tarball)
	assert.Must(t, os.WriteFile(kept, []byte("keep"), 0o600), os.Symlink(t.TempDir(), dir))
	for _, name := range []string{libraryName, libraryName + ".sha256", b.release + ".part", b.release + ".part.from"} {
		assert.Must(t, os.Symlink(kept, filepath.Join(dir, name)))
	}
	path, nobody := filepath.Join(dir, libraryName), site(t, nil)
	url := site(t, func(w http.ResponseWriter, _ *http.Request) {
		assert.Says(t, b.fetch(t.Context(), nobody, path, nil), "another process is downloading it", "meanwhile")
		w.Write([]byte(tarball))
	})
	assert.NoError(t, b.fetch(t.Context(), url, path, nil))
	assert.Equal(t, string(assert.Value(os.ReadFile(kept))), "keep", "written to where a link leads")
	assert.Equal(t, left(t, dir), libraryName+" "+libraryName+".sha256", "left")
}

func TestFetchArch(t *testing.T) {
	assert.ErrorSays(t, assert.Err(Fetch(t.Context(), t.TempDir(), "riscv64", nil)), nil, "riscv64")
}
