package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"hailoclip/api/bulk"
)

// tarOf writes headers, each with a content, as a tar file. A size that is not the content's is taken as it is.
func tarOf(t testing.TB, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		h, content := entries[i], entries[i+1].(string)
		header, ok := h.(*tar.Header)
		if !ok {
			header = &tar.Header{Name: h.(string), Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1700000000, 0)}
		}
		if header.Typeflag == tar.TypeReg && header.Size == 0 {
			header.Size = int64(len(content))
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	w.Close() // fails where a content is short
	return b.Bytes()
}

func gzipOf(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	w.Close()
	return out.Bytes()
}

func zstdOf(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

// packed are the ways to have an archive.
var packed = map[string]func([]byte) []byte{
	"a.tar": bytes.Clone, "a.tar.gz": gzipOf, "A.TGZ": gzipOf, "a.tar.zst": zstdOf, "a.tzst": zstdOf,
}

func TestTar(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name.jpg" // PAX, or GNU's own way
	b := tarOf(t,
		"./a.jpg", "a", "sub/b.PNG", "b", "../../etc/c.jpg", "c", "/abs/d.jpg", "d", ".hidden.jpg", "", "._a.jpg", "", ".git/x.jpg", "", "a.txt", "text",
		&tar.Header{Name: "dir.jpg/", Typeflag: tar.TypeDir, Mode: 0o755}, "",
		&tar.Header{Name: "link.jpg", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}, "",
		&tar.Header{Name: "hard.jpg", Linkname: "a.jpg", Typeflag: tar.TypeLink}, "",
		&tar.Header{Name: "pipe.jpg", Typeflag: tar.TypeFifo}, "", &tar.Header{Name: "dev.jpg", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}, "",
		&tar.Header{Name: long, Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(1700000000, 123)}, "l",
		&tar.Header{Name: long, Typeflag: tar.TypeReg, Format: tar.FormatGNU}, "g",
		&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, "",
		"not\xff.jpg", "n", "big.jpg", strings.Repeat("x", 1001), "empty.jpg", "", "a.jpg", "again")
	for name, pack := range packed {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		write(t, dir, map[string]string{name: string(pack(b))})
		skipped := map[string]int{}
		s := open(t, path, Options{MaxImageBytes: 1000, Skipped: func(kind string) { skipped[kind]++ }})
		want := []string{
			"a.jpg: a", "sub/b.PNG: b", "etc/c.jpg: c", "abs/d.jpg: d", long + ": l", long + ": g", "not\uFFFDff.jpg: n",
			"big.jpg! it has 1001 bytes, more than 1000", "empty.jpg: ", "a.jpg: again",
		}
		for range 2 {
			got := lines(t, s)
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], path+"!/")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if diff := cmp.Diff(map[string]int{".txt": 2, "links": 4, "pipes, sockets and devices": 4}, skipped); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		items, err := all(t, s)
		if err != nil || items[0].Modified.Unix() != 1700000000 || items[0].Size != 1 {
			t.Errorf("%s: %v %v", name, err, items[0])
		}
	}
}

// all returns the items of a source.
func all(t testing.TB, s bulk.Source) (items []bulk.Item, err error) {
	err = s.Each(t.Context(), func(item bulk.Item) error { items = append(items, item); return nil })
	return items, err
}

