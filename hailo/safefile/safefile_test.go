package safefile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hailoclip/hailo/internal/assert"
)

// TestPipesAreRefused has every function that reads a file by its name read a pipe nobody writes to,
// and a device without end. Each would hang.
func TestPipesAreRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	assert.Must(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{pipe, "/dev/zero", dir} {
		assert.ErrorIs(t, assert.Err(OpenRegular(path)), ErrNotRegular, "open %s", path)
		assert.ErrorIs(t, assert.Err(ReadFile(path, 10)), ErrNotRegular, "read %s", path)
		assert.ErrorIs(t, assert.Err(SHA256(t.Context(), path)), ErrNotRegular, "hash %s", path)
	}
}

// TestNoLinkIsFollowed works in a folder where another user has put links in place of all that is written.
func TestNoLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	kept, link, dangling := filepath.Join(dir, "kept"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	assert.Must(t, os.WriteFile(kept, []byte("keep"), 0o600), os.Symlink(kept, link), os.Symlink(filepath.Join(dir, "made"), dangling))
	for _, path := range []string{link, dangling} {
		assert.ErrorIs(t, assert.Err(OpenOwn(path, os.O_WRONLY|os.O_APPEND)), ErrForeign)
		if unlock, err := Lock(path); err == nil {
			unlock()
			t.Errorf("%s is taken as the lock", path)
		}
	}
	assert.Error(t, assert.Err(os.Lstat(filepath.Join(dir, "made"))), "a file was made where a link leads")
	assert.Must(t, Replace(link, strings.NewReader("x")), os.Link(kept, filepath.Join(dir, "second")))
	for path, want := range map[string]string{kept: "keep", link: "x"} {
		assert.Equal(t, string(assert.Value(ReadFile(path, 10))), want, "%s", path)
	}
	assert.ErrorIs(t, assert.Err(OpenOwn(kept, os.O_WRONLY)), ErrForeign, "a file with a second name")
}

func TestMakeFolder(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	assert.Must(t, os.Symlink(t.TempDir(), link), MakeFolder(filepath.Join(dir, "a", "b")), MakeFolder(link))
	if os.Geteuid() != 0 {
		t.Skip("only root can make a link of another user")
	}
	assert.Must(t, os.Lchown(link, 54321, -1))
	assert.ErrorIs(t, MakeFolder(link), ErrForeign, "a link of another user")
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "lock"), dir} {
		for range 2 {
			unlock := assert.Value(Lock(path))
			assert.ErrorIs(t, assert.Err(Lock(path)), ErrLocked, "%s, a second time", path)
			unlock()
		}
	}
}

func TestReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	assert.Must(t, Replace(path, strings.NewReader("text")))
	assert.Error(t, assert.Err(ReadFile(path, 3)), "a file over the limit is read")
	assert.Equal(t, assert.Value(SHA256(t.Context(), path)), "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.ErrUnsupported)
	assert.ErrorIs(t, assert.Err(SHA256(ctx, path)), errors.ErrUnsupported, "cancelled")
}
