package pipeline

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestStuckWorkersAreReplaced has workers hang beyond all deadlines, one by one, and come back.
func TestStuckWorkersAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var numbers [4]atomic.Int32 // calls at work now, by worker
		var next atomic.Int64
		c := newCrowd(t, stage{Name: "work", Queue: 4, Workers: 2, Work: func(worker int, j *job) {
			if numbers[worker].Add(1) > 1 {
				t.Errorf("two calls of worker %d at a time", worker)
			}
			if j.Item.name[0] != 'f' {
				<-hang
			}
			numbers[worker].Add(-1)
		}}, stage{Name: "next", Workers: 1, Work: func(int, *job) { next.Add(1) }})
		send := func(name string, want error) {
			c.send(within(t, time.Second), Lane{}, name)
			time.Sleep(leastStuck)
			c.want(want, name)
		}
		for i, name := range []string{"1", "2", "3"} {
			send(name, ErrDeadline)
			if s, _ := c.Stuck(); s != (Stuck{Stage: "work", Workers: i + 1}) {
				t.Errorf("after %s: %+v", name, s)
			}
			send("fine beside "+name, nil)
		}
		send("4", ErrDeadline)
		if s, _ := c.Stuck(); s != (Stuck{Stage: "work", Workers: 4, All: true}) || c.Stats()[0].Stuck != 4 {
			t.Errorf("%+v", s)
		}
		close(hang)
		synctest.Wait()
		if s, ok := c.Stuck(); ok {
			t.Errorf("%+v when all are back", s)
		}
		for _, name := range []string{"fine 1", "fine 2", "fine 3"} {
			send(name, nil)
		}
		c.close()
		if next.Load() != 6 {
			t.Errorf("%d reached the next stage, want 6", next.Load())
		}
	})
}

// TestSlowIsNotStuck has calls go on past the deadline of their jobs for as long as honest work may take.
func TestSlowIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, stage{Name: "work", Queue: 1, Workers: 1, Work: func(worker int, _ *job) {
			if worker != 0 {
				t.Error("it was replaced")
			}
			time.Sleep(leastStuck - time.Millisecond)
		}})
		for _, name := range []string{"1", "2"} { // the second one with the timer of the first
			c.send(within(t, time.Millisecond), Lane{}, name)
			time.Sleep(leastStuck - 2*time.Millisecond)
			if s, ok := c.Stuck(); ok {
				t.Errorf("%+v", s)
			}
			time.Sleep(time.Second)
		}
		c.close()
	})
}

// TestCloseDoesNotWaitForTheStuck closes while a replaced worker hangs, which comes back afterwards.
func TestCloseDoesNotWaitForTheStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		c := newCrowd(t, stage{Name: "work", Queue: 1, Workers: 1, Work: func(int, *job) { <-hang }},
			stage{Name: "next", Workers: 1, Work: func(int, *job) { t.Error("the job went on") }})
		c.send(within(t, time.Second), Lane{}, "stuck")
		time.Sleep(leastStuck)
		if err := c.Close(context.Background()); err == nil {
			t.Error("nothing was said of the stuck worker")
		}
		close(hang)
		synctest.Wait()
		c.close()
	})
}
