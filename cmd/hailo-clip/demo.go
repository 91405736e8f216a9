package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"hailoclip/configs"
	"hailoclip/hailo/demo"
	"hailoclip/stages/clip"
)

type demoCmd struct {
	Port    int  `default:"5000" placeholder:"N" help:"Port on 127.0.0.1; 0 is any free one (default ${default})."`
	Oneshot bool `help:"End after the images instead of serving on."`
}

func (c *demoCmd) Help() string {
	return `The demo model is small and knows drawings, not photographs.

Examples:
  hailo-clip demo
  hailo-clip demo --oneshot --port 0`
}

// Run starts the service and shows what its engine makes of the samples.
func (c *demoCmd) Run(ctx context.Context, g *globals) error {
	g.Model = cmp.Or(g.Model, "demo")
	p, err := g.place(
		configs.Override{Key: "server.host", Value: "127.0.0.1", Source: "demo"},
		configs.Override{Key: "server.port", Value: strconv.Itoa(c.Port), Source: "--port"},
	)
	if err != nil {
		return err
	}
	p.cfg.Logging.Format = "text"
	s, err := newService(ctx, p, stderr.logger(p.cfg.Logging), slog.New(slog.DiscardHandler)) // without a line for every request
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.run(ctx) }()
	if err = classifySamples(ctx, s.engine); err != nil || c.Oneshot {
		stop()
	} else {
		invite(s.url())
	}
	return errors.Join(err, <-served)
}

// classifySamples prints the three best of all prompts for every sample image. It fails when one does not have its
// own prompt first.
func classifySamples(ctx context.Context, e *engine) error {
	samples, err := demo.Samples()
	if err != nil {
		return err
	}
	prompts, width := samplePrompts(samples), len("image")
	for _, s := range samples {
		width = max(width, len(s.File))
	}
	fmt.Fprintf(stdout, "\n%s  %s   score\n", pad("image", width), pad("best of "+strconv.Itoa(len(prompts))+" prompts", longest(prompts...)))
	wrong := 0
	for i, s := range samples {
		r, err := e.Classify(ctx, &clip.Request{Image: s.JPEG, Prompts: prompts, TopK: 3})
		if err != nil {
			return fmt.Errorf("%s: %w", s.File, err)
		}
		name, mark := s.File, ""
		if r.Matches[0].Label != i {
			mark = "  wrong"
			wrong++
		}
		for _, m := range r.Matches {
			fmt.Fprintf(stdout, "%s  %s%s\n", pad(name, width), row(prompts[m.Label], m.Score, longest(prompts...)), mark)
			name, mark = "", ""
		}
	}
	fmt.Fprintf(stdout, "\n%d of %d images have the right prompt first (demo model: small, knows drawings, not photographs).\n",
		len(samples)-wrong, len(samples))
	if wrong > 0 {
		return fmt.Errorf("%d sample images were not recognised", wrong)
	}
	return nil
}

// samplePrompts are a prompt for each sample.
func samplePrompts(samples []demo.Sample) []string {
	prompts := make([]string, len(samples))
	for i, s := range samples {
		prompts[i] = "a photo of " + article(s.Label) + " " + s.Label
	}
	return prompts
}

// article is the one for an English noun; the labels have no "hour" and no "unicorn".
func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an"
	}
	return "a"
}

// invite says what to do with the running service.
func invite(url string) {
	fmt.Fprint(stdout, strings.ReplaceAll(`
Serving on URL until Ctrl-C. Open that in a browser, or try it from another terminal:

  IMAGE=$(base64 -w0 < hailo/demo/samples/cat.jpg)
  echo "{\"image\": \"$IMAGE\", \"prompts\": [\"a photo of a cat\", \"a photo of a dog\"]}" |
    curl -s URL/v1/classify -H "Content-Type: application/json" -d @-

`, "URL", url))
}
