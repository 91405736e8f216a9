package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
