package onnx

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
		if got, err := ours(path, os.Geteuid()); err != nil || got != file {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	give(t, stranger+1, file, dir)
	assert.ErrorSays(t, assert.Err(ours(link, stranger)), nil, "belongs to another user")
	for path, mode := range map[string]os.FileMode{file: 0o602, dir: 0o703} {
		assert.Must(t, os.Chmod(path, mode))
		if _, err := ours(link, stranger+1); os.Geteuid() == 0 && (err == nil || !strings.Contains(err.Error(), "every user")) {
			t.Errorf("%s of mode %o: %v", path, mode, err)
		}
		assert.Must(t, os.Chmod(path, 0o720))
		assert.NoError(t, assert.Err(ours(link, stranger+1)), "%s, which this process's group can change", path)
		if os.Geteuid() == 0 {
			assert.Must(t, os.Lchown(path, -1, stranger))
			if _, err := ours(link, stranger+1); err == nil || !strings.Contains(err.Error(), "a group of users") {
				t.Errorf("%s of another group: %v", path, err)
			}
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
	for _, tt := range []struct {
		name    string
		content []byte
		fails   bool
	}{{"published", content, false}, {"another", other, true}} {
		dir := t.TempDir()
		file := LibraryFile(dir, runtime.GOARCH)
		assert.Must(t, os.WriteFile(file, tt.content, 0o600))
		give(t, 54321, file)
		for _, named := range []bool{false, true} {
			l, err := load(file, named)
			if tt.fails && (err == nil || !strings.Contains(err.Error(), "belongs to another user (number 54321), and it is not the published")) {
				t.Errorf("%s: %v, %v", tt.name, l, err)
			}
			if !tt.fails && (err != nil || l.Path != file || l.Version != FetchVersion) {
				t.Errorf("%s: %v, %v", tt.name, l, err)
			}
		}
	}
}
