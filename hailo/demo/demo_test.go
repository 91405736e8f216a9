package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"image/jpeg"
	"os"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func TestModel(t *testing.T) {
	m := assert.Value(Model())
	if !m.HasCPU() || m.HasNPU() || !m.Embedded() || m.Name != "demo" || m.EmbeddingDimension != 512 {
		t.Errorf("model: %+v", m.Manifest)
	}
	for name, f := range m.Files {
		data := assert.Value(m.ReadFile(name))
		sum := sha256.Sum256(data)
		if int64(len(data)) != f.Bytes || hex.EncodeToString(sum[:]) != f.SHA256 {
			t.Errorf("%s: %d bytes, %x; the manifest says %d, %s", name, len(data), sum, f.Bytes, f.SHA256)
		}
	}
	tok := assert.Value(m.LoadTokenizer())
	assert.True(t, tok.Size() == 4096, "vocabulary of %d", tok.Size())
}

func TestSamples(t *testing.T) {
	list := assert.Value(Samples())
	var golden struct{ Images map[string][]float32 }
	data := assert.Value(os.ReadFile("golden.json"))
	assert.Must(t, json.Unmarshal(data, &golden))
	if len(list) != len(golden.Images) || len(list) == 0 {
		t.Errorf("%d samples, %d golden vectors", len(list), len(golden.Images))
	}
	for _, s := range list {
		if _, err := jpeg.DecodeConfig(bytes.NewReader(s.JPEG)); err != nil || s.Label == "" || golden.Images[s.File] == nil {
			t.Errorf("%s, %q: %v", s.File, s.Label, err)
		}
	}
}