func TestTarIsOpenedLater(t *testing.T) {
	dir := t.TempDir()
	b := tarOf(t, "a.jpg", "aaa", "b.jpg", strings.Repeat("b", 2000))
	write(t, dir, map[string]string{"a.tar": string(b), "a.tar.gz": string(gzipOf(b))})
	items, err := all(t, open(t, dir+"/a.tar", Options{}))
	if err != nil || len(items) != 2 || items[0].Once {
		t.Fatal(err, items)
	}
	for _, item := range []bulk.Item{items[1], items[0], items[1]} {
		if got := line(t.Context(), item); len(got) != len(item.Path)+2+int(item.Size) {
			t.Error(got)
		}
	}
	write(t, dir, map[string]string{"a.tar": string(b) + " "})
	if got := line(t.Context(), items[0]); got != dir+"/a.tar!/a.jpg! the archive has changed" {
		t.Error(got)
	}
	items, err = all(t, open(t, dir+"/a.tar.gz", Options{}))
	if err != nil || len(items) != 2 || !items[0].Once {
		t.Fatal(err, items)
	}
	for _, item := range items {
		if got := line(t.Context(), item); got != item.Path+"! the archive has been unpacked further" {
			t.Error(got)
		}
	}
	n := 0
	if err := open(t, dir+"/a.tar.gz", Options{}).Each(t.Context(), func(item bulk.Item) error {
		for range 3 { // the content is at hand until found returns
			if got := line(t.Context(), item); len(got) != len(item.Path)+2+int(item.Size) {
				t.Error(got)
			}
		}
		n++
		return nil
	}); err != nil || n != 2 {
		t.Error(err, n)
	}
}

// TestDamagedTar has archives that end too soon, have other bytes in their middle, or are none: what was found before counts, and
// that something is wrong is told.
func TestDamagedTar(t *testing.T) {
	noise := make([]byte, 5000)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise)
	b := tarOf(t, "a.jpg", "a", "b.jpg", string(noise), "c.jpg", "c")
	for name, pack := range packed {
		damaged := map[string][]byte{"empty": nil, "none": []byte(strings.Repeat("no archive ", 100)), "other": pack(noise)}
		whole := pack(b)
		damaged["cut"] = whole[:len(whole)*6/10]
		middle := bytes.Clone(whole)
		copy(middle[len(middle)*7/10:], noise[:1500])
		damaged["middle"] = middle
		for what, content := range damaged {
			dir := t.TempDir()
			write(t, dir, map[string]string{name: string(content)})
			got := lines(t, open(t, filepath.Join(dir, name), Options{}))
			if len(got) == 0 || !strings.Contains(got[len(got)-1], "! ") {
				t.Errorf("%s, %s: %.300q", name, what, got)
			}
			if (what == "cut" || what == "middle") && (len(got) < 2 || got[0] != filepath.Join(dir, name)+"!/a.jpg: a") && !strings.Contains(name, "zst") {
				t.Errorf("%s, %s: %.300q", name, what, got)
			}
		}
	}
}

func TestSparseTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.jpg": "a", "holes.jpg": "h"})
	if err := os.Truncate(filepath.Join(dir, "holes.jpg"), 20<<20); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"} {
		path := filepath.Join(t.TempDir(), "a.tar")
		args := append([]string{"-C", dir, "-cSf", path, "--format"}, strings.Fields(format)...)
		if out, err := exec.Command("tar", append(args, "holes.jpg", "a.jpg")...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v %s", format, err, out)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > 1<<20 {
			t.Skip("the file system or tar has no holes") // nothing to see
		}
		if diff := cmp.Diff([]string{path + "!/holes.jpg! sparse files are not read", path + "!/a.jpg: a"}, lines(t, open(t, path, Options{}))); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
}

// endless is an archive without end, made as it is written: entries, zeros in one, or headers of PAX.
func endless(t *testing.T, path string, bytes int, block []byte) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var w io.WriteCloser = gzip.NewWriter(f)
	if strings.HasSuffix(path, "zst") {
		w, _ = zstd.NewWriter(f)
	}
	block = slices.Repeat(block, max(1, 64<<10/len(block)))
	for n := 0; n < bytes; n += len(block) {
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
}

func TestTarBombs(t *testing.T) {
	dir := t.TempDir()
	one := tarOf(t, "a.jpg", "")[:512]
	pax := tarOf(t, &tar.Header{Name: "x", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"X.y": strings.Repeat("z", 100<<10)}}, "")
	pax = pax[:len(pax)-1024-512]
	huge := tarOf(t, &tar.Header{Name: "huge.jpg", Typeflag: tar.TypeReg, Size: 4 << 30}, "")[:512]
	for name, content := range map[string][]byte{"entries": one, "pax": pax, "zeros": append(huge, make([]byte, 16<<20)...)} {
		for _, suffix := range []string{".tar.gz", ".tar.zst"} {
			path := filepath.Join(dir, name+suffix)
			endless(t, path, 16<<20, content)
			items, err := all(t, open(t, path, Options{}))
			last := items[len(items)-1]
			if got := line(t.Context(), last); err != nil || got != path+"! the archive is read no further: unpacked it has more than 100 times the bytes" {
				t.Errorf("%s%s: %v, %s", name, suffix, err, got)
			}
			if max := 4 << 20 / len(one); len(items) > max {
				t.Errorf("%s%s: %d entries are found before", name, suffix, len(items))
			}
		}
	}
}

