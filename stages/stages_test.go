package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBackend is a device whose embedding of a frame points into the direction of its mean
// colour; an image of pure green makes its whole batch fail.
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

func pngImage(t testing.TB, w, h int, c color.Color) []byte {
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

// start runs a line over b.
func start(t testing.TB, b *fakeBackend) *Line {
	t.Helper()
	const size = 32
	if b.frames == nil {
		b.frames = hailo.NewHeapFrames(4, size, 3)
	}
	l, err := NewLine(testConfig, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}, b, size, testBudget())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if b.frames.Free() != b.frames.Len() {
			t.Errorf("%d of %d frames came back", b.frames.Free(), b.frames.Len())
		}
	})
	return l
}

// do has an image encoded, without prompts.
func do(ctx context.Context, l *Line, image []byte) error {
	_, err := l.Do(ctx, &Request{Image: image})
	return err
}

func TestClassify(t *testing.T) {
	l := start(t, &fakeBackend{batch: 2})
	prompts := []float32{1, 0, 0, 0, 1, 0, 0, 0, 1} // red, green, blue
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			c := []color.Color{red, green, blue}[i%3]
			r, err := l.Do(t.Context(), &Request{Image: pngImage(t, 40+i, 50, c), Labels: plain(prompts, 3), Embedding: true,
				Scoring: Scoring{LogitScale: 10, TopK: 1}})
			if err != nil {
				t.Error(err)
				return
			}
			m := r.Matches
			if len(m) != 1 || m[0].Label != i%3 || m[0].Cosine < 0.999 {
				t.Errorf("colour %d: matches %+v", i%3, m)
			}
			if e := r.Embedding; len(e) != 3 || e[i%3] < 0.999 {
				t.Errorf("colour %d: embedding %v", i%3, e)
			}
			for n, name := range []string{"decode", "resize", "encode", "score"} {
				if r.Times[n].Stage != name {
					t.Errorf("times %v", r.Times)
				}
			}
		})
	}
	wg.Wait()
}

// TestRawFrames sends frames in each format, with rows apart, of the size of the square and of others. Their memory is overwritten
// as soon as it is given back. rgb24 needs no stage of its own, but while no frame of the backend is free.
func TestRawFrames(t *testing.T) {
	frame := func(format string, w, h int) (decode.Raw, []byte) {
		f, err := decode.ParseRaw(fmt.Sprintf("%s; %dx%d; stride=%d; range=full", format, w, h, 3*w+2))
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Repeat([]byte{128}, f.Bytes())
		for y := range h {
			for x := range w { // red, whose rows end in blue
				switch row := b[y*(3*w+2):]; format {
				case "rgb24":
					copy(row[3*x:], "\xff\x00\x00\x00\xff")
				case "bgr24":
					copy(row[3*x:], "\x00\x00\xff\xff\x00")
				case "gray8":
					row[x] = 200
				case "yuyv":
					copy(row[2*x:], []byte{76, []byte{85, 255}[x%2], 0})
				default:
					row[x] = 76
				}
			}
		}
		switch chroma := b[min(len(b), (3*w+2)*h):]; format {
		case "nv12":
			for i := range chroma {
				chroma[i] = []byte{85, 255}[i%2]
			}
		case "i420":
			for i := range chroma {
				chroma[i] = []byte{85, 255}[2*i/len(chroma)]
			}
		}
		return f, b
	}
	l := start(t, &fakeBackend{batch: 2})
	free := l.backend.Frames()
	send := func(format string, side int) (stages []string) {
		f, b := frame(format, side, side)
		r, err := l.Do(t.Context(), &Request{Image: b, Raw: f, Embedding: true, Thumbnail: true, Release: func() { clear(b) }})
		want := [3]float32{1, 0, 0}
		if format == "gray8" {
			want = [3]float32{0.577, 0.577, 0.577}
		}
		for i := range want {
			if err != nil || math.Abs(float64(r.Embedding[i]-want[i])) > 0.02 {
				t.Errorf("%s %d: %v, %v", format, side, r.Embedding, err)
				return nil
			}
		}
		if m, err := jpeg.Decode(bytes.NewReader(r.Thumbnail)); err != nil || m.Bounds().Dx() != side {
			t.Errorf("%s %d: a thumbnail of %v, %v", format, side, m.Bounds(), err)
		}
		for _, s := range r.Times {
			stages = append(stages, s.Stage)
		}
		return stages
	}
	for _, side := range []int{32, 40} {
		for _, format := range []string{"rgb24", "bgr24", "gray8", "nv12", "i420", "yuyv"} {
			want := []string{"decode", "resize", "encode", "score"}
			if format == "rgb24" {
				want = []string{"decode", "encode", "score", ""}
			}
			if got := send(format, side); !slices.Equal(got, want) {
				t.Errorf("%s went through %q", format, got)
			}
		}
	}
	var taken []*hailo.Frame
	for range free.Len() {
		taken = append(taken, free.TryGet())
	}
	waiting := make(chan []string)
	go func() { waiting <- send("rgb24", 32) }()
	for l.Stats()[0].Passed < 13 { // it has been decoded, which it needs not be, and waits
		runtime.Gosched()
	}
	for _, f := range taken {
		f.Release()
	}
	if got := <-waiting; !slices.Equal(got, []string{"decode", "resize", "encode", "score"}) {
		t.Errorf("without a free frame it went through %q", got)
	}
	for _, bad := range []string{"rgb24; 1001x1000", "rgb24; 2x2"} {
		f, _ := decode.ParseRaw(bad)
		released := 0
		if _, err := l.Do(t.Context(), &Request{Image: make([]byte, 11), Raw: f, Release: func() { released++ }}); err == nil || released != 1 {
			t.Errorf("%s: %v, released %d times", bad, err, released)
		}
	}
}

