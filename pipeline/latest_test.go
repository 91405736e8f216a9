package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline/fair"
)

// TestLatestInsideEnter has the jobs of a stream wait inside Enter, as for memory: two of them at most, the newest.
func TestLatestInsideEnter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 8)
		memory := make(chan struct{})
		c.enter = func(j *job) error {
			ctx := j.Context()
			select {
			case <-memory:
				return ctx.Err()
			case <-ctx.Done():
				if deadline, ok := ctx.Deadline(); j.Item.name == "short" && (!ok || time.Now() != deadline) {
					t.Errorf("until %v", deadline)
				}
				return context.Cause(ctx)
			}
		}
		stream := laneOf("s", Latest)
		c.send(t.Context(), stream, "s1", "s2")
		c.want(errUnfinished, "s1", "s2")
		c.send(t.Context(), stream, "s3")
		c.want(ErrSuperseded, "s1")
		c.want(errUnfinished, "s2", "s3")
		if errors.Is(c.results["s1"], ErrDeadline) {
			t.Error(c.results["s1"])
		}
		c.send(t.Context(), laneOf("s", Latest), "another stream's", "another stream's 2")
		c.send(t.Context(), lane("s"), "no stream's")
		c.want(errUnfinished, "s2", "s3", "another stream's", "another stream's 2", "no stream's")

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c.send(short, stream, "short")
		c.want(ErrSuperseded, "s2")
		time.Sleep(time.Second)
		c.want(ErrDeadline, "short") // it has made room
		c.send(t.Context(), stream, "s4")
		c.want(errUnfinished, "s3", "s4")

		close(memory)
		synctest.Wait()
		c.want(errUnfinished, "s3", "s4")
		c.send(t.Context(), stream, "s5", "s6") // now in the queue
		close(gate)
		c.want(nil, "s5", "s6", "another stream's", "another stream's 2", "no stream's")
		if s := c.Stats()[0]; s.Failed != 0 || s.Expired != 1 {
			t.Errorf("counted %+v", s)
		}
		c.close()
	})
}

// TestLatestCountsAllThatWait has an older one in the queue, and a newer one inside Enter, which the next one does not
// overtake in age.
func TestLatestCountsAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 4)
		slow := make(chan struct{})
		boom := errors.New("boom")
		c.enter = func(j *job) error {
			switch j.Item.name {
			case "s3": // does not look at its context
				<-slow
			case "bad":
				return boom
			case "panics":
				panic(boom)
			}
			return nil
		}
		stream := laneOf("s", Latest)
		c.send(t.Context(), lane("a"), "a1")
		c.send(t.Context(), stream, "s1", "s2", "s3") // s2 in the queue, s3 inside Enter
		c.want(ErrSuperseded, "s1")
		c.want(errUnfinished, "s2", "s3")
		c.send(t.Context(), stream, "s4")
		c.want(ErrSuperseded, "s2")
		c.send(t.Context(), stream, "s5") // s3 is the oldest, although s4 is in the queue and s3 is not
		close(slow)
		c.want(ErrSuperseded, "s3")
		c.want(errUnfinished, "s4", "s5")
		c.send(t.Context(), stream, "bad")
		c.want(ErrSuperseded, "s4")
		c.want(boom, "bad")
		c.send(t.Context(), stream, "panics", "s6")
		c.want(errUnfinished, "s5", "s6")
		var panicked *PanicError
		if !errors.As(c.results["panics"], &panicked) {
			t.Error(c.results["panics"])
		}
		close(gate)
		c.wantServed("a1", "s5", "s6")
		c.close()
	})
}

// TestLatestAtTheEnd closes the line while jobs of streams are inside Enter.
func TestLatestAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, stage{Name: "s", Queue: 2, Workers: 1, Work: func(int, *job) {}})
		memory := make(chan struct{})
		c.enter = func(*job) error { <-memory; return nil }
		stream := laneOf("s", Latest)
		c.send(t.Context(), stream, "s1", "s2", "s3")
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		close(memory)
		c.want(ErrSuperseded, "s1")
		c.want(ErrClosed, "s2", "s3")
		c.close()
		if n := len(c.door().entering); n != 0 {
			t.Errorf("%d are entering", n)
		}
	})
}

