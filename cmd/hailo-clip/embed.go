package main

import (
	"context"
	"fmt"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

type embedCmd struct {
	Image embedImageCmd `cmd:"" help:"Print the embedding of an image as JSON."`
	Text  embedTextCmd  `cmd:"" help:"Print the embedding of a text as JSON."`
}

func (c *embedCmd) Help() string {
	return `Vectors have unit length, so the cosine of two is their dot product.

Examples:
  hailo-clip embed image cat.jpg
  hailo-clip embed text "a photo of a cat"`
}

// embedded is printed as JSON, with the names of the REST interface.
type embedded struct {
	Embedding []float32 `json:"embedding"`
	Dimension int       `json:"dimension"`
	Model     string    `json:"model"`
	Tokens    int       `json:"tokens,omitempty"`
	Truncated bool      `json:"truncated,omitempty"`
}

type embedImageCmd struct {
	Image string `arg:"" help:"Image file; - is standard input."`
}

func (c *embedImageCmd) Help() string {
	return `Example:
  hailo-clip embed image cat.jpg | jq .embedding`
}

func (c *embedImageCmd) Run(ctx context.Context, g *globals) error {
	return withEngine(ctx, g, func(e *engine) error {
		image, err := readImage(c.Image, e.cfg.Server.MaxBodyBytes)
		var r clip.Result
		if err == nil {
			r, err = e.EmbedImage(ctx, &clip.Request{Image: image})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", printable(c.Image), err)
		}
		return printJSON(embedded{Embedding: r.Embedding, Dimension: len(r.Embedding), Model: e.Model()})
	})
}

type embedTextCmd struct {
	Text string `arg:"" help:"The text."`
}

func (c *embedTextCmd) Help() string {
	return `Example:
  hailo-clip embed text "a photo of a cat" | jq .embedding`
}

func (c *embedTextCmd) Run(ctx context.Context, g *globals) error {
	if err := checkText("the text", c.Text); err != nil {
		return err
	}
	return withEngine(ctx, g, func(e *engine) error {
		v, err := e.EmbedText(ctx, fair.Caller{}, c.Text)
		if err != nil {
			return err
		}
		return printJSON(embedded{v.Embedding, len(v.Embedding), e.Model(), v.Tokens, v.Truncated})
	})
}
