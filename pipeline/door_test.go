package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCallersTakeTurns has one caller fill the queue, and another come later.
func TestCallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 4)
		greedy, modest := lane("a"), lane("b")
		c.send(t.Context(), greedy, "first", "a1", "a2", "a3", "a4")
		if err := c.Refuses(greedy); !errors.Is(err, ErrQueueFull) {
			t.Error("the greedy one would be let in:", err)
		}
		if err := c.Refuses(modest); err != nil {
			t.Error("the modest one would be refused:", err)
		}
		c.send(t.Context(), modest, "b1")
		c.want(ErrQueueFull, "a4") // the youngest of the longest lane
		c.send(t.Context(), greedy, "a5")
		c.want(ErrQueueFull, "a5")
		close(gate)
		c.wantServed("first", "a1", "b1", "a2", "a3")
		c.want(nil, "first", "a1", "b1", "a2", "a3")
		c.close()
	})
}

// TestGivenUpMakesRoom has jobs pass their deadline in the queue: their places are free at once, and no worker sees them.
func TestGivenUpMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 2)
		c.send(t.Context(), Lane{}, "inside")
		c.send(within(t, time.Second), Lane{}, "1", "2")
		time.Sleep(2 * time.Second)
		c.want(ErrDeadline, "1", "2")
		if s := c.Stats()[0]; s.Queued != 0 || s.Expired != 2 || c.left["1"]+c.left["2"] != 2 {
			t.Errorf("%+v, left %v", s, c.left)
		}
		c.send(t.Context(), Lane{}, "3", "4")
		close(gate)
		c.want(nil, "3", "4")
		c.wantServed("inside", "3", "4")
		c.close()
	})
}

// TestEnter runs before the queue: it may refuse, panic, and wait until the deadline.
func TestEnter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		c := newCrowd(t, stage{Name: "s", Queue: 2, Workers: 1, Work: func(int, *job) {}})
		c.enter = func(j *job) error {
			switch j.Item.name {
			case "refused":
				return boom
			case "panic":
				panic(boom)
			case "waits":
				<-j.Context().Done()
				return context.Cause(j.Context())
			}
			return nil
		}
		c.send(t.Context(), Lane{}, "fine", "refused", "panic")
		c.want(nil, "fine")
		c.want(boom, "refused")
		var panicked *PanicError
		if !errors.As(c.results["panic"], &panicked) {
			t.Error(c.results["panic"])
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, boom)
		defer cancel()
		c.send(ctx, Lane{}, "waits")
		c.want(errUnfinished, "waits")
		time.Sleep(time.Second)
		c.want(ErrDeadline, "waits")
		c.want(boom, "waits")
		if s := c.Stats()[0]; s.Passed != 1 || s.Failed != 2 || s.Expired != 1 {
			t.Errorf("counted %+v", s)
		}
		c.close()
	})
}

// TestLongWorkDoesNotTakeTurns has an address with jobs of a second beside one with jobs of a moment: while a job of
// the first is worked on, several of the second arrive, and all of them come next.
func TestLongWorkDoesNotTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *crowd
		c = newCrowd(t, stage{Name: "s", Queue: 8, Workers: 1, Work: func(_ int, j *job) {
			c.serve(j)
			if j.Item.name[0] == 'L' {
				time.Sleep(time.Second)
			}
		}})
		c.send(t.Context(), lane("long"), "L1", "L2", "L3")
		c.send(t.Context(), lane("short"), "s1", "s2", "s3")
		c.close()
		c.wantServed("L1", "s1", "s2", "s3", "L2", "L3")
	})
}
