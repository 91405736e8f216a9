package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

func TestJobPassesAllStagesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass := func(name string) stage {
			return stage{Name: name, Queue: 4, Workers: 2, Work: func(_ int, j *job) {
				j.Item.path += name
			}}
		}
		c := newCrowd(t, pass("a"), pass("b"), pass("c"))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				j := &job{}
				for range 2 { // a job that is done may go again
					j.Item = item{}
					if err := c.Do(t.Context(), j); err != nil || j.Item.path != "abc" {
						t.Errorf("%v, stages ran as %q", err, j.Item.path)
					}
					if times := j.Times(); len(times) != 3 || times[0].Stage != "a" || times[2].Stage != "c" {
						t.Errorf("times %v", times)
					}
				}
			})
		}
		wg.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range c.Stats() {
			if s.Passed != 8 || s.Failed != 0 || s.Expired != 0 || s.Busy != 0 || !slices.Equal(s.Batches, []uint64{0, 8}) {
				t.Errorf("stats %+v", s)
			}
		}
	})
}

// TestSkippedStages: a job goes past the stages that it does not need, also past the last, and counts in none of them.
func TestSkippedStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pass := func(name string) stage {
			return stage{Name: name, Queue: 4, Workers: 2, Work: func(_ int, j *job) {
				j.Item.path += name
			}, Skip: func(j *job) bool { return strings.Contains(j.Item.name, name) }}
		}
		c := newCrowd(t, pass("a"), pass("b"), pass("c"), pass("d"))
		for name, want := range map[string]string{"none": "abcd", "b": "acd", "bc": "ad", "bcd": "a", "d": "abc", "a": "abcd"} {
			j := &job{Item: item{name: name}}
			err := c.Do(t.Context(), j)
			ran := ""
			for _, s := range j.Times() {
				ran += s.Stage
			}
			if err != nil || j.Item.path != want || ran != want {
				t.Errorf("%s: %v, stages ran as %q with the times of %q, want %q", name, err, j.Item.path, ran, want)
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for i, want := range []uint64{6, 3, 4, 4} {
			if s := c.Stats()[i]; s.Passed != want || s.Failed != 0 {
				t.Errorf("stats %+v, want %d passed", s, want)
			}
		}
	})
}

// TestOutcomes has jobs end in every way that stages know; the next job finds nothing of it.
func TestOutcomes(t *testing.T) {
	boom, gone := errors.New("boom"), errors.New("gone")
	cases := map[string]struct {
		work func(*job)
		want error
	}{
		"success":         {func(*job) {}, nil},
		"failure":         {func(j *job) { j.Fail(boom); j.Fail(errors.New("later")) }, boom},
		"deadline":        {func(j *job) { j.Fail(fmt.Errorf("somewhere: %w", context.DeadlineExceeded)) }, ErrDeadline},
		"cancelled":       {func(j *job) { j.Fail(context.Canceled) }, ErrDeadline},
		"cancelled, kept": {func(j *job) { j.Fail(context.Canceled) }, context.Canceled},
		"cause": {func(j *job) {
			var cancel context.CancelCauseFunc
			j.ctx, cancel = context.WithCancelCause(j.ctx)
			cancel(gone)
			j.Fail(gone)
		}, ErrDeadline},
		"its cause": {func(j *job) {
			var cancel context.CancelCauseFunc
			j.ctx, cancel = context.WithCancelCause(j.ctx)
			cancel(gone)
			j.Fail(j.ctx.Err())
		}, gone},
		"not its cause": {func(j *job) { j.Fail(gone) }, gone},
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, stage{Name: "first", Queue: 1, Workers: 1, Work: func(int, *job) {}},
			stage{Name: "s", Workers: 1, Work: func(_ int, j *job) {
				switch name := j.Item.name; name {
				case "panic":
					panic("at the disco")
				case "runtime panic":
					_ = []byte(name)[len(name)]
				default:
					cases[name].work(j)
				}
			}}, stage{Name: "last", Workers: 1, Work: func(int, *job) {}})
		for name, tc := range cases {
			c.send(t.Context(), Lane{}, name)
			c.want(tc.want, name)
		}
		for _, name := range []string{"panic", "runtime panic"} {
			var panicked *PanicError
			if err := c.do(t.Context(), Lane{}, name); !errors.As(err, &panicked) || panicked.Stage != "s" || len(panicked.Stack) == 0 {
				t.Errorf("%s: %#v", name, err)
			}
			c.send(t.Context(), Lane{}, "success")
			c.want(nil, "success")
			delete(c.left, "success")
		}
		c.left["success"]++ // it went again
		c.close()
	})
}