// TestEntry is a context: it ends with its parent, or with ErrSuperseded, whoever began to wait for it first.
func TestEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		type key struct{}
		parent, end := context.WithCancelCause(context.WithValue(t.Context(), key{}, 7))
		checkEntry(t, parent, "nothing", false, func(*entry) {}, nil)
		checkEntry(t, parent, "nothing while somebody waits", true, func(*entry) {}, nil)
		checkEntry(t, parent, "superseded", false, (*entry).supersede, ErrSuperseded)
		checkEntry(t, parent, "superseded while somebody waits", true, (*entry).supersede, ErrSuperseded)
		checkEntry(t, parent, "superseded twice", true, func(e *entry) { e.supersede(); e.supersede() }, ErrSuperseded)
		checkEntry(t, parent, "superseded behind its end", true, func(e *entry) { e.close(); e.supersede() }, context.Canceled)
		checkEntry(t, parent, "the job ends while somebody waits", true, func(*entry) { end(boom) }, boom)
		checkEntry(t, parent, "the job has ended", false, func(*entry) {}, boom)
		checkEntry(t, parent, "the job has ended, then superseded", true, (*entry).supersede, boom)
		var e *entry
		if e = e.next(parent); e.Value(key{}) != 7 || e.derive().Value(key{}) != 7 {
			t.Error("the value is lost")
		}
		e.close()
		live := context.WithValue(t.Context(), key{}, 8)
		used := e
		if e = e.next(live); e == used || e.Value(key{}) != 8 || used.Value(key{}) != 7 {
			t.Error("one that others may look at is used again")
		}
		if testing.AllocsPerRun(10, func() { e = e.next(live); _ = e.Err(); e.close() }) != 0 {
			t.Error("it allocates")
		}
	})
}

func checkEntry(t *testing.T, parent context.Context, name string, wait bool, end func(*entry), want error) {
	t.Helper()
	e := &entry{Context: parent}
	defer e.close()
	ended := make(chan struct{})
	if wait {
		defer context.AfterFunc(e, func() { close(ended) })()
	}
	end(e)
	synctest.Wait()
	got := context.Cause(e)
	if !errors.Is(got, want) || (e.Err() != nil) != (want != nil) {
		t.Errorf("%s: %v, %v, want %v", name, got, e.Err(), want)
	}
	select {
	case <-e.Done():
	default:
		if want != nil {
			t.Errorf("%s: it has not ended", name)
		}
	}
	if wait && want != nil {
		<-ended
	}
}

// TestLatestCrowd has streams send as fast as they can, jobs be used again, and contexts end, while Enter takes its time: all get
// an answer, and nothing is left.
func TestLatestCrowd(t *testing.T) {
	const streams, frames = 4, 400
	type frame struct{}
	p, err := New(Hooks[frame]{
		Enter: func(j *Job[frame]) error {
			ctx, cancel := context.WithTimeout(j.Context(), time.Duration(rand.IntN(100))*time.Microsecond)
			defer cancel()
			if <-ctx.Done(); j.Context().Err() != nil {
				return context.Cause(j.Context())
			}
			return nil
		},
	}, Stage[frame]{Name: "s", Queue: streams, Workers: 2, Work: func(int, *Job[frame]) {}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var served, superseded, expired, refused atomic.Int32
	for s := range streams {
		stream := NewLane(fair.Caller{Address: fmt.Sprint(s / 2), Connection: 1}, Latest)
		for range 3 {
			wg.Go(func() {
				j := &Job[frame]{}
				for i := range frames {
					j.Lane = stream
					ctx, cancel := context.WithCancel(t.Context())
					if i%5 == 0 {
						time.AfterFunc(time.Duration(rand.IntN(60))*time.Microsecond, cancel)
					}
					err := p.Do(ctx, j)
					cancel()
					switch {
					case err == nil:
						served.Add(1)
						continue // it may be used again
					case errors.Is(err, ErrDeadline):
						expired.Add(1)
					case errors.Is(err, ErrSuperseded):
						superseded.Add(1)
					case errors.Is(err, ErrQueueFull):
						refused.Add(1)
					default:
						t.Error(err)
					}
					j = &Job[frame]{}
				}
			})
		}
	}
	wg.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	n := []int32{served.Load(), superseded.Load(), expired.Load(), refused.Load()}
	if sum := n[0] + n[1] + n[2] + n[3]; sum != streams*3*frames || slices.Contains(n[:3], 0) {
		t.Errorf("served, superseded, expired, refused: %v of %d", n, streams*3*frames)
	}
	if d := p.door(); len(d.entering) != 0 || d.waiting.Len() != 0 {
		t.Errorf("%d entering, %d waiting", len(d.entering), d.waiting.Len())
	}
}
