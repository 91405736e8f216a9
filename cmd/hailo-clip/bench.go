package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hailoclip/bench/load"
	"hailoclip/bench/report"
	"hailoclip/hailo/safefile"
)

type benchCmd struct {
	Run     benchRunCmd     `cmd:"" default:"withargs" help:"Put a service under load and report what it does (the default)."`
	Bodies  benchBodiesCmd  `cmd:"" help:"Measure what a request costs the service in each kind of body, against a bare handler."`
	Bare    benchBareCmd    `cmd:"" hidden:"" help:"Serve that handler."`
	Profile benchProfileCmd `cmd:"" help:"Measure the stages of one image path without HTTP, and write profiles."`
}

// benchExamples are shown for bench and for bench run.
const benchExamples = `Examples:
  hailo-clip bench --backend sim --clients 1,4,16,64 --html report.html
  hailo-clip bench --backend sim --search rate --slo p99=50ms
  hailo-clip bench --url http://pi:5000 --rate 300 -d 60s --assert 'p99<50ms' --assert errors==0
  hailo-clip bench --url http://127.0.0.1:5000 --vs http://127.0.0.1:5001 -d 30s
  hailo-clip bench --backend sim --stream ws -c 8,16 --fps 30 -d 30s --csv streams.csv
  hailo-clip bench --compare before.json after.json
  HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=64 hailo-clip bench --backend sim -c 64`

func (c *benchCmd) Help() string {
	return `"hailo-clip bench" without a command is "hailo-clip bench run".
All flags of a load: hailo-clip bench run --help

` + benchExamples
}

type benchRunCmd struct {
	benchImages
	FreshPrompts bool   `help:"New prompts in every request, which no cache knows."`
	Body         string `enum:"json,binary,raw,multipart" default:"json" help:"Send the image in base64, as a file, as raw rgb24 or in a form."`
	PromptSet    string `placeholder:"NAME" help:"Classify by this prompt set of the service. Where there is none it is made of the prompts, a label each, and deleted in the end."`

	URL string `name:"url" placeholder:"URL" help:"Service to measure. Default: one that is started for it, on 127.0.0.1 with --backend, --model and --config."`
	keyFlag
	VS string `name:"vs" placeholder:"URL" help:"Measure this service too, in turns with the first, and print the ratios."`

	Clients   []int    `short:"c" placeholder:"N" help:"Closed loop: clients that ask again when they have their answer; several with commas are a step each (default 16)."`
	Rate      []int    `short:"r" placeholder:"N" help:"Open loop: requests a second, whatever the answers do; several with commas are a step each."`
	Poisson   bool     `help:"With --rate: the requests come by chance, not evenly spaced."`
	Cameras   []int    `placeholder:"N" help:"Open loop: cameras of 30 frames a second, each with connections of its own; several with commas are a step each."`
	Stream    string   `enum:",ws,push" default:"" help:"Measure streams of frames instead of requests, so many as --clients says: ws over WebSockets, push as cameras send them."`
	FPS       int      `name:"fps" default:"30" help:"Frames a second of each stream; 0 sends the next frame when the last one is answered."`
	Policy    string   `enum:"latest,queue" default:"latest" help:"Of the streams, when frames come faster than they are classified: latest drops the older ones, queue waits."`
	Gate      bool     `help:"The streams do not classify frames that look like the one before."`
	Misbehave []string `placeholder:"HOW" help:"Beside the streams, one more that misbehaves: stalled (reads no answers), partial (stops inside a frame) or garbage (sends no images); several with commas."`

	Search string `enum:",rate,clients" default:"" help:"Then search the highest rate, or number of clients, that meets --slo: rate or clients. Exit code 1 if none does."`
	SLO    string `name:"slo" placeholder:"GOAL" help:"What a step must meet, such as p99=50ms, with commas between conditions."`

	Duration time.Duration `short:"d" default:"10s" help:"Time of each step that counts."`
	Warmup   time.Duration `default:"2s" help:"Time before it."`
	Timeout  time.Duration `default:"10s" help:"When a request has failed; the first ones, whose prompts are new, have 1m at least."`
	Backoff  time.Duration `default:"0s" help:"Pause of a closed-loop client after a refusal or failure."`
	Turns    int           `default:"5" help:"With --vs: turns of each service in a step."`
	Sample   int           `default:"4" help:"Read the times of the stages of one answer in so many."`

	JSON   string   `name:"json" placeholder:"FILE" help:"Write the report as JSON, for --compare."`
	CSV    string   `name:"csv" placeholder:"FILE" help:"Write a line for each step."`
	HTML   string   `name:"html" placeholder:"FILE" help:"Write a page with plots; it needs no network."`
	Assert []string `sep:"none" placeholder:"COND" help:"End with exit code 1 unless this holds, such as 'p99<50ms', 'rate>=318', 'errors==0'; give several. Unless one is about errors, no more than 0.1 % of the requests may fail."`

	Compare bool     `help:"Measure nothing: print the ratios of two JSON reports."`
	Files   []string `arg:"" optional:"" name:"report" help:"With --compare: the two reports."`
}

