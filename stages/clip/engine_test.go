package clip

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is a backend for which an image, and a text that begins with the name of a colour, point into the direction of that
// colour.
type device struct {
	frames *hailo.Frames
	lost   bool          // fails as one that is away
	hang   chan struct{} // calls for images return when it is closed; nil: at once
	closed atomic.Bool

	hangTexts chan struct{} // as hang, for texts
	texts     atomic.Int32  // encoded
}

var colours = map[string]color.RGBA{"red": {255, 0, 0, 255}, "green": {0, 255, 0, 255}, "blue": {0, 0, 255, 255}}

func (d *device) Frames() *hailo.Frames { return d.frames }
func (d *device) Close() error          { d.closed.Store(true); return nil }
func (d *device) Info() hailo.Info {
	return hailo.Info{Backend: "cpu", ImageBatch: 1, ImageCalls: 1, TextBatch: 8, TextDigest: fmt.Sprint("lost ", d.lost)}
}

func (d *device) Status() hailo.Status {
	if d.lost {
		return hailo.Status{Why: hailo.Because("it is away")}
	}
	return hailo.Status{Ready: true}
}

func (d *device) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	if d.hang != nil {
		<-d.hang
	}
	if d.lost {
		return hailo.ErrDeviceLost
	}
	for _, f := range frames {
		for i := range f.Embedding {
			f.Embedding[i] = float32(f.Pixels[i]) / 255
		}
	}
	return nil
}

func (d *device) EncodeTexts(_ context.Context, tokens [][]int32) ([][]float32, error) {
	if d.lost {
		return nil, hailo.ErrDeviceLost
	}
	if d.hangTexts != nil {
		<-d.hangTexts
	}
	d.texts.Add(int32(len(tokens)))
	vectors := make([][]float32, len(tokens))
	for i, t := range tokens {
		var name []byte
		for _, b := range t {
			name = append(name, byte(b))
		}
		colour, _, _ := strings.Cut(string(name), " ")
		c, ok := colours[colour]
		if !ok {
			return nil, fmt.Errorf("%w: %q is no colour", hailo.ErrEncode, name)
		}
		vectors[i] = []float32{float32(c.R) / 255, float32(c.G) / 255, float32(c.B) / 255}
	}
	return vectors, nil
}

// newEngine makes an engine of d and of more encoders of texts. It is closed at the end of the test.
func newEngine(t testing.TB, d *device, texts ...hailo.Backend) *Engine {
	t.Helper()
	const size = 8
	if d.frames == nil {
		d.frames = hailo.NewHeapFrames(4, size, 3)
	}
	store := cache.OpenStore(cache.Config{
		Mode: cache.OnDemand, CacheMaxEntries: 1, CacheListBytes: 64 << 10, CacheFileMaxBytes: 4 << 20, MaxPending: 100,
	}, "", slog.New(slog.DiscardHandler))
	e, err := New(
		Config{ApplySoftmax: true, Images: stages.Config{
			Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitCrop}}},
		pipeline.Config{WorkerThreads: 2, MaxQueueSize: 3},
		Parts{
			Model: model.Manifest{Name: "colours", ImageSize: size, EmbeddingDimension: 3, LogitScale: 10},
			Tokenize: func(text string) (tokens []int32, cut bool) {
				for _, b := range []byte(text) {
					tokens = append(tokens, int32(b))
				}
				return tokens, false
			},
			Images: d, Texts: append([]hailo.Backend{d}, texts...), Encoders: d,
			Store: store, Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 3),
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if !d.closed.Load() || d.frames.Free() != d.frames.Len() {
			t.Errorf("encoders closed %v, %d of %d frames came back", d.closed.Load(), d.frames.Free(), d.frames.Len())
		}
	})
	return e
}

