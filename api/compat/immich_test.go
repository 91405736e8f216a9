package compat

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unsafe"
)

// FuzzImmich: whatever a form has, its images and texts are those that it names, or there is a Fault, and only another model's tasks
// are forwarded.
func FuzzImmich(f *testing.F) {
	f.Add([]byte(`{"clip":{"visual":{"modelName":"ViT-B-32::openai"}}}`), []byte("image"), []byte(nil), false)
	f.Add([]byte(`{"clip":{"textual":{"modelName":"x/ViT-B-32__openai","options":{"language":"de"}}}}`), []byte(nil), []byte("ein Hund"), true)
	f.Add([]byte(`{"facial-recognition":{"detection":{"modelName":"buffalo_l"},"recognition":{"modelName":"buffalo_l"}}}`), []byte("x"), []byte("\xff"), true)
	f.Add([]byte(`{"clip":{"visual":null,"textual":{}}}`), []byte{}, []byte(" "), false)
	f.Fuzz(func(t *testing.T, entries, image, text []byte, upstream bool) {
		a := &Ask{Service: &Service{Model: "clip", Aliases: []string{"ViT-B-32__openai", "openai/clip"}, Upstream: upstream}}
		for name, data := range map[string][]byte{"entries": entries, "image": image, "text": text, "assetId": entries} {
			if err := immichPart(a, name, data); err != nil {
				t.Fatal(err)
			}
		}
		err := immichTask(a)
		if fault := (*Fault)(nil); err != nil {
			body := failImmich(nil, &Failure{Status: 400, Text: err.Error()})
			if !errors.As(err, &fault) || len(a.Items) > 0 || a.Forward || !json.Valid(body) || len(body) > 1000 {
				t.Fatalf("%v, %d items, forwarded %v: %s", err, len(a.Items), a.Forward, body)
			}
			return
		}
		if a.Forward != (len(a.Items) == 0) || a.Forward && !upstream || len(a.Items) > 1 {
			t.Fatalf("%d items, forwarded %v", len(a.Items), a.Forward)
		}
		for _, item := range a.Items {
			if item.IsText() != (item.Text != "") || item.IsText() && item.Text != string(text) ||
				!item.IsText() && (!bytes.Equal(item.File, image) || unsafe.SliceData(item.File) != unsafe.SliceData(image) && len(image) > 0) {
				t.Fatalf("%+v of the image %q and the text %q", item, image, text)
			}
		}
	})
}
