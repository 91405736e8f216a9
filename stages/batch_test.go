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
	line := NewLine(testConfig, b, 32, 2, testBudget())
	list := line.Stages(pipeline.Config{MaxQueueSize: 100, MaxWait: time.Second})
	for _, s := range list {
		if want := map[string]time.Duration{"encode": time.Second}[s.Name]; s.MaxWait != want {
			t.Errorf("%s waits %v, want %v", s.Name, s.MaxWait, want)
		}
	}
	encode := &list[2]
	encode.MaxWait = 0
	work := encode.Work
	encode.Work = func(worker int, jobs []*pipeline.Job) {
		if s := jobs[0].State.(*state); s.picture.Pix != nil || s.frame == nil {
			t.Error("the decoded picture is kept beside its frame")
		}
		work(worker, jobs)
	}
	p, err := pipeline.New(list...)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Do(t.Context(), &pipeline.Job{Image: picture(t, 40, 40, red)}); err != nil {
		t.Error(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	var got []string
	for _, s := range p.Stats() {
		got = append(got, fmt.Sprint(s.Stage, " queue ", s.Capacity, " workers ", s.Workers, " batch ", len(s.Batches)-1))
	}
	want := []string{"decode queue 100 workers 2 batch 1", "resize queue 2 workers 2 batch 1",
		"encode queue 5 workers 2 batch 3", "score queue 5 workers 1 batch 1"}
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
		p := start(t, b)
		image := picture(t, 40, 40, red)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := p.Do(t.Context(), &pipeline.Job{Image: image}); err != nil {
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

// TestDeadlineOfABatch has jobs of several deadlines in one batch: the device may take until the last.
func TestDeadlineOfABatch(t *testing.T) {
	for _, waits := range [][]time.Duration{{time.Minute, time.Hour}, {time.Hour, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			gates := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
			b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(10, 32, 3), fail: func(call int, _ []*hailo.Frame) error {
				if call < len(gates) {
					<-gates[call]
				}
				return nil
			}}
			p := start(t, b)
			image := picture(t, 40, 40, red)
			begin := time.Now()
			var wg sync.WaitGroup
			for _, wait := range append([]time.Duration{time.Second, time.Second}, waits...) {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				defer cancel()
				wg.Go(func() {
					if err := p.Do(ctx, &pipeline.Job{Image: image}); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait() // the first two are in the device, the others queued behind them
			}
			close(gates[0]) // one worker takes all that waits
			synctest.Wait()
			close(gates[1])
			wg.Wait()
			if len(b.calls) != 3 || len(b.calls[2]) != 2 || b.deadlines[2] != begin.Add(time.Hour) {
				t.Errorf("calls %v until %v, want the third to have two frames and an hour", b.calls, b.deadlines)
			}
		})
	}
}

// TestClientOfABatchLeaves: one who gives up, whatever deadline he had, does not end the work for the others of
// his batch; when nobody is left it ends.
func TestClientOfABatchLeaves(t *testing.T) {
	gone := errors.New("gone")
	for leaves, waits := range []time.Duration{time.Hour, time.Minute, 0} { // 0: no deadline
		synctest.Test(t, func(t *testing.T) {
			gates := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
			b := &fakeBackend{batch: 4, frames: hailo.NewHeapFrames(10, 32, 3), fail: func(call int, _ []*hailo.Frame) error {
				if call < len(gates) {
					<-gates[call]
				}
				return nil
			}}
			b.wait = make(chan struct{})
			p := start(t, b)
			image := picture(t, 40, 40, red)
			errs := make([]error, 5)
			var cancels [5]context.CancelCauseFunc
			var wg sync.WaitGroup
			for i, wait := range []time.Duration{time.Hour, time.Hour, time.Minute, waits, time.Minute} {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				cancels[i] = cancel
				if wait > 0 {
					var stop context.CancelFunc
					ctx, stop = context.WithTimeout(ctx, wait)
					defer stop()
				}
				wg.Go(func() { errs[i] = p.Do(ctx, &pipeline.Job{Image: image}) })
				synctest.Wait() // the first two are in the device, the others queued behind them
			}
			close(gates[0])
			synctest.Wait() // the batch of three is in the device too
			if len(b.calls) != 3 || len(b.calls[2]) != 3 {
				t.Fatalf("calls %v", b.calls)
			}
			cancels[3](gone)
			synctest.Wait()
			if leaves == 2 { // and all the others
				cancels[2](gone)
				cancels[4](gone)
			} else {
				close(b.wait)
			}
			close(gates[1])
			wg.Wait()
			if !errors.Is(errs[3], gone) {
				t.Errorf("who has left: %v", errs[3])
			}
			for _, i := range []int{2, 4} {
				if left := leaves == 2; left != (errs[i] != nil) {
					t.Errorf("job %d: %v", i, errs[i])
				}
			}
		})
	}
}
