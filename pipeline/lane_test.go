package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline/fair"
)

func laneOf(address string, policy Policy) Lane {
	return NewLane(fair.Caller{Address: address, Connection: uint64(policy)}, policy)
}

func names(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(prefix, i+1))
	}
	return list
}

// TestLatest has a stream send faster than it is served: its newest two wait, and it has its turns.
func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 4)
		stream := laneOf("s", Latest)
		c.send(t.Context(), stream, "s1", "s2", "s3", "s4")
		c.want(ErrSuperseded, "s2")
		c.send(t.Context(), lane("a"), "a1", "a2")
		c.send(t.Context(), stream, "s5") // into a full queue
		c.want(ErrSuperseded, "s3")
		if err := c.Refuses(stream); err != nil {
			t.Error("one that has its place to give would be refused:", err)
		}
		gate <- struct{}{}
		c.wantServed("s1", "s4")
		c.send(t.Context(), stream, "s6", "s7") // it does not lose its turn by that
		c.want(ErrSuperseded, "s5")
		close(gate)
		c.wantServed("s1", "s4", "a1", "s6", "a2", "s7")
		c.want(nil, c.served...)
		c.close()
	})
}

// TestLatestIsItsOwn: it takes no place of other jobs of its caller, as those of a batch beside a stream.
func TestLatestIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 8)
		c.send(t.Context(), lane("s"), "s0", "s1")
		c.send(t.Context(), laneOf("s", Latest), "s2", "s3", "s4")
		c.want(ErrSuperseded, "s2")
		close(gate)
		c.wantServed("s0", "s1", "s3", "s4")
		c.close()
	})
}

// TestLatestInAFullQueue: while fewer of a stream wait than may, it is a caller like others.
func TestLatestInAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 3)
		stream := laneOf("s", Latest)
		c.send(t.Context(), lane("a"), "a0", "a1", "a2", "a3")
		c.send(t.Context(), stream, "s1")
		c.want(ErrQueueFull, "a3")
		c.send(t.Context(), stream, "s2")
		c.want(ErrQueueFull, "s2")
		if err := c.Refuses(stream); !errors.Is(err, ErrQueueFull) {
			t.Error("a second one would be let in:", err)
		}
		close(gate)
		c.wantServed("a0", "a1", "s1", "a2")
		c.close()
	})
}

// TestBulk sends many more jobs than the queue holds: all are served, in order, and who comes later has its turn.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 3)
		bulk := names("b", 64)
		var entering, most atomic.Int32
		c.enter = func(j *job) error {
			if j.Lane.policy == Bulk {
				most.Store(max(most.Load(), entering.Add(1)))
				time.Sleep(time.Second) // for memory
				entering.Add(-1)
			}
			return nil
		}
		c.send(t.Context(), laneOf("b", Bulk), bulk...)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := c.Stats()[0]; s.Queued != 1 || s.Busy != 1 {
			t.Errorf("one should be at work and one wait: %+v", s)
		}
		c.send(t.Context(), lane("a"), "a1", "a2")
		c.send(t.Context(), lane("c"), "c1")
		c.want(ErrQueueFull, "a2") // and nobody of the others
		gate <- struct{}{}
		c.wantServed("b1", "a1")
		close(gate)
		time.Sleep(2 * time.Minute)
		c.want(nil, bulk...)
		c.want(nil, "a1", "c1")
		if c.served[2] != "c1" && c.served[3] != "c1" {
			t.Errorf("served %v", c.served)
		}
		ofBulk := slices.DeleteFunc(slices.Clone(c.served), func(name string) bool { return name[0] != 'b' })
		if !slices.Equal(ofBulk, bulk) || most.Load() != 1 {
			t.Errorf("%v, %d entered at a time", ofBulk, most.Load())
		}
		c.close()
	})
}