// TestIdleWorkersKeepNothing has a job collected that has left the line, although no other came after it.
func TestIdleWorkersKeepNothing(t *testing.T) {
	p, err := New(Hooks[item]{}, stage{Name: "s", Queue: 1, Workers: 1, Work: func(int, *job) {}})
	if err != nil {
		t.Fatal(err)
	}
	j := func() weak.Pointer[job] {
		j := &job{}
		if err := p.Do(t.Context(), j); err != nil {
			t.Error(err)
		}
		return weak.Make(j)
	}()
	for tries := 0; j.Value() != nil; tries++ { // Do may return before its worker is done
		if tries == 1000 {
			t.Fatal("the job is still alive")
		}
		runtime.GC()
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDeadline has the deadline pass while a stage hangs: the caller is answered, what the job holds stays
// until the stage is done with it, and no other stage works on it.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := newCrowd(t, stage{Name: "hangs", Queue: 4, Workers: 1, Work: func(int, *job) { <-gate }},
			stage{Name: "next", Workers: 1, Work: func(int, *job) { t.Error("it worked on an expired job") }})
		start, gone := time.Now(), errors.New("gone")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, gone)
		defer cancel()
		err := c.do(ctx, Lane{}, "late")
		if !errors.Is(err, ErrDeadline) || !errors.Is(err, gone) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if c.left["late"] != 0 {
			t.Error("it has left while the stage still had it")
		}
		close(gate)
		c.close()
		if s := c.Stats()[1]; s.Expired != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestCloseDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 10)
		c.send(t.Context(), Lane{}, "0", "1", "2", "3", "4", "5", "6", "7")
		closed := make(chan error, 1)
		go func() { closed <- c.Close(context.Background()) }()
		synctest.Wait()
		c.send(t.Context(), Lane{}, "too late")
		c.want(ErrClosed, "too late")
		close(gate)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		c.want(nil, "0", "1", "2", "3", "4", "5", "6", "7")
		c.close() // again
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 1)
		c.send(t.Context(), Lane{}, "inside", "waits")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close: %v", err)
		}
		c.want(ErrClosed, "inside", "waits")
		close(gate)
		c.close()
	})
}

// TestStorm sends many jobs with random ends through lanes of every policy and a line with small queues: every one is
// answered as its lane may be, and leaves exactly once.
func TestStorm(t *testing.T) {
	boom := errors.New("boom")
	var calls atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t,
			stage{Name: "a", Queue: 4, Workers: 2, Work: func(int, *job) {}},
			stage{Name: "b", Workers: 2, Work: func(_ int, j *job) {
				switch n := calls.Add(1); {
				case n%13 == 0:
					panic(n)
				case n%7 == 0:
					j.Fail(boom)
				case n%5 == 0:
					time.Sleep(time.Millisecond)
				}
			}},
			stage{Name: "c", Queue: 1, Workers: 1, Work: func(int, *job) {}},
		)
		var wg sync.WaitGroup
		var lanes []Lane
		for _, address := range []string{"a", "b", "c"} {
			lanes = append(lanes, laneOf(address, Queue), laneOf(address, Latest), laneOf(address, Bulk))
		}
		for n := range 18 {
			wg.Go(func() {
				lane := lanes[n%len(lanes)]
				for i := range 200 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i%3)*1000)*time.Millisecond)
					err := c.do(ctx, lane, fmt.Sprint(n, " ", i))
					cancel()
					known := [][]error{Queue: {nil, boom, ErrDeadline, ErrQueueFull}, Bulk: {nil, boom, ErrDeadline},
						Latest: {nil, boom, ErrDeadline, ErrQueueFull, ErrSuperseded}}[lane.policy]
					var panicked *PanicError
					if !errors.As(err, &panicked) && !slices.ContainsFunc(known, func(e error) bool { return errors.Is(err, e) }) {
						t.Error(lane.policy, err)
					}
				}
			})
		}
		wg.Wait()
		c.close()
	})
}

func TestNewRefuses(t *testing.T) {
	work := func(int, *job) {}
	cases := map[string][]stage{
		"none":         {},
		"too many":     make([]stage, maxStages+1),
		"no work":      {{Name: "x", Queue: 1, Workers: 1}},
		"no workers":   {{Name: "x", Queue: 1, Work: work}},
		"no queue":     {{Name: "x", Workers: 1, Work: work}},
		"second queue": {{Name: "x", Queue: 1, Workers: 1, Work: work}, {Name: "y", Queue: -1, Workers: 1, Work: work}},
	}
	for name, stages := range cases {
		if _, err := New(Hooks[item]{}, stages...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	nop := func(int, *job) {}
	p, err := New(Hooks[item]{},
		stage{Name: "decode", Queue: 64, Workers: 2, Work: nop},
		stage{Name: "resize", Queue: 2, Workers: 2, Work: nop},
		stage{Name: "encode", Queue: 2, Workers: 2, Work: nop},
		stage{Name: "score", Queue: 2, Workers: 1, Work: nop},
	)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := p.Do(ctx, &job{}); err != nil {
				b.Error(err)
			}
		}
	})
	if err := p.Close(ctx); err != nil {
		b.Error(err)
	}
}
