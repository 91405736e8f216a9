package stream

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// job is a frame in the engine. It is used again once nobody has its frame any more.
type job struct {
	feed    *Feed
	number  uint64
	plan    *plan
	frame   Frame
	at      time.Time    // by the clock of the stream
	holders atomic.Int32 // of the frame: the engine, the feed, events that are to have a thumbnail
	request clip.Request
	ctx     context.Context
	result  clip.Result
	memory  stages.Result // of an earlier result, for the next one
	err     error

	// With a gate, whose lock guards them.
	base    *base // the frame that it looks like or, with encoded, its own
	encoded bool
	over    bool // nobody asks any more

	release func() // methods of the job, made once
	seen    func(stages.Pixels) bool
}

func (j *job) drop() {
	release := j.frame.Release
	if j.holders.Add(-1) == 0 && release != nil { // from now on the job may be used again
		release()
	}
}

func (j *job) see(p stages.Pixels) bool { return j.feed.gate.see(j, p, j.feed.stream.pending.Load()) }

func (j *job) classify(engine *clip.Engine) {
	defer pipeline.Recover("stream", &j.err)
	j.result, j.err = engine.Classify(j.ctx, &j.request)
}

// droppedBy says what an error of the engine means for a frame.
func droppedBy(err error, policy pipeline.Policy) (Dropped, error) {
	switch {
	case errors.Is(err, pipeline.ErrSuperseded):
		return Superseded, nil
	case policy == pipeline.Latest && (errors.Is(err, pipeline.ErrQueueFull) || errors.Is(err, decode.ErrBusy)):
		return Superseded, err
	case errors.Is(err, pipeline.ErrDeadline), errors.Is(err, pipeline.ErrClosed):
		return Expired, err
	}
	return Bad, err
}

// answers appends what was found in each region.
func (j *job) answers(list []RegionAnswer) []RegionAnswer {
	r := &j.result
	for i, region := range j.plan.regions {
		a := RegionAnswer{Name: region.Name, Result: *r}
		if j.plan.parts != nil {
			part := &r.Regions[i]
			a.Result.Matches, a.Result.Reason, a.Result.Logits, a.Result.Embedding = part.Matches, part.Reason, part.Logits, part.Embedding
			if r.Sets != nil && r.Sets[i] != nil {
				set := r.Sets[i]
				a.Result.Set, a.Result.Prompts, a.Result.Labels, a.Result.Scoring = set, nil, &set.Labels, set.Scoring
			}
			a.Result.Regions, a.Result.Sets = nil, nil
		}
		if a.Names = j.plan.Prompts; a.Result.Set != nil {
			a.Names = a.Result.Set.Names
		}
		list = append(list, a)
	}
	return list
}
