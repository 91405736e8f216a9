package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"hailoclip/bench/load"
	"hailoclip/bench/report"
)

type benchBodiesCmd struct {
	Body      []string `enum:"json,binary,raw,multipart,ws,ws-raw,push" default:"json,binary,raw" help:"Kinds of bodies, with commas; ws and push are frames of streams instead, as files, and ws-raw as raw rgb24."`
	Size      []string `default:"640x480,224x224" placeholder:"WxH" help:"Sizes of generated images, with commas."`
	Prompts   int      `default:"20" help:"Prompts of each request, which the service knows; 0 embeds images."`
	PromptSet string   `placeholder:"NAME" help:"Classify by this prompt set of the service. Where there is none it is made of the prompts, a label each, and deleted in the end."`
	keyFlag
	URL      string        `name:"url" placeholder:"URL" help:"Service to measure. Default: one that is started for it, on 127.0.0.1 with --backend, --model and --config."`
	Clients  int           `short:"c" default:"16" help:"Closed loop: clients that ask again when they have their answer."`
	Duration time.Duration `short:"d" default:"3s" help:"Time of each turn that counts."`
	Warmup   time.Duration `default:"500ms" help:"Time before it."`
	Turns    int           `default:"5" help:"Turns of each; the table has the median, and the least and the most."`
}

func (c *benchBodiesCmd) Help() string {
	return `The service and a bare handler, a process of its own that only reads the body, get the same requests in turns, the
handler as many a second as the service has answered in the turn before. CPU is the time, user and system, of the
service's process for each request; a device's worker process is not in it. Streams send the next frame when the last one is
answered, and there is no bare handler for them.

Examples:
  hailo-clip bench bodies --backend sim
  hailo-clip bench bodies --backend sim --body raw --size 224x224 --turns 15
  hailo-clip bench bodies --backend sim --body json,binary,ws,ws-raw,push`
}

func (c *benchBodiesCmd) Run(ctx context.Context, g *globals) (err error) {
	window := load.Window{Warmup: c.Warmup, Duration: c.Duration, Every: 1 << 20}
	if c.Prompts == 0 && slices.ContainsFunc(c.Body, func(kind string) bool { s, _ := streamsOf(kind); return s.Kind != "" }) {
		return usageError{errors.New("--prompts: streams classify, so there must be some")}
	}
	if c.Turns < 1 || c.Turns > 1000 {
		return usageError{fmt.Errorf("--turns: %d is out of bounds: 1 to 1000", c.Turns)}
	}
	url := c.URL
	if url == "" {
		var stop func() error
		queue := fmt.Sprintf("HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=%d", 2*c.Clients) // nothing is refused
		room := (&benchRunCmd{Stream: "ws", Clients: []int{c.Clients}}).environment()
		if url, stop, err = startService(ctx, g, append(room, queue)...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	bare, stop, err := startSelf(ctx, os.Environ(), "bench", "bare")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	rows, targets, err := c.rows(url, bare)
	if err != nil {
		return err
	}
	if c.PromptSet != "" {
		remove, err := targets[0][0].Register(ctx)
		if err != nil {
			return err
		}
		defer remove()
	}
	bar := newBars()
	for turn := range c.Turns {
		for i := range rows {
			bar.set("turns", int64(turn*len(rows)+i), int64(c.Turns*len(rows)))
			streams, _ := streamsOf(rows[i].Body)
			service, err := c.step(ctx, window, load.Load{Clients: c.Clients, Streams: streams}, targets[i][0])
			if err != nil {
				return fmt.Errorf("%s, %s: %w", rows[i].Body, rows[i].Size, err)
			}
			if streams.Kind != "" {
				rows[i].Add(service, nil)
				continue
			}
			bare, err := c.step(ctx, window, load.Load{Rate: max(int(service.Rate), 1)}, targets[i][1])
			if err != nil {
				return fmt.Errorf("the bare handler: %w", err)
			}
			rows[i].Add(service, bare)
		}
	}
	bar.done(true)
	fmt.Fprintf(stdout, "%s\n%d clients, %d turns of %v each\n\n", report.ThisMachine(), c.Clients, c.Turns, c.Duration)
	report.WriteCosts(stdout, rows)
	return nil
}

// streamsOf are the streams that stand in the place of a body, and the kind of body that their frames are; of a body none, and that.
func streamsOf(kind string) (s load.Streams, body string) {
	s.Policy = "queue"
	switch kind {
	case "ws":
		s.Kind, body = load.StreamWS, load.Binary
	case "ws-raw":
		s.Kind, body = load.StreamWS, load.Raw
	case "push":
		s.Kind, body = load.StreamPush, load.Binary
	default:
		return load.Streams{}, kind
	}
	return s, body
}

// step measures one turn of one target.
func (c *benchBodiesCmd) step(ctx context.Context, w load.Window, l load.Load, t *load.Target) (*report.Step, error) {
	quiet := func(string, time.Duration, time.Duration) {}
	found, err := load.Run(ctx, load.Options{Loads: []load.Load{l}, Turns: 1, Window: w, Progress: quiet}, t)
	if err != nil {
		return nil, err
	}
	s := found.Steps[0]
	if failed := s.Failed(); failed*100 > s.Requests {
		return nil, fmt.Errorf("%d requests of %d failed: %v", failed, s.Requests, s.Errors)
	}
	return s, nil
}

// rows are the kinds and sizes that are measured, and the service and the bare handler for each.
func (c *benchBodiesCmd) rows(urls ...string) (rows []report.Cost, targets [][]*load.Target, err error) {
	key, err := c.key()
	if err != nil {
		return nil, nil, err
	}
	for _, size := range c.Size {
		images, err := (&benchImages{Size: []string{size}}).images(4)
		if err != nil {
			return nil, nil, err
		}
		for _, kind := range c.Body {
			_, body := streamsOf(kind)
			bodies, err := load.NewBodies(images, load.Ask{Body: body, Prompts: c.Prompts, Set: c.PromptSet})
			if err != nil {
				return nil, nil, usageError{err}
			}
			var both []*load.Target
			for _, url := range urls {
				t, err := load.NewTarget(url, key, bodies, 10*time.Second)
				if err != nil {
					return nil, nil, usageError{err}
				}
				both = append(both, t)
			}
			rows, targets = append(rows, report.Cost{Body: kind, Size: size, Bytes: bodies.MeanBytes()}), append(targets, both)
		}
	}
	return rows, targets, nil
}

type benchBareCmd struct{}

func (c *benchBareCmd) Run(ctx context.Context) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("serving", "url", "http://"+ln.Addr().String())
	return load.ServeBare(ctx, ln)
}
