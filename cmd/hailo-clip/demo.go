package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"hailoclip/configs"
	"hailoclip/hailo/demo"
	"hailoclip/stages/clip"
)

type demoCmd struct {
	Port    int  `default:"5000" placeholder:"N" help:"Port on 127.0.0.1; 0 is any free one (default ${default})."`
	Oneshot bool `help:"End after the pictures instead of serving on."`
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
	cfg := p.cfg
	cfg.Logging.Format = "text"
	log := serviceLogs{all: newLogger(cfg.Logging), requests: slog.New(slog.DiscardHandler)}
	s, err := newService(ctx, cfg, p.state, log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.run(ctx) }()

	err = classifySamples(ctx, stdout, s.engine)
	if err == nil && !c.Oneshot {
		invite(stdout, s.url())
		select {
		case err = <-served: // by Ctrl-C, or because it failed
			stop()
			return err
		case <-ctx.Done():
		}
	}
	stop()
	return errors.Join(err, <-served)
}

// serviceLogs separates the lines of single requests, which the demo does not show.
type serviceLogs struct{ all, requests *slog.Logger }

// classifySamples prints the three best of all prompts for every sample image. It fails when one does not have its
// own prompt first.
func classifySamples(ctx context.Context, w io.Writer, e *engine) error {
	samples, err := demo.Samples()
	if err != nil {
		return err
	}
	prompts, width := make([]string, len(samples)), len("picture")
	for i, s := range samples {
		prompts[i] = "a photo of " + article(s.Label) + " " + s.Label
		width = max(width, len(s.File))
	}
	fmt.Fprintf(w, "\n%s  %s   score\n", pad("picture", width), pad("best of "+strconv.Itoa(len(prompts))+" prompts", longest(prompts)))
	wrong := 0
	for i, s := range samples {
		r, err := e.Classify(ctx, &clip.Request{Image: s.JPEG, Prompts: prompts, TopK: 3})
		if err != nil {
			return fmt.Errorf("%s: %w", s.File, err)
		}
		name, mark := s.File, ""
		if r.Matches[0].Prompt != i {
			mark = "  wrong"
			wrong++
		}
		for _, m := range r.Matches {
			fmt.Fprintf(w, "%s  %s%s\n", pad(name, width), row(prompts[m.Prompt], m.Score, longest(prompts)), mark)
			name, mark = "", ""
		}
	}
	fmt.Fprintf(w, "\n%d of %d pictures have the right prompt first (demo model: small, knows drawings, not photographs).\n",
		len(samples)-wrong, len(samples))
	if wrong > 0 {
		return fmt.Errorf("%d sample pictures were not recognised", wrong)
	}
	return nil
}

// article is the one for an English noun; the labels have no "hour" and no "unicorn".
func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an"
	}
	return "a"
}

// invite says what to do with the running service.
func invite(w io.Writer, url string) {
	fmt.Fprint(w, strings.ReplaceAll(`
Serving on URL until Ctrl-C. Try it from another terminal:

  IMAGE=$(base64 -w0 < hailo/demo/samples/cat.jpg)
  echo "{\"image\": \"$IMAGE\", \"prompts\": [\"a photo of a cat\", \"a photo of a dog\"]}" |
    curl -s URL/v1/classify -H "Content-Type: application/json" -d @-

`, "URL", url))
}
