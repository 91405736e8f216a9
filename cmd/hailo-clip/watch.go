package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"hailoclip/api/client"
	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
)

type watchCmd struct {
	asks
	Source string   `arg:"" help:"Folder, image, video, /dev/videoN, http:// or rtsp:// address, or - for frames on standard input, as ffmpeg -f mpjpeg writes them."`
	Prompt []string `short:"p" xor:"what" sep:"none" placeholder:"TEXT" help:"A description to match; give several."`
	Set    string   `name:"prompt-set" xor:"what" placeholder:"NAME" help:"Compare with the labels of a prompt set of the service instead."`
	Stream string   `placeholder:"NAME" help:"Feed the stream of this name, for others to hear its events. One that is defined needs no prompts. Default: one that ends with the command."`

	TopK   int      `short:"k" default:"0" help:"Show only the best so many; 0 is all."`
	FPS    float64  `name:"fps" default:"0" help:"Frames a second at most; 0 is all."`
	Policy string   `enum:",latest,queue" default:"" help:"When frames come faster than they are classified: latest drops the older ones, queue waits. Default: queue for files, latest for what is live."`
	Region []string `sep:"none" placeholder:"NAME=X,Y,W,H" help:"Answer for this part of the frame, in parts of its width and height; give several."`
	Gate   bool     `help:"Classify no frame that looks like the one before."`

	Enter     *float64      `placeholder:"SCORE" help:"Score from which a label holds (default 0.6, or what the prompt set says)."`
	Exit      *float64      `placeholder:"SCORE" help:"Score below which it does not hold any more (default 0.4, likewise)."`
	Hold      time.Duration `default:"0s" help:"For how long it must be so."`
	MinFrames int           `default:"0" help:"In how many classified frames in a row; 0 is 3."`
	Smoothing float64       `default:"0" help:"Weight of the frames before, from 0 to 0.99."`

	Events     bool   `help:"Print what changes instead of every answer."`
	Thumbnails string `placeholder:"DIR" type:"path" help:"Write the thumbnail of each event into this folder. The service keeps such events."`
	NoColor    bool   `help:"Without colors, as with NO_COLOR in the environment."`
}

func (c *watchCmd) Help() string {
	return `In a terminal there is a table that follows the frames; otherwise a JSON object a line for each of them, in their order, or with --events
for each change. Files are read at the speed of the service, and none of their frames is lost. Videos and rtsp:// need ffmpeg.

Examples:
  hailo-clip watch door.mp4 -p "an open door" -p "a closed door"
  hailo-clip watch rtsp://camera/stream1 --prompt-set door --fps 5 --region gate=0.2,0.3,0.4,0.5
  hailo-clip watch /dev/video0 --prompt-set door --events | jq -r '.label // empty'
  ffmpeg -i door.mp4 -f mpjpeg - | hailo-clip watch - --prompt-set door --url http://pi:5000

Exit code 1 when any frame could not be read; the others are classified all the same.`
}

func (c *watchCmd) Run(ctx context.Context, g *globals) error {
	d, err := c.definition()
	if err != nil {
		return usageError{err}
	}
	o := source.Options{FPS: c.FPS, Local: true, Stdin: os.Stdin, Allowed: outbound.Any(), Limits: source.Limits{FrameBytes: maxBenchImage}, Log: slog.New(slog.DiscardHandler)}
	if err := source.Check(c.Source, o); err != nil {
		return watchError(err)
	}
	if c.Thumbnails != "" {
		if err := os.MkdirAll(c.Thumbnails, 0o777); err != nil {
			return err
		}
	}
	return c.service(ctx, g, func(s *client.Client) error {
		if c.Set != "" {
			if err := waitEncoded(ctx, s, c.Set); err != nil && !errors.Is(err, errNotEncoded) { // a former version may answer
				return err
			}
		}
		return c.watch(ctx, s, d, o)
	})
}

// watchError is a source's error as the program ends with it.
func watchError(err error) error {
	var wrong *source.Error
	if errors.As(err, &wrong) && wrong.Code == "no_ffmpeg" {
		complain("hailo-clip: %v", err)
		return exitError(exitMissing)
	}
	return err
}

// definition is what the flags say is to be done with the frames.
func (c *watchCmd) definition() (d client.StreamDefinition, err error) {
	if err := checkPrompts(c.Prompt); err != nil {
		return d, err
	}
	if len(c.Prompt) == 0 && c.Set == "" && c.Stream == "" {
		return d, errors.New("nothing to compare with: give --prompt, --prompt-set, or the --stream that is to be fed")
	}
	d = client.StreamDefinition{PromptSet: c.Set, Prompts: c.Prompt, TopK: c.TopK, FPS: c.FPS, Policy: c.Policy}
	if d.Policy == "" {
		d.Policy = client.PolicyLatest
		if !source.Live(c.Source) {
			d.Policy = client.PolicyQueue
		}
	}
	if !source.Live(c.Source) {
		d.Clock = "frame" // however fast they are read
	}
	for _, text := range c.Region {
		r, err := parseRegion(text)
		if err != nil {
			return d, err
		}
		d.Regions = append(d.Regions, r)
	}
	if c.Gate {
		d.Gate = &client.Gate{}
	}
	if c.Events || c.Thumbnails != "" || stdout.terminal || c.Enter != nil || c.Exit != nil || c.Hold != 0 || c.MinFrames != 0 || c.Smoothing != 0 {
		d.Events = &client.StreamEvents{Enter: c.Enter, Exit: c.Exit, HoldMS: int(c.Hold.Milliseconds()), MinFrames: c.MinFrames,
			Smoothing: c.Smoothing, Thumbnails: c.Thumbnails != ""}
	}
	for _, f := range []struct {
		name    string
		is, top float64
	}{{"--top-k", float64(c.TopK), 1e6}, {"--fps", c.FPS, 1000}, {"--hold", c.Hold.Seconds(), 3600}, {"--min-frames", float64(c.MinFrames), 1000}, {"--smoothing", c.Smoothing, 0.99}} {
		if !(f.is >= 0 && f.is <= f.top) {
			return d, fmt.Errorf("%s: %v is out of bounds: 0 to %v", f.name, f.is, f.top)
		}
	}
	return d, nil
}

// parseRegion reads NAME=X,Y,W,H.
func parseRegion(text string) (r client.Region, err error) {
	name, numbers, _ := strings.Cut(text, "=")
	parts := strings.Split(numbers, ",")
	r.Name = name
	for i, to := range []*float64{&r.X, &r.Y, &r.W, &r.H} {
		if len(parts) != 4 {
			err = strconv.ErrSyntax
		} else if err == nil {
			*to, err = strconv.ParseFloat(strings.TrimSpace(parts[i]), 64)
		}
	}
	inside := func(at, size float64) bool { return at >= 0 && size > 0 && at+size <= 1 }
	if err != nil || name == "" || math.IsNaN(r.X+r.Y+r.W+r.H) || !inside(r.X, r.W) || !inside(r.Y, r.H) {
		return r, fmt.Errorf("--region: %q is not of the form NAME=X,Y,W,H, a part of the frame: 0 <= X < X+W <= 1, and so with Y and H", text)
	}
	return r, nil
}
