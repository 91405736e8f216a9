package stages

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/decode"
)

// TestBulkWaitsForMemory has as many large images wait for memory as may: one of a bulk lane waits too, where others are refused.
func TestBulkWaitsForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := &fakeBackend{batch: 1, frames: hailo.NewHeapFrames(1, 32, 3), fail: func(int, []*hailo.Frame) error { <-gate; return nil }}
		budget := decode.NewBudget(18<<20, math.MaxInt64, 2, 1)
		l, err := NewLine(testConfig, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}, b, 32, budget)
		if err != nil {
			t.Fatal(err)
		}
		large := pngImage(t, 1000, 1000, red)
		errs := map[string]*error{}
		send := func(name string, lane pipeline.Lane, image []byte) {
			err := new(error)
			*err = errors.New("unfinished")
			errs[name] = err
			go func() { _, *err = l.Do(t.Context(), &Request{Image: image, Lane: lane}) }()
			synctest.Wait()
		}
		lane := func(a string, p pipeline.Policy) pipeline.Lane { return pipeline.NewLane(fair.Caller{Address: a}, p) }
		send("in the device", lane("a", pipeline.Queue), pngImage(t, 10, 10, red))
		send("decoded", lane("a", pipeline.Queue), large)
		send("next", lane("a", pipeline.Queue), large)
		send("waits", lane("b", pipeline.Queue), large)
		send("waits too", lane("bb", pipeline.Queue), large)
		send("refused", lane("c", pipeline.Queue), large)
		if !errors.Is(*errs["refused"], decode.ErrBusy) {
			t.Errorf("%v", *errs["refused"])
		}
		send("bulk", lane("d", pipeline.Bulk), large)
		close(gate)
		synctest.Wait()
		for name, err := range errs {
			if name != "refused" && *err != nil {
				t.Errorf("%s: %v", name, *err)
			}
		}
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
