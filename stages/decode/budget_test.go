package decode

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline/fair"
)

const mb = 1 << 20

// testBudget has 100 MB for images that are not small.
func testBudget(queue int) *Budget {
	return NewBudget(100*mb+3*2*small, math.MaxInt64, 2, queue)
}

// reserve takes memory that must be there.
func reserve(t *testing.T, b *Budget, plan Plan) *Reservation {
	t.Helper()
	r, err := b.Reserve(t.Context(), fair.Caller{}, plan)
	if err != nil {
		t.Error(err)
	}
	return r
}

// sent returns what has been sent to a channel since the last call.
func sent[T any](c chan T) (all []T) {
	for len(c) > 0 {
		all = append(all, <-c)
	}
	return all
}

func returned(t *testing.T, b *Budget) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := 0
	for i := range b.queues {
		if waiting += b.queues[i].waiting.Len(); b.queues[i].next != nil {
			waiting++
		}
	}
	if b.free != b.bytes || b.long != 0 || b.native != 0 || b.promised != 0 || waiting != 0 {
		t.Errorf("not all came back: %d of %d free, %d long, %d native, %d promised, %d waiting", b.free, b.bytes, b.long, b.native, b.promised, waiting)
	}
}

// TestBudgetTurns has callers wait for memory: each gets it in turn, whatever it needs, and small images wait for none.
func TestBudgetTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(10)
		first := reserve(t, b, Plan{Memory: 100 * mb})
		served := make(chan string, 10)
		wait := func(caller, name string, memory int64) {
			go func() {
				r, err := b.Reserve(t.Context(), fair.Caller{Address: caller}, Plan{Memory: memory})
				if err != nil {
					t.Error(name, err)
				}
				served <- name
				time.Sleep(time.Second) // of the bubble: the time of decoding
				r.Shrink(8 * mb)
				time.Sleep(time.Second)
				r.Release()
				r.Release() // again does nothing
			}()
			synctest.Wait()
		}
		wait("a", "a1", 90*mb)
		wait("a", "a2", 90*mb)
		wait("a", "a3", 95*mb)
		wait("b", "b1", 90*mb)
		wait("c", "c1", 95*mb)
		if early := sent(served); early != nil {
			t.Errorf("%v did not wait", early)
		}
		reserve(t, b, Plan{Memory: small - 1}).Release()
		first.Release()
		time.Sleep(time.Minute)
		if order, want := sent(served), []string{"a1", "a2", "b1", "c1", "a3"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
		returned(t, b)
	})
}

// TestBudgetKeepsATurn has a caller give up the oldest of its images for a newer one, again and again, as a stream does. It is served
// when it was its turn, once in a round, though each image gives up before a round is over.
func TestBudgetKeepsATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(100)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for n := range 4 { // callers with two images of a second each waiting
			caller := fair.Caller{Address: string(rune('a' + n))}
			for range 2 {
				running.Go(func() {
					for ctx.Err() == nil {
						if r, err := b.Reserve(ctx, caller, Plan{Memory: 90 * mb}); err == nil {
							time.Sleep(time.Second)
							r.Release()
						}
					}
				})
			}
		}
		var served atomic.Int32
		for range 400 { // every 300 ms, and each waits for 600 ms
			running.Go(func() {
				newest, superseded := context.WithTimeout(ctx, 600*time.Millisecond)
				defer superseded()
				if r, err := b.Reserve(newest, fair.Caller{Address: "stream"}, Plan{Memory: 90 * mb}); err == nil {
					served.Add(1)
					r.Release()
				}
			})
			time.Sleep(300 * time.Millisecond)
		}
		if n := served.Load(); n < 20 {
			t.Errorf("served %d times in 120 s of turns of 4 s", n)
		}
		cancel()
		running.Wait()
		returned(t, b)
	})
}

// TestBudgetRefuses is about what no waiting helps.
func TestBudgetRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(2)
		if _, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: 100*mb + 1}); !errors.Is(err, ErrTooMuchMemory) {
			t.Error("more than there is:", err)
		}
		all := reserve(t, b, Plan{Memory: 100 * mb})
		errs := map[string]error{}
		var mu sync.Mutex
		is := func(name string, want error, decided int) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !errors.Is(errs[name], want) || len(errs) != decided {
				t.Errorf("%s: want %v and %d decided, got %v", name, want, decided, errs)
			}
		}
		wait := func(caller, name string) {
			go func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errTooLate)
				defer cancel()
				r, err := b.Reserve(ctx, fair.Caller{Address: caller}, Plan{Memory: 50 * mb})
				if err == nil {
					defer r.Release()
				}
				mu.Lock()
				defer mu.Unlock()
				errs[name] = err
			}()
			synctest.Wait()
		}
		for _, name := range []string{"a1", "a2", "a3", "a4"} { // one is next, two wait, one is too many
			wait("a", name)
		}
		is("a4", ErrBusy, 1)
		wait("b", "b1")
		is("a3", ErrBusy, 2) // the youngest of the caller with most waiting
		time.Sleep(2 * time.Second)
		for _, name := range []string{"a1", "a2", "b1"} {
			is(name, errTooLate, 5)
		}
		all.Release()
		returned(t, b)
	})
}

