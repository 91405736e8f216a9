package stream

import (
	"time"

	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// plan is a definition made ready for frames. Immutable.
type plan struct {
	Definition
	raw       decode.Raw
	policy    pipeline.Policy // of the lane
	inFlight  int             // frames in work at most
	interval  time.Duration   // between two frames; 0: all
	heartbeat time.Duration   // of the gate
	recheck   time.Duration   // while a change is pending
	set       string          // of the request
	parts     []clip.Region   // of the request; nil: the whole frame
	regions   []Region        // one at least
}

// latestInFlight is how many frames of a stream with policy latest may be in work. Those that wait for Opening.Answer count, too.
const latestInFlight = 32

func newPlan(d Definition) *plan {
	p := &plan{
		Definition: d, policy: pipeline.Latest, inFlight: latestInFlight, set: d.PromptSet, regions: d.Regions,
		interval: time.Duration(d.IntervalMS) * time.Millisecond,
	}
	p.raw, _ = decode.ParseRaw(d.Format) // it was parsed before; "" is none
	if d.Policy == Queue {
		p.policy, p.inFlight = pipeline.Bulk, d.MaxInFlight // so that a full queue does not refuse any
	}
	if d.FPS > 0 {
		p.interval = max(p.interval, time.Duration(float64(time.Second)/d.FPS))
	}
	if d.Gate != nil {
		p.heartbeat = time.Duration(d.Gate.HeartbeatMS) * time.Millisecond
	}
	if d.Events != nil {
		p.recheck = time.Duration(d.Events.RecheckMS) * time.Millisecond
	}
	for _, r := range d.Regions {
		p.parts = append(p.parts, clip.Region{X: r.X, Y: r.Y, W: r.W, H: r.H, PromptSet: r.PromptSet})
	}
	if d.Regions == nil {
		p.regions = []Region{{}}
	} else if p.set == "" && d.Prompts == nil {
		p.set = d.Regions[0].PromptSet // each has its own
	}
	return p
}

// holdsFrames says that frames are kept until they are answered: one may have to be encoded although it looked like another one, or
// to become a thumbnail.
func (p *plan) holdsFrames() bool { return p.Gate != nil || p.Events != nil && p.Events.Thumbnails }

// matches is how many an answer has of n.
func (p *plan) matches(n int) int {
	if p.TopK == 0 {
		return n
	}
	return min(n, p.TopK)
}
