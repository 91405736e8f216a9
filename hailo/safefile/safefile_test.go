package safefile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPipesAreRefused has every function that reads a file by its name read a pipe nobody writes to,
// and a device without end. Each would hang.
func TestPipesAreRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", dir} {
		_, opened := OpenRegular(path)
		_, read := ReadFile(path, 10)
		_, hashed := SHA256(t.Context(), path)
		for _, err := range []error{opened, read, hashed} {
			if !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestNoLinkIsFollowed works in a folder where another user has put links in place of all that is written.
func TestNoLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	kept, link, dangling := filepath.Join(dir, "kept"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	write(t, kept, "keep")
	if err := errors.Join(os.Symlink(kept, link), os.Symlink(filepath.Join(dir, "made"), dangling)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dangling} {
		if f, err := OpenOwn(path, os.O_WRONLY|os.O_APPEND); !errors.Is(err, ErrForeign) {
			t.Error(f, err)
		}
		if unlock, err := Lock(path); err == nil {
			unlock()
			t.Errorf("%s is taken as the lock", path)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "made")); err == nil {
		t.Error("a file was made where a link leads")
	}
	if err := Replace(link, strings.NewReader("x")); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{kept: "keep", link: "x"} {
		if got, err := ReadFile(path, 10); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if err := os.Link(kept, filepath.Join(dir, "second")); err != nil {
		t.Fatal(err)
	}
	if f, err := OpenOwn(kept, os.O_WRONLY); !errors.Is(err, ErrForeign) {
		t.Error("a file with a second name: ", f, err)
	}
}

func TestMakeFolder(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "a", "b"), link} {
		if err := MakeFolder(path); err != nil {
			t.Error(err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a link of another user")
	}
	if err := os.Lchown(link, 54321, -1); err != nil {
		t.Fatal(err)
	}
	if err := MakeFolder(link); !errors.Is(err, ErrForeign) {
		t.Errorf("a link of another user: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "lock"), dir} {
		unlock, err := Lock(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("%s, a second time: %v", path, err)
		}
		unlock()
		if unlock, err = Lock(path); err != nil {
			t.Errorf("%s, given up: %v", path, err)
		} else {
			unlock()
		}
	}
}

func TestReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "text")
	if _, err := ReadFile(path, 3); err == nil {
		t.Error("a file over the limit is read")
	}
	if got, err := SHA256(t.Context(), path); err != nil || got != "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1" {
		t.Error(got, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("a signal")
	cancel(cause)
	if _, err := SHA256(ctx, path); !errors.Is(err, cause) {
		t.Error("cancelled: ", err)
	}
}
