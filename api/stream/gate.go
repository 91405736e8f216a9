package stream

import (
	"sync"
	"time"

	"hailoclip/stages"
	"hailoclip/stages/clip"
)

// gate leaves out frames that look like the last one that was encoded. Safe for concurrent use.
type gate struct {
	mu   sync.Mutex
	base *base
}

// base is a frame that later ones may look like, and what was found in it.
type base struct {
	number uint64 // of the frame
	plan   *plan
	hashes [stages.MaxRegions]uint64
	at     time.Time // by the clock of the stream, when it was encoded last

	state  baseState
	result clip.Result
}

type baseState uint8

const (
	baseOpen   baseState = iota // its frame is not answered yet
	baseKnown                   // result is set
	baseFailed                  // there will be none
)

// see is what the engine asks about a decoded frame: it returns true if that looks like the base in all regions, so that it need not
// be encoded, and otherwise makes it the base. Frames are decoded by several workers: one that comes late is encoded.
func (g *gate) see(j *job, p stages.Pixels, pending bool) bool {
	var hashes [stages.MaxRegions]uint64
	for i, region := range j.plan.regions {
		hashes[i] = stages.DifferenceHash(p, region.part())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if j.over {
		return true
	}
	if b := g.base; b != nil {
		if b.number > j.number {
			return false
		}
		if b.state != baseFailed && b.alike(j, &hashes) && !b.due(j, pending) {
			j.base = b
			return true
		}
	}
	g.base = &base{number: j.number, plan: j.plan, hashes: hashes, at: j.at}
	j.base, j.encoded = g.base, true
	return false
}

func (b *base) alike(j *job, hashes *[stages.MaxRegions]uint64) bool {
	if b.plan != j.plan {
		return false
	}
	for i := range j.plan.regions {
		if stages.Distance(b.hashes[i], hashes[i]) > *j.plan.Gate.Distance {
			return false
		}
	}
	return true
}

// due says that the frame is to be encoded whatever it looks like.
func (b *base) due(j *job, pending bool) bool {
	since := j.at.Sub(b.at)
	return since >= j.plan.heartbeat || pending && since >= j.plan.recheck
}

// settle ends what see has begun: the engine is done with j, and has a result if ok. reused says that the result of j is that of the base
// now, which it looks like; again, that there is none any more, or that sets have changed since, so that j must be encoded.
func (g *gate) settle(j *job, ok bool, sets *clip.PromptSets) (reused, again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j.over = true // after an error, a worker may yet see it
	b := j.base
	switch {
	case b == nil:
	case j.encoded && ok:
		b.state, b.result, b.at = baseKnown, j.result, j.at
	case j.encoded:
		b.state, b.result = baseFailed, clip.Result{}
	case ok && b.good(sets):
		j.result = b.result
		return true, false
	case ok:
		j.encoded = true
		return false, true
	}
	return false, false
}

// good says that the result is what its frame would have now.
func (b *base) good(sets *clip.PromptSets) bool {
	if b.state != baseKnown {
		return false
	}
	for i := range b.plan.regions {
		set := b.result.Set
		if b.result.Sets != nil && b.result.Sets[i] != nil {
			set = b.result.Sets[i]
		}
		if set == nil {
			continue
		}
		if now, err := sets.Ready(set.Name); err != nil || now != set {
			return false
		}
	}
	return true
}
