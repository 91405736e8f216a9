package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestModelFiles shares the files of a model, fetches some of them elsewhere, and refuses those that are not what they should be.
func TestModelFiles(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	c, other := dial(t, Config{URL: b.URL(), Node: "a"}), dial(t, Config{URL: b.URL(), Node: "b"})
	dir, none := t.TempDir(), func(string, int64, int64) {}
	var files []ModelFile
	for name, text := range map[string][]byte{"image.hef": bytes.Repeat([]byte("hef"), 100_000), "merges.txt": []byte("a b")} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		files = append(files, ModelFile{Name: name, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:]), Path: path})
	}
	if _, err := other.FetchModel(t.Context(), "m", t.TempDir(), func(string) bool { return true }, none); !errors.Is(err, ErrNoModel) {
		t.Errorf("before it is shared: %v", err)
	}
	for range 2 { // the second time nothing is sent
		if err := c.ShareModel(t.Context(), "m", files, none); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.ShareModel(t.Context(), "m", files[:1], none); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	got, err := other.FetchModel(t.Context(), "m", to, func(name string) bool { return name == "image.hef" }, none)
	if err != nil || len(got) != 1 || got[0].Name != "image.hef" {
		t.Fatalf("%+v, %v", got, err)
	}
	want, _ := os.ReadFile(filepath.Join(dir, "image.hef"))
	if text, err := os.ReadFile(got[0].Path); err != nil || !bytes.Equal(text, want) {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if got, err := other.FetchModel(t.Context(), "m", t.TempDir(), func(string) bool { return true }, none); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}

	changed := files[0]
	changed.SHA256 = strings.Repeat("0", 64)
	if err := c.ShareModel(t.Context(), "m", []ModelFile{changed}, none); err == nil {
		t.Error("a file was shared under a digest that it has not")
	}
	objects, err := c.js.ObjectStore(t.Context(), ModelStore)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := objects.PutString(t.Context(), f.SHA256, "something else"); err != nil {
			t.Fatal(err)
		}
	}
	to = t.TempDir()
	if got, err := other.FetchModel(t.Context(), "m", to, func(string) bool { return true }, none); err == nil || errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("%+v, %v", got, err)
	}
	if left, err := os.ReadDir(to); err != nil || len(left) != 0 {
		t.Errorf("%v is left: %v", left, err)
	}
	for _, list := range []string{"no JSON", `[{"name": "../x", "bytes": 1, "sha256": "` + strings.Repeat("0", 64) + `"}]`, strings.Repeat(" ", maxModelList+1)} {
		if _, err := objects.PutString(t.Context(), modelList+"m", list); err != nil {
			t.Fatal(err)
		}
		if _, err := other.FetchModel(t.Context(), "m", t.TempDir(), func(string) bool { return true }, none); err == nil {
			t.Errorf("%.40q was taken for a list", list)
		}
	}
}
