package batch

import (
	"maps"
	"slices"
	"time"

	"hailoclip/pipeline/fair"
)

// rule says for how long a free device waits for callers that are known to send their next frame soon after an answer.
//
// A run of n frames takes a + b n. Starting m now encodes m frames in a + b m of the device's time, waiting w for k more encodes
// m + k in w + a + b (m + k). The second is more per time while m w < k a, whatever b is. And as those that do not come into this
// run come into the next, of cap frames at most, it must also be better than the two runs: with e expected in all, a + w for
// m + k frames against 2 a for m + min(cap, e). Cameras, users who arrive by chance and callers who think for long do not come
// back soon, so nothing waits for them.
//
// It has no clock: times are arguments, which must not fall. Not for concurrent use.
type rule struct {
	cap  int           // frames of a run at most
	a, b time.Duration // what a run takes, and each frame in it; a 0: not known, nothing is held

	connections map[fair.Caller]*caller
	addresses   map[string]*address
	clock       uint64 // counts look-ups, for forgetting
	yield       yield
	owing       []*habit // those that are expected, in no order; some may be late by now
}

// caller is what is known of a connection.
type caller struct {
	habit
	home  *address
	heard uint64 // rule.clock at the last look-up
}

// address is what is known of the connections of an address together. Its habit is that of frames that come by a new connection
// after an answer to another one: that of clients who use none twice.
type address struct {
	habit
	pace
	heard uint64
}

// pace is whether the frames of an address come by a clock, as those of a camera, and not after answers. Through a pool of
// connections the next frame often comes by the one that has just got an answer, and that looks like a return.
type pace struct {
	frame, answer time.Time // the last ones
	frames        int
	interval, gap spread // from frame to frame, and from the last answer to a frame
}

// spread is a mean and the mean deviation from it, of the last ones, in ns.
type spread struct{ mean, dev float64 }

func (s *spread) add(v, weight float64) {
	s.dev += weight * (max(v-s.mean, s.mean-v) - s.dev)
	s.mean += weight * (v - s.mean)
}

// ready notes a frame.
func (p *pace) ready(now time.Time) {
	if p.frames++; p.frames > 1 && !p.answer.IsZero() {
		w := max(weight, 1/float64(p.frames))
		p.interval.add(float64(now.Sub(p.frame)), w)
		p.gap.add(float64(now.Sub(p.answer)), w)
	}
	p.frame = now
}

// clocked says that the time of a frame follows from that of the one before, and much less from that of the last answer. A caller
// who comes back is the other way round: a run's time is between its frames, too.
func (p *pace) clocked() bool { return p.frames >= 32 && p.interval.dev < p.gap.dev/2 }

// habit is how soon a caller comes back. The zero value knows nothing.
type habit struct {
	owed  []time.Time // answers that no frame has followed yet, the oldest first, at most 2 caps
	gaps  int         // seen, from an answer to the next frame
	soon  float64     // share of the gaps that are short
	mean  float64     // of the short ones, in ns
	dev   float64     // their mean deviation
	owing bool        // it is in rule.owing

	callers []*caller // of an address: the connections that got the answers owed
}

// The constants were chosen by a model; each may be changed by a quarter before a load loses 5 % (share by 0.1). soonBelow was 0.75
// there; where decoding takes most of the gap, so that the last of a group just miss that, 0.9 keeps the group whole.
const (
	soonBelow  = 0.9     // of a: one run beats two only while the gap is below a, and near it the gain is nil
	shareSoon  = 0.8     // of a caller's gaps that must be short, at least
	lateAfter  = 3       // deviations after the mean
	lateSlack  = 300_000 // ns
	leastAhead = 100_000 // ns: how far ahead a frame that is due already is expected
	weight     = 1. / 16 // of a new gap, and of a new run
	maxCallers = 512     // connections and addresses remembered, each
	outlier    = 2       // a run counts as no longer than so many times what was expected: a text may have run before it
)

// caller finds or begins what is known of a connection.
func (r *rule) caller(key fair.Caller) *caller {
	if r.connections == nil {
		r.connections, r.addresses = map[fair.Caller]*caller{}, map[string]*address{}
	}
	r.clock++
	c := r.connections[key]
	if c == nil {
		forget(r.connections, r.clock, func(c *caller) uint64 { return c.heard })
		home := r.addresses[key.Address]
		if home == nil {
			forget(r.addresses, r.clock, func(a *address) uint64 { return a.heard })
			home = &address{}
			r.addresses[key.Address] = home
		}
		c = &caller{home: home}
		r.connections[key] = c
	}
	c.heard, c.home.heard = r.clock, r.clock
	return c
}

// forget makes room in a full table: the half that was not heard of for longest goes.
func forget[K comparable, V any](table map[K]V, clock uint64, heard func(V) uint64) {
	if len(table) >= maxCallers {
		maps.DeleteFunc(table, func(_ K, v V) bool { return heard(v)+maxCallers/2 <= clock })
	}
}

// ready notes that a frame of the caller is ready to be encoded.
func (r *rule) ready(now time.Time, c *caller) {
	home := c.home
	home.pace.ready(now)
	switch {
	case len(c.owed) > 0:
		r.returned(now, &c.habit)
		if i := slices.Index(home.callers, c); i >= 0 {
			home.forgive(i)
		}
	case c.gaps == 0 && len(home.owed) > 0: // its first frame
		if other := home.callers[0]; len(other.owed) > 0 {
			other.owed = slices.Delete(other.owed, 0, 1)
		}
		r.returned(now, &home.habit)
	}
}

