package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/api/stream/event"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chip is a device for which an image points into the direction of the colour of its first pixel, and a text into that of the colour
// that it names.
type chip struct {
	frames *hailo.Frames
	takes  time.Duration // for an image
	gate   chan struct{} // holds a value for each image that may be encoded; nil: all may
	texts  chan struct{} // likewise, for texts; closed: all may
	fail   atomic.Pointer[error]
	images atomic.Int32 // encoded
}

var colours = map[string][3]byte{"red": {255, 0, 0}, "green": {0, 255, 0}, "blue": {0, 0, 255}, "dark red": {128, 0, 0}}

func (c *chip) Frames() *hailo.Frames { return c.frames }
func (c *chip) Close() error          { return nil }
func (c *chip) Status() hailo.Status  { return hailo.Status{Ready: true} }
func (c *chip) Info() hailo.Info {
	return hailo.Info{Backend: "cpu", Device: "test", ImageBatch: 1, ImageCalls: 1, TextBatch: 8, TextDigest: "texts", ImageDigest: "images"}
}

func (c *chip) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	if c.gate != nil {
		<-c.gate
	}
	if c.takes > 0 {
		time.Sleep(c.takes)
	}
	if err := c.fail.Load(); err != nil {
		return *err
	}
	for _, f := range frames {
		c.images.Add(1)
		v := []float32{float32(f.Pixels[0]), float32(f.Pixels[1]), float32(f.Pixels[2])}
		if err := hailo.Normalize(f.Embedding, v); err != nil {
			return fmt.Errorf("%w: %w", hailo.ErrEncode, err)
		}
	}
	return nil
}

func (c *chip) EncodeTexts(_ context.Context, tokens [][]int32) ([][]float32, error) {
	if c.texts != nil {
		<-c.texts
	}
	vectors := make([][]float32, len(tokens))
	for i, t := range tokens {
		var text []byte
		for _, b := range t {
			text = append(text, byte(b))
		}
		for name, colour := range colours {
			if strings.HasSuffix(string(text), name) {
				vectors[i] = make([]float32, 3)
				_ = hailo.Normalize(vectors[i], []float32{float32(colour[0]), float32(colour[1]), float32(colour[2])})
			}
		}
		if vectors[i] == nil {
			return nil, fmt.Errorf("%w: %q is no colour", hailo.ErrEncode, text)
		}
	}
	return vectors, nil
}

// yard is a hub over a chip.
type yard struct {
	*Hub
	t     testing.TB
	chip  *chip
	bus   *event.Bus
	parts Parts
	cfg   Config
	file  *sets.File // of prompt sets; nil: none

	released atomic.Int32 // frames
	conn     uint64
}

// newYard makes a hub, which change may have otherwise. It is closed at the end of the test, and all frames must be back then.
func newYard(t testing.TB, change func(*yard)) *yard {
	t.Helper()
	y := &yard{t: t, chip: &chip{}, bus: event.NewBus(100), cfg: Config{MaxStreams: 64, MaxListeners: 8, Linger: 30 * time.Second}}
	y.parts = Parts{
		Bus: y.bus, Lost: errors.New("there is no file"), Limits: Limits{Prompts: 100, PromptBytes: 100}, Timeout: 30 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("STREAM_LOG") != "" {
		y.parts.Log = slog.Default()
	}
	if change != nil {
		change(y)
	}
	y.chip.frames = hailo.NewHeapFrames(4, 8, 3)
	store := cache.OpenStore(cache.Config{
		Mode: cache.OnDemand, CacheEnabled: true, CacheMaxEntries: 100, CacheListBytes: 64 << 10, CacheFileMaxBytes: 4 << 20, MaxPending: 100,
	}, "", y.parts.Log)
	engine, err := clip.New(
		clip.Config{ApplySoftmax: true, Images: stages.Config{
			Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitSquash}}},
		pipeline.Config{WorkerThreads: 2, MaxQueueSize: 10},
		clip.Parts{
			Model: model.Manifest{Name: "colours", ImageSize: 8, EmbeddingDimension: 3, LogitScale: 10},
			Tokenize: func(text string) (tokens []int32, cut bool) {
				for _, b := range []byte(text) {
					tokens = append(tokens, int32(b))
				}
				return tokens, false
			},
			Images: y.chip, Texts: []hailo.Backend{y.chip}, Encoders: y.chip, Store: store,
			Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 10), Sets: y.sets(),
		})
	if err != nil {
		t.Fatal(err)
	}
	y.parts.Engine = engine
	if y.Hub, err = NewHub(y.cfg, y.parts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return y
}

