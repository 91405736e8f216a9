package stream

import "time"

// clock makes of the times of frames one that does not run backward. Not for concurrent use.
type clock struct {
	started  bool
	at       time.Time // of the frame before
	received time.Time
	own      int64 // its own time in microseconds
	hasOwn   bool
}

// longestGap is what counts of the time between two frames by their own times, so that no sender makes it overflow.
const longestGap = time.Hour

// next returns when a frame comes, by its own time if byFrame, and whether that is not after the one of the frame before.
func (c *clock) next(f *Frame, byFrame bool) (at time.Time, backward bool) {
	if !c.started {
		c.started, c.at, c.received = true, f.Received, f.Received
	}
	gap := max(f.Received.Sub(c.received), 0)
	c.received = c.received.Add(gap)
	if f.HasTime {
		backward = c.hasOwn && f.Time <= c.own
		switch {
		case !byFrame || !c.hasOwn:
		case backward:
			gap = 0
		case uint64(f.Time)-uint64(c.own) > uint64(longestGap/time.Microsecond): // the difference fits, whatever the signs
			gap = longestGap
		default:
			gap = time.Duration(f.Time-c.own) * time.Microsecond
		}
		c.own, c.hasOwn = f.Time, true
	}
	c.at = c.at.Add(gap)
	return c.at, backward
}

// sampler chooses frames at a rate. Not for concurrent use.
type sampler struct {
	started bool
	due     time.Time // of the next frame
	passed  time.Time // the last one
}

// maxEarly is how much earlier than its turn a frame may come, if the one before was late, and at most half an interval: a camera that
// sends at the rate that is wanted, if not quite evenly, loses none for it.
const maxEarly = 100 * time.Millisecond

// pass says whether a frame is to be used: one an interval on average. recheck above 0 is a time after which it is used in any case.
func (s *sampler) pass(at time.Time, interval, recheck time.Duration) bool {
	if !s.started || s.due.Sub(at) > interval { // it was longer
		s.started, s.due = true, at
	}
	switch {
	case !at.Before(s.due):
		if early := at.Add(-min(interval/2, maxEarly)); s.due.Before(early) {
			s.due = early
		}
		s.due = s.due.Add(interval)
	case recheck > 0 && at.Sub(s.passed) >= recheck:
	default:
		return false
	}
	s.passed = at
	return true
}
