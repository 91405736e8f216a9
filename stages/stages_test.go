package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBackend is a device whose embedding of a frame points into the direction of its mean
// colour; a picture of pure green makes its whole batch fail.
type fakeBackend struct {
	frames *hailo.Frames
	batch  int
	fail   func(call int, frames []*hailo.Frame) error
	wait   chan struct{} // batches of several end when it is closed, or with their context; nil: at once

	mu        sync.Mutex
	calls     [][]int // slots of every call
	deadlines []time.Time
}

func (b *fakeBackend) Info() hailo.Info      { return hailo.Info{ImageBatch: b.batch, ImageCalls: 2} }
func (b *fakeBackend) Frames() *hailo.Frames { return b.frames }
func (b *fakeBackend) Status() hailo.Status  { return hailo.Status{Ready: true} }
func (b *fakeBackend) Close() error          { return nil }
func (b *fakeBackend) EncodeTexts(context.Context, [][]int32) ([][]float32, error) {
	return nil, errors.New("not asked for")
}

func (b *fakeBackend) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	b.mu.Lock()
	call := len(b.calls)
	var slots []int
	for _, f := range frames {
		slots = append(slots, f.Slot)
	}
	b.calls = append(b.calls, slots)
	deadline, _ := ctx.Deadline()
	b.deadlines = append(b.deadlines, deadline)
	b.mu.Unlock()
	for _, f := range frames {
		var sum [3]float64
		for i, p := range f.Pixels {
			sum[i%3] += float64(p)
		}
		norm := math.Sqrt(sum[0]*sum[0]+sum[1]*sum[1]+sum[2]*sum[2]) + 1e-9
		for c := range sum {
			f.Embedding[c] = float32(sum[c] / norm)
		}
	}
	if b.wait != nil && len(frames) > 1 {
		select {
		case <-b.wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if b.fail != nil {
		return b.fail(call, frames)
	}
	return ctx.Err()
}

func isGreen(f *hailo.Frame) bool { return f.Pixels[0] == 0 && f.Pixels[1] == 255 && f.Pixels[2] == 0 }

func picture(t testing.TB, w, h int, c color.Color) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var (
	red   = color.RGBA{255, 0, 0, 255}
	green = color.RGBA{0, 255, 0, 255}
	blue  = color.RGBA{0, 0, 255, 255}
)

func testBudget() *decode.Budget { return decode.NewBudget(1<<30, math.MaxInt64, 2, 10) }

var testConfig = Config{
	Decode: decode.Config{MaxPixels: 1_000_000, JPEGScale: decode.ScaleExact},
	Resize: resize.Config{Fit: resize.FitSquash}, // a fit that is too extreme at times
}

// start runs the real pipeline with the real stages over b.
func start(t *testing.T, b *fakeBackend) *pipeline.Pipeline {
	t.Helper()
	const size = 32
	if b.frames == nil {
		b.frames = hailo.NewHeapFrames(4, size, 3)
	}
	line := NewLine(testConfig, b, size, 2, testBudget())
	p, err := pipeline.New(line.Stages(pipeline.Config{MaxQueueSize: 100})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if b.frames.Free() != b.frames.Len() {
			t.Errorf("%d of %d frames came back", b.frames.Free(), b.frames.Len())
		}
	})
	return p
}

func TestClassify(t *testing.T) {
	p := start(t, &fakeBackend{batch: 2})
	prompts := []float32{1, 0, 0, 0, 1, 0, 0, 0, 1} // red, green, blue
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			c := []color.Color{red, green, blue}[i%3]
			job := &pipeline.Job{Image: picture(t, 40+i, 50, c), Prompts: prompts, Embedding: true,
				Scoring: pipeline.Scoring{LogitScale: 10, Softmax: true, TopK: 1}}
			if err := p.Do(t.Context(), job); err != nil {
				t.Error(err)
				return
			}
			m := job.Result.Matches
			if len(m) != 1 || m[0].Prompt != i%3 || m[0].Cosine < 0.999 {
				t.Errorf("colour %d: matches %+v", i%3, m)
			}
			if e := job.Result.Embedding; len(e) != 3 || e[i%3] < 0.999 {
				t.Errorf("colour %d: embedding %v", i%3, e)
			}
			if len(job.Times()) != 4 {
				t.Errorf("times %v", job.Times())
			}
		})
	}
	wg.Wait()
}

