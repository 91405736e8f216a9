package clip

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// others encode images elsewhere, if they have the vector of them.
type others struct {
	mu     sync.Mutex
	idle   bool // nobody is there
	vector []float32
	asked  []Load
	wait   chan struct{} // until the context ends; nil: the answer comes at once
}

func (o *others) Takes(fair.Caller) bool { return !o.idle }

func (o *others) Embed(ctx context.Context, _ fair.Caller, image []byte, here Load) ([]float32, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, here)
	if o.wait != nil {
		<-ctx.Done()
		return nil, false
	}
	return slices.Clone(o.vector), o.vector != nil
}

// fill has an engine, whose device hangs, refuse all further images, until done is called. It is for a bubble of synctest.
func fill(t *testing.T, e *Engine, d *device) (done func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var inside sync.WaitGroup
	for room := 1; room > 0; room = e.Load().Room { // those refused came while others were on their way through the line
		for range 64 {
			inside.Go(func() {
				r := Request{Image: imageOf(t, "red"), Lane: pipeline.Lane{Caller: fair.Caller{Address: "x"}}}
				if _, err := e.EmbedHere(ctx, &r); err != nil && !errors.Is(err, pipeline.ErrDeadline) && !errors.Is(err, pipeline.ErrQueueFull) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
	}
	return func() {
		close(d.hang)
		inside.Wait()
		cancel()
	}
}

// TestSpill: what comes of an image that is encoded elsewhere is, to the last bit, what comes of it here, and what nobody encodes
// elsewhere is encoded or refused here. The request is released once.
func TestSpill(t *testing.T) { synctest.Test(t, testSpill) }

func testSpill(t *testing.T) {
	d := &device{hang: make(chan struct{})}
	close(d.hang)
	e := newEngine(t, d)
	green, all := imageOf(t, "green"), []string{"red", "green", "blue"}
	ask := func(with func(context.Context, *Request) (Result, error), r Request) (Result, error) {
		released := 0
		gone := make(chan struct{}, 2)
		r.Release = func() { released++; gone <- struct{}{} }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		result, err := with(ctx, &r)
		<-gone
		if released != 1 {
			t.Errorf("released %d times", released)
		}
		return result, err
	}
	requests := []Request{
		{Image: green, Prompts: all, Logits: true, Embedding: true},
		{Image: green, Prompts: all, TopK: 2, Cut: true, Threshold: 0.1},
		{Image: green},
	}
	do := []func(context.Context, *Request) (Result, error){e.Classify, e.Classify, e.EmbedImage}
	var here []Result
	for i, r := range requests {
		result, err := ask(do[i], r)
		if err != nil {
			t.Fatal(err)
		}
		here = append(here, result)
	}
	o := &others{vector: []float32{0, 1, 0}}
	e.Spill(o)
	if _, err := ask(e.EmbedImage, Request{Image: green}); err != nil || len(o.asked) > 0 {
		t.Errorf("%d asked of an engine that has nothing to do, %v", len(o.asked), err)
	}
	d.hang = make(chan struct{})
	done := fill(t, e, d)
	caller := fair.Caller{Address: "x"}
	if err := e.Refuses(caller); err != nil || !errors.Is(e.RefusesHere(caller), pipeline.ErrQueueFull) {
		t.Errorf("refused: %v, although others have room; here: %v", err, e.RefusesHere(caller))
	}
	for i, r := range requests {
		r.Lane = pipeline.Lane{Caller: caller}
		got, err := ask(do[i], r)
		if err != nil || len(o.asked) != i+1 || o.asked[i].Room != 0 {
			t.Fatalf("%v, asked %+v", err, o.asked)
		}
		if got.Times[0].Stage != StageElsewhere || got.Times[1].Stage != "score" || got.Times[2].Stage != "" {
			t.Errorf("request %d: %+v", i, got.Times)
		}
		got.TextTime, got.Times, got.Prompts, got.Labels = here[i].TextTime, here[i].Times, here[i].Prompts, here[i].Labels
		if !reflect.DeepEqual(got, here[i]) {
			t.Errorf("request %d: %+v elsewhere, %+v here", i, got, here[i])
		}
	}
	before := len(o.asked)
	o.vector = []float32{0, 0.5, 0} // not of unit length
	if _, err := ask(e.EmbedImage, Request{Image: green, Lane: pipeline.Lane{Caller: caller}}); err == nil {
		t.Error("a vector of another length is taken")
	}
	o.vector = nil
	if _, err := ask(e.EmbedImage, Request{Image: green, Lane: pipeline.Lane{Caller: caller}}); !errors.Is(err, pipeline.ErrQueueFull) || len(o.asked) != before+2 {
		t.Errorf("nobody answers: %v", err)
	}
	o.idle = true
	if err := e.Refuses(caller); !errors.Is(err, pipeline.ErrQueueFull) {
		t.Errorf("nobody is there: %v", err)
	}
	done()
}

// TestSpillOnlyWhole: parts of images, raw frames, frames of streams, batches, and images of which somebody wants to see the pixels are
// encoded here.
func TestSpillOnlyWhole(t *testing.T) {
	c := fair.Caller{Address: "x"}
	raw, err := decode.ParseRaw("rgb24; 8x8")
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]Request{
		"bulk": {Lane: pipeline.NewLane(c, pipeline.Bulk)}, "latest": {Lane: pipeline.NewLane(c, pipeline.Latest)},
		"regions": {Regions: []Region{{W: 1, H: 1}}}, "seen": {Seen: func(stages.Pixels) bool { return false }},
		"raw": {Raw: raw},
	} {
		if spills(&r) {
			t.Errorf("%s: encoded elsewhere", what)
		}
	}
	if !spills(&Request{Lane: pipeline.Lane{Caller: c}}) {
		t.Error("a whole image is encoded here")
	}
}

// TestSpillDeadline: a deadline that passes elsewhere is answered here.
func TestSpillDeadline(t *testing.T) { synctest.Test(t, testSpillDeadline) }

func testSpillDeadline(t *testing.T) {
	d := &device{hang: make(chan struct{})}
	e := newEngine(t, d)
	done := fill(t, e, d)
	defer done()
	e.Spill(&others{wait: make(chan struct{})})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	released := make(chan struct{})
	r := Request{Image: imageOf(t, "red"), Lane: pipeline.Lane{Caller: fair.Caller{Address: "x"}}, Release: func() { close(released) }}
	if _, err := e.EmbedImage(ctx, &r); !errors.Is(err, pipeline.ErrDeadline) {
		t.Error(err)
	}
	<-released
}

// TestRateMeter: only what is done while there is always something to do tells of the rate; else that of the device is returned to.
func TestRateMeter(t *testing.T) {
	var m rateMeter
	now, done := time.Unix(1000, 0), uint64(0)
	see := func(n int, busy bool, rated float64) (rate float64) {
		for range 100 {
			now, done = now.Add(rateSample), done+uint64(n)
			rate = m.see(now, done, busy, rated)
		}
		return rate
	}
	for _, c := range []struct {
		n        int
		busy     bool
		rated    float64
		from, to float64
	}{
		{5, false, 335, 335, 335}, {20, true, 335, 99, 101}, {1, false, 335, 200, 335}, {1, false, 0, 200, 335}, {20, true, 0, 99, 101},
	} {
		if got := see(c.n, c.busy, c.rated); got < c.from || got > c.to {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// BenchmarkSpill is what the hook costs a request: without it, with it where there is nobody else, and where the engine has nothing to do.
func BenchmarkSpill(b *testing.B) {
	for name, to := range map[string]Elsewhere{"none": nil, "nobody": &others{idle: true}, "idle": &others{}} {
		b.Run(name, func(b *testing.B) {
			e := newEngine(b, &device{})
			e.Spill(to)
			r := Request{Image: imageOf(b, "green"), Into: new(stages.Result)}
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.EmbedImage(ctx, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
