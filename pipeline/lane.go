package pipeline

import (
	"sync/atomic"

	"hailoclip/pipeline/fair"
)

// Lane is where jobs enter: one client, stream or bulk job has one lane. Within a lane jobs are served in the order of
// arrival, and lanes in turn. The zero value is the lane of the program itself, with policy Queue. A copy is the same lane.
type Lane struct {
	Caller fair.Caller // lanes of the same Caller are served as one
	policy Policy
	turn   chan struct{} // only of Bulk: holds a value while one of its jobs enters or waits in the queue
	latest uint64        // only of Latest: its number, from 1
}

// Policy says how the jobs of a lane wait.
type Policy int

const (
	// Queue lets jobs wait while the queue has room. In a full queue a job displaces the youngest job of the lane that has
	// most waiting, if its own lane has less. The displaced job gets ErrQueueFull, or else the new one.
	Queue Policy = iota

	// Latest lets two jobs wait, inside Hooks.Enter or in the queue; a third, as soon as it is given to Do, replaces the older
	// one, which gets ErrSuperseded. Other lanes of its Caller do not count. While fewer wait it is as Queue.
	Latest

	// Bulk lets one job at a time enter and wait in the queue, and never refuses it; the others wait until a worker has
	// taken that one, or their contexts end. However many jobs there are, they take one place of the queue; all Bulk lanes
	// together have half of it, and one place at least.
	Bulk
)

// NewLane makes a lane. It needs no closing.
func NewLane(caller fair.Caller, policy Policy) Lane {
	l := Lane{Caller: caller, policy: policy}
	switch policy {
	case Bulk:
		l.turn = make(chan struct{}, 1)
	case Latest:
		l.latest = latestLanes.Add(1)
	}
	return l
}

var latestLanes atomic.Uint64

// Policy returns how the jobs of the lane wait.
func (l Lane) Policy() Policy { return l.policy }

// maxLatest is how many jobs of a lane with policy Latest wait.
const maxLatest = 2
