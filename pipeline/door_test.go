package pipeline

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline/fair"
)

// crowd sends jobs into a pipeline, one goroutine each, in a bubble of synctest.
type crowd struct {
	p    *Pipeline
	left atomic.Int64

	mu      sync.Mutex
	results map[string]error // by name of the job
}

// send has a job of a caller queue; it returns when the job waits, or is done.
func (c *crowd) send(ctx context.Context, caller fair.Caller, name string) {
	c.set(name, errUnfinished)
	go func() {
		c.set(name, c.p.Do(ctx, &Job{Caller: caller, Image: []byte(name), Left: func() { c.left.Add(1) }}))
	}()
	synctest.Wait()
}

func (c *crowd) set(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.results == nil {
		c.results = make(map[string]error)
	}
	c.results[name] = err
}

func (c *crowd) result(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.results[name]
}

var errUnfinished = errors.New("unfinished")

// TestCallersTakeTurns has one caller fill the queue, and another come later.
func TestCallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		var order []string
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "s", Queue: 4, Workers: 1, Work: func(_ int, jobs []*Job) {
			order = append(order, string(jobs[0].Image))
			<-open
		}})
		greedy, modest := fair.Caller{Address: "a"}, fair.Caller{Address: "b"}
		for _, name := range []string{"first", "a1", "a2", "a3", "a4"} {
			c.send(t.Context(), greedy, name)
		}
		if err := c.p.Refuses(greedy); !errors.Is(err, ErrQueueFull) {
			t.Error("the greedy one would be let in:", err)
		}
		if err := c.p.Refuses(modest); err != nil {
			t.Error("the modest one would be refused:", err)
		}
		c.send(t.Context(), modest, "b1")
		if err := c.result("a4"); !errors.Is(err, ErrQueueFull) {
			t.Error("the youngest of the longest lane:", err)
		}
		c.send(t.Context(), greedy, "a5")
		if err := c.result("a5"); !errors.Is(err, ErrQueueFull) {
			t.Error("the greedy one again:", err)
		}
		close(open)
		synctest.Wait()
		if want := []string{"first", "a1", "b1", "a2", "a3"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
		for _, name := range order {
			if err := c.result(name); err != nil {
				t.Error(name, err)
			}
		}
		mustClose(t, c.p)
		if n := c.left.Load(); n != 7 {
			t.Errorf("%d of 7 jobs left", n)
		}
	})
}

// TestGivenUpMakesRoom has jobs pass their deadline in the queue: their places are free at once, and no worker sees them.
func TestGivenUpMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		var served atomic.Int64
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "s", Queue: 2, Workers: 1, Work: func(int, []*Job) { served.Add(1); <-open }})
		c.send(t.Context(), fair.Caller{}, "inside")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.send(short, fair.Caller{}, "1")
		c.send(short, fair.Caller{}, "2")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, name := range []string{"1", "2"} {
			if err := c.result(name); !errors.Is(err, ErrDeadline) {
				t.Error(name, err)
			}
		}
		if s := c.p.Stats()[0]; s.Queued != 0 || s.Expired != 2 || c.left.Load() != 2 {
			t.Errorf("%+v, %d left", s, c.left.Load())
		}
		c.send(t.Context(), fair.Caller{}, "3")
		c.send(t.Context(), fair.Caller{}, "4")
		close(open)
		synctest.Wait()
		if c.result("3") != nil || c.result("4") != nil || served.Load() != 3 {
			t.Errorf("%v %v, %d served", c.result("3"), c.result("4"), served.Load())
		}
		mustClose(t, c.p)
	})
}

// TestEnter runs before the queue: it may refuse, panic, and wait until the deadline.
func TestEnter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		var open atomic.Int64
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "s", Queue: 2, Workers: 1, Work: func(int, []*Job) {}, Enter: func(job *Job) error {
			open.Add(1)
			job.State = held{&open}
			switch string(job.Image) {
			case "refused":
				return boom
			case "panic":
				panic(boom)
			case "waits":
				<-job.Context().Done()
				return context.Cause(job.Context())
			}
			return nil
		}})
		for name, want := range map[string]error{"fine": nil, "refused": boom, "panic": ErrPanic} {
			if c.send(t.Context(), fair.Caller{}, name); !errors.Is(c.result(name), want) {
				t.Error(name, c.result(name))
			}
		}
		short, cancel := context.WithTimeoutCause(t.Context(), time.Second, boom)
		defer cancel()
		c.send(short, fair.Caller{}, "waits")
		if err := c.result("waits"); !errors.Is(err, errUnfinished) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := c.result("waits"); !errors.Is(err, ErrDeadline) || !errors.Is(err, boom) {
			t.Error(err)
		}
		if s := c.p.Stats()[0]; s.Passed != 1 || s.Failed != 2 || s.Expired != 1 {
			t.Errorf("counted %+v", s)
		}
		mustClose(t, c.p)
		if open.Load() != 0 || c.left.Load() != 4 {
			t.Errorf("%d resources open, %d left", open.Load(), c.left.Load())
		}
	})
}

