package main

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"
)

// TestImageBeyondMemory sends an image that is larger than memory_max leaves room for, and one that is not.
func TestImageBeyondMemory(t *testing.T) {
	t.Setenv("HAILO_CLIP_RESOURCE_LIMITS_MEMORY_MAX", "256M")
	r := serve(t, t.TempDir())
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, 7000, 7000), []color.Color{color.Black, color.White})); err != nil {
		t.Fatal(err)
	}
	a := r.ask(t, "/v1/embed/image", map[string]any{"image": base64.StdEncoding.EncodeToString(b.Bytes())})
	if said, _ := a.body["error"].(string); a.status != 413 || a.body["code"] != "image_too_large" || !strings.Contains(said, "resource_limits.memory_max") {
		t.Errorf("%d %s", a.status, a.raw)
	}
	r.classifies(t)
}