func TestTarLimits(t *testing.T) {
	noise := make([]byte, 300<<10)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise)
	b := tarOf(t, "a.jpg", string(noise), "b.txt", string(noise), "c.jpg", "c")
	const entries, total = "! the archive is read no further: it has more than 2 entries", "! the archive is read no further: unpacked it has more than 400000 bytes"
	for name, pack := range packed {
		path := filepath.Join(t.TempDir(), name)
		write(t, filepath.Dir(path), map[string]string{name: string(pack(b))})
		got := lines(t, open(t, path, Options{MaxEntries: 2}))
		if len(got) != 2 || got[1] != path+entries {
			t.Errorf("%s: %.300q", name, got)
		}
		got = lines(t, open(t, path, Options{MaxTotalBytes: 400_000}))
		if compressed := name != "a.tar"; compressed && (len(got) != 2 || got[1] != path+total) || !compressed && len(got) != 2 {
			t.Errorf("%s: %.300q", name, got)
		}
	}
	long := tarOf(t, &tar.Header{Name: strings.Repeat("n", maxName) + ".jpg", Typeflag: tar.TypeReg}, "n")
	path := filepath.Join(t.TempDir(), "a.tar")
	write(t, filepath.Dir(path), map[string]string{"a.tar": string(long)})
	if got := lines(t, open(t, path, Options{})); len(got) != 1 || len(got[0]) > 2*maxName || !strings.HasSuffix(got[0], "! its name has 4101 bytes, more than 4096") {
		t.Errorf("%.300q", got)
	}
}

func TestTarEnds(t *testing.T) {
	b := tarOf(t, "a.jpg", "a", "b.jpg", "b")
	for name, pack := range packed {
		path := filepath.Join(t.TempDir(), name)
		write(t, filepath.Dir(path), map[string]string{name: string(pack(b))})
		s := open(t, path, Options{})
		n, enough := 0, errors.New("enough")
		if err := s.Each(t.Context(), func(bulk.Item) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		n = 0
		if err := s.Each(ctx, func(bulk.Item) error { n++; cancel(); return nil }); !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("%s: %v after %d", name, err, n)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if got := lines(t, s); len(got) != 1 || !strings.HasPrefix(got[0], path+"! ") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func FuzzTar(f *testing.F) {
	b := tarOf(f, "a.jpg", "a", "../b.jpg", "b", &tar.Header{Name: strings.Repeat("x", 300) + ".jpg", Typeflag: tar.TypeReg}, "x")
	for _, pack := range packed {
		f.Add(pack(b))
	}
	f.Add(tarOf(f, &tar.Header{Name: "s.jpg", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"VENDOR.x": "y"}}, "s"))
	dir := f.TempDir()
	const most = 1 << 20
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []string{"a.tar", "a.tar.gz", "a.tar.zst"} {
			path := filepath.Join(dir, fmt.Sprint(os.Getpid(), name))
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			err := open(t, path, Options{MaxImageBytes: 10_000, MaxTotalBytes: most, MaxEntries: 1000}).Each(t.Context(), func(item bulk.Item) error {
				content, err := item.Open(t.Context())
				if err == nil && (int64(len(content)) != item.Size || len(content) > 10_000) || !strings.HasPrefix(item.Path, path) ||
					strings.Contains(item.Path, "/../") || label(item.Path) != item.Path && !strings.Contains(item.Path, "\uFFFD") {
					t.Errorf("%q: %d bytes, not %d", item.Path, len(content), item.Size)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}
