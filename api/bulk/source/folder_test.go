package source

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hailoclip/api/bulk"
)

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"img10.jpg": "10", "img2.JPG": "2", "img3/b.png": "b", "img3/a.webp": "a", ".hidden.jpg": "", ".git/x.jpg": "", "a.txt": "",
		"b.HEIC": "", "not\xff.jpg": "bad", "big.jpg": strings.Repeat("x", 101), "edge.jpg": strings.Repeat("y", 100),
	})
	for link, to := range map[string]string{"link.jpg": "img10.jpg", "loop": ".", "img3/up": "..", "dangling.jpg": "none", "etc": "/etc"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.jpg"), 0o600); err != nil {
		t.Fatal(err)
	}
	skipped := map[string]int{}
	t.Chdir(filepath.Dir(dir))
	base := filepath.Base(dir)
	s := open(t, base+"/./", Options{MaxImageBytes: 100, Skipped: func(kind string) { skipped[kind]++ }})
	want := []string{
		base + "/big.jpg! it has 101 bytes, more than 100", base + "/edge.jpg: " + strings.Repeat("y", 100), base + "/img2.JPG: 2",
		base + "/img3/a.webp: a", base + "/img3/b.png: b", base + "/img10.jpg: 10", base + "/not\uFFFDff.jpg: bad",
	}
	for range 2 {
		if diff := cmp.Diff(want, lines(t, s)); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(map[string]int{".txt": 2, ".heic": 2, "links": 10, "pipes, sockets and devices": 2}, skipped); diff != "" {
		t.Error(diff)
	}
	if want := base + " in " + filepath.Dir(dir); s.Name() != want {
		t.Errorf("%q, want %q", s.Name(), want)
	}
	if s := open(t, dir, Options{}); s.Name() != dir {
		t.Errorf("%q", s.Name())
	}
}

// TestFolderInParts has a folder read again and again, because few names are held at once.
func TestFolderInParts(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for n := range 300 {
		name := fmt.Sprintf("%d.jpg", n)
		write(t, dir, map[string]string{name: name})
		want = append(want, filepath.Join(dir, name)+": "+name)
	}
	write(t, dir, map[string]string{"100/in.jpg": "in"})
	want = slices.Insert(want, 100, filepath.Join(dir, "100/in.jpg")+": in")
	for _, held := range []int{1, 2, 7, 150, 151, 300, 301, 1000} {
		s := open(t, dir, Options{}).(*folder)
		s.held = held
		if diff := cmp.Diff(want, lines(t, s)); diff != "" {
			t.Errorf("%d names held: %s", held, diff)
		}
	}
}

func TestUnreadableFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/1.jpg": "1", "b/2.jpg": "2", "c/3.jpg": "3", "d.jpg": "d"})
	s := open(t, dir, Options{})
	var told []string
	err := s.Each(t.Context(), func(item bulk.Item) error {
		if strings.HasSuffix(item.Path, "1.jpg") { // in the meantime
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, "b")), os.Symlink("/etc", filepath.Join(dir, "b")),
				os.RemoveAll(filepath.Join(dir, "c")), os.Remove(filepath.Join(dir, "d.jpg"))); err != nil {
				t.Fatal(err)
			}
		}
		_, err := item.Open(t.Context())
		told = append(told, fmt.Sprint(strings.TrimPrefix(item.Path, dir+"/"), " ", err != nil, " ", item.Size))
		return nil
	})
	if diff := cmp.Diff([]string{"a/1.jpg false 1", "b true -1", "c true -1", "d.jpg true -1"}, told); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if all := lines(t, s); len(all) != 1 || !strings.HasPrefix(all[0], dir+"!") {
		t.Errorf("a folder that is gone: %q", all)
	}
}

// TestOpenIsKeptWithin puts a link in the way between finding a file and opening it.
func TestOpenIsKeptWithin(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"x.jpg": "secret"})
	write(t, dir, map[string]string{"sub/x.jpg": "mine", "y.jpg": "mine", "z.jpg": "mine"})
	var items []bulk.Item
	if err := open(t, dir, Options{}).Each(t.Context(), func(item bulk.Item) error { items = append(items, item); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "sub")), os.Symlink(outside, filepath.Join(dir, "sub")),
		os.Remove(filepath.Join(dir, "y.jpg")), os.Symlink(outside+"/x.jpg", filepath.Join(dir, "y.jpg")),
		os.Remove(filepath.Join(dir, "z.jpg")), syscall.Mkfifo(filepath.Join(dir, "z.jpg"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if b, err := item.Open(t.Context()); err == nil {
			t.Errorf("%s: %q", item.Path, b)
		}
	}
}

func TestDeepFolders(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{strings.Repeat("d/", maxFolders+1) + "deep.jpg": "", strings.Repeat("d/", maxFolders) + "last.jpg": "last"})
	all := lines(t, open(t, dir, Options{}))
	if len(all) != 2 || !strings.HasSuffix(all[0], "! it is more than 128 folders deep") || !strings.HasSuffix(all[1], "/last.jpg: last") {
		t.Errorf("%q", all)
	}
}

func TestEachEnds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/1.jpg": "", "a/2.jpg": "", "b.jpg": "", "list.txt": "b.jpg\nb.jpg\n"})
	for _, address := range []string{dir, filepath.Join(dir, "list.txt")} {
		s := open(t, address, Options{})
		n, enough := 0, errors.New("enough")
		if err := s.Each(t.Context(), func(bulk.Item) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		n = 0
		if err := s.Each(ctx, func(bulk.Item) error { n++; cancel(); return nil }); !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.zip": ""})
	for address, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", filepath.Join(dir, "a.zip"): "is no source", "/dev/null": "neither a file nor a folder",
		"-": "no standard input", "ftp://host/": "ftp", "http:///": "host",
	} {
		if _, err := Open(address, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
	write(t, dir, map[string]string{"one.jpg": "1"})
	if diff := cmp.Diff([]string{dir + "/one.jpg: 1"}, lines(t, open(t, dir+"/one.jpg", Options{}))); diff != "" {
		t.Error(diff)
	}
}

func TestLabel(t *testing.T) {
	for name, want := range map[string]string{
		"a/ü.jpg": "a/ü.jpg", "a\xff": "a\uFFFDff", "\uFFFDff": "\uFFFD\uFFFDff", "\xed\xa0\x80": "\uFFFDed\uFFFDa0\uFFFD80", "": "",
	} {
		if got := label(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	seen := map[string]string{}
	alphabet := []string{"\xff", "\uFFFD", "f", "ff", "\xef", "\xbf", "\xbd"}
	for range 20_000 {
		name := ""
		for range rand.IntN(5) {
			name += alphabet[rand.IntN(len(alphabet))]
		}
		if other, ok := seen[label(name)]; ok && other != name {
			t.Fatalf("%q and %q are both %q", name, other, label(name))
		}
		seen[label(name)] = name
	}
}

// BenchmarkFolder looks at each of b.N files in one folder; -benchtime 1000000x is a million of them. It tells how much memory that
// takes.
func BenchmarkFolder(b *testing.B) {
	dir := b.TempDir()
	for n := range b.N {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("image-%d.jpg", n)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	highest := before.HeapAlloc
	b.ResetTimer()
	n := 0
	if err := s.Each(b.Context(), func(bulk.Item) error {
		if n++; n%10_000 == 0 {
			runtime.ReadMemStats(&now)
			highest = max(highest, now.HeapAlloc)
		}
		return nil
	}); err != nil || n != b.N {
		b.Error(n, err)
	}
	b.ReportMetric(float64(highest-before.HeapAlloc)/1e6, "MB")
}
