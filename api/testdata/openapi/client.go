// A client made by oapi-codegen, as it is, asks a service: client URL FOLDER, which has cat.jpg.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"generated/clip"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the client in Go works")
}

func run(ctx context.Context, url, folder string) error {
	c, err := clip.NewClientWithResponses(url)
	if err != nil {
		return err
	}
	health, err := c.GetHealthWithResponse(ctx)
	if err != nil || health.JSON200 == nil || health.JSON200.Status != clip.HealthStatusHealthy || health.JSON200.Backend != clip.Cpu {
		return fmt.Errorf("health: %w, %s", err, health.Body)
	}
	ready, err := c.GetReadinessWithResponse(ctx)
	if err != nil || ready.JSON200 == nil || ready.JSON200.Status != clip.ReadinessStatusReady {
		return fmt.Errorf("readiness: %w, %s", err, ready.Body)
	}
	image, err := os.ReadFile(filepath.Join(folder, "cat.jpg"))
	if err != nil {
		return err
	}
	prompts, timings := []string{"a photo of a dog", "a photo of a cat"}, true
	asked := clip.ClassifyParams{Prompts: &prompts, Timings: &timings}
	found, err := c.ClassifyWithBodyWithResponse(ctx, &asked, "image/jpeg", bytes.NewReader(image))
	if err != nil || found.JSON200 == nil || found.JSON200.Classifications[0].Text != prompts[1] || found.JSON200.Timings.Encode == nil {
		return fmt.Errorf("classify: %w, %s", err, found.Body)
	}
	wrong, err := c.ClassifyWithResponse(ctx, nil, clip.ClassifyRequest{Image: new("AAAA")})
	if err != nil || wrong.JSON400 == nil || wrong.JSON400.Code != clip.ErrorCodeInvalidPrompts {
		return fmt.Errorf("classify without prompts: %w, %s", err, wrong.Body)
	}
	text, err := c.EmbedTextWithResponse(ctx, nil, clip.EmbedTextRequest{Text: "a cat"})
	if err != nil || text.JSON200 == nil {
		return fmt.Errorf("embed text: %w, %s", err, text.Body)
	}
	vector, err := text.JSON200.Embedding.AsVector()
	if err != nil || len(vector) != text.JSON200.Dimension {
		return fmt.Errorf("embedding: %w, %d numbers", err, len(vector))
	}
	if err := batch(ctx, c, image); err != nil {
		return err
	}
	if err := promptSets(ctx, c); err != nil {
		return err
	}
	stream, err := c.PutStreamWithResponse(ctx, "client-go", nil, clip.StreamDefinition{Prompts: &prompts})
	if err != nil || stream.JSON201 == nil || stream.JSON201.Id != "client-go" || !slices.Equal(*stream.JSON201.Prompts, prompts) {
		return fmt.Errorf("put stream: %w, %s", err, stream.Body)
	}
	if gone, err := c.DeleteStreamWithResponse(ctx, "client-go", nil); err != nil || gone.StatusCode() != http.StatusNoContent {
		return fmt.Errorf("delete stream: %w, %s", err, gone.Body)
	}
	stats, err := c.GetStatsWithResponse(ctx)
	if err != nil || stats.JSON200 == nil || len(stats.JSON200.Stages) != 4 || stats.JSON200.Stages[0].Passed == 0 || stats.JSON200.Streams == nil {
		return fmt.Errorf("stats: %w, %s", err, stats.Body)
	}
	return nil
}

// batch sends a form with a good image and a bad one.
func batch(ctx context.Context, c *clip.ClientWithResponses, image []byte) error {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for _, data := range [][]byte{image, []byte("no image")} {
		part, err := w.CreateFormFile("image", "image")
		if err != nil {
			return err
		}
		if _, err := part.Write(data); err != nil {
			return err
		}
	}
	if err := errors.Join(w.WriteField("prompts", "a cat"), w.WriteField("prompts", "a dog"), w.Close()); err != nil {
		return err
	}
	many, err := c.ClassifyBatchWithBodyWithResponse(ctx, nil, w.FormDataContentType(), &form)
	if err != nil || many.JSON200 == nil || len(many.JSON200.Results) != 2 {
		return fmt.Errorf("classify batch: %w, %s", err, many.Body)
	}
	good, err := many.JSON200.Results[0].AsImageMatches()
	bad, badErr := many.JSON200.Results[1].AsFailure()
	if err != nil || badErr != nil || len(good.Classifications) != 2 || bad.Code != clip.ErrorCodeInvalidImage {
		return fmt.Errorf("classify batch: %w, %s", errors.Join(err, badErr), many.Body)
	}
	return nil
}

// promptSets makes a set, changes what it gets, and removes it.
func promptSets(ctx context.Context, c *clip.ClientWithResponses) error {
	margin := 0.1
	set := clip.PromptSetDefinition{Labels: []clip.PromptSetLabel{{Name: "cat"}, {Name: "dog"}}, MinMargin: &margin}
	made, err := c.PutPromptSetWithResponse(ctx, "client-go", nil, set)
	if err != nil || made.JSON201 == nil || made.JSON201.State != clip.SetStateReady || *made.JSON201.MinMargin != margin {
		return fmt.Errorf("put prompt set: %w, %s", err, made.Body)
	}
	if gone, err := c.DeletePromptSetWithResponse(ctx, "client-go", nil); err != nil || gone.StatusCode() != http.StatusNoContent {
		return fmt.Errorf("delete prompt set: %w, %s", err, gone.Body)
	}
	none, err := c.GetPromptSetWithResponse(ctx, "client-go", nil)
	if err != nil || none.JSON404 == nil || none.JSON404.Code != clip.ErrorCodePromptSetNotFound {
		return fmt.Errorf("get prompt set: %w, %s", err, none.Body)
	}
	return nil
}
