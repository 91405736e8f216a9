package main

import (
	"context"
	"fmt"

	"hailoclip/pipeline/fair"
	"hailoclip/stages"
)

type embedCmd struct {
	Image embedImageCmd `cmd:"" help:"Print the embedding of an image as JSON."`
	Text  embedTextCmd  `cmd:"" help:"Print the embedding of a text as JSON."`
}

// embedded is printed as JSON, with the names of the REST interface.
type embedded struct {
	Embedding []float32 `json:"embedding"`
	Dimension int       `json:"dimension"`
	Model     string    `json:"model"`
	Tokens    int       `json:"tokens,omitempty"`
	Truncated bool      `json:"truncated,omitempty"`
}

func (e embedded) print() error { return printJSON(stdout, e) }

type embedImageCmd struct {
	Image string `arg:"" help:"Image file; - is standard input."`
}

func (c *embedImageCmd) Run(ctx context.Context, g *globals) error {
	return withEngine(ctx, g, func(e *engine) error {
		image, err := readImage(c.Image, e.cfg.Server.MaxBodyBytes)
		if err != nil {
			return fmt.Errorf("%s: %w", printable(c.Image), err)
		}
		result, err := e.line.Do(ctx, &stages.Request{Image: image, Embedding: true})
		if err != nil {
			return fmt.Errorf("%s: %w", printable(c.Image), err)
		}
		v := result.Embedding
		return embedded{Embedding: v, Dimension: len(v), Model: e.model.Name}.print()
	})
}

type embedTextCmd struct {
	Text string `arg:"" help:"The text."`
}

func (c *embedTextCmd) Run(ctx context.Context, g *globals) error {
	if err := checkText("the text", c.Text); err != nil {
		return err
	}
	return withEngine(ctx, g, func(e *engine) error {
		p, err := e.prompts(ctx, fair.Caller{}, []string{c.Text})
		if err != nil {
			return err
		}
		v := p.Rows[0]
		return embedded{Embedding: v.Embedding, Dimension: p.Dim, Model: e.model.Name, Tokens: v.Tokens, Truncated: v.Truncated}.print()
	})
}
