package clip

import (
	"context"
	"errors"
	"time"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
)

// Elsewhere encodes images on other hosts, with the same encoder and the same preparation. Safe for concurrent use.
type Elsewhere interface {
	// Takes says that an image of the caller's would perhaps be encoded elsewhere now. It is asked for each image: it does not block,
	// and where there are no other hosts it costs next to nothing.
	Takes(fair.Caller) bool

	// Embed returns the vector of a compressed image, of unit length and the caller's, if another host has less to do than this one,
	// whose load is here, and answers in time. ok is false in any other case: the image is to be encoded here. It returns when ctx ends
	// at the latest, and nothing reads the image afterwards.
	Embed(ctx context.Context, from fair.Caller, image []byte, here Load) (vector []float32, ok bool)
}

// StageElsewhere is what Result.Times begins with of an image that was encoded elsewhere: from when it was handed over to when its vector
// was here. Its score follows; it has passed no other stage, and waited for none.
const StageElsewhere = "elsewhere"

// leastWait is how long an image must wait here, beyond a full run of the encoder, before it is encoded elsewhere.
const leastWait = 10 * time.Millisecond

// Spill has images encoded elsewhere that would wait here for longer than a full run of the encoder and 10 ms: whole, compressed ones
// of Classify and EmbedImage in lanes of policy Queue, of which nobody wants to see the pixels. nil: no more. It may be called at
// any time.
func (e *Engine) Spill(to Elsewhere) {
	if to == nil {
		e.elsewhere.Store(nil)
		return
	}
	e.elsewhere.Store(&to)
}

// EmbedHere is EmbedImage that has nothing encoded elsewhere.
func (e *Engine) EmbedHere(ctx context.Context, r *Request) (Result, error) {
	return e.runHere(ctx, r, stages.Request{Embedding: true, Regions: regionsOf(r.Regions)})
}

// spills says that the image of r may be encoded elsewhere.
func spills(r *Request) bool {
	return r.Lane.Policy() == pipeline.Queue && len(r.Regions) == 0 && r.Seen == nil && r.Raw.Compressed()
}

// Refuses says why an image of the caller would be refused now, nil when it would not. It is for refusing cheaply,
// before a request is read.
func (e *Engine) Refuses(c fair.Caller) error {
	err := e.RefusesHere(c)
	if err != nil && errors.Is(err, pipeline.ErrQueueFull) {
		if to := e.elsewhere.Load(); to != nil && (*to).Takes(c) {
			return nil
		}
	}
	return err
}

// RefusesHere is Refuses of an engine that has nothing encoded elsewhere.
func (e *Engine) RefusesHere(c fair.Caller) error { return e.line.Refuses(c) }

// spill has the image of r encoded elsewhere, if it would wait here, and compared here. ok is false when it is to be encoded here.
// It releases r then only when it is true.
func (e *Engine) spill(ctx context.Context, r *Request, l *stages.Request) (result Result, ok bool, err error) {
	to := e.elsewhere.Load()
	if to == nil || !spills(r) || ctx.Err() != nil || !(*to).Takes(r.Lane.Caller) {
		return Result{}, false, nil
	}
	here := e.Load()
	if here.Room > 0 && here.Wait() <= here.Run()+leastWait {
		return Result{}, false, nil
	}
	start := time.Now()
	vector, ok := (*to).Embed(ctx, r.Lane.Caller, r.Image, here)
	if !ok && ctx.Err() == nil {
		return Result{}, false, nil
	}
	if r.Release != nil {
		defer r.Release()
	}
	if !ok {
		return Result{}, true, pipeline.Late(ctx)
	}
	scored := time.Now()
	defer pipeline.Recover("score", &err)
	l.Into = r.Into
	found, err := stages.Score(vector, l)
	if err != nil {
		return Result{}, true, err
	}
	found.Times[0] = pipeline.StageTime{Stage: StageElsewhere, Work: scored.Sub(start)}
	found.Times[1] = pipeline.StageTime{Stage: "score", Work: time.Since(scored)}
	if e.parts.Observe != nil {
		e.parts.Observe(found.Times)
	}
	return Result{Result: found}, true, nil
}
