package fleet

import (
	"math"
	"math/rand/v2"
	"time"

	"hailoclip/stages/clip"
)

// want is what a node must have to encode an image for this one.
type want struct{ site, digest, prep string }

// choice is a node that an image is sent to.
type choice struct {
	node     string
	expected time.Duration // until there is an answer
}

// takes says that the node can take an image now. peers.mu is held.
func (p *peer) takes(now time.Time, w want) bool {
	l := &p.load
	return l.Spill && l.Health == healthy && l.Site == w.site && l.Digests[0] == w.digest && l.Prep == w.prep && l.Rate > 0 &&
		!p.suspect && now.Sub(p.heard) < aliveFor && l.Free > p.there-p.counted &&
		(p.twice.IsZero() || now.Sub(p.twice) >= twiceFor)
}

// time is how long it takes until so many more images are done: those that others have there, as it has told, and those of this node's
// that are there now come first.
func (p *peer) time(more int) time.Duration {
	return seconds(float64(p.others+p.there+more) / p.load.Rate)
}

func seconds(s float64) time.Duration { return time.Duration(math.Min(s, 3600) * float64(time.Second)) }

// take chooses the one of two nodes at random that has less to do, if it would be done with an image before this node is, which has
// the load here; not the node but. The image counts as being there until done.
func (p *peers) take(now time.Time, w want, here clip.Load, but string) (c choice, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var two [2]*peer
	var names [2]string
	seen := 0
	for node, n := range p.nodes {
		if node == but || !n.takes(now, w) {
			continue
		}
		at := seen
		if seen >= 2 { // each of those seen is among the two as likely as any other
			at = rand.IntN(seen + 1)
		}
		if seen++; at < 2 {
			two[at], names[at] = n, node
		}
	}
	best := 0
	if two[1] != nil && two[1].time(1) < two[0].time(1) {
		best = 1
	}
	n := two[best]
	if n == nil || here.Room > 0 && here.Rate > 0 && n.time(1) >= seconds(float64(here.Waiting+here.InFlight+1)/here.Rate) {
		return choice{}, false
	}
	c = choice{names[best], n.time(max(n.load.Batch, 1)) + wayTime}
	n.there++
	return c, true
}

// wayTime is what the way there and back, and decoding, take at most as a rule.
const wayTime = 10 * time.Millisecond

// done ends what take has begun. silent: there was no answer, or the node takes none: it is not chosen until it is heard again.
func (p *peers) done(node string, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[node]; n != nil { // it is not forgotten while something is there
		n.there--
		n.suspect = n.suspect || silent
	}
}

// any says that some node can take an image.
func (p *peers) any(now time.Time, w want) bool {
	until := p.until.Load()
	if until == 0 || now.UnixNano() >= until {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.takes(now, w) {
			return true
		}
	}
	return false
}
