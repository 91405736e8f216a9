package pipeline

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held counts the resources that jobs hold.
type held struct{ n *atomic.Int64 }

func (h held) Release() { h.n.Add(-1) }

func mustNew(t testing.TB, stages ...Stage) *Pipeline {
	t.Helper()
	p, err := New(stages...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustClose(t testing.TB, p *Pipeline) {
	t.Helper()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestJobPassesAllStagesInOrder(t *testing.T) {
	stage := func(name string, factor float64) Stage {
		return Stage{Name: name, Queue: 4, Workers: 2, Batch: 3, Work: func(_ int, jobs []*Job) {
			for _, j := range jobs {
				j.Scoring.LogitScale = j.Scoring.LogitScale*10 + factor
			}
		}}
	}
	p := mustNew(t, stage("a", 1), stage("b", 2), stage("c", 3))
	defer mustClose(t, p)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			job := &Job{}
			if err := p.Do(t.Context(), job); err != nil {
				t.Error(err)
				return
			}
			if job.Scoring.LogitScale != 123 {
				t.Errorf("stages ran as %v, want 123", job.Scoring.LogitScale)
			}
			var names []string
			for _, st := range job.Times() {
				names = append(names, st.Stage)
			}
			if !slices.Equal(names, []string{"a", "b", "c"}) {
				t.Errorf("times of %v", names)
			}
		})
	}
	wg.Wait()
	for _, s := range p.Stats() {
		if s.Passed != 4 || s.Failed != 0 || s.Expired != 0 || s.Busy != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

func TestEveryWayOutReleasesOnce(t *testing.T) {
	boom := errors.New("boom")
	cases := []struct {
		name string
		work func(j *Job)
		want error
	}{
		{"success", func(*Job) {}, nil},
		{"failure", func(j *Job) { j.Fail(boom); j.Fail(errors.New("later")) }, boom},
		{"panic", func(*Job) { panic("at the disco") }, ErrPanic},
		{"runtime panic", func(j *Job) { _ = j.Image[7] }, ErrPanic},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var open, left atomic.Int64
			p := mustNew(t,
				Stage{Name: "take", Queue: 1, Workers: 1, Work: func(_ int, jobs []*Job) {
					for _, j := range jobs {
						open.Add(1)
						j.State = held{&open}
					}
				}},
				Stage{Name: "work", Workers: 1, Work: func(_ int, jobs []*Job) {
					for _, j := range jobs {
						c.work(j)
					}
				}},
				Stage{Name: "end", Workers: 1, Work: func(_ int, jobs []*Job) {}},
			)
			err := p.Do(t.Context(), &Job{Left: func() { left.Add(1) }})
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			mustClose(t, p)
			if open.Load() != 0 || left.Load() != 1 {
				t.Errorf("%d resources open, Left called %d times", open.Load(), left.Load())
			}
		})
	}
}

// TestIdleWorkersKeepNothing has a job collected that has left the line, although no other came after it.
func TestIdleWorkersKeepNothing(t *testing.T) {
	p := mustNew(t, Stage{Name: "s", Queue: 1, Workers: 1, Batch: 4, Work: func(int, []*Job) {}})
	defer mustClose(t, p)
	job := func() weak.Pointer[Job] {
		job := &Job{}
		if err := p.Do(t.Context(), job); err != nil {
			t.Error(err)
		}
		return weak.Make(job)
	}()
	for tries := 0; job.Value() != nil; tries++ { // Do may return before its worker is done
		if tries == 1000 {
			t.Fatal("the job is still alive")
		}
		runtime.GC()
	}
}

func TestPanicFailsOnlyItsBatch(t *testing.T) {
	p := mustNew(t, Stage{Name: "s", Queue: 8, Workers: 1, Work: func(_ int, jobs []*Job) {
		if jobs[0].Embedding {
			panic("bad one")
		}
	}})
	defer mustClose(t, p)
	err := p.Do(t.Context(), &Job{Embedding: true})
	var pe *PanicError
	if !errors.As(err, &pe) || pe.Stage != "s" || pe.Value != "bad one" || len(pe.Stack) == 0 {
		t.Fatalf("error %#v", err)
	}
	if err := p.Do(t.Context(), &Job{}); err != nil {
		t.Fatalf("the next job: %v", err)
	}
}

// gate is a stage that lets jobs through one release at a time and records batch sizes.
type gate struct {
	open  chan struct{}
	sizes chan int
}

func newGate() gate { return gate{make(chan struct{}), make(chan int, 1000)} }

