package safefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

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