// forgive forgets an answer.
func (h *habit) forgive(i int) {
	h.owed = slices.Delete(h.owed, i, i+1)
	if h.callers != nil {
		h.callers = slices.Delete(h.callers, i, i+1)
	}
}

// returned learns from the gap after the oldest answer that nothing has followed.
func (r *rule) returned(now time.Time, h *habit) {
	gap := float64(now.Sub(h.owed[0]))
	h.forgive(0)
	short := 0.0
	if gap < soonBelow*float64(r.a) {
		short = 1
	}
	h.gaps++
	h.soon += max(weight, 1/float64(h.gaps+1)) * (short - h.soon)
	if short > 0 {
		w, deviation := max(weight, 1/float64(h.gaps)), max(gap-h.mean, h.mean-gap)
		if h.mean == 0 {
			w, deviation = 1, gap/2
		}
		h.mean += w * (gap - h.mean)
		h.dev += w * (deviation - h.dev)
	}
}

// answered notes that a frame of the caller was answered.
func (r *rule) answered(now time.Time, c *caller) {
	c.home.answer = now
	r.owe(now, &c.habit, c.home)
	r.owe(now, &c.home.habit, c.home)
	c.home.callers = append(c.home.callers, c)
}

func (r *rule) owe(now time.Time, h *habit, home *address) {
	if len(h.owed) >= 2*r.cap {
		h.forgive(0)
	}
	h.owed = append(h.owed, now)
	if h.returns() && !h.owing && !home.clocked() {
		h.owing = true
		r.owing = append(r.owing, h)
	}
}

// returns says that a caller sends its next frame soon after an answer, as a rule.
func (h *habit) returns() bool { return h.known() && h.soon >= shareSoon }

// known says that enough is known of a caller to tell.
func (h *habit) known() bool { return h.gaps >= 4 }

// returns says that an answer to the caller will be followed by a frame soon.
func (c *caller) returns() bool {
	return (c.habit.returns() || !c.known() && c.home.returns()) && !c.home.clocked()
}

// full is what a run of cap frames takes.
func (r *rule) full() time.Duration { return r.a + time.Duration(r.cap)*r.b }

// ran learns from a run of n frames that took so long. share is the part of the run that is reported: each of its frames may.
func (r *rule) ran(n int, took time.Duration, share float64) {
	took = min(took, outlier*(r.a+time.Duration(n)*r.b))
	r.a = max(0, r.a+time.Duration(weight*share*float64(took-time.Duration(n)*r.b-r.a)))
}

// yield is whether waiting has paid of late. Where the processors are busy with other things, frames come so late after the
// answers that waiting costs more than it saves, although each caller comes back soon as a rule.
type yield struct {
	groups, frames, callers int           // callers: sum of those that were about when each group started
	took                    time.Duration // of the runs and the waits before them
	pause                   time.Duration // the last one, or 0
	until                   time.Time     // nothing is held before
}

const (
	yieldGroups = 32               // after so many it is judged
	firstPause  = 2 * time.Second  // without holding
	lastPause   = 32 * time.Second // they double, until holding has paid again
)

// started notes a group of n frames for which the device, free for so long, has waited, or may be expected to wait for out more.
// Callers that are all about at once fall into two runs a round where nothing is held: N frames in 2 a + b N.
func (r *rule) started(now time.Time, n, out int, idle time.Duration) {
	y := &r.yield
	y.groups, y.frames, y.callers = y.groups+1, y.frames+n, y.callers+min(n+out, 2*r.cap)
	y.took += min(idle, 2*r.a) + r.a + time.Duration(n)*r.b
	if y.groups < yieldGroups {
		return
	}
	about := float64(y.callers) / yieldGroups
	atOnce := about / (2*float64(r.a) + about*float64(r.b))
	pause := time.Duration(0)
	if float64(y.frames)/float64(y.took) < atOnce {
		pause = min(max(2*y.pause, firstPause), lastPause)
	}
	*y = yield{pause: pause, until: now.Add(pause)}
}

// holds says that the rule holds at all.
func (r *rule) holds(now time.Time) bool { return !now.Before(r.yield.until) }

// out is how many frames are expected.
func (r *rule) out(now time.Time) int {
	var buffer [64]time.Duration
	return len(r.expected(now, buffer[:0]))
}

// hold returns how long to wait at most for more frames while m frames wait and the device is free; 0: start.
func (r *rule) hold(now time.Time, m int) (wait time.Duration) {
	if !r.holds(now) {
		return 0
	}
	var buffer [64]time.Duration
	left := r.expected(now, buffer[:0])
	slices.Sort(left)
	both := m + min(len(left), r.cap) // frames of this run and the next
	for i, w := range left[:min(len(left), r.cap-m)] {
		k := i + 1
		if time.Duration(m)*w < time.Duration(k)*r.a && time.Duration(both)*(r.a+w) < time.Duration(m+k)*2*r.a {
			wait = w
		}
	}
	return wait
}

// expected appends to left, for each frame that is expected, in how long it should be here.
func (r *rule) expected(now time.Time, left []time.Duration) []time.Duration {
	r.owing = slices.DeleteFunc(r.owing, func(h *habit) bool {
		h.owing = false
		for i, answered := range h.owed {
			age := float64(now.Sub(answered))
			if age > h.late() {
				continue
			}
			h.owing = true
			if h.callers == nil || !h.callers[i].known() { // those of others are expected by their own habit, or not
				left = append(left, time.Duration(max(h.mean+h.dev-age, h.dev/2+leastAhead)))
			}
		}
		return !h.owing
	})
	return left
}

// late is the age of an answer, in ns, at which its caller is given up.
func (h *habit) late() float64 { return h.mean + lateAfter*h.dev + lateSlack }