func imageOf(t testing.TB, colour string) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		m.Set(i%8, i/8, colours[colour])
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRequests: an image and prompts become matches and times, or the meaning of what happened; the request is
// released once, whatever came of it.
func TestRequests(t *testing.T) {
	good, all := imageOf(t, "green"), []string{"red", "green", "blue"}
	e := newEngine(t, &device{})
	ended, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	cancel(boom)
	for _, c := range []struct {
		name string
		ctx  context.Context
		do   func(context.Context, *Request) (Result, error)
		r    Request
		err  []error
		best []int
	}{
		{"classify", t.Context(), e.Classify, Request{Image: good, Prompts: all}, nil, []int{1, 0, 2}},
		{"one match", t.Context(), e.Classify, Request{Image: good, Prompts: all, TopK: 1}, nil, []int{1}},
		{"threshold", t.Context(), e.Classify, Request{Image: good, Prompts: all, Cut: true, Threshold: 0.5}, nil, []int{1}},
		{"embed", t.Context(), e.EmbedImage, Request{Image: good}, nil, nil},
		{"a text that cannot be encoded", t.Context(), e.Classify, Request{Image: good, Prompts: []string{"mauve"}}, []error{ErrEncodeText, hailo.ErrEncode}, nil},
		{"no image", t.Context(), e.EmbedImage, Request{Image: []byte("text")}, []error{decode.ErrNotImage}, nil},
		{"ended at the texts", ended, e.Classify, Request{Image: good, Prompts: all}, []error{pipeline.ErrDeadline, boom}, nil},
		{"ended at the image", ended, e.EmbedImage, Request{Image: good}, []error{pipeline.ErrDeadline, boom}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			released := make(chan struct{})
			c.r.Release = func() { close(released) }
			result, err := c.do(c.ctx, &c.r)
			<-released
			for _, want := range c.err {
				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
			}
			if c.err != nil {
				return
			}
			if err != nil || len(result.Times) != 4 || result.TextTime > 0 != (c.best != nil) {
				t.Fatalf("%+v, error %v", result, err)
			}
			var best []int
			for _, m := range result.Matches {
				best = append(best, m.Label)
			}
			if !slices.Equal(best, c.best) || c.best == nil && !slices.Equal(result.Embedding, []float32{0, 1, 0}) {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestClassifyWithAll: one request gets the embedding and the logits with its matches, and what they were compared with; one
// that is not to be encoded gets nothing but that.
func TestClassifyWithAll(t *testing.T) {
	e := newEngine(t, &device{})
	r := Request{Image: imageOf(t, "green"), Prompts: []string{"red", "green"}, TopK: 1, Logits: true, Embedding: true}
	got, err := e.Classify(t.Context(), &r)
	if err != nil || !slices.Equal(got.Embedding, []float32{0, 1, 0}) || !slices.Equal(got.Logits, []float64{0, 10}) || len(got.Matches) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if l := got.Labels; l.N != 2 || !slices.Equal(l.Rows, []float32{1, 0, 0, 0, 1, 0}) || got.Scoring.LogitScale != 10 || got.Scoring.TopK != 1 {
		t.Errorf("compared with %+v by %+v", l, got.Scoring)
	}
	again, reason := stages.Rank(got.Embedding, got.Labels, got.Scoring, nil)
	if !slices.Equal(again, got.Matches) || reason != got.Reason {
		t.Errorf("%+v %s, want %+v %s", again, reason, got.Matches, got.Reason)
	}
	r.Seen = func(p stages.Pixels) bool { return p.Pix[1] == 255 }
	for _, do := range []func(context.Context, *Request) (Result, error){e.Classify, e.EmbedImage} {
		if got, err := do(t.Context(), &r); err != nil || !got.Skipped || got.Matches != nil || got.Logits != nil || got.Embedding != nil {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestNextTextEncoder is asked only while the one before is away.
func TestNextTextEncoder(t *testing.T) {
	second := &device{}
	e := newEngine(t, &device{lost: true}, second)
	if v, err := e.EmbedText(t.Context(), fair.Caller{}, "blue"); err != nil || !slices.Equal(v.Embedding, []float32{0, 0, 1}) || v.Tokens != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	first := newEngine(t, &device{}, second)
	if _, err := first.EmbedText(t.Context(), fair.Caller{}, "mauve"); !errors.Is(err, ErrEncodeText) || second.texts.Load() != 1 {
		t.Errorf("%v, the second encoded %d", err, second.texts.Load())
	}
}

// TestBatch has more images than fit into the queue: none is refused, and a bad one fails alone. The prompts are encoded
// once, although nothing is cached.
func TestBatch(t *testing.T) {
	d := &device{}
	e := newEngine(t, d)
	names := []string{"red", "", "green", "blue"}
	images := map[string][]byte{}
	for name := range colours {
		images[name] = imageOf(t, name)
	}
	broken := errors.New("it cannot be opened")
	const n = 64
	best, errs := make([]int, n), make([]error, n)
	err := e.ClassifyBatch(t.Context(), Request{Prompts: names[2:], TopK: 1}, Batch{
		Len: n,
		Open: func(i int) ([]byte, error) {
			if i == 5 {
				return nil, broken
			}
			return images[names[i%4]], nil
		},
		Done: func(i int, r Result, err error) {
			if errs[i] = err; err == nil {
				best[i] = r.Matches[0].Label
			}
		},
	})
	if err != nil || d.texts.Load() != 2 {
		t.Fatalf("%v, %d texts encoded", err, d.texts.Load())
	}
	for i := range n {
		switch {
		case i == 5 && !errors.Is(errs[i], broken), i != 5 && i%4 == 1 && !errors.Is(errs[i], decode.ErrNotImage),
			i%4 != 1 && errs[i] != nil, i%4 == 2 && best[i] != 0, i%4 == 3 && best[i] != 1:
			t.Errorf("image %d: match %d, error %v", i, best[i], errs[i])
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := 0
	err = e.EmbedImageBatch(ctx, Request{}, Batch{
		Len:  n,
		Open: func(int) ([]byte, error) { return images["red"], nil },
		Done: func(int, Result, error) { done++; cancel() },
	})
	if !errors.Is(err, context.Canceled) || done == n {
		t.Errorf("%v after %d images", err, done)
	}
	var open, most atomic.Int32
	err = e.EmbedImageBatch(t.Context(), Request{}, Batch{
		Len: 9, AtOnce: 2,
		Open: func(int) ([]byte, error) { most.Store(max(most.Load(), open.Add(1))); return images["red"], nil },
		Done: func(int, Result, error) { open.Add(-1) },
	})
	if err != nil || most.Load() > 2 {
		t.Errorf("%d images were open at once: %v", most.Load(), err)
	}
	var panicked *pipeline.PanicError
	done = 0
	err = e.EmbedImageBatch(t.Context(), Request{}, Batch{
		Len: 3,
		Open: func(i int) ([]byte, error) {
			if i == 1 {
				panic("a transport's fault")
			}
			return images["red"], nil
		},
		Done: func(int, Result, error) { done++ },
	})
	if !errors.As(err, &panicked) || done != 2 {
		t.Errorf("%v, %d images done", err, done)
	}
	if err := e.ClassifyBatch(t.Context(), Request{Prompts: []string{"mauve"}}, Batch{}); !errors.Is(err, ErrEncodeText) {
		t.Errorf("bad prompts: %v", err)
	}
}

// TestStuckWorkersShow has the encoder hang for ever: health says so, degraded while another worker stands in and
// unhealthy when none is left, and an engine that closes does not wait for the one that was replaced.
func TestStuckWorkersShow(t *testing.T) {
	image := imageOf(t, "red")
	for stuck, state := range []State{Healthy, Degraded, Unhealthy} {
		synctest.Test(t, func(t *testing.T) {
			d := &device{hang: make(chan struct{})}
			e := newEngine(t, d)
			for range stuck {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if _, err := e.EmbedImage(ctx, &Request{Image: image}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v", err)
				}
				cancel()
				time.Sleep(time.Minute)
			}
			if h := e.Health(); e.State() != state || h.State != state || strings.Contains(h.Reason, "encode") != (stuck > 0) {
				t.Errorf("%d stuck: %+v", stuck, h)
			}
			if stuck == 1 {
				start := time.Now()
				if err := e.Close(t.Context()); err == nil || d.closed.Load() || time.Since(start) != 0 {
					t.Errorf("closed after %v: %v, device closed: %v", time.Since(start), err, d.closed.Load())
				}
			}
			close(d.hang)
			synctest.Wait()
			if h := e.Health(); h.State != Healthy || h.Reason != "" {
				t.Errorf("%d were stuck: %+v", stuck, h)
			}
		})
	}
	d := &device{}
	e := newEngine(t, d)
	if n := testing.AllocsPerRun(100, func() { _ = e.State() }); n != 0 {
		t.Errorf("asking for the state allocates %v times", n)
	}
	d.lost = true
	if h := e.Health(); h.State != Unhealthy || h.Reason != "it is away" || h.ModelLoaded {
		t.Errorf("%+v", h)
	}
}

// serveLines is a whole transport: of each line, a file, a tab and prompts between bars, it makes one with the best.
func serveLines(ctx context.Context, e *Engine, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		path, prompts, _ := strings.Cut(lines.Text(), "\t")
		image, err := os.ReadFile(path)
		r := Request{Image: image, Prompts: strings.Split(prompts, "|"), TopK: 1}
		var result Result
		if err == nil {
			result, err = e.Classify(ctx, &r)
		}
		if err != nil {
			fmt.Fprintf(out, "%s\terror: %v\n", path, err)
			continue
		}
		best := result.Matches[0]
		fmt.Fprintf(out, "%s\t%s\t%.3f\n", path, r.Prompts[best.Label], best.Score)
	}
	return lines.Err()
}

// TestAddATransport shows what one takes.
func TestAddATransport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.png")
	if err := os.WriteFile(file, imageOf(t, "blue"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	in := strings.NewReader(file + "\tred|blue|green\n" + file + "\tmauve\n")
	if err := serveLines(t.Context(), newEngine(t, &device{}), in, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, file+"\tblue\t1.000\n"+file+"\terror: ") || strings.Count(got, "\n") != 2 {
		t.Errorf("%s", got)
	}
}
