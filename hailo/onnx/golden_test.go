package onnx_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/onnx"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// The whole way of a picture, from the file to the vector, against the training framework's own.
func TestGoldenImages(t *testing.T) {
	library := onnx.Native(t)
	var manifest model.Manifest
	readJSON(t, "../demo/manifest.json", &manifest)
	manifest.Tokenizer, manifest.CPU = "tokenizer.json", &model.CPUFiles{Image: "vision_model.onnx", Text: "text_model.onnx"}
	var golden struct {
		Images map[string][]float32 `json:"images"`
	}
	readJSON(t, "../demo/golden.json", &golden)
	model, err := model.Embedded(manifest, os.DirFS("../demo"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := onnx.Open(t.Context(), onnx.Config{Library: library}, model, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d := decode.NewDecoder(decode.Config{MaxPixels: 1 << 22, JPEGScale: "exact"}, manifest.ImageSize)
	square := resize.New(resize.Config{Fit: "crop"}, manifest.ImageSize)
	frame, err := b.Frames().Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer frame.Release()

	if len(golden.Images) == 0 {
		t.Fatal("no golden images")
	}
	for name, want := range golden.Images {
		data, err := os.ReadFile(filepath.Join("../demo/samples", name))
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.DecodeBytes(data)
		if err != nil {
			t.Fatal(name, ": ", err)
		}
		err = square.Resize(frame.Pixels, p.Pix, p.Width, p.Height)
		p.Release()
		if err != nil {
			t.Fatal(name, ": ", err)
		}
		if err := b.EncodeImages(t.Context(), []*hailo.Frame{frame}); err != nil {
			t.Fatal(name, ": ", err)
		}
		var cosine, length float64 // golden vectors are of unit length
		for i, x := range frame.Embedding {
			cosine += float64(x) * float64(want[i])
			length += float64(want[i]) * float64(want[i])
		}
		// Without libjpeg-turbo the standard decoder's chroma differs a little from the golden one's.
		if cosine /= math.Sqrt(length); cosine < 0.9999 {
			t.Errorf("%s: cosine %v", name, cosine)
		}
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(path, ": ", err)
	}
}
