package onnx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	npmName     = "package/bin/napi-v6/linux/x64/libonnxruntime.so.1"
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

// fakeNPM puts a program named npm first in the path, or none at all for "".
func fakeNPM(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		if err := os.WriteFile(filepath.Join(dir, "npm"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

// npmPacks is a script that leaves this tarball where npm would, and checks how it was called.
func npmPacks(t *testing.T, tarball []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tarball")
	if err := os.WriteFile(path, tarball, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[ \"$1 $2\" = 'pack onnxruntime-node@%s' ] || exit 9\n/bin/cp %s onnxruntime-node-%s.tgz\n", FetchVersion, path, FetchVersion)
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

func testBuild(tarball []byte, library string) build {
	b := builds["amd64"]
	b.library = sum([]byte(library))
	b.releaseDigest, b.releaseBytes = sum(tarball), int64(len(tarball))
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

const libraryName = "libonnxruntime-" + FetchVersion + "-linux-amd64.so"

func TestFetchNPM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "lib")
	tarball := tgz(t, "package/package.json", "{}", strings.Replace(npmName, "x64", "arm64", 1), "other", npmName, "the library")
	var last int64
	o := FetchOptions{Dir: dir, Arch: "amd64", ReleaseURL: site(t, nil), Progress: func(done, _ int64) { last = done }}
	b := testBuild(nil, "the library")

	fakeNPM(t, npmPacks(t, tarball))
	path, err := fetch(t.Context(), o, b)
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "the library" || left(t, dir) != libraryName || last != npmBytes {
		t.Errorf("installed %q; folder: %s; progress %d", data, left(t, dir), last)
	}
	fakeNPM(t, "exit 1")
	if again, err := fetch(t.Context(), o, b); again != path || err != nil {
		t.Error("when it is there: ", again, err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	fakeNPM(t, npmPacks(t, tarball))
	if _, err := fetch(t.Context(), o, b); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "the library" {
		t.Errorf("a damaged library was not replaced: %q", data)
	}
}

func TestFetchNPMRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tarball []byte
		want    string
	}{
		{"another library", tgz(t, npmName, "false"), "wrong SHA-256"},
		{"no library", tgz(t, "package/package.json", "{}"), "holds no library"},
		{"not a tarball", []byte("no gzip, whatever this is"), "gzip"},
		{"cut short", tgz(t, npmName, strings.Repeat("the library", 1000))[:60], "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			fakeNPM(t, npmPacks(t, tt.tarball))
			url := site(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusGone) })
			_, err := fetch(t.Context(), FetchOptions{Dir: dir, Arch: "amd64", ReleaseURL: url, Progress: func(int64, int64) {}}, testBuild([]byte("x"), "the library"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
			if strings.Contains(left(t, dir), ".so") || strings.Contains(left(t, dir), ".setup") {
				t.Error("left: ", left(t, dir))
			}
		})
	}
}

func TestNPMError(t *testing.T) {
	for _, tt := range []struct{ name, said, want string }{
		{"another program", "one\ntwo\nthree\nfour\n", "two; three; four"},
		{"nothing", "", ""},
		{"no network", `npm warn old lockfile
npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error errno ENOTFOUND
npm error network request to the registry failed, reason: getaddrinfo ENOTFOUND
npm error network This is a problem related to network connectivity.
npm error
npm error A complete log of this run can be found in: /tmp/x/cache/_logs/y.log
`, "npm error code ENOTFOUND; npm error syscall getaddrinfo; npm error errno ENOTFOUND"},
		{"npm 9", "npm ERR! code E404\nnpm ERR! \nnpm ERR! A complete log of this run can be found in: z\n", "npm ERR! code E404"},
	} {
		if got := npmError(tt.said); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFetchCancelled(t *testing.T) {
	dir := t.TempDir()
	fakeNPM(t, "exec /bin/sleep 1000")
	ctx, cancel := context.WithCancelCause(t.Context())
	o := FetchOptions{Dir: dir, Arch: "amd64", ReleaseURL: site(t, nil), Progress: func(int64, int64) { cancel(errTest) }}
	if _, err := fetch(ctx, o, testBuild(nil, "the library")); !errors.Is(err, errTest) {
		t.Error(err)
	}
	if left(t, dir) != "" {
		t.Error("left: ", left(t, dir))
	}
}

func TestFetchRelease(t *testing.T) {
	tarball := tgz(t, "onnxruntime-linux-x64-"+FetchVersion+"/LICENSE", "MIT", releaseName, strings.Repeat("the vendor's library ", 5000))
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(tarball))
	}
	for _, tt := range []struct {
		name  string
		npm   string
		part  []byte // what an earlier download left
		serve http.HandlerFunc
		want  string // of the error; "": none
		kept  bool   // a part to go on with is left
	}{
		{name: "no npm", serve: serve},
		{name: "npm fails", npm: "echo 'no network' >&2; exit 1", serve: serve},
		{name: "goes on", part: tarball[:100], serve: func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Range"); got != "bytes=100-" {
				t.Errorf("asked for %q", got)
			}
			serve(w, r)
		}},
		{name: "cannot go on", part: tarball[:100], serve: func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			serve(w, r)
		}},
		{name: "was whole", part: tarball, serve: func(http.ResponseWriter, *http.Request) { t.Error("asked for nothing") }},
		{name: "was too long", part: append(tarball, 1), serve: serve},
		{name: "another range", part: tarball[:100], serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, want: "asked for bytes from 100", kept: true},
		{name: "not found", npm: "echo 'no network' >&2; exit 1", serve: http.NotFound, want: "no network\nONNX Runtime from its release page: "},
		{name: "ends early", serve: func(w http.ResponseWriter, _ *http.Request) { w.Write(tarball[:200]) }, want: "ended after 200 of", kept: true},
		{name: "breaks", serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(tarball)))
			w.Write(tarball[:200])
		}, want: "unexpected EOF", kept: true},
		{name: "endless", serve: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<16))
			}
		}, want: "more than"},
		{name: "another file", serve: func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, len(tarball))) }, want: "wrong SHA-256"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			b := testBuild(tarball, "not the vendor's library")
			if tt.part != nil {
				if err := os.WriteFile(filepath.Join(dir, b.release+".part"), tt.part, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fakeNPM(t, tt.npm)
			o := FetchOptions{Dir: dir, Arch: "amd64", ReleaseURL: site(t, tt.serve), Progress: func(done, total int64) {
				if done > total || total != int64(len(tarball)) {
					t.Errorf("progress %d of %d", done, total)
				}
			}}
			_, err := fetch(t.Context(), o, b)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v\nlacks %q", err, tt.want)
				}
				if want := map[bool]string{true: b.release + ".part"}[tt.kept]; left(t, dir) != want {
					t.Errorf("left %q, want %q", left(t, dir), want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := libraryName + " " + libraryName + ".sha256"; left(t, dir) != want {
				t.Errorf("left %q, want %q", left(t, dir), want)
			}
			o.ReleaseURL = site(t, nil)
			if _, err := fetch(t.Context(), o, b); err != nil {
				t.Error("when it is there: ", err)
			}
		})
	}
}

// Two at once do not write into one file.
func TestFetchReleaseTwice(t *testing.T) {
	dir := t.TempDir()
	fakeNPM(t, "")
	tarball := tgz(t, releaseName, "the vendor's library")
	b := testBuild(tarball, "not the vendor's library")
	o := FetchOptions{Dir: dir, Arch: "amd64", Progress: func(int64, int64) {}}
	second := o
	second.ReleaseURL = site(t, nil)
	o.ReleaseURL = site(t, func(w http.ResponseWriter, _ *http.Request) {
		if _, err := fetch(t.Context(), second, b); err == nil || !strings.Contains(err.Error(), "another process is downloading it") {
			t.Error("meanwhile: ", err)
		}
		w.Write(tarball)
	})
	if _, err := fetch(t.Context(), o, b); err != nil {
		t.Error(err)
	}
	if want := libraryName + " " + libraryName + ".sha256"; left(t, dir) != want {
		t.Errorf("left %q, want %q", left(t, dir), want)
	}
}

func TestFetchArch(t *testing.T) {
	if _, err := Fetch(t.Context(), FetchOptions{Dir: t.TempDir(), Arch: "riscv64"}); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Error(err)
	}
}