func (g gate) stage(queue, batch int) Stage {
	return Stage{Name: "gate", Queue: queue, Workers: 1, Batch: batch, Work: func(_ int, jobs []*Job) {
		g.sizes <- len(jobs)
		<-g.open
	}}
}

func TestFullQueueIsRefusedAtOnce(t *testing.T) {
	g := newGate()
	p := mustNew(t, g.stage(3, 1))
	var wg sync.WaitGroup
	results := make(chan error, 10)
	do := func() { wg.Go(func() { results <- p.Do(context.Background(), &Job{}) }) }
	do()
	<-g.sizes // one is in work
	for range 3 {
		do()
	}
	for p.Stats()[0].Queued < 3 {
		runtime.Gosched()
	}
	left := false
	if err := p.Do(context.Background(), &Job{Left: func() { left = true }}); !errors.Is(err, ErrQueueFull) {
		t.Fatalf("fifth job: %v, want ErrQueueFull", err)
	}
	if !left {
		t.Error("Left was not called for a refused job")
	}
	close(g.open)
	wg.Wait()
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	mustClose(t, p)
}

func TestBatchTakesWhatWaits(t *testing.T) {
	g := newGate()
	p := mustNew(t, g.stage(20, 8))
	var wg sync.WaitGroup
	do := func() {
		wg.Go(func() {
			if err := p.Do(context.Background(), &Job{}); err != nil {
				t.Error(err)
			}
		})
	}
	do()
	if n := <-g.sizes; n != 1 { // an idle stage does not wait for company
		t.Errorf("first batch has %d jobs, want 1", n)
	}
	for range 11 {
		do()
	}
	for p.Stats()[0].Queued < 11 {
		runtime.Gosched()
	}
	close(g.open)
	wg.Wait()
	mustClose(t, p)
	if a, b := <-g.sizes, <-g.sizes; a != 8 || b != 3 {
		t.Errorf("batches of %d and %d, want 8 and 3", a, b)
	}
	if b := p.Stats()[0].Batches; b[1] != 1 || b[8] != 1 || b[3] != 1 {
		t.Errorf("batch counters %v", b)
	}
}

func TestMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := make(chan int, 10)
		p := mustNew(t, Stage{Name: "s", Queue: 8, Workers: 1, Batch: 4, MaxWait: 10 * time.Millisecond,
			Work: func(_ int, jobs []*Job) { sizes <- len(jobs) }})
		do := func() { go p.Do(context.Background(), &Job{}) }
		start := time.Now()
		do()
		time.Sleep(9 * time.Millisecond)
		do()
		if n := <-sizes; n != 2 || time.Since(start) != 10*time.Millisecond {
			t.Errorf("batch of %d after %v, want 2 after 10ms", n, time.Since(start))
		}
		start = time.Now()
		for range 4 {
			do()
		}
		if n := <-sizes; n != 4 || time.Since(start) != 0 {
			t.Errorf("batch of %d after %v, want 4 at once", n, time.Since(start))
		}
		mustClose(t, p)
	})
}

func TestDeadline(t *testing.T) {
	t.Run("answered while the device hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hang := make(chan struct{})
			var open, left atomic.Int64
			p := mustNew(t, Stage{Name: "s", Queue: 1, Workers: 1, Work: func(_ int, jobs []*Job) {
				open.Add(1)
				jobs[0].State = held{&open}
				<-hang
			}})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			start := time.Now()
			err := p.Do(ctx, &Job{Left: func() { left.Add(1) }})
			if !errors.Is(err, ErrDeadline) || time.Since(start) != time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			if left.Load() != 0 {
				t.Error("Left was called while the stage still had the job")
			}
			close(hang)
			mustClose(t, p)
			if open.Load() != 0 || left.Load() != 1 {
				t.Errorf("%d resources open, Left called %d times", open.Load(), left.Load())
			}
		})
	})
	t.Run("no work for the dead", func(t *testing.T) {
		g := newGate()
		var worked atomic.Int64
		p := mustNew(t, g.stage(4, 1), Stage{Name: "next", Workers: 1, Work: func(_ int, jobs []*Job) {
			worked.Add(int64(len(jobs)))
		}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- p.Do(ctx, &Job{}) }()
		<-g.sizes
		cancel()
		if err := <-done; !errors.Is(err, ErrDeadline) || !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		close(g.open)
		mustClose(t, p)
		if worked.Load() != 0 {
			t.Error("a stage worked on an expired job")
		}
		if s := p.Stats()[1]; s.Expired != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func isClosed(p *Pipeline) bool {
	p.door.mu.Lock()
	defer p.door.mu.Unlock()
	return p.door.closed
}

func TestClose(t *testing.T) {
	t.Run("drains", func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.stage(10, 2), g.stage(1, 2))
		results := make(chan error, 8)
		do := func() { go func() { results <- p.Do(context.Background(), &Job{}) }() }
		do()
		<-g.sizes // one alone is in work
		for range 7 {
			do()
		}
		for p.Stats()[0].Queued < 7 {
			runtime.Gosched()
		}
		closed := make(chan error)
		go func() { closed <- p.Close(context.Background()) }()
		for !isClosed(p) {
			runtime.Gosched()
		}
		if err := p.Do(context.Background(), &Job{}); !errors.Is(err, ErrClosed) {
			t.Errorf("a job after Close: %v", err)
		}
		close(g.open)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		for range 8 {
			if err := <-results; err != nil {
				t.Errorf("a job inside at Close: %v", err)
			}
		}
		mustClose(t, p) // again
	})
	t.Run("gives up", func(t *testing.T) {
		g := newGate()
		p := mustNew(t, g.stage(1, 1))
		result := make(chan error)
		go func() { result <- p.Do(context.Background(), &Job{}) }()
		<-g.sizes
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close: %v", err)
		}
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("Do: %v", err)
		}
		close(g.open)
		mustClose(t, p)
	})
}