func (y *yard) sets() clip.SetParts {
	label := func(name string, threshold *sets.Threshold) sets.Label {
		return sets.Label{Name: name, Threshold: threshold}
	}
	none := sets.Templates{Name: "none"}
	d := sets.Definition{Labels: []sets.Label{label("red", &sets.Threshold{Enter: 0.9, Exit: 0.8}), label("green", nil)}, Templates: &none}
	return clip.SetParts{File: y.file, Configured: map[string]sets.Definition{"door": d.Normalized()}, Limits: sets.Limits{PromptBytes: 100}}
}

// outcome is what the sender of a frame was told.
type outcome struct {
	Answer
	best string // label of the first region
}

// sender is a feed and what it has been answered.
type sender struct {
	*Feed
	y   *yard
	mu  sync.Mutex
	got []outcome

	stall chan struct{} // answers wait for a value each; nil: they do not
	seq   uint64
	sent  int
}

// raw are frames of 4 x 4 pixels.
const rawFormat = "rgb24; 4x4"

func (y *yard) feed(id, definition string) *sender {
	y.t.Helper()
	s, err := y.tryFeed(y.t.Context(), id, definition)
	if err != nil {
		y.t.Fatal(err)
	}
	return s
}

func (y *yard) tryFeed(ctx context.Context, id, definition string) (*sender, error) {
	y.conn++
	s := &sender{y: y}
	o := Opening{ID: id, Caller: fair.Caller{Address: "test", Connection: y.conn}, Answer: s.answered}
	if definition != "" {
		o.Definition = []byte(definition)
	}
	var err error
	s.Feed, err = y.Open(ctx, o)
	return s, err
}

func (s *sender) answered(a *Answer) {
	if s.stall != nil {
		<-s.stall
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := outcome{Answer: *a}
	o.Regions = slices.Clone(a.Regions)
	for i := range o.Regions {
		r := &o.Regions[i].Result
		r.Matches, r.Logits, r.Embedding = slices.Clone(r.Matches), slices.Clone(r.Logits), slices.Clone(r.Embedding)
	}
	if len(a.Regions) > 0 && len(a.Regions[0].Result.Matches) > 0 {
		o.best = a.Regions[0].Names[a.Regions[0].Result.Matches[0].Label]
	}
	s.got = append(s.got, o)
}

func (s *sender) outcomes() []outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]outcome(nil), s.got...)
}

// paint returns a raw frame of colours, one for each column of two pixels.
func paint(names ...string) []byte {
	b := make([]byte, 0, 48)
	for range 4 {
		for x := range 4 {
			c := colours[names[x*len(names)/4]]
			b = append(b, c[:]...)
		}
	}
	return b
}

// push sends frames of a colour each. Once a frame is released its memory is overwritten.
func (s *sender) push(names ...string) {
	s.y.t.Helper()
	for _, name := range names {
		if err := s.Push(s.frame(strings.Split(name, "|")...)); err != nil {
			s.y.t.Error(err)
		}
	}
}

func (s *sender) frame(names ...string) Frame {
	b := paint(names...)
	f := Frame{Image: b, Seq: s.seq, Release: func() {
		s.y.released.Add(1)
		clear(b)
	}}
	s.seq++
	s.sent++
	return f
}

// text is what was answered: the best label, "=" before it if it was reused, or why there is none.
func (s *sender) text() string {
	var words []string
	for _, o := range s.outcomes() {
		word := string(o.Dropped)
		if word == "" {
			word = o.best
		}
		if o.Reused {
			word = "=" + word
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// ordered checks that there is one outcome for each frame, in order, and that all frames are released.
func (s *sender) ordered() {
	s.y.t.Helper()
	got := s.outcomes()
	if len(got) != s.sent {
		s.y.t.Errorf("%d outcomes of %d frames", len(got), s.sent)
	}
	for i, o := range got {
		if o.Seq != uint64(i) {
			s.y.t.Fatalf("outcome %d is of frame %d", i, o.Seq)
		}
	}
}
