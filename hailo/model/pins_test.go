package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnpinned pulls files of which the manifest has no digest: since when they are held to that of the first
// pull is told, also of records that older versions wrote, and a file that has changed is refused.
func TestUnpinned(t *testing.T) {
	h := newHub(t)
	s := hubStore(t, h, File{Bytes: int64(len(contents["t.onnx"])), SHA256: sumOf(contents["t.onnx"])})
	before := time.Now().Add(-time.Minute)
	if err := h.pull(t.Context(), s, CPUPart); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		files, err := s.Verify(t.Context(), Preferred)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Path == "" {
				continue
			}
			if unpinned := !f.Recorded.IsZero(); unpinned == (f.Name == "t.onnx") || unpinned && (f.Recorded.Before(before) || f.Recorded.After(time.Now())) {
				t.Errorf("%s: %s is recorded at %v", when, f.Name, f.Recorded)
			}
		}
	}
	check("after the pull")
	dir := filepath.Dir(s.path("x"))
	old, err := readRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, rec := range old {
		rec.Recorded = time.Time{}
		old[name] = rec
	}
	if err := old.write(dir); err != nil {
		t.Fatal(err)
	}
	check("with records of an older version")

	name := s.Known[0].CPU.Image
	if err := os.Remove(s.path(name)); err != nil {
		t.Fatal(err)
	}
	h.files[name] = "\x08" + strings.Repeat("y", len(contents[name])-1)
	if err := h.pull(t.Context(), s, CPUPart); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "recorded at the first pull") {
		t.Errorf("a file that has changed: %v", err)
	}
}

func TestForRevision(t *testing.T) {
	m := Manifest{Name: "m", Files: map[string]File{
		"a.onnx": {URL: "https://huggingface.co/x/y/resolve/main/onnx/a.onnx", Bytes: 5, SHA256: "12", Vendor: "v/a.onnx"},
		"b.hef":  {URL: "https://elsewhere/resolve/main/b.hef", Bytes: 5, SHA256: "12"},
	}}
	got, err := m.ForRevision("1a2b")
	if a := got.Files["a.onnx"]; err != nil || a != (File{URL: "https://huggingface.co/x/y/resolve/1a2b/onnx/a.onnx", Vendor: "v/a.onnx"}) || got.Files["b.hef"] != m.Files["b.hef"] {
		t.Errorf("%+v, %v", got.Files, err)
	}
	if same, err := m.ForRevision("main"); err != nil || same.Files["a.onnx"] != m.Files["a.onnx"] {
		t.Errorf("its own revision: %+v, %v", same.Files, err)
	}
	for _, bad := range []string{"", "..", "a/b", "a?b", "-x", strings.Repeat("a", 200)} {
		if _, err := m.ForRevision(bad); err == nil {
			t.Errorf("%q is a revision", bad)
		}
	}
	delete(m.Files, "a.onnx")
	if _, err := m.ForRevision("main"); err == nil {
		t.Error("files without revisions")
	}
}