// TestStorm sends many jobs with random ends through a line with small queues: every one is
// answered and left exactly once.
func TestStorm(t *testing.T) {
	var open, left, asked atomic.Int64
	boom := errors.New("boom")
	p := mustNew(t,
		Stage{Name: "a", Queue: 4, Workers: 2, Work: func(_ int, jobs []*Job) {
			for _, j := range jobs {
				open.Add(1)
				j.State = held{&open}
			}
		}},
		Stage{Name: "b", Workers: 2, Batch: 4, Work: func(_ int, jobs []*Job) {
			switch n := jobs[0].Scoring.TopK; {
			case n%13 == 0:
				panic(n)
			case n%7 == 0:
				jobs[len(jobs)-1].Fail(boom)
			case n%5 == 0:
				time.Sleep(time.Millisecond)
			}
		}},
		Stage{Name: "c", Queue: 1, Workers: 1, Batch: 8, Work: func(_ int, jobs []*Job) {}},
	)
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+(i%3)*1000)*time.Millisecond)
				asked.Add(1)
				err := p.Do(ctx, &Job{Scoring: Scoring{TopK: c*200 + i}, Left: func() { left.Add(1) }})
				for _, known := range []error{nil, boom, ErrPanic, ErrQueueFull, ErrDeadline} {
					if errors.Is(err, known) {
						err = nil
					}
				}
				if err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	mustClose(t, p)
	if open.Load() != 0 || left.Load() != asked.Load() {
		t.Errorf("%d resources open; %d asked, %d left", open.Load(), asked.Load(), left.Load())
	}
}

func TestNewRefuses(t *testing.T) {
	work := func(int, []*Job) {}
	cases := map[string][]Stage{
		"none":          {},
		"too many":      make([]Stage, maxStages+1),
		"no work":       {{Name: "x", Queue: 1, Workers: 1}},
		"no workers":    {{Name: "x", Queue: 1, Work: work}},
		"no queue":      {{Name: "x", Workers: 1, Work: work}},
		"bad batch":     {{Name: "x", Queue: 1, Workers: 1, Batch: -1, Work: work}},
		"second enters": {{Name: "x", Queue: 1, Workers: 1, Work: work}, {Name: "y", Workers: 1, Work: work, Enter: func(*Job) error { return nil }}},
		"second queue":  {{Name: "x", Queue: 1, Workers: 1, Work: work}, {Name: "y", Queue: -1, Workers: 1, Work: work}},
	}
	for name, stages := range cases {
		if p, err := New(stages...); err == nil {
			mustClose(t, p)
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	nop := func(int, []*Job) {}
	p := mustNew(b,
		Stage{Name: "decode", Queue: 64, Workers: 2, Work: nop},
		Stage{Name: "resize", Queue: 2, Workers: 2, Work: nop},
		Stage{Name: "encode", Queue: 2, Workers: 2, Batch: 8, Work: nop},
		Stage{Name: "score", Queue: 2, Workers: 1, Work: nop},
	)
	defer mustClose(b, p)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := p.Do(ctx, &Job{}); err != nil {
				b.Error(err)
			}
		}
	})
}
