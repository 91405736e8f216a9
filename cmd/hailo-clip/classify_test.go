package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// photos is a folder with images and other things.
func photos(t *testing.T) string {
	t.Helper()
	dir, cat := t.TempDir(), string(must(os.ReadFile(samples+"cat.jpg")))
	put(t, dir, map[string]string{
		"img10.jpg": cat, "img2.jpg": cat, "b/deep/er/x.JPEG": cat, "a/broken.png": "not an image",
		"notes.txt": "", "b/a.heic": "", "b/b.HEIC": "", "README": "", ".hidden.jpg": cat, ".git/y.jpg": cat,
	})
	for name, to := range map[string]string{"again": "b", "link.jpg": "img2.jpg", "round": "."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.jpg"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFindImages(t *testing.T) {
	dir := photos(t)
	link := filepath.Join(t.TempDir(), "named")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var in []string // dir
	for _, name := range []string{"a/broken.png", "b/deep/er/x.JPEG", "img2.jpg", "img10.jpg"} {
		in = append(in, filepath.Join(dir, name))
	}
	missing, other := filepath.Join(dir, "no.jpg"), filepath.Join(dir, "notes.txt")
	found := findImages([]string{missing, dir, "-", other, link + "/b"})
	if want := slices.Concat([]string{missing}, in, []string{"-", other, link + "/b/deep/er/x.JPEG"}); !slices.Equal(found.names, want) {
		t.Errorf("%q\nwant %q", found.names, want)
	}
	if s := found.skipped; s[".txt"] != 1 || s[".heic"] != 4 || s[""] != 1 || s["links"] != 3 || s["pipes, sockets and devices"] != 1 || len(s) != 5 {
		t.Error(s)
	}
	if found.failed != 0 {
		t.Error(found.failed)
	}
	closed := filepath.Join(dir, "b", "deep")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(closed, 0o755) }()
	if _, err := os.ReadDir(closed); err == nil {
		t.Skip("this user may read everything")
	}
	if found := findImages([]string{dir}); found.failed != 1 || len(found.names) != 3 {
		t.Errorf("%+v", found)
	}
}

// TestClassifyFolder: in the process, and by a service.
func TestClassifyFolder(t *testing.T) {
	t.Parallel()
	needONNX(t)
	dir := photos(t)
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu")
	for _, more := range [][]string{nil, {"--url", r.url}, {"--url", r.url, "-j", "1"}} {
		p := hailoClip(t, append([]string{"classify", "--json", dir, "-p", "a photo of a dog", "-p", "a photo of a cat"}, more...)...)
		p.expect(t, exitFailed, "8 files in the folders are not looked at", "2 .heic", "1 .txt", "3 links", "1 without suffix")
		var got []string
		for line := range strings.Lines(p.stdout) {
			var v verdict
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(v.Image, dir+"/")
			if v.Error != "" {
				name += ": not an image"
			} else if len(v.Matches) != 2 || v.Matches[0].Text != "a photo of a cat" {
				t.Errorf("%+v", v)
			}
			got = append(got, name)
		}
		if want := []string{"a/broken.png: not an image", "b/deep/er/x.JPEG", "img2.jpg", "img10.jpg"}; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", more, got, want)
		}
	}
	r.stop(t)
	p := hailoClip(t, "classify", dir, "-p", "a cat", "--url", r.url)
	p.expect(t, exitFailed, "connection refused")
}

// TestClassifyStreams: what is done is printed before the last image is there, and who leaves after it ends the work.
func TestClassifyStreams(t *testing.T) {
	t.Parallel()
	needONNX(t)
	for _, left := range []bool{false, true} {
		c := command(t.TempDir(), "classify", "--json", "-j", "1", samples+"cat.jpg", "-", samples+"dog.jpg", "-p", "a cat")
		in, out := must(c.StdinPipe()), must(c.StdoutPipe())
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || !strings.Contains(lines.Text(), "cat.jpg") {
			t.Fatal("no line for the first image: ", lines.Text(), lines.Err())
		}
		if left {
			out.Close()
		}
		if _, err := in.Write(must(os.ReadFile(samples + "cat.jpg"))); err != nil {
			t.Fatal(err)
		}
		in.Close()
		rest, want := 0, 2
		for lines.Scan() {
			rest++
		}
		code := exitOK
		if left {
			want, code = 0, exitPipe
		}
		_ = c.Wait()
		if got := c.ProcessState.ExitCode(); rest != want || got != code {
			t.Errorf("left: %v: %d more lines, exit code %d, want %d and %d", left, rest, got, want, code)
		}
	}
}
