package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/jpeg"
	"math"
	"slices"
	"strings"
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

// TestPromptSets changes a set in every way there is.
func TestPromptSets(t *testing.T) {
	c, ctx := service(t), t.Context()
	code := func(err error, want string) {
		t.Helper()
		var e *client.Error
		if !errors.As(err, &e) || e.Code != want {
			t.Errorf("error %v, want one with the code %s", err, want)
		}
	}
	d := client.Definition{Labels: []client.Label{{Name: "a cat"}, {Name: "dog \"ä\", %22"}}, Templates: &client.Templates{List: []string{"a photo of {}"}}}
	first, created, err := c.PutPromptSet(ctx, "changing", d, client.Condition{IfNoneMatch: true})
	if err != nil || !created || len(first.Labels) != 2 || first.ETag == "" {
		t.Fatalf("%+v, %v, %v", first, created, err)
	}
	_, _, err = c.PutPromptSet(ctx, "changing", d, client.Condition{IfNoneMatch: true})
	code(err, "precondition_failed")
	_, _, err = c.PutPromptSet(ctx, "changing", d, client.Condition{IfMatch: "other"})
	code(err, "precondition_failed")
	_, _, err = c.PutPromptSet(ctx, "../changing", d, client.Condition{})
	code(err, "invalid_request")
	d.Labels[0].Threshold = &client.Threshold{Enter: 0.01, Exit: 0.01}
	second, created, err := c.PutPromptSet(ctx, "changing", d, client.Condition{IfMatch: first.ETag})
	if err != nil || created || second.ETag == first.ETag {
		t.Errorf("%+v, %v, %v", second, created, err)
	}
	vector, err := c.EmbedImage(ctx, client.Image{Data: sample("dog")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddExample(ctx, "changing", d.Labels[1].Name, sample("dog"), nil, client.Condition{IfMatch: second.ETag}); err != nil {
		t.Error(err)
	}
	if _, err := c.AddExample(ctx, "changing", client.BackgroundLabel, nil, vector, client.Condition{}); err != nil {
		t.Error(err)
	}
	if _, err = c.WaitPromptSet(ctx, "changing", nil); err != nil {
		t.Error(err)
	}
	full, err := c.PromptSet(ctx, "changing", true)
	if err != nil || len(full.Labels[1].Examples) != 1 || len(full.Labels[1].Examples[0].Vector) != 4*len(vector) ||
		len(full.Labels[1].Examples[0].Thumbnail) == 0 || len(full.Background.Examples) != 1 || full.ETag == second.ETag {
		t.Errorf("%v: %.9000s", err, must(json.Marshal(full)))
	}
	a, err := c.Classify(ctx, client.Question{Image: frame(t, "cat"), PromptSet: "changing"})
	if err != nil || a.PromptSet != "changing" || a.ETag != full.ETag || a.Matches[0].Text != "a cat" || a.Matches[0].AboveThreshold == nil || a.ScoreSource != full.ScoreSource {
		t.Errorf("%+v, %v", a, err)
	}
	batch, err := c.ClassifyBatch(ctx, client.BatchQuestion{Images: []client.Image{frame(t, "cat"), {Data: sample("dog")}}, PromptSet: "changing"})
	if err != nil || batch[0].Err != nil || batch[0].ETag != full.ETag || batch[0].Matches[0].Text != "a cat" || batch[1].Model != "demo" {
		t.Errorf("%+v, %v", batch, err)
	}
	e, err := c.Evaluate(ctx, "changing", []client.LabeledImage{{Label: d.Labels[1].Name, Image: sample("dog")}, {Label: "a cat", Image: []byte("broken")}}, client.EvaluateOptions{})
	if err != nil || e.Images != 1 || len(e.Errors) != 1 || e.Errors[0].Label != "a cat" || e.Errors[0].Code != "invalid_image" || len(e.Confusion) != 3 {
		t.Errorf("%+v, %v", e, err)
	}
	list, err := c.PromptSets(ctx)
	if i := slices.IndexFunc(list, func(s client.PromptSetSummary) bool { return s.Name == "changing" }); err != nil || i < 0 || list[i].ETag != full.ETag || list[i].Labels != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	code(c.DeletePromptSet(ctx, "changing", client.Condition{IfMatch: second.ETag}), "precondition_failed")
	if err := c.DeletePromptSet(ctx, "changing", client.Condition{IfMatch: "*"}); err != nil {
		t.Error(err)
	}
	code(c.DeletePromptSet(ctx, "changing", client.Condition{}), "prompt_set_not_found")
	_, err = c.Classify(ctx, client.Question{Image: frame(t, "cat"), PromptSet: "changing"})
	code(err, "prompt_set_not_found")
}

func TestEmbedBatch(t *testing.T) {
	c := service(t)
	image, err := c.EmbedImage(t.Context(), client.Image{Data: sample("cat")})
	if err != nil {
		t.Fatal(err)
	}
	images, texts, err := c.EmbedBatch(t.Context(), []client.Image{{Data: sample("cat")}, {Data: []byte("broken")}, frame(t, "cat")},
		[]string{"a photo of a cat", " ", strings.Repeat("cat ", 100)})
	if err != nil || images[0].Err != nil || images[1].Err == nil || images[2].Err != nil || texts[0].Err != nil || texts[1].Err == nil || !texts[2].Truncated {
		t.Fatalf("%+v, %+v, %v", images, texts, err)
	}
	if cosine(image, images[0].Embedding) < 0.999 || cosine(image, images[2].Embedding) < 0.99 || cosine(image, texts[0].Embedding) < 0.1 {
		t.Error("the vectors are others than alone")
	}
}
