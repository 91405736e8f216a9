package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

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
