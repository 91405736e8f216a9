package decode

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"slices"
	"sync"
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

func returned(t *testing.T, b *Budget) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free != b.bytes || b.long != 0 || b.native != 0 || b.next != nil || b.waiting.Len() != 0 {
		t.Errorf("not all came back: %d of %d free, %d long, %d native, %d waiting", b.free, b.bytes, b.long, b.native, b.waiting.Len())
	}
}

// TestBudgetTurns has callers wait for memory: each gets it in turn, whatever it needs, and small images wait for none.
func TestBudgetTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(10)
		first, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: 100 * mb})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		wait := func(caller, name string, memory int64) {
			go func() {
				r, err := b.Reserve(t.Context(), fair.Caller{Address: caller}, Plan{Memory: memory})
				if err != nil {
					t.Error(name, err)
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
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
		mu.Lock()
		if len(order) != 0 {
			t.Errorf("%v did not wait", order)
		}
		mu.Unlock()
		if r, err := b.Reserve(t.Context(), fair.Caller{Address: "d"}, Plan{Memory: small - 1}); err != nil {
			t.Error("a small image:", err)
		} else {
			r.Release()
		}
		first.Release()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a1", "a2", "b1", "c1", "a3"}; !slices.Equal(order, want) {
			t.Errorf("served %v, want %v", order, want)
		}
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
		all, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: 100 * mb})
		if err != nil {
			t.Fatal(err)
		}
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
		first, err := b.Reserve(t.Context(), fair.Caller{}, long)
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan *Reservation, 1)
		go func() {
			r, _ := b.Reserve(t.Context(), fair.Caller{}, long)
			second <- r
		}()
		synctest.Wait()
		if len(second) != 0 {
			t.Error("two long ones at a time")
		}
		first.Shrink(mb) // decoded, not resized
		(<-second).Release()
		first.Release()
		returned(t, b)
	})
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
	reserve := func(native int64) *Reservation {
		r, err := b.Reserve(t.Context(), fair.Caller{}, Plan{Memory: native + 20*mb, Native: native})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, two := reserve(30*mb), reserve(40*mb)
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