func TestErrorsHaveMeanings(t *testing.T) {
	good := pngImage(t, 40, 40, red)
	cases := []struct {
		name  string
		image []byte
		fail  error
		want  error
		text  string // all of it
	}{
		{"empty", nil, nil, decode.ErrNotImage, "not an image: no bytes"},
		{"not an image", []byte("hello, I am a text and nothing else"), nil, decode.ErrNotImage,
			"not an image: starts with 68 65 6c 6c 6f 2c 20 49"},
		{"truncated", good[:len(good)/2], nil, decode.ErrTruncated, "truncated image: PNG: row 0 of 40: unexpected EOF"},
		{"corrupt", append(bytes.Clone(good[:40]), make([]byte, 200)...), nil, decode.ErrCorrupt,
			"corrupt image: PNG: a chunk named \"IDA\\x00\""},
		{"too many pixels", pngImage(t, 1001, 1000, red), nil, decode.ErrTooManyPixels,
			"too many pixels: 1001 x 1000 is more than 1000000"},
		{"PDF", []byte("%PDF-1.7\n%âãÏÓ\n1 0 obj <<>> endobj"), nil, decode.ErrUnsupportedFormat,
			"unsupported image format: PDF (accepted: JPEG, PNG, WebP, GIF, BMP, TIFF)"},
		{"device lost", good, fmt.Errorf("worker died: %w", hailo.ErrDeviceLost), hailo.ErrDeviceLost,
			"worker died: device lost"},
		{"closed", good, hailo.ErrClosed, hailo.ErrClosed, "backend closed"},
		{"encode", good, fmt.Errorf("%w: a vector of zeros", hailo.ErrEncode), hailo.ErrEncode,
			"encoding failed: a vector of zeros"},
		{"too extreme", pngImage(t, 300_000, 1, red), nil, resize.ErrTooExtreme,
			"image too long for its size: a side of 300000 pixels to 32"},
		{"cancelled", good, context.Canceled, pipeline.ErrDeadline, "the deadline has passed: context canceled"},
		{"deadline", good, context.DeadlineExceeded, pipeline.ErrDeadline,
			"the deadline has passed: context deadline exceeded"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := start(t, &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { return c.fail }})
			err := do(t.Context(), l, c.image)
			if !errors.Is(err, c.want) || c.fail != nil && !errors.Is(err, c.fail) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err.Error() != c.text {
				t.Errorf("text %q, want %q", err, c.text)
			}
		})
	}
}

func TestOneBadFrameFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(8, 32, 3), fail: func(call int, frames []*hailo.Frame) error {
			if call < 2 { // both workers wait until the others are queued behind them
				<-gate
			}
			if slices.ContainsFunc(frames, isGreen) {
				return fmt.Errorf("%w: boom", hailo.ErrEncode)
			}
			return nil
		}}
		l := start(t, b)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				c := color.Color(blue)
				if i%4 == 3 {
					c = green
				}
				errs[i] = do(t.Context(), l, pngImage(t, 40, 40, c))
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		for i, err := range errs {
			if i%4 == 3 && !errors.Is(err, hailo.ErrEncode) || i%4 != 3 && err != nil {
				t.Errorf("job %d: %v", i, err)
			}
		}
	})
}

// TestFramesBoundWhatIsInside fills all frames behind a hanging device: who waits for a frame is answered by its
// deadline. The memory of a request is released once, when the line is done with it; the frames come back when the device does.
func TestFramesBoundWhatIsInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		l := start(t, &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { <-gate; return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		image := pngImage(t, 40, 40, red)
		var released [20]atomic.Int32
		var wg sync.WaitGroup
		for i := range released {
			wg.Go(func() {
				r := &Request{Image: image, Release: func() { released[i].Add(1) }}
				if _, err := l.Do(ctx, r); !errors.Is(err, pipeline.ErrDeadline) {
					t.Errorf("error %v, want the deadline", err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		count := func() (n [3]int) {
			for i := range released {
				n[released[i].Load()]++
			}
			return n
		}
		if n := count(); n != [3]int{4, 16, 0} {
			t.Errorf("released %v, want all but the four that have frames", n)
		}
		close(gate)
		if err := do(t.Context(), l, image); err != nil {
			t.Errorf("after the device came back: %v", err)
		}
		synctest.Wait()
		if n := count(); n != [3]int{0, 20, 0} {
			t.Errorf("released %v, want every one once", n)
		}
	})
}

func TestEmbeddingMustBeAUnitVector(t *testing.T) {
	for name, value := range map[string]float32{"NaN": float32(math.NaN()), "infinity": float32(math.Inf(1)), "too long": 2, "zero": 0} {
		t.Run(name, func(t *testing.T) {
			l := start(t, &fakeBackend{batch: 1, fail: func(_ int, frames []*hailo.Frame) error {
				copy(frames[0].Embedding, []float32{value, 0, 0})
				return nil
			}})
			r, err := l.Do(t.Context(), &Request{Image: pngImage(t, 40, 40, red), Labels: plain([]float32{1, 0, 0}, 3), Scoring: Scoring{TopK: 1}})
			if !errors.Is(err, hailo.ErrEncode) {
				t.Errorf("error %v, matches %v", err, r.Matches)
			}
		})
	}
}

// TestLabelsMustFit has labels of which a part is too long or too short: that is an error and not a panic, or another's numbers.
func TestLabelsMustFit(t *testing.T) {
	l := start(t, &fakeBackend{batch: 1})
	image := pngImage(t, 40, 40, red)
	if _, err := l.Do(t.Context(), &Request{Image: image, Labels: fitting()}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Labels){
		"labels":      func(l *Labels) { l.N = 3 },
		"rows":        func(l *Labels) { l.Rows = make([]float32, 10) },
		"no rows":     func(l *Labels) { l.Rows = nil },
		"of":          func(l *Labels) { l.Of = l.Of[:2] },
		"no of":       func(l *Labels) { l.Of = nil },
		"logits":      func(l *Labels) { l.Logits = l.Logits[:3] },
		"no logits":   func(l *Labels) { l.Logits = nil },
		"bias":        func(l *Labels) { l.Bias = l.Bias[:1] },
		"no bias":     func(l *Labels) { l.Bias = nil },
		"kinds":       func(l *Labels) { l.Kinds = l.Kinds[:1] },
		"empty kinds": func(l *Labels) { l.Kinds = []Kind{} },
		"negations":   func(l *Labels) { l.Negations = append(l.Negations, 0) },
	} {
		labels := fitting()
		change(labels)
		if _, err := l.Do(t.Context(), &Request{Image: image, Labels: labels}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// fitting are labels with all that they can have, for embeddings of 3.
func fitting() *Labels {
	return &Labels{N: 2, Rows: []float32{1, 0, 0, 0, 1, 0, 0, 0, 1}, Of: []int32{0, 0, 1}, Logits: make([]float32, 6), Bias: make([]float32, 2),
		Kinds: []Kind{Ordinary, Negation}, Negations: []int32{1, -1}}
}

// TestInto: the memory of an earlier result holds the next one, which is the same as in new memory, with other labels and regions
// too; a result in new memory is not touched by what comes later.
func TestInto(t *testing.T) {
	l := start(t, &fakeBackend{batch: 1})
	three, one := plain([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1}, 3), plain([]float32{0, 1, 0}, 3)
	halves := []Region{{W: 0.5, H: 1}, {X: 0.5, W: 0.5, H: 1, Labels: one, Scoring: Scoring{TopK: 5, LogitScale: 2}}}
	none := []Region{{W: 1, H: 1, Labels: one, Scoring: Scoring{TopK: 5, LogitScale: 2, Cut: true, Threshold: 2}}} // an empty list, not nil
	requests := []Request{
		{Labels: three, Regions: none}, {Labels: three, Logits: true, Embedding: true}, {Labels: one}, {Labels: three, Embedding: true, Regions: halves},
		{Embedding: true}, {Labels: three, Logits: true, Regions: halves[:1]}, {Labels: three, Logits: true, Regions: halves},
		{Labels: three, Seen: func(Pixels) bool { return true }}, {Labels: three, Logits: true, Embedding: true, Regions: halves}, {Labels: three},
	}
	images := [][]byte{pngImage(t, 40, 40, red), pngImage(t, 40, 40, green), pngImage(t, 40, 40, blue)}
	var wants, copies []Result
	var into Result
	for i := range 3 * len(requests) {
		r := requests[i%len(requests)]
		r.Image, r.Scoring = images[i%len(images)], Scoring{TopK: 5, LogitScale: 2}
		want, err := l.Do(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		r.Into = &into
		got, err := l.Do(t.Context(), &r)
		if err != nil {
			t.Fatal(err)
		}
		want.Times, got.Times = [4]pipeline.StageTime{}, [4]pipeline.StageTime{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("request %d: %+v, want %+v", i, got, want)
		}
		if into = got; got.Skipped {
			into = Result{}
		}
		wants, copies = append(wants, want), append(copies, deepCopy(want))
	}
	if !reflect.DeepEqual(wants, copies) {
		t.Error("a result has changed")
	}
}

func deepCopy(r Result) Result {
	r.Matches, r.Logits, r.Embedding = slices.Clone(r.Matches), slices.Clone(r.Logits), slices.Clone(r.Embedding)
	r.Regions = slices.Clone(r.Regions)
	for i, a := range r.Regions {
		r.Regions[i] = RegionResult{slices.Clone(a.Matches), a.Reason, slices.Clone(a.Logits), slices.Clone(a.Embedding)}
	}
	return r
}

// BenchmarkLine is one image after the other through a line whose device costs nothing.
func BenchmarkLine(b *testing.B) {
	backend := &fakeBackend{batch: 1}
	l := start(b, backend)
	r := &Request{Image: pngImage(b, 40, 40, red), Labels: plain([]float32{1, 0, 0}, 3), Scoring: Scoring{TopK: 1}}
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Do(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
}
