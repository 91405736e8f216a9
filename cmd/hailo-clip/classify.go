package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"hailoclip/cache"
	"hailoclip/hailo/safefile"
	"hailoclip/stages/clip"
)

type classifyCmd struct {
	Images []string `arg:"" name:"image" help:"Image files; - reads one from standard input."`
	Prompt []string `short:"p" required:"" sep:"none" placeholder:"TEXT" help:"A description to match; give several."`
	TopK   int      `short:"k" default:"0" help:"Print only the best so many; 0 is all."`
	JSON   bool     `help:"Print one JSON object a line for each image."`
	Jobs   int      `short:"j" default:"0" help:"Images that are worked on at a time; 0 is as many as keep the encoder busy."`
}

func (c *classifyCmd) Help() string {
	return `Whole sentences work best, as they do with CLIP.

Examples:
  hailo-clip classify cat.jpg -p "a photo of a cat" -p "a photo of a dog"
  hailo-clip classify --json frames/*.jpg -p "a red car" -p "an empty street" > result.jsonl

Exit code 1 when any image could not be classified; the others are printed all the same.`
}

// verdict is what is printed for an image.
type verdict struct {
	Image   string  `json:"image"`
	Matches []match `json:"classifications"`
	Model   string  `json:"model"`
	Error   string  `json:"error,omitempty"`
}

type match struct {
	Text        string  `json:"text"`
	Score       float64 `json:"score"`
	Rank        int     `json:"rank"`
	Cosine      float64 `json:"cosine"`
	Probability float64 `json:"probability"`
	Truncated   bool    `json:"truncated,omitempty"` // the model has seen the beginning of the text only
}

func (c *classifyCmd) Run(ctx context.Context, g *globals) error {
	for i, prompt := range c.Prompt {
		if err := checkText(fmt.Sprintf("--prompt number %d", i+1), prompt); err != nil {
			return err
		}
	}
	if c.TopK < 0 {
		return usageError{fmt.Errorf("--top-k: %d is out of bounds: 0 or more", c.TopK)}
	}
	if c.Jobs < 0 {
		return usageError{fmt.Errorf("--jobs: %d is out of bounds: 0 or more", c.Jobs)}
	}
	first := slices.Index(c.Images, "-")
	if first >= 0 && slices.Contains(c.Images[first+1:], "-") {
		return usageError{errors.New("- is given twice: standard input holds one image")}
	}
	return withEngine(ctx, g, func(e *engine) error { return c.classify(ctx, e) })
}

func (c *classifyCmd) classify(ctx context.Context, e *engine) error {
	verdicts := make([]verdict, len(c.Images))
	bar, done := newBars(), int64(0)
	err := e.ClassifyBatch(ctx, clip.Request{Prompts: c.Prompt, TopK: c.TopK}, clip.Batch{
		Len: len(c.Images), AtOnce: c.Jobs,
		Known: func(prompts *cache.Prompts) {
			for i, row := range prompts.Rows {
				if row.Truncated {
					complain("hailo-clip: --prompt number %d is longer than the model reads: its end is ignored", i+1)
				}
			}
		},
		Open: func(i int) ([]byte, error) { return readImage(c.Images[i], e.cfg.Server.MaxBodyBytes) },
		Done: func(i int, r clip.Result, err error) {
			v := verdict{Image: c.Images[i], Model: e.Model(), Matches: []match{}}
			if err != nil {
				v.Error = err.Error()
			}
			for rank, m := range r.Matches {
				v.Matches = append(v.Matches, match{c.Prompt[m.Label], m.Score, rank + 1, m.Cosine, m.Probability,
					r.Prompts.Rows[m.Label].Truncated})
			}
			verdicts[i] = v
			if done++; len(c.Images) > 1 {
				bar.set("classifying", done, int64(len(c.Images)))
			}
		},
	})
	bar.done(err == nil)
	if err != nil {
		return err // a part of the results would look like all of them
	}
	return c.print(verdicts)
}

func (c *classifyCmd) print(verdicts []verdict) (err error) {
	for _, v := range verdicts {
		if v.Error != "" {
			err = exitError(exitFailed)
		}
		switch {
		case c.JSON:
			if err := printJSON(v); err != nil {
				return err
			}
		case v.Error != "":
			complain("hailo-clip: %s: %s", printable(v.Image), v.Error)
		default:
			fmt.Fprintln(stdout, printable(v.Image))
			for _, m := range v.Matches {
				fmt.Fprintln(stdout, "  "+row(m.Text, m.Score, longest(c.Prompt...)))
			}
		}
	}
	return err
}

// readImage reads a file of at most limit bytes, or standard input for "-". Of the images in a row
// that standard input may hold, such as those of a camera, it takes the first and says so.
func readImage(name string, limit int) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = safefile.OpenRegular(name); err != nil {
			if info, statErr := os.Stat(name); statErr == nil && info.IsDir() {
				return nil, errors.New("a folder: name the files in it")
			} else if errors.Is(err, safefile.ErrNotRegular) {
				return nil, fmt.Errorf("%w; an image from another program is read from standard input, as -", safefile.ErrNotRegular)
			}
			return nil, errors.Unwrap(err) // the caller names the file
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if first := firstImage(b); name == "-" && len(first) < len(b) {
		complain("hailo-clip: standard input holds more than one image, only the first is taken")
		b = first
	}
	if err == nil && len(b) > limit {
		err = fmt.Errorf("larger than server.max_body_bytes, %d", limit)
	}
	return b, err
}

// firstImage cuts off what begins with another image where the first, a JPEG or PNG, ends.
func firstImage(b []byte) []byte {
	var end string
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8")):
		end = "\xff\xd9"
	case bytes.HasPrefix(b, []byte("\x89PNG")):
		end = "IEND\xaeB`\x82"
	default:
		return b // which could hold a whole JPEG
	}
	cut := len(b)
	for _, next := range []string{"\xff\xd8\xff", "\x89PNG\r\n", "GIF8", "RIFF"} {
		if i := bytes.Index(b[:cut], []byte(end+next)); i >= 0 {
			cut = i + len(end)
		}
	}
	return b[:cut]
}
