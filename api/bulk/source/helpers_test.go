package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"hailoclip/api/bulk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes files with what each has, and the folders that they are in.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, address string, o Options) bulk.Source {
	t.Helper()
	s, err := Open(address, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines returns "path: content" of each item, or "path! error".
func lines(t *testing.T, s bulk.Source) (all []string) {
	t.Helper()
	err := s.Each(t.Context(), func(item bulk.Item) error {
		all = append(all, line(t.Context(), item))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func line(ctx context.Context, item bulk.Item) string {
	b, err := item.Open(ctx)
	if err != nil {
		return fmt.Sprintf("%s! %v", item.Path, err)
	}
	if item.Size >= 0 && item.Size != int64(len(b)) {
		return fmt.Sprintf("%s: %d bytes, not %d", item.Path, len(b), item.Size)
	}
	return fmt.Sprintf("%s: %s", item.Path, b)
}