func (c *benchRunCmd) Help() string {
	return `Latency is counted from when a request was due to the end of its answer. With --rate that is when
the schedule says so, so a service that stalls shows it in every request it held up.
Conditions know: ` + strings.Join(report.MetricNames(), ", ") + `.

` + benchExamples
}

func (c *benchRunCmd) Run(ctx context.Context, g *globals) (err error) {
	if c.Compare {
		return c.compare()
	}
	o, asserts, err := c.options()
	if err != nil {
		return usageError{err}
	}
	if err := noStart(c.URL, g); err != nil {
		return err
	}
	key, err := c.key()
	if err != nil {
		return err
	}
	if c.Stream != "" && c.Body == load.JSON {
		c.Body = load.Binary
	}
	images, err := c.images(4) // different ones, so that nothing learns one by heart
	if err != nil {
		return err
	}
	for _, name := range given(c.JSON, c.CSV, c.HTML) {
		if err := writable(name); err != nil {
			return err // now, and not after an hour of measurement
		}
	}
	bodies, err := load.NewBodies(images, load.Ask{Body: c.Body, Prompts: c.Prompts, Fresh: c.FreshPrompts, Set: c.PromptSet})
	if err != nil {
		return usageError{err}
	}
	url := c.URL
	if url == "" {
		var stop func() error
		if url, stop, err = startService(ctx, g, c.environment()...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	var targets []*load.Target
	for _, url := range given(url, c.VS) {
		t, err := load.NewTarget(url, key, bodies, c.Timeout)
		if err != nil {
			return usageError{err}
		}
		defer t.Close()
		if c.PromptSet != "" {
			remove, err := t.Register(ctx)
			if err != nil {
				return err
			}
			defer remove()
		}
		targets = append(targets, t)
	}
	bar := newBars()
	o.Progress = func(step string, done, total time.Duration) {
		bar.set(step, int64(min(done, total)/time.Second), int64(total/time.Second))
	}
	found, err := load.Run(ctx, o, targets...)
	bar.done(err == nil)
	if found == nil {
		return err
	}
	found.Program, found.Command = programVersion(), os.Args[1:]
	err = errors.Join(err, writeFile(c.JSON, found.WriteJSON), writeFile(c.CSV, found.WriteCSV), writeFile(c.HTML, found.WriteHTML))
	found.WriteTable(stdout)
	if found.Unfinished {
		return err
	}
	return errors.Join(err, found.Assert(asserts))
}

// options checks the flags.
func (c *benchRunCmd) options() (o load.Options, asserts report.Goal, err error) {
	if len(c.Files) > 0 {
		return o, nil, errors.New("files are for --compare only")
	}
	o = load.Options{Search: c.Search, Turns: c.Turns,
		Window: load.Window{Warmup: c.Warmup, Duration: c.Duration, Backoff: c.Backoff, Every: c.Sample}}
	if len(c.Clients)+len(c.Rate)+len(c.Cameras) == 0 {
		c.Clients = []int{16}
	}
	streams := load.Streams{Kind: c.Stream, FPS: c.FPS, Policy: c.Policy, Gate: c.Gate, Trouble: c.Misbehave}
	switch {
	case c.Stream == "":
		streams = load.Streams{}
	case len(c.Rate) > 0 || c.Search != "" || c.FreshPrompts || c.Prompts == 0 || c.Body == load.Multipart || len(c.Size) > 1 && c.Body == load.Raw:
		return o, nil, errors.New("--stream has --fps and no --rate or --search, prompts that stay, and frames as files or raw ones of one --size")
	}
	for _, n := range c.Clients {
		o.Loads = append(o.Loads, load.Load{Clients: n, Streams: streams})
	}
	for _, n := range c.Rate {
		o.Loads = append(o.Loads, load.Load{Rate: n, Poisson: c.Poisson})
	}
	for _, n := range c.Cameras {
		o.Loads = append(o.Loads, load.Load{Rate: 30 * n, Cameras: n})
	}
	if c.SLO != "" {
		if o.Goal, err = report.ParseGoal(c.SLO); err != nil {
			return o, nil, fmt.Errorf("--slo: %w", err)
		}
	}
	if len(c.Assert) > 0 {
		if asserts, err = report.ParseGoal(strings.Join(c.Assert, ",")); err != nil {
			return o, nil, fmt.Errorf("--assert: %w", err)
		}
	}
	if c.Timeout < time.Millisecond || c.Timeout > 10*time.Minute {
		return o, nil, fmt.Errorf("--timeout: %v is out of bounds: 1ms to 10m", c.Timeout)
	}
	return o, asserts, o.Validate(c.VS != "")
}

// environment is that of a service which is started for the measurement: it has room for all streams and their listeners.
func (c *benchRunCmd) environment() (list []string) {
	if c.Stream == "" {
		return nil
	}
	n := min(slices.Max(c.Clients)+2*len(c.Misbehave), 1000)
	return []string{fmt.Sprintf("HAILO_CLIP_STREAMS_MAX_STREAMS=%d", max(n, 64)), fmt.Sprintf("HAILO_CLIP_STREAMS_MAX_LISTENERS=%d", max(n, 8))}
}

// startFlags are those that say how to start a service.
func startFlags(g *globals) [][2]string {
	return [][2]string{{"--backend", g.Backend}, {"--model", g.Model}, {"--config", g.ConfigFile}}
}

// noStart refuses flags that say how to start a service where the one at url is asked.
func noStart(url string, g *globals) error {
	for _, f := range startFlags(g) {
		if url != "" && f[1] != "" {
			return usageError{fmt.Errorf("%s is of no use with --url: the service there has its own", f[0])}
		}
	}
	return nil
}

// startService starts this program as the service to measure, with a state folder of its own, in which only models and
// libraries are the user's, so that the measurement finds no prompts from before and leaves none behind. more is for its
// environment. The caller stops it.
func startService(ctx context.Context, g *globals, more ...string) (url string, stop func() error, err error) {
	state, err := g.state()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "hailo-clip-bench-")
	for _, name := range []string{"models", "lib"} {
		if err == nil {
			err = os.Symlink(filepath.Join(state, name), filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	args := []string{"serve", "--host", "127.0.0.1", "--port", "0"}
	for _, f := range append(startFlags(g), [2]string{"--state-dir", dir}) {
		if f[1] != "" {
			args = append(args, f[:]...)
		}
	}
	// Metrics are measured too, but on no port that another service has; more and the environment may say otherwise.
	environment := append(append(append([]string{"HAILO_CLIP_ADMIN_LISTEN=127.0.0.1:0"}, more...), os.Environ()...), "HAILO_CLIP_TEXT_EMBEDDING_CACHE_FILE="+filepath.Join(dir, "prompts.db"),
		"HAILO_CLIP_LOGGING_FORMAT=json", "HAILO_CLIP_LOGGING_LEVEL=info", // the log says where it serves
		"HAILO_CLIP_SERVER_TLS_CERT_FILE=", "HAILO_CLIP_SERVER_TLS_KEY_FILE=", "HAILO_CLIP_SERVER_SOCKET=") // it is for us alone
	url, end, err := startSelf(ctx, environment, args...)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return url, func() error { return errors.Join(end(), os.RemoveAll(dir)) }, nil
}

// startSelf starts this program as a service, which the caller stops.
func startSelf(ctx context.Context, environment []string, args ...string) (url string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	child, err := load.StartChild(ctx, environment, self, args...)
	if err != nil {
		return "", nil, err
	}
	return child.URL, child.Stop, nil
}

// given leaves out what is "".
func given(texts ...string) []string {
	return slices.DeleteFunc(texts, func(text string) bool { return text == "" })
}

// writable says why a file cannot be written, and leaves it as it is.
func writable(name string) error {
	_, missing := os.Stat(name)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
	if err == nil {
		err = f.Close()
	}
	if err == nil && missing != nil {
		err = os.Remove(name)
	}
	return err
}

func (c *benchRunCmd) compare() error {
	if len(c.Files) != 2 {
		return usageError{fmt.Errorf("--compare takes two reports, not %d: hailo-clip bench --compare a.json b.json", len(c.Files))}
	}
	var reports [2]*report.Report
	for i, name := range c.Files {
		f, err := safefile.OpenRegular(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if reports[i], err = report.Read(f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return report.Compare(stdout, reports[0], reports[1])
}
