package fleet

import (
	"context"
	"slices"
	"sync/atomic"
)

// Why an image was not encoded elsewhere, or for another node. Those that a node answers are codes of headerError.
const (
	failBusy       = "busy"
	failStopping   = "stopping"
	failModel      = "model"     // it is another one, or prepares images differently
	failDeadline   = "deadline"  // it has passed there
	failImage      = "image"     // it cannot be used
	failEncode     = "encode"    // the encoder has failed
	failMalformed  = "malformed" // the message
	failNobody     = "no_responders"
	failTimeout    = "timeout"
	failConnection = "connection"
	failVector     = "vector" // it has not the right length
	failTooLarge   = "too_large"
	failLimit      = "limit" // too many are under way
	failOther      = "other"
)

var fails = []string{
	failBusy, failStopping, failModel, failDeadline, failImage, failEncode, failMalformed, // answered by nodes
	failNobody, failTimeout, failConnection, failVector, failTooLarge, failLimit, failOther,
}

// refusal is the code of a node's answer, one of those that are known.
func refusal(code string) string {
	if slices.Contains(fails[:7], code) {
		return code
	}
	return failOther
}

// spillCounts count since the start.
type spillCounts struct {
	sent, taken     atomic.Uint64
	failed, refused [14]atomic.Uint64 // by number in fails
}

func (c *spillCounts) fail(why string) { c.failed[slices.Index(fails, why)].Add(1) }

func (c *spillCounts) refuse(why string) { c.refused[slices.Index(fails, why)].Add(1) }

// byReason is what counts has, without what never happened.
func byReason(counts *[14]atomic.Uint64) (all uint64, by map[string]uint64) {
	for i := range counts {
		if n := counts[i].Load(); n > 0 {
			if by == nil {
				by = map[string]uint64{}
			}
			all, by[fails[i]] = all+n, n
		}
	}
	return all, by
}

// reportSpill adds the counters to a status.
func (n *Node) reportSpill(_ context.Context, s *Status) error {
	c := &n.spill.count
	s.Spill = &SpillStatus{Sent: c.sent.Load(), Taken: c.taken.Load(), InFlight: n.spill.away.len()}
	_, s.Spill.Failed = byReason(&c.failed)
	s.Spill.Refused, s.Spill.RefusedFor = byReason(&c.refused)
	return nil
}
