package pipeline

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/pipeline/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	item struct {
		name string
		path string // of the stages that it has passed
	}
	job   = Job[item]
	stage = Stage[item]
)

// crowd sends jobs into a pipeline, one goroutine each, in a bubble of synctest, and keeps the account of them.
type crowd struct {
	*Pipeline[item]
	t     testing.TB
	enter func(*job) error

	mu      sync.Mutex
	results map[string]error // by name of the job
	left    map[string]int   // how often the job has left
	served  []string         // by newGate, in order
}

var errUnfinished = errors.New("unfinished")

func newCrowd(t testing.TB, stages ...stage) *crowd {
	t.Helper()
	c := &crowd{t: t, results: map[string]error{}, left: map[string]int{}}
	c.enter = func(*job) error { return nil }
	var err error
	c.Pipeline, err = New(Hooks[item]{
		Enter: func(j *job) error { return c.enter(j) },
		Leave: func(j *job) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.left[j.Item.name]++
		},
	}, stages...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// do takes a job through the line.
func (c *crowd) do(ctx context.Context, lane Lane, name string) error {
	c.set(name, errUnfinished)
	err := c.Do(ctx, &job{Lane: lane, Item: item{name: name}})
	c.set(name, err)
	return err
}

// send has jobs queue, one after the other: each waits, or is done, when the next one comes.
func (c *crowd) send(ctx context.Context, lane Lane, names ...string) {
	for _, name := range names {
		go c.do(ctx, lane, name)
		synctest.Wait()
	}
}

func (c *crowd) set(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results[name] = err
}

// want compares the results of jobs by now; nil is success.
func (c *crowd) want(err error, names ...string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if !errors.Is(c.results[name], err) {
			c.t.Errorf("%s: %v, want %v", name, c.results[name], err)
		}
	}
}

// wantServed compares what was served until now.
func (c *crowd) wantServed(want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.served, want) {
		c.t.Errorf("served %v, want %v", c.served, want)
	}
}

// close closes the line, and checks that every job has left it once.
func (c *crowd) close() {
	c.t.Helper()
	if err := c.Close(context.Background()); err != nil {
		c.t.Error(err)
	}
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, err := range c.results {
		if c.left[name] != 1 || errors.Is(err, errUnfinished) {
			c.t.Errorf("%s: %v, left %d times", name, err, c.left[name])
		}
	}
	for _, s := range c.Stats() {
		if s.Queued != 0 || s.Busy != 0 {
			c.t.Errorf("at the end: %+v", s)
		}
	}
}

// newGate is a crowd in front of one stage with one worker, which works on a job until the gate gives something or
// is closed.
func newGate(t testing.TB, queue int) (c *crowd, gate chan struct{}) {
	gate = make(chan struct{})
	c = newCrowd(t, stage{Name: "gate", Queue: queue, Workers: 1, Work: func(_ int, j *job) {
		c.serve(j)
		<-gate
	}})
	return c, gate
}

func (c *crowd) serve(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.served = append(c.served, j.Item.name)
}

// lane is the lane of a caller with one connection.
func lane(address string) Lane { return Lane{Caller: fair.Caller{Address: address, Connection: 1}} }

// within is a context with a deadline.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
