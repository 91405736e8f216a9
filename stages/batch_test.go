package stages

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
)

// TestStages looks at what the line asks of the pipeline, and at what a job holds between two stages.
func TestStages(t *testing.T) {
	b := &fakeBackend{batch: 3, frames: hailo.NewHeapFrames(5, 32, 3)}
	performance := pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}
	l, err := NewLine(testConfig, performance, b, 32, testBudget())
	if err = errors.Join(err, l.Close(t.Context())); err != nil { // it starts again below
		t.Fatal(err)
	}
	list := l.stages(performance)
	encode := &list[2]
	work := encode.Work
	encode.Work = func(worker int, j *job) {
		if s := &j.Item; s.image.Pix != nil || len(s.frames) == 0 {
			t.Error("the decoded image is kept beside its frame")
		}
		work(worker, j)
	}
	if err := l.start(list); err != nil {
		t.Fatal(err)
	}
	if err := do(t.Context(), l, pngImage(t, 40, 40, red)); err != nil {
		t.Error(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	var got []string
	for _, s := range l.Stats() {
		got = append(got, fmt.Sprint(s.Stage, " queue ", s.Capacity, " workers ", s.Workers, " batch ", len(s.Batches)-1))
	}
	want := []string{"decode queue 100 workers 2 batch 1", "resize queue 2 workers 2 batch 1",
		"encode queue 5 workers 6 batch 3", "score queue 5 workers 1 batch 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestCallsAndBatches holds the device: as many calls are inside as it takes, and what comes meanwhile
// makes full batches.
func TestCallsAndBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var inside atomic.Int32
		b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(10, 32, 3), fail: func(int, []*hailo.Frame) error {
			inside.Add(1)
			<-gate
			return nil
		}}
		l := start(t, b)
		image := pngImage(t, 40, 40, red)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := do(t.Context(), l, image); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := inside.Load(); n != 2 {
			t.Errorf("%d calls are inside the device, which takes 2", n)
		}
		close(gate)
		wg.Wait()
		most := 0
		for _, slots := range b.calls {
			most = max(most, len(slots))
		}
		if most != 4 {
			t.Errorf("the largest batch had %d frames, want 4: %v", most, b.calls)
		}
	})
}

// TestContextOfABatch has jobs of several deadlines in one batch: the device may take until the last. One who gives up,
// whatever deadline he had, does not end the work for the others; when nobody is left it ends.
func TestContextOfABatch(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		waits    []time.Duration // of each job; 0 is no deadline
		leave    []int           // those who give up
		deadline time.Duration   // of the call
	}{
		"the last one is second": {[]time.Duration{time.Minute, time.Hour}, nil, time.Hour},
		"the last one is first":  {[]time.Duration{time.Hour, time.Minute}, nil, time.Hour},
		"the last one leaves":    {[]time.Duration{time.Minute, time.Hour, time.Minute}, []int{1}, time.Hour},
		"one leaves":             {[]time.Duration{time.Minute, time.Minute, time.Minute}, []int{1}, time.Minute},
		"all leave":              {[]time.Duration{time.Minute, 0, time.Minute}, []int{1, 0, 2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gates := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
				b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(10, 32, 3), wait: make(chan struct{})}
				b.fail = func(call int, _ []*hailo.Frame) error {
					if call < len(gates) {
						<-gates[call]
					}
					return nil
				}
				l, image, begin := start(t, b), pngImage(t, 40, 40, red), time.Now()
				var wg sync.WaitGroup
				send := func(wait time.Duration) (err *error, cancel context.CancelCauseFunc) {
					ctx, cancel := context.WithCancelCause(t.Context())
					if wait > 0 {
						var stop context.CancelFunc
						ctx, stop = context.WithTimeout(ctx, wait)
						t.Cleanup(stop)
					}
					err = new(error)
					wg.Go(func() { *err = do(ctx, l, image) })
					synctest.Wait()
					return err, cancel
				}
				send(time.Hour)
				send(time.Hour) // these are in the device, the others queue behind them
				var errs []*error
				var cancels []context.CancelCauseFunc
				for _, wait := range c.waits {
					err, cancel := send(wait)
					errs, cancels = append(errs, err), append(cancels, cancel)
				}
				close(gates[0]) // one worker takes all that waits
				synctest.Wait()
				want := time.Time{}
				if c.deadline > 0 {
					want = begin.Add(c.deadline)
				}
				if len(b.calls) != 3 || len(b.calls[2]) != len(c.waits) || b.deadlines[2] != want {
					t.Fatalf("calls %v until %v, want the third to have %d frames until %v", b.calls, b.deadlines, len(c.waits), want)
				}
				for _, i := range c.leave {
					cancels[i](gone)
					synctest.Wait()
				}
				if len(c.leave) < len(c.waits) {
					close(b.wait)
				}
				close(gates[1])
				wg.Wait()
				for i, err := range errs {
					if left := slices.Contains(c.leave, i); left != errors.Is(*err, gone) || !left && *err != nil {
						t.Errorf("job %d: %v", i, *err)
					}
				}
			})
		})
	}
}

// TestCauseOfABatch has the jobs of a batch end for different reasons: each keeps its own.
func TestCauseOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		left, leave := context.WithCancelCause(t.Context())
		gate := make(chan struct{})
		b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(10, 32, 3), wait: make(chan struct{})}
		b.fail = func(call int, _ []*hailo.Frame) error {
			if call < 2 {
				<-gate
			}
			return nil
		}
		l, image := start(t, b), pngImage(t, 40, 40, red)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i, ctx := range []context.Context{t.Context(), t.Context(), late, left} {
			wg.Go(func() { errs[i] = do(ctx, l, image) })
			synctest.Wait()
		}
		gateClosed := time.AfterFunc(time.Second/2, func() { close(gate) }) // the last two go together
		defer gateClosed.Stop()
		time.Sleep(2 * time.Second)
		leave(gone)
		wg.Wait()
		if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], context.DeadlineExceeded) || !errors.Is(errs[3], gone) {
			t.Errorf("%v", errs)
		}
		if n := len(b.calls[2]); n != 2 {
			t.Errorf("the third call had %d frames, want 2", n)
		}
	})
}
