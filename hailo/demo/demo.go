// Package demo is the model that is part of the program: a small CLIP of our own, so that the
// service does its main job on any machine with nothing to download. It knows drawings, not
// photographs. README.md says how it was made.
package demo

import (
	"embed"
	"encoding/json"
	"fmt"
	"sync"

	"hailoclip/hailo/model"
)

//go:embed manifest.json tokenizer.json vision_model.onnx text_model.onnx
var files embed.FS

//go:embed samples/index.json samples/*.jpg
var samples embed.FS

// Model returns the demo model, always the same one. An error means that the program was built
// from wrong files.
var Model = sync.OnceValues(func() (*model.Model, error) {
	data, err := files.ReadFile("manifest.json")
	if err != nil {
		return nil, err
	}
	m, err := model.ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return model.Embedded(m, files)
})

// Sample is an image that the model knows.
type Sample struct {
	File  string // name, such as cat.jpg
	Label string // what it shows, as the model was taught: "cat"
	JPEG  []byte // the caller's own
}

// Samples returns the sample images, in a fixed order.
func Samples() ([]Sample, error) {
	data, err := samples.ReadFile("samples/index.json")
	if err != nil {
		return nil, err
	}
	var list []Sample
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("demo: samples: %w", err)
	}
	for i := range list {
		if list[i].JPEG, err = samples.ReadFile("samples/" + list[i].File); err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
	}
	return list, nil
}
