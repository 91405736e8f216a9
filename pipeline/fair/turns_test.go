package fair

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurnsOfAddresses: who has one thing to do does not wait for all of who has many.
func TestTurnsOfAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1)
		var order []string
		enter := func(c Caller) {
			go func() {
				done, err := turns.Take(t.Context(), c)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
				order = append(order, c.Address)
				done()
			}()
			synctest.Wait()
		}
		for n := range 4 {
			enter(caller("greedy", uint64(n)))
		}
		enter(caller("modest", 1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if want := []string{"greedy", "modest", "greedy", "greedy", "greedy"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
		if turns.free != 1 || turns.Waiting() {
			t.Errorf("%d are free, and somebody waits: %v", turns.free, turns.Waiting())
		}
	})
}

// TestTurnsGivenUp: whoever waits no longer takes no turn.
func TestTurnsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1)
		first, err := turns.Take(t.Context(), caller("a", 1))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := turns.Take(ctx, caller("b", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		first()
		last, err := turns.Take(t.Context(), caller("b", 1))
		if err != nil {
			t.Fatal(err)
		}
		last()
		if _, err := turns.Take(ctx, caller("b", 1)); err == nil || turns.free != 1 {
			t.Errorf("error %v, %d are free", err, turns.free)
		}
	})
}