func TestErrorsHaveMeanings(t *testing.T) {
	good := picture(t, 40, 40, red)
	cases := []struct {
		name   string
		image  []byte
		fail   error
		want   error  // of the pipeline
		source error  // of the package where it came up
		text   string // all of it
	}{
		{"empty", nil, nil, pipeline.ErrBadImage, decode.ErrNotImage, "not an image: no bytes"},
		{"not an image", []byte("hello, I am a text and nothing else"), nil, pipeline.ErrBadImage, decode.ErrNotImage,
			"not an image: starts with 68 65 6c 6c 6f 2c 20 49"},
		{"truncated", good[:len(good)/2], nil, pipeline.ErrBadImage, decode.ErrTruncated, "truncated image: PNG: row 0 of 40: unexpected EOF"},
		{"corrupt", append(bytes.Clone(good[:40]), make([]byte, 200)...), nil, pipeline.ErrBadImage, decode.ErrCorrupt,
			"corrupt image: PNG: a chunk named \"IDA\\x00\""},
		{"too many pixels", picture(t, 1001, 1000, red), nil, pipeline.ErrImageTooLarge, decode.ErrTooManyPixels,
			"too many pixels: 1001 x 1000 is more than 1000000"},
		{"PDF", []byte("%PDF-1.7\n%âãÏÓ\n1 0 obj <<>> endobj"), nil, pipeline.ErrUnsupportedImage, decode.ErrUnsupportedFormat,
			"unsupported image format: PDF (accepted: JPEG, PNG, WebP, GIF, BMP, TIFF)"},
		{"device lost", good, fmt.Errorf("worker died: %w", hailo.ErrDeviceLost), pipeline.ErrUnavailable, hailo.ErrDeviceLost,
			"the encoder is not available: worker died: device lost"},
		{"closed", good, hailo.ErrClosed, pipeline.ErrUnavailable, hailo.ErrClosed, "the encoder is not available: backend closed"},
		{"encode", good, fmt.Errorf("%w: a vector of zeros", hailo.ErrEncode), pipeline.ErrEncode, hailo.ErrEncode,
			"the image could not be encoded: encoding failed: a vector of zeros"},
		{"too extreme", picture(t, 300_000, 1, red), nil, pipeline.ErrBadImage, resize.ErrTooExtreme,
			"image too long for its size: a side of 300000 pixels to 32"},
		{"cancelled", good, context.Canceled, pipeline.ErrDeadline, context.Canceled, "the deadline has passed: context canceled"},
		{"deadline", good, context.DeadlineExceeded, pipeline.ErrDeadline, context.DeadlineExceeded,
			"the deadline has passed: context deadline exceeded"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { return c.fail }})
			err := p.Do(t.Context(), &pipeline.Job{Image: c.image})
			if !errors.Is(err, c.want) || !errors.Is(err, c.source) {
				t.Fatalf("error %v, want %v and %v", err, c.want, c.source)
			}
			if err.Error() != c.text {
				t.Errorf("text %q, want %q", err, c.text)
			}
		})
	}
}

func TestOneBadFrameFailsAlone(t *testing.T) {
	boom := fmt.Errorf("%w: boom", hailo.ErrEncode)
	gate := make(chan struct{})
	b := &fakeBackend{batch: 4, fail: func(call int, frames []*hailo.Frame) error {
		if call < 2 { // both workers wait until the others are queued behind them
			<-gate
		}
		for _, f := range frames {
			if isGreen(f) {
				return boom
			}
		}
		return nil
	}}
	b.frames = hailo.NewHeapFrames(8, 32, 3)
	p := start(t, b)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			c := color.Color(blue)
			if i%4 == 3 {
				c = green
			}
			errs[i] = p.Do(t.Context(), &pipeline.Job{Image: picture(t, 40, 40, c)})
		})
	}
	for p.Stats()[1].Passed < 8 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	for i, err := range errs {
		if i%4 == 3 && !errors.Is(err, pipeline.ErrEncode) || i%4 != 3 && err != nil {
			t.Errorf("job %d: %v", i, err)
		}
	}
}

// TestFramesBoundWhatIsInside fills all frames behind a hanging device: who waits for a frame
// is answered by its deadline, and the frames come back when the device does.
func TestFramesBoundWhatIsInside(t *testing.T) {
	gate := make(chan struct{})
	p := start(t, &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { <-gate; return nil }})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	image := picture(t, 40, 40, red)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := p.Do(ctx, &pipeline.Job{Image: image}); !errors.Is(err, pipeline.ErrDeadline) {
				t.Errorf("error %v, want the deadline", err)
			}
		})
	}
	wg.Wait()
	close(gate)
	if err := p.Do(t.Context(), &pipeline.Job{Image: image}); err != nil {
		t.Errorf("after the device came back: %v", err)
	}
}

func TestEmbeddingMustBeAUnitVector(t *testing.T) {
	for name, value := range map[string]float32{"NaN": float32(math.NaN()), "infinity": float32(math.Inf(1)), "too long": 2, "zero": 0} {
		t.Run(name, func(t *testing.T) {
			p := start(t, &fakeBackend{batch: 1, fail: func(_ int, frames []*hailo.Frame) error {
				copy(frames[0].Embedding, []float32{value, 0, 0})
				return nil
			}})
			job := &pipeline.Job{Image: picture(t, 40, 40, red), Prompts: []float32{1, 0, 0}, Scoring: pipeline.Scoring{TopK: 1}}
			if err := p.Do(t.Context(), job); !errors.Is(err, pipeline.ErrEncode) {
				t.Errorf("error %v, matches %v", err, job.Result.Matches)
			}
		})
	}
}

func TestPromptsMustFit(t *testing.T) {
	p := start(t, &fakeBackend{batch: 1})
	job := &pipeline.Job{Image: picture(t, 40, 40, red), Prompts: make([]float32, 4)}
	if err := p.Do(t.Context(), job); err == nil {
		t.Error("prompts of another dimension were accepted")
	}
}
