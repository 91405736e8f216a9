package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hailoclip/hailo/safefile"
)

// TestPipesAreRefused has every function that reads a file by its name read a pipe nobody writes to,
// and a device without end. Each would hang.
func TestPipesAreRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.json")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	model := &Model{Manifest: Manifest{Name: "m"}, files: map[string]modelFile{}}
	for _, path := range []string{pipe, "/dev/zero", dir} {
		model.files["f"] = modelFile{path: path}
		for name, open := range map[string]func() error{
			"OpenRegular": func() error { _, err := safefile.OpenRegular(path); return err },
			"readLimited": func() error { _, err := readLimited(path, 10); return err },
			"hashFile":    func() error { _, err := hashFile(t.Context(), path); return err },
			"Model.Open":  func() error { _, _, err := model.Open("f"); return err },
			"copyPart": func() error {
				return copyPart(t.Context(), filepath.Dir(path), filepath.Base(path), filepath.Join(dir, "x.part"), File{}, func(int64, int64) {})
			},
		} {
			if err := open(); !errors.Is(err, safefile.ErrNotRegular) {
				t.Errorf("%s of %s: %v", name, path, err)
			}
		}
	}
	store := &Catalog{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(store.Dir, "m"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(store.Dir, "m", manifestFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := store.List(); err != nil || len(list) != 1 || !errors.Is(list[0].Files[0].Err, safefile.ErrNotRegular) {
		t.Error(list, err)
	}
}

// TestNoLinkIsFollowed pulls a model in a folder where another user has put links in place of all that
// a pull writes.
func TestNoLinkIsFollowed(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	put := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(kept, "keep")
	dir := t.TempDir()
	part := filepath.Join(dir, "image.onnx.part")
	for _, link := range []string{part, part + validatorSuffix} {
		if err := os.Symlink(kept, link); err != nil {
			t.Fatal(err)
		}
	}
	if n := size(part); n != 0 {
		t.Errorf("a link counts as a part of %d bytes", n)
	}
	if f, err := safefile.OpenOwn(part, os.O_WRONLY|os.O_APPEND); !errors.Is(err, safefile.ErrForeign) {
		t.Error(f, err)
	}
	if err := safefile.Replace(part+validatorSuffix, []byte("x")); err != nil {
		t.Error(err)
	}
	d := download{part: part, want: File{Bytes: 7}, progress: func(int64, int64) {}}
	if err := d.write(t.Context(), func(error) {}, strings.NewReader("content"), 0, 7); !errors.Is(err, safefile.ErrForeign) {
		t.Error("a download goes to where a link leads:", err)
	}

	store := &Catalog{Dir: dir}
	if err := os.Symlink(filepath.Join(outside, "made"), filepath.Join(dir, ".m.lock")); err != nil {
		t.Fatal(err)
	}
	if unlock, err := store.lock("m"); err == nil {
		unlock()
		t.Error("a link is taken as the lock")
	}
	if _, err := os.Lstat(filepath.Join(outside, "made")); err == nil {
		t.Error("the lock was made where a link leads")
	}
	if got, err := os.ReadFile(kept); err != nil || string(got) != "keep" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestPartOfAnother: a part with a second name, or of another user, is begun anew and not written to.
func TestPartOfAnother(t *testing.T) {
	dir := t.TempDir()
	kept, part := filepath.Join(dir, "kept"), filepath.Join(dir, "x.onnx.part")
	if err := os.WriteFile(kept, []byte("\x08eep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(kept, part); err != nil {
		t.Fatal(err)
	}
	d := download{part: part, want: File{Bytes: 100}}
	if offset, _ := d.resumable(); offset != 0 {
		t.Errorf("it is gone on with at %d", offset)
	}
}
