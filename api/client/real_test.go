package client_test

import (
	"bytes"
	"context"
	"errors"
	"image/jpeg"
	"math"
	"sync"
	"testing"

	"hailoclip/api/client"
	"hailoclip/stages/clip"
)

func TestHealthAndStats(t *testing.T) {
	c := service(t)
	if h, err := c.Health(t.Context()); err != nil || h.Service != "hailo-clip" || h.Status != "healthy" || h.Model != "demo" || h.Backend != "cpu" || !h.ModelLoaded {
		t.Errorf("%+v, %v", h, err)
	}
	var s clip.Stats
	if err := c.Stats(t.Context(), &s); err != nil || len(s.Stages) == 0 || s.Process.Goroutines == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// frame is the pixels of a sample, which the service need not decode.
func frame(t *testing.T, label string) client.Image {
	t.Helper()
	m, err := jpeg.Decode(bytes.NewReader(sample(label)))
	if err != nil {
		t.Fatal(err)
	}
	b := m.Bounds()
	i := client.Image{Frame: &client.Frame{Format: "rgb24", Width: b.Dx(), Height: b.Dy()}}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, b, _ := m.At(x, y).RGBA()
			i.Data = append(i.Data, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return i
}

// TestFormsOfAnImage: a file and its pixels are the same image, whichever way they are sent.
func TestFormsOfAnImage(t *testing.T) {
	c := service(t)
	file, err := c.EmbedImage(t.Context(), client.Image{Data: sample("cat")})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.EmbedImage(t.Context(), frame(t, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	if got := cosine(file, raw); got < 0.99 {
		t.Errorf("cosine %v", got)
	}
	none := 0.0
	for _, image := range []client.Image{{Data: sample("cat")}, frame(t, "cat")} {
		q := client.Question{Image: image, Prompts: []string{"a photo of a dog", "a photo of a cat", "a photo of a \"guitar\",\r\n"}, TopK: 1, Threshold: &none}
		if a, err := c.Classify(t.Context(), q); err != nil || len(a.Matches) != 1 || a.Matches[0].Text != "a photo of a cat" || !a.Matched || a.Model != "demo" || a.RequestID == "" {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

func cosine(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// TestManyAtOnce has more clients than the queue has places: those that are refused ask again, so all are answered.
func TestManyAtOnce(t *testing.T) {
	service(t)
	c := must(client.New(address, client.Options{Retries: 1000}))
	defer c.Close()
	want, err := c.EmbedImage(t.Context(), client.Image{Data: sample("cat")})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			got, err := c.EmbedImage(t.Context(), client.Image{Data: sample("cat")})
			if err != nil || math.Abs(cosine(want, got)-1) > 1e-5 {
				t.Errorf("%v, %v", cosine(want, got), err)
			}
		})
	}
	all.Wait()
}

func TestEndOfTheContext(t *testing.T) {
	c := service(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.EmbedText(ctx, "a cat"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
