package onnx

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/safefile"
)

// TestOurs has files that another user could change. Who runs the test owns them; the other user is the
// one that looks.
func TestOurs(t *testing.T) {
	const stranger = 54321
	dir := t.TempDir()
	file := filepath.Join(dir, "lib.so")
	assert.Must(t, os.WriteFile(file, nil, 0o600))
	link := filepath.Join(t.TempDir(), "link.so")
	assert.Must(t, os.Symlink(file, link))
	for _, path := range []string{file, link} {
		assert.Equal(t, assert.Value(ours(path, os.Geteuid())), file, "%s", path)
	}
	give(t, stranger+1, file, dir)
	assert.ErrorSays(t, assert.Err(ours(link, stranger)), nil, "belongs to another user")
	for path, mode := range map[string]os.FileMode{file: 0o602, dir: 0o703} {
		assert.Must(t, os.Chmod(path, mode))
		if os.Geteuid() == 0 {
			assert.Says(t, assert.Err(ours(link, stranger+1)), "every user", "%s of mode %o", path, mode)
		}
		assert.Must(t, os.Chmod(path, 0o720))
		assert.NoError(t, assert.Err(ours(link, stranger+1)), "%s, which this process's group can change", path)
		if os.Geteuid() == 0 {
			assert.Must(t, os.Lchown(path, -1, stranger))
			assert.Says(t, assert.Err(ours(link, stranger+1)), "a group of users", "%s of another group", path)
		}
		assert.Must(t, os.Chmod(path, 0o700))
	}
}

// give makes files another user's, where this process may.
func give(t *testing.T, uid int, files ...string) {
	t.Helper()
	for _, f := range files {
		err := os.Lchown(f, uid, -1)
		assert.MustTrue(t, err == nil || os.Geteuid() != 0, "%v", err)
	}
}

// TestLibraryOfAnotherUser: root loads nothing that another user has put there, but the published
// library, of which it makes a copy.
func TestLibraryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	published := native(t)
	content := assert.Value(os.ReadFile(published))
	digest, err := safefile.SHA256(t.Context(), published)
	if err != nil || digest != builds[runtime.GOARCH].library {
		t.Skip("the library here is another build: ", digest, err)
	}
	other := append(content[:len(content):len(content)], 0) // the same with a byte behind it
	for says, content := range map[string][]byte{
		"": content, "belongs to another user (number 54321), and it is not the published": other} {
		file := LibraryFile(t.TempDir(), runtime.GOARCH)
		assert.Must(t, os.WriteFile(file, content, 0o600))
		give(t, 54321, file)
		for _, named := range []bool{false, true} {
			l, err := load(file, named)
			assert.Says(t, err, says)
			assert.True(t, err != nil || l.Path == file && l.Version == FetchVersion, "%+v", l)
		}
	}
}
