package stream

import (
	"time"
)

// settle answers a frame. It returns false if that must be encoded first, which it was not because it looks like another one whose
// answer is not good for it.
func (f *Feed) settle(e *entry) (settled bool) {
	out := &f.out
	*out = Answer{Seq: e.seq, Time: e.time, HasTime: e.hasTime, Backward: e.backward, Dropped: e.dropped, Err: e.err, Regions: out.Regions[:0]}
	var changes []change
	if err := f.try("frame of a stream", func() { changes, settled = f.found(e) }); err != nil {
		out.Dropped, out.Err, out.Regions, settled = Bad, err, out.Regions[:0], true
	}
	if !settled {
		return false
	}
	out.Lag = max(time.Since(e.received), 0)
	if f.answer != nil && !f.failing {
		f.failing = f.try("answer of a stream", func() { f.answer(out) }) != nil
	}
	f.stream.settled(out)
	if out.Dropped == "" {
		_ = f.try("event of a stream", func() { f.stream.publish(e.job, e, out, changes) }) // it has ended the feed
	}
	return true
}

// found finds the answer of a frame, as settle says, and what changes by it.
func (f *Feed) found(e *entry) (changes []change, settled bool) {
	out, j := &f.out, e.job
	if j != nil && j.plan.Gate != nil {
		again := false
		if out.Reused, again = f.gate.settle(j, e.dropped == "", f.stream.hub.parts.Engine.PromptSets()); again {
			j.request.Seen = nil
			j.holders.Add(1)
			return nil, false
		}
	}
	if e.dropped != "" {
		return nil, true
	}
	out.Regions = j.answers(out.Regions)
	if !out.Reused && (j.plan.Events != nil || f.stream.watched.Load()) {
		changes = f.stream.observe(f, j, e)
	}
	for i := range out.Regions {
		r := &out.Regions[i].Result
		r.Matches = r.Matches[:j.plan.matches(len(r.Matches))]
	}
	return changes, true
}

// try calls a function. A panic of it is the error, and ends the feed.
func (f *Feed) try(what string, call func()) (err error) {
	defer func() {
		if err != nil {
			f.end(err)
		}
	}()
	defer f.stream.caught(what, "a feed has ended", &err)
	call()
	return nil
}
