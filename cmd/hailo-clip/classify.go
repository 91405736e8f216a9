package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"hailoclip/api/client"
	"hailoclip/cache"
	"hailoclip/hailo/safefile"
	"hailoclip/stages/clip"
)

type classifyCmd struct {
	asks
	Images []string `arg:"" name:"image" help:"Image files, and folders of them; - reads one image from standard input."`
	Prompt []string `short:"p" required:"" xor:"what" sep:"none" placeholder:"TEXT" help:"A description to match; give several."`
	Set    string   `name:"prompt-set" required:"" xor:"what" placeholder:"NAME" help:"Compare with the labels of a prompt set of the service instead."`
	TopK   int      `short:"k" default:"0" help:"Print only the best so many; 0 is all."`
	JSON   bool     `help:"Print one JSON object a line for each image."`
	Jobs   int      `short:"j" default:"0" help:"Images that are worked on at a time; 0 is as many as keep the encoder busy."`
}

func (c *classifyCmd) Help() string {
	return `Whole sentences work best, as always with CLIP. Without --url and --prompt-set no service is asked. A folder stands for all images in
it and in the folders below, in the order of their names, without links and hidden files. Each image is printed as soon as it and
those before it are done.

Examples:
  hailo-clip classify cat.jpg -p "a photo of a cat" -p "a photo of a dog"
  hailo-clip classify --json photos -p "a red car" -p "an empty street" > result.jsonl
  hailo-clip classify photos frames/*.jpg --prompt-set door --url http://pi:5000
  hailo-clip classify --json photos --prompt-set door | jq -r 'select(.matched) | .image'

Exit code 1 when any image could not be classified; the others are printed all the same.`
}

// verdict is what is printed for an image.
type verdict struct {
	Image   string         `json:"image"`
	Matches []client.Match `json:"classifications"`
	Model   string         `json:"model"`
	Error   string         `json:"error,omitempty"`

	// Of a prompt set.
	Set         string `json:"prompt_set,omitempty"`
	ETag        string `json:"etag,omitempty"`
	Matched     *bool  `json:"matched,omitempty"`
	Reason      string `json:"reason,omitempty"`
	ScoreSource string `json:"score_source,omitempty"`
}

func (c *classifyCmd) Run(ctx context.Context, g *globals) error {
	if err := checkPrompts(c.Prompt); err != nil {
		return err
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
	found := findImages(c.Images)
	found.tellSkipped()
	if len(found.names) == 0 {
		return usageError{fmt.Errorf("no images in %s", printable(strings.Join(c.Images, ", ")))}
	}
	work := func() error {
		if c.Set != "" || c.URL != "" {
			return c.service(ctx, g, func(s *client.Client) error { return c.ask(ctx, s, found.names) })
		}
		return withEngine(ctx, g, func(e *engine) error { return c.classify(ctx, e, found.names) })
	}
	if err := work(); err != nil || found.failed == 0 {
		return err
	}
	return exitError(exitFailed)
}

func (c *classifyCmd) classify(ctx context.Context, e *engine, names []string) error {
	ctx, p := c.newPrinter(ctx, len(names))
	err := e.ClassifyBatch(ctx, clip.Request{Prompts: c.Prompt, TopK: c.TopK}, clip.Batch{
		Len: len(names), AtOnce: c.Jobs,
		Known: func(prompts *cache.Prompts) {
			for i, row := range prompts.Rows {
				if row.Truncated {
					complain("hailo-clip: --prompt number %d is longer than the model reads: its end is ignored", i+1)
				}
			}
		},
		Open: func(i int) ([]byte, error) { return readImage(names[i], e.cfg.Server.MaxBodyBytes) },
		Done: func(i int, r clip.Result, err error) {
			v := verdict{Image: names[i], Model: e.Model(), Matches: []client.Match{}}
			if err != nil {
				v.Error = err.Error()
			}
			for rank, m := range r.Matches {
				v.Matches = append(v.Matches, client.Match{Text: c.Prompt[m.Label], Score: m.Score, Rank: rank + 1, Cosine: m.Cosine,
					Probability: m.Probability, Truncated: r.Prompts.Rows[m.Label].Truncated})
			}
			p.add(i, v)
		},
	})
	return p.end(err)
}

const (
	askedAtOnce = 8       // requests to a service, unless --jobs is given
	allMatches  = 1 << 20 // the service answers all that there are
)

// ask has a service classify the images.
func (c *classifyCmd) ask(ctx context.Context, s *client.Client, names []string) error {
	if c.Set != "" {
		if err := waitEncoded(ctx, s, c.Set); err != nil && !errors.Is(err, errNotEncoded) { // a former version may answer
			return err
		}
	}
	ctx, p := c.newPrinter(ctx, len(names))
	all, asking := errgroup.WithContext(ctx)
	all.SetLimit(cmp.Or(c.Jobs, askedAtOnce))
	for i, name := range names {
		if asking.Err() != nil {
			break
		}
		all.Go(func() error {
			v := verdict{Image: name, Matches: []client.Match{}, Set: c.Set}
			image, err := readImage(name, maxBenchImage)
			if err != nil {
				v.Error = err.Error()
			} else if err := c.askOne(asking, s, image, &v); err != nil {
				return err
			}
			p.add(i, v)
			return nil
		})
	}
	return p.end(cmp.Or(all.Wait(), context.Cause(ctx)))
}

// askOne has a service classify an image, and puts the answer into v, also one that refuses this image. All other failures are
// errors.
func (c *classifyCmd) askOne(ctx context.Context, s *client.Client, image []byte, v *verdict) error {
	q := client.Question{Image: client.Image{Data: image}, Prompts: c.Prompt, PromptSet: c.Set, TopK: cmp.Or(c.TopK, allMatches)}
	a, err := s.Classify(ctx, q)
	var said *client.Error
	switch {
	case errors.As(err, &said) && said.Status/100 == 4 && said.Status != http.StatusNotFound && ctx.Err() == nil:
		v.Error = said.Message
		return nil
	case err != nil:
		return err
	}
	v.Model, v.ETag, v.Reason, v.ScoreSource = a.Model, a.ETag, a.Reason, a.ScoreSource
	if c.Set != "" {
		v.Matched = &a.Matched
	}
	v.Matches = append(v.Matches, a.Matches...)
	return nil
}

// readImage reads a file of at most limit bytes, or standard input for "-". Of the images in a row
// that standard input may hold, such as those of a camera, it takes the first and says so.
func readImage(name string, limit int) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = safefile.OpenRegular(name); err != nil {
			if info, statErr := os.Stat(name); statErr == nil && info.IsDir() {
				return nil, errors.New("a folder: name a file in it")
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
