package pipeline

import "hailoclip/pipeline/fair"

// Lane is where jobs enter: one client, stream or bulk job has one lane. Within a lane jobs are served in the order of
// arrival, and lanes in turn. The zero value is the lane of the program itself, with policy Queue.
type Lane struct {
	Caller fair.Caller // of this lane alone: lanes of the same Caller are served as one. A Latest lane must not share it.
	policy Policy
	turn   chan struct{} // only of Bulk: holds a value while one of its jobs enters or waits in the queue
}

// Policy says how the jobs of a lane wait.
type Policy int

const (
	// Queue lets jobs wait while the queue has room. In a full queue a job displaces the youngest job of the lane that has
	// most waiting, if its own lane has less. The displaced job gets ErrQueueFull, or else the new one.
	Queue Policy = iota

	// Latest lets two jobs wait in the queue; a third replaces the older one, which gets ErrSuperseded. Jobs inside
	// Hooks.Enter are not counted. While fewer wait it is as Queue.
	Latest

	// Bulk lets one job at a time enter and wait in the queue, and never refuses it; the others wait until a worker has
	// taken that one, or their contexts end. However many jobs there are, they take one place of the queue; all Bulk lanes
	// together have half of it, and one place at least.
	Bulk
)

// NewLane makes a lane. It needs no closing.
func NewLane(caller fair.Caller, policy Policy) Lane {
	l := Lane{Caller: caller, policy: policy}
	if policy == Bulk {
		l.turn = make(chan struct{}, 1)
	}
	return l
}

// Policy returns how the jobs of the lane wait.
func (l Lane) Policy() Policy { return l.policy }

// maxLatest is how many jobs of a lane with policy Latest wait.
const maxLatest = 2
