package pipeline

import "hailoclip/pipeline/fair"

// Lane is where jobs enter: those of one client, stream or bulk job wait in one lane, each lane in the order of arrival,
// and the lanes are served in turn. The zero value is the lane of the program itself, with policy Queue.
type Lane struct {
	Caller fair.Caller // of this lane alone; those of one address share the turns of the address
	policy Policy
	turn   chan struct{} // of Bulk: full while one of its jobs has its turn at the door
}

// Policy says how the jobs of a lane wait.
type Policy int

const (
	// Queue lets jobs wait while the queue has room. In a full one the lane that has most waiting gives up its youngest
	// job for one of a lane that has less; both that one and who finds no such lane get ErrQueueFull.
	Queue Policy = iota

	// Latest lets two jobs wait in the queue; a third takes the place of the older one, which gets
	// ErrSuperseded. While fewer wait it is as Queue.
	Latest

	// Bulk has one job at a time enter and wait in the queue, without being refused; the others wait for
	// that one's turn, until their contexts end. So many jobs take no more of the queue than one.
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

// maxLatest is how many jobs of a lane with policy Latest wait.
const maxLatest = 2
