package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"

	"hailoclip/configs"
	"hailoclip/hailo/model"
	"hailoclip/hailo/safefile"
	"hailoclip/hailo/token"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

type inspectCmd struct {
	Pixels inspectPixelsCmd `cmd:"" help:"Write the image that the model sees as a PNG."`
	Tokens inspectTokensCmd `cmd:"" help:"Show how texts are cut into tokens."`
	Model  inspectModelCmd  `cmd:"" help:"Show the model's numbers, files and digests."`
}

func (c *inspectCmd) Help() string {
	return `Examples:
  hailo-clip inspect pixels cat.jpg -o seen.png
  hailo-clip inspect tokens "a photo of a cat"
  hailo-clip inspect model --model clip-vit-b-32`
}

type inspectPixelsCmd struct {
	Image  string `arg:"" help:"Image file; - is standard input."`
	Output string `short:"o" required:"" type:"path" placeholder:"OUT.png" help:"PNG to write."`
}

func (c *inspectPixelsCmd) Help() string {
	return `Example:
  hailo-clip inspect pixels cat.jpg -o seen.png`
}

func (c *inspectPixelsCmd) Run(ctx context.Context, g *globals) error {
	model, _, p, err := g.model(ctx)
	if err != nil {
		return err
	}
	size := model.ImageSize
	seen, from, err := c.seen(p.cfg, size)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(c.Image), err)
	}
	if err := writeFile(c.Output, func(w io.Writer) error { return png.Encode(w, seen) }); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %d x %d -> %s: %d x %d (%s)\n", printable(c.Image), from.X, from.Y,
		printable(c.Output), size, size, p.cfg.CLIP.Images.Resize.Fit)
	return nil
}

// seen is what a model for images of that size sees of the image, and how large that was.
func (c *inspectPixelsCmd) seen(cfg configs.Config, size int) (m *image.RGBA, from image.Point, err error) {
	b, err := readImage(c.Image, cfg.Server.MaxBodyBytes)
	if err != nil {
		return nil, from, err
	}
	decoded, err := decode.NewDecoder(cfg.CLIP.Images.Decode, size).DecodeBytes(b)
	if err != nil {
		return nil, from, err
	}
	defer decoded.Release()
	pixels := make([]byte, 3*size*size)
	err = resize.New(cfg.CLIP.Images.Resize, size).Resize(pixels, decoded.Pix, decoded.Width, decoded.Height)
	m = image.NewRGBA(image.Rect(0, 0, size, size))
	for i := range size * size {
		m.SetRGBA(i%size, i/size, color.RGBA{pixels[3*i], pixels[3*i+1], pixels[3*i+2], 255})
	}
	return m, image.Pt(decoded.Width, decoded.Height), err
}

type inspectTokensCmd struct {
	Text      []string `arg:"" help:"Texts; a single - reads a JSON array of texts and prints a JSON array of id arrays."`
	JSON      bool     `help:"Print JSON."`
	Tokenizer string   `type:"existingfile" placeholder:"FILE" help:"Another tokenizer.json than the model's."`
}

func (c *inspectTokensCmd) Help() string {
	return `All tokens are shown, before the cut to the model's context length.

Examples:
  hailo-clip inspect tokens "a photo of a cat"
  echo '["a cat", "two dogs"]' | hailo-clip inspect tokens -`
}

func (c *inspectTokensCmd) Run(ctx context.Context, g *globals) error {
	tokenizer, context, err := c.tokenizer(ctx, g)
	if err != nil {
		return err
	}
	if len(c.Text) == 1 && c.Text[0] == "-" {
		return tokenizeJSON(os.Stdin, tokenizer)
	}
	type result struct {
		Text   string        `json:"text"`
		Tokens []token.Piece `json:"tokens"`
	}
	for _, text := range c.Text {
		r := result{text, tokenizer.Pieces(tokenizer.Encode(text))}
		if c.JSON {
			if err := printJSON(r); err != nil {
				return err
			}
			continue
		}
		cut := ""
		if context > 0 && len(r.Tokens) > context {
			cut = fmt.Sprintf(", cut to %d for the model", context)
		}
		fmt.Fprintf(stdout, "%q: %d tokens%s\n", text, len(r.Tokens), cut)
		width := 1
		for _, p := range r.Tokens {
			width = max(width, longest(p.Piece))
		}
		for _, p := range r.Tokens {
			fmt.Fprintf(stdout, "  %s  %6d\n", pad(p.Piece, width), p.ID)
		}
	}
	return nil
}

// tokenizer is the one of --tokenizer, or the model's with its context length.
func (c *inspectTokensCmd) tokenizer(ctx context.Context, g *globals) (*token.Tokenizer, int, error) {
	if c.Tokenizer != "" {
		f, err := safefile.OpenRegular(c.Tokenizer)
		if err != nil {
			return nil, 0, err
		}
		defer f.Close()
		t, err := token.Load(bufio.NewReader(f), token.CLIP)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", c.Tokenizer, err)
		}
		return t, 0, nil
	}
	model, _, _, err := g.model(ctx)
	if err != nil {
		return nil, 0, err
	}
	t, err := model.LoadTokenizer()
	return t, model.ContextLength, err
}

// maxTexts bounds what tokenizeJSON reads.
const maxTexts = 64 << 20

func tokenizeJSON(in io.Reader, t *token.Tokenizer) error {
	b, err := io.ReadAll(io.LimitReader(in, maxTexts+1))
	if err != nil {
		return err
	}
	if len(b) > maxTexts {
		return usageError{fmt.Errorf("standard input is larger than %d bytes", maxTexts)}
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil {
		return usageError{fmt.Errorf("standard input is not a JSON array of texts: %w", err)}
	}
	ids := make([][]int32, len(texts))
	for i, text := range texts {
		ids[i] = t.Encode(text)
	}
	return printJSON(ids)
}

type inspectModelCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *inspectModelCmd) Help() string {
	return `Examples:
  hailo-clip inspect model
  hailo-clip inspect model --model clip-vit-b-32 --json`
}

func (c *inspectModelCmd) Run(ctx context.Context, g *globals) error {
	resolved, why, p, err := g.model(ctx)
	if err != nil {
		return err
	}
	m := resolved.Manifest
	if c.JSON {
		return printJSON(m)
	}
	fmt.Fprintf(stdout, "%s (%s)\n", m.Name, why)
	if m.Description != "" {
		fmt.Fprintf(stdout, "  %s\n", m.Description)
	}
	fmt.Fprintf(stdout, "  images      %d x %d RGB, mean %v, std %v\n", m.ImageSize, m.ImageSize, m.Mean, m.Std)
	fmt.Fprintf(stdout, "  texts       %d tokens, end token kept\n", m.ContextLength)
	fmt.Fprintf(stdout, "  embeddings  %d numbers\n", m.EmbeddingDimension)
	fmt.Fprintf(stdout, "  logit scale %v\n", m.LogitScale)
	if m.Activation == model.Sigmoid {
		fmt.Fprintf(stdout, "  logit bias  %v, of a sigmoid\n", m.LogitBias)
	}
	in, err := p.installed(ctx, m.Name)
	if err != nil {
		return err
	}
	for _, f := range in.Files {
		fmt.Fprintln(stdout, "  "+fileLine(f))
	}
	return nil
}
