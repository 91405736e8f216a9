package main

import (
	"os"
	"path/filepath"
	"testing"
)

// put writes files below a folder.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTextEncoderOnTheCPU has images on the simulated chip and prompts on the CPU: the chip
// encodes no text, and their vectors are the demo model's on both.
func TestTextEncoderOnTheCPU(t *testing.T) {
	_, config := newControl(t, "  text_encoder: cpu\nsim:\n  vectors: model\n")
	r := serve(t, t.TempDir(), "--config", config)
	r.classifies(t)
	chip := r.get(t, "/v1/stats").body["npu"].(map[string]any)
	if chip["texts"] != 0.0 || chip["images"] == 0.0 {
		t.Errorf("the chip encoded %v texts and %v images", chip["texts"], chip["images"])
	}
}