var errTooLate = errors.New("too late")

// TestBudgetKeepsAWorkerFree has images of long work come, two workers being there.
func TestBudgetKeepsAWorkerFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(10)
		long := Plan{Memory: mb, Work: longWork}
		first := reserve(t, b, long)
		second := make(chan *Reservation, 1)
		go func() { second <- reserve(t, b, long) }()
		synctest.Wait()
		if len(second) != 0 {
			t.Error("two long ones at a time")
		}
		reserve(t, b, Plan{Memory: 90 * mb}).Release() // would block for ever behind the long one
		first.Shrink(mb)                               // decoded, not resized
		(<-second).Release()
		first.Release()
		returned(t, b)
	})
}

// TestBudgetTurnsOfWork has long work and the other kind wait for the same memory: neither starves the other.
func TestBudgetTurnsOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(10)
		all := reserve(t, b, Plan{Memory: 100 * mb})
		served := make(chan int64, 6)
		for range 3 {
			for _, work := range []int64{longWork, 1} {
				go func() {
					r := reserve(t, b, Plan{Memory: 100 * mb, Work: work})
					served <- work
					r.Release()
				}()
				synctest.Wait()
			}
		}
		all.Release()
		synctest.Wait()
		if order, want := sent(served), []int64{longWork, 1, longWork, 1, longWork, 1}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
		returned(t, b)
	})
}

// TestBudgetCollectsFirst has images of a size come one after the other whose garbage, with the next one, would be
// more than the runtime may hold.
func TestBudgetCollectsFirst(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	const image = 64 * mb
	debug.FreeOSMemory()
	limit := GoMemory() + 3*image/2
	b := NewBudget(1000*mb, limit, 2, 10)
	for range 3 {
		r := reserve(t, b, Plan{Memory: image})
		p := newImage(image/3, 1)
		clear(p.Pix)
		if held := GoMemory(); held > limit {
			t.Errorf("Go holds %d MB more than the limit", (held-limit)>>20)
		}
		p.Release()
		r.Release()
	}
}

// TestBudgetOfNothing still decodes the smallest images.
func TestBudgetOfNothing(t *testing.T) {
	for _, bytes := range []int64{math.MinInt64 / 4, -1, 0, 1, 10 * mb, LeastBudget(4)} {
		b := NewBudget(bytes, math.MaxInt64, 4, 1)
		reserve(t, b, Plan{Memory: leastSmall - 1})
		if _, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: max(bytes, 0) + 1 + leastSmall}); !errors.Is(err, ErrTooMuchMemory) {
			t.Errorf("%d: %v", bytes, err)
		}
		r, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: 48 * mb})
		if (err == nil) != (bytes == LeastBudget(4)) {
			t.Errorf("%d: an image of 12 million pixels: %v", bytes, err)
		}
		r.Release()
	}
}

// TestBudgetLimitsRuntime follows the limit of the Go runtime while libraries hold memory.
func TestBudgetLimitsRuntime(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	const limit = 1 << 40 // far from what this process has
	debug.SetMemoryLimit(limit)
	b := NewBudget(1000*mb, limit, 2, 10)
	check := func(native int64) {
		t.Helper()
		if got := debug.SetMemoryLimit(-1); got != limit-native {
			t.Errorf("the limit is %d lower, want %d", limit-got, native)
		}
	}
	one, two := reserve(t, b, Plan{Memory: 50 * mb, Native: 30 * mb}), reserve(t, b, Plan{Memory: 60 * mb, Native: 40 * mb})
	check(70 * mb)
	one.Shrink(10 * mb)
	check(40 * mb)
	two.Release()
	one.Release()
	check(0)
	returned(t, b)
}

// TestBudgetStorm has many goroutines reserve, shrink, release and give up: the sums hold.
func TestBudgetStorm(t *testing.T) {
	b := testBudget(8)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%3+1)*time.Millisecond)
				r, err := b.Reserve(ctx, fair.Caller{Connection: uint64(i)}, Plan{Memory: int64(8+n%90) * mb, Work: int64(n%5) * longWork})
				if err == nil {
					r.Shrink(mb)
					r.Release()
				} else if !errors.Is(err, ErrBusy) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	returned(t, b)
}