// TestStuckWorkersAreReplaced has workers hang beyond all deadlines, one by one, and come back.
func TestStuckWorkersAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var numbers [4]atomic.Int32 // calls at work now, by worker
		c := &crowd{}
		var next atomic.Int64
		c.p = mustNew(t, Stage{Name: "work", Queue: 4, Workers: 2, Work: func(worker int, jobs []*Job) {
			if numbers[worker].Add(1) > 1 {
				t.Errorf("two calls of worker %d at a time", worker)
			}
			if string(jobs[0].Image) != "fine" {
				<-hang
			}
			numbers[worker].Add(-1)
		}}, Stage{Name: "next", Workers: 1, Work: func(int, []*Job) { next.Add(1) }})
		send := func(name string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c.send(ctx, fair.Caller{}, name)
			time.Sleep(leastStuck)
			synctest.Wait()
			return c.result(name)
		}
		for i, name := range []string{"1", "2", "3"} {
			if err := send(name); !errors.Is(err, ErrDeadline) {
				t.Error(err)
			}
			if s, _ := c.p.Stuck(); s != (Stuck{Stage: "work", Workers: i + 1}) {
				t.Errorf("after %s: %+v", name, s)
			}
			if err := send("fine"); err != nil {
				t.Error("with stuck workers:", err)
			}
		}
		_ = send("4")
		if s, _ := c.p.Stuck(); s != (Stuck{Stage: "work", Workers: 4, All: true}) || c.p.Stats()[0].Stuck != 4 {
			t.Errorf("%+v", s)
		}
		close(hang)
		synctest.Wait()
		if s, ok := c.p.Stuck(); ok {
			t.Errorf("%+v when all are back", s)
		}
		for range 3 {
			if err := send("fine"); err != nil {
				t.Error("afterwards:", err)
			}
		}
		mustClose(t, c.p)
		if next.Load() != 6 || c.left.Load() != 10 {
			t.Errorf("%d reached the next stage, want 6; %d of 10 left", next.Load(), c.left.Load())
		}
	})
}

// TestSlowIsNotStuck has calls go on past the deadline of their jobs for as long as honest work may take.
func TestSlowIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "work", Queue: 1, Workers: 1, Work: func(worker int, _ []*Job) {
			if worker != 0 {
				t.Error("it was replaced")
			}
			time.Sleep(leastStuck - time.Millisecond)
		}})
		for range 2 { // the second one with the timer of the first
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			c.send(ctx, fair.Caller{}, "slow")
			time.Sleep(leastStuck - 2*time.Millisecond)
			if s, ok := c.p.Stuck(); ok {
				t.Errorf("%+v", s)
			}
			time.Sleep(time.Second)
			cancel()
		}
		mustClose(t, c.p)
	})
}

// TestCloseDoesNotWaitForTheStuck closes while a replaced worker hangs, which comes back afterwards.
func TestCloseDoesNotWaitForTheStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "work", Queue: 1, Workers: 1, Work: func(int, []*Job) { <-hang }},
			Stage{Name: "next", Workers: 1, Work: func(int, []*Job) { t.Error("the job went on") }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.send(ctx, fair.Caller{}, "stuck")
		time.Sleep(leastStuck)
		synctest.Wait()
		if err := c.p.Close(t.Context()); err == nil {
			t.Error("nothing was said of the stuck worker")
		}
		close(hang)
		synctest.Wait()
		if c.left.Load() != 1 {
			t.Error("the job has not left")
		}
		mustClose(t, c.p)
	})
}

// TestLongWorkDoesNotTakeTurns has an address with jobs of a second beside one with jobs of a moment: while a job of
// the first is worked on, several of the second arrive, and all of them come next.
func TestLongWorkDoesNotTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		c := &crowd{}
		c.p = mustNew(t, Stage{Name: "s", Queue: 8, Workers: 1, Work: func(_ int, jobs []*Job) {
			name := string(jobs[0].Image)
			order = append(order, name)
			if name[0] == 'L' {
				time.Sleep(time.Second)
			}
		}})
		for _, name := range []string{"L1", "L2", "L3"} {
			c.send(t.Context(), fair.Caller{Address: "long"}, name)
		}
		for _, name := range []string{"s1", "s2", "s3"} {
			c.send(t.Context(), fair.Caller{Address: "short"}, name)
		}
		mustClose(t, c.p)
		if want := []string{"L1", "s1", "s2", "s3", "L2", "L3"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
}
