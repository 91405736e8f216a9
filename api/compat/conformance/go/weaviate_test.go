package conformance

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/weaviate/weaviate/modules/multi2vec-clip/clients"
	"github.com/weaviate/weaviate/modules/multi2vec-clip/ent"
)

func TestWeaviate(t *testing.T) {
	s := serve(t)
	silent := logrus.New()
	silent.SetOutput(t.Output())
	client := clients.New(s.url, time.Minute, silent)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := client.WaitForStartup(ctx, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if meta, err := client.MetaInfo(); err != nil || len(meta) == 0 {
		t.Error(meta, err)
	}
	b64 := base64.StdEncoding.EncodeToString
	vectorize := func(texts, images []string) (*ent.VectorizationResult, error) {
		return client.Vectorize(ctx, texts, images, ent.VectorizationConfig{})
	}
	long := strings.Repeat("word ", manyWords)
	for _, c := range []struct {
		texts  []string
		images [][]byte
	}{
		{[]string{"a red circle", "eine Katze 🐈", long, "a red circle"}, nil},
		{nil, [][]byte{cat, png, webp, cat}},
		{[]string{"a red circle"}, [][]byte{dog}},
		{nil, nil},
	} {
		var images []string
		for _, image := range c.images {
			images = append(images, b64(image))
		}
		r, err := vectorize(c.texts, images)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(r.TextVectors) != len(c.texts) || len(r.ImageVectors) != len(images) {
			t.Errorf("%d and %d vectors, want %d and %d", len(r.TextVectors), len(r.ImageVectors), len(c.texts), len(images))
			continue
		}
		for i, text := range c.texts {
			same(t, text, r.TextVectors[i], s.text(t, text))
		}
		for i, image := range c.images {
			same(t, "image", r.ImageVectors[i], s.image(t, image))
		}
	}
	r, err := client.Vectorize(ctx, []string{"x"}, nil, ent.VectorizationConfig{InferenceURL: s.url}) // of a class of its own
	if err != nil || len(r.TextVectors) != 1 {
		t.Error(r, err)
	}
	for _, bad := range []string{"no base64!", b64([]byte("no image")), b64(cat[:200])} {
		_, err := vectorize([]string{"x"}, []string{bad})
		says(t, err, "fail with status 4", "images")
	}
}
