package onnx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	libraryName = "libonnxruntime-" + FetchVersion + "-linux-amd64.so"
	releaseName = "onnxruntime-linux-x64-" + FetchVersion + "/lib/libonnxruntime.so." + FetchVersion
)

// tgz packs files, given as name, content, name, content.
func tgz(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		header := &tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o755, Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sum(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

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

// testBuild is a build with this tarball. Its published library is "the published library".
func testBuild(tarball []byte) build {
	b := builds["amd64"]
	b.library = sum([]byte("the published library"))
	b.digest, b.bytes = sum(tarball), int64(len(tarball))
	return b
}

// left lists what is in a folder.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestFetch(t *testing.T) {
	tarball := tgz(t, "onnxruntime-linux-x64-"+FetchVersion+"/LICENSE", "MIT", releaseName, "the vendor's library")
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(tarball))
	}
	dir := filepath.Join(t.TempDir(), "new", "lib")
	path, b := filepath.Join(dir, libraryName), testBuild(tarball)
	var last int64
	for _, tt := range []struct {
		name    string
		library string // what is there
		fetches bool
	}{
		{"nothing", "", true},
		{"fetched before", "the vendor's library", false},
		{"damaged", "the vendor's library, damaged", true},
		{"published elsewhere", "the published library", false},
	} {
		if tt.library != "" {
			if err := os.WriteFile(path, []byte(tt.library), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		url, want := site(t, nil), tt.library
		if tt.fetches {
			url, want = site(t, serve), "the vendor's library"
		}
		if err := b.fetch(t.Context(), url, path, func(done, _ int64) { last = done }); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if data, _ := os.ReadFile(path); string(data) != want || last != b.bytes {
			t.Errorf("%s: installed %q; progress %d", tt.name, data, last)
		}
		if want := libraryName + " " + libraryName + ".sha256"; left(t, dir) != want {
			t.Errorf("%s: left %q, want %q", tt.name, left(t, dir), want)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	good := tgz(t, releaseName, strings.Repeat("the library", 1000))
	for _, tt := range []struct {
		name           string
		tarball, comes []byte
		want           string
		kept           bool // a part to go on with is left
	}{
		{"another tarball", good, make([]byte, len(good)), "SHA-256", false},
		{"breaks off", good, good[:60], "stopped after 60 bytes", true},
		{"no library", tgz(t, "onnxruntime/package.json", "{}"), nil, "holds no library", false},
		{"no tarball", []byte("no gzip, whatever this is"), nil, "gzip", false},
		{"library cut short", good[:60], nil, "unexpected EOF", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, b := t.TempDir(), testBuild(tt.tarball)
			url := site(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.comes == nil {
					tt.comes = tt.tarball
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(tt.tarball)))
				w.Header().Set("Content-Type", "application/gzip")
				w.Write(tt.comes)
			})
			if err := b.fetch(t.Context(), url, filepath.Join(dir, libraryName), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v\nlacks %q", err, tt.want)
			}
			if want := map[bool]string{true: b.release + ".part " + b.release + ".part.from"}[tt.kept]; left(t, dir) != want {
				t.Errorf("left %q, want %q", left(t, dir), want)
			}
		})
	}
}

// Two at once do not write into one file, also where the folder is a link; links in it are not followed.
func TestFetchTwice(t *testing.T) {
	dir, kept := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "kept")
	tarball := tgz(t, releaseName, "the vendor's library")
	b := testBuild(tarball)
	err := errors.Join(os.WriteFile(kept, []byte("keep"), 0o600), os.Symlink(t.TempDir(), dir))
	for _, name := range []string{libraryName, libraryName + ".sha256", b.release + ".part", b.release + ".part.from"} {
		err = errors.Join(err, os.Symlink(kept, filepath.Join(dir, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	path, nobody := filepath.Join(dir, libraryName), site(t, nil)
	url := site(t, func(w http.ResponseWriter, _ *http.Request) {
		if err := b.fetch(t.Context(), nobody, path, nil); err == nil || !strings.Contains(err.Error(), "another process is downloading it") {
			t.Error("meanwhile: ", err)
		}
		w.Write(tarball)
	})
	if err := b.fetch(t.Context(), url, path, nil); err != nil {
		t.Error(err)
	}
	if want := libraryName + " " + libraryName + ".sha256"; left(t, dir) != want {
		t.Errorf("left %q, want %q", left(t, dir), want)
	}
	if data, _ := os.ReadFile(kept); string(data) != "keep" {
		t.Errorf("written to where a link leads: %q", data)
	}
}

func TestFetchArch(t *testing.T) {
	if _, err := Fetch(t.Context(), t.TempDir(), "riscv64", nil); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Error(err)
	}
}
