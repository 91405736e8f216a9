package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"os"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func TestModel(t *testing.T) {
	m := assert.Value(Model())
	assert.True(t, m.HasCPU() && !m.HasNPU() && m.Embedded() && m.Name == "demo" && m.EmbeddingDimension == 512, "%+v", m.Manifest)
	for name, f := range m.Files {
		data := assert.Value(m.ReadFile(name))
		assert.Equal(t, int64(len(data)), f.Bytes, "bytes of %s", name)
		assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256(data)), f.SHA256, "SHA-256 of %s", name)
	}
	tok := assert.Value(m.LoadTokenizer())
	assert.True(t, tok.Size() == 4096, "vocabulary of %d", tok.Size())
}

func TestSamples(t *testing.T) {
	list := assert.Value(Samples())
	var golden struct{ Images map[string][]float32 }
	data := assert.Value(os.ReadFile("golden.json"))
	assert.Must(t, json.Unmarshal(data, &golden))
	assert.True(t, len(list) == len(golden.Images) && len(list) > 0, "%d samples, %d golden vectors", len(list), len(golden.Images))
	for _, s := range list {
		assert.NoError(t, assert.Err(jpeg.DecodeConfig(bytes.NewReader(s.JPEG))), "%s", s.File)
		assert.True(t, s.Label != "" && golden.Images[s.File] != nil, "%s, %q", s.File, s.Label)
	}
}