// TestBulkWaitsForRoom has the queue be full, and its place be taken: a bulk job waits where others are refused.
func TestBulkWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 2)
		c.send(t.Context(), lane("old"), "o1")
		time.Sleep(time.Second)
		gate <- struct{}{} // it costs more than others from now on
		c.send(t.Context(), lane("a"), "a1", "a2")
		c.send(t.Context(), lane("c"), "c1")
		bulk := laneOf("old", Bulk)
		if err := c.Refuses(bulk); err != nil {
			t.Error(err)
		}
		c.send(t.Context(), bulk, "b1", "b2", "b3")
		c.want(errUnfinished, "a1", "a2", "c1", "b1", "b2", "b3")
		gate <- struct{}{} // b1 gets the place
		synctest.Wait()
		if n := c.Stats()[0].Queued; n != 2 {
			t.Errorf("%d wait in the queue", n)
		}
		c.send(t.Context(), lane("d"), "d1") // and d1, who has cost less, gets it from b1
		c.want(errUnfinished, "d1", "b1")
		close(gate)
		c.wantServed("o1", "a1", "a2", "c1", "d1", "b1", "b2", "b3")
		c.want(nil, c.served...)
		c.close()
	})
}

// TestManyBulkLanesLeaveRoom: however many of them one address has, half of the queue is for its other jobs, and the bulk jobs
// have their turns.
func TestManyBulkLanesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 4)
		c.send(t.Context(), lane("first"), "first")
		of := func(connection uint64, p Policy) Lane {
			return NewLane(fair.Caller{Address: "a", Connection: connection}, p)
		}
		for n := range 6 {
			c.send(t.Context(), of(uint64(n), Bulk), fmt.Sprint("bulk ", n))
		}
		if n := c.Stats()[0].Queued; n != 2 {
			t.Errorf("%d bulk jobs are in the queue", n)
		}
		c.send(t.Context(), of(10, Queue), "one")
		c.send(t.Context(), of(11, Queue), "two")
		c.send(t.Context(), of(12, Queue), "three")
		c.want(ErrQueueFull, "three")
		c.want(errUnfinished, "one", "two", "bulk 0", "bulk 5")
		gate <- struct{}{}
		c.wantServed("first", "bulk 0")
		close(gate)
		c.want(nil, "one", "two", "bulk 0", "bulk 1", "bulk 2", "bulk 3", "bulk 4", "bulk 5")
		c.close()
	})
}

// TestBulkGivesUp has contexts end at every place where a job of a bulk lane waits.
func TestBulkGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newGate(t, 1)
		bulk, other := laneOf("b", Bulk), laneOf("b", Bulk)
		c.send(t.Context(), lane("a"), "a1")
		short := within(t, time.Second)
		c.send(short, bulk, "in the queue", "in the lane")
		c.send(short, other, "outside")
		c.send(t.Context(), bulk, "next")
		c.send(t.Context(), other, "last")
		time.Sleep(time.Second)
		c.want(ErrDeadline, "in the queue", "in the lane", "outside")
		if s := c.Stats()[0]; s.Expired != 3 || s.Queued != 1 {
			t.Errorf("%+v", s)
		}
		close(gate)
		c.want(nil, "next", "last")
		c.close()
	})
}

// TestBulkAtTheEnd closes the line while jobs wait at every place.
func TestBulkAtTheEnd(t *testing.T) {
	for _, gives := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, gate := newGate(t, 1)
			bulk, other := laneOf("b", Bulk), laneOf("b", Bulk)
			c.send(t.Context(), lane("a"), "a1")
			c.send(t.Context(), bulk, "b1", "b2", "b3")
			c.send(t.Context(), other, "o1", "o2")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			closed := make(chan error)
			go func() { closed <- c.Close(ctx) }()
			c.want(ErrClosed, "o1", "o2")
			if gives {
				cancel()
				<-closed
				c.want(ErrClosed, "a1", "b1", "b2", "b3")
				close(gate)
			} else {
				close(gate)
				<-closed
				c.want(nil, "a1", "b1")
				c.want(ErrClosed, "b2", "b3")
			}
			c.close()
		})
	}
}
