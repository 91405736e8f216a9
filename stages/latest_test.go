package stages

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/decode"
)

// TestLatestWaitsForMemory has the large frames of two streams of one caller wait for memory to be decoded in: of each two wait, the
// newest. Those that were superseded are released at once and leave no claim.
func TestLatestWaitsForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := &fakeBackend{batch: 1, frames: hailo.NewHeapFrames(1, 32, 3), fail: func(int, []*hailo.Frame) error { <-gate; return nil }}
		budget := decode.NewBudget(18<<20, math.MaxInt64, 2, 100) // two of them, decoded
		l, err := NewLine(testConfig, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}, b, 32, budget)
		if err != nil {
			t.Fatal(err)
		}
		large := pngImage(t, 1000, 1000, red)
		var mu sync.Mutex
		errs, released := map[string]error{}, map[string]int{}
		unfinished := errors.New("unfinished")
		send := func(lane pipeline.Lane, image []byte, name string) {
			errs[name] = unfinished
			go func() {
				_, err := l.Do(t.Context(), &Request{Image: image, Lane: lane, Release: func() {
					mu.Lock()
					defer mu.Unlock()
					released[name]++
				}})
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			}()
			synctest.Wait()
		}
		want := func(err error, names ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			for _, name := range names {
				if !errors.Is(errs[name], err) || !errors.Is(err, unfinished) && released[name] != 1 {
					t.Errorf("%s: %v, want %v, released %d times", name, errs[name], err, released[name])
				}
			}
		}
		caller := fair.Caller{Address: "a", Connection: 1}
		one, other := pipeline.NewLane(caller, pipeline.Latest), pipeline.NewLane(caller, pipeline.Latest)
		send(pipeline.Lane{}, pngImage(t, 10, 10, red), "in the device")
		send(pipeline.Lane{}, large, "decoded, waits for a frame")
		send(pipeline.Lane{}, large, "decoded, waits for a worker")
		for i := range 20 {
			send(one, large, fmt.Sprint("one ", i))
			if i < 2 {
				send(other, large, fmt.Sprint("other ", i))
			}
		}
		for i := range 18 {
			want(pipeline.ErrSuperseded, fmt.Sprint("one ", i))
			if err := errs[fmt.Sprint("one ", i)]; errors.Is(err, pipeline.ErrDeadline) {
				t.Error(err)
			}
		}
		last := []string{"one 18", "one 19", "other 0", "other 1"}
		want(unfinished, last...)
		close(gate)
		synctest.Wait()
		want(nil, slices.Concat(last, []string{"in the device", "decoded, waits for a frame", "decoded, waits for a worker"})...)
		send(one, large, "later")
		want(nil, "later")
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
