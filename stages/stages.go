package stages

import (
	"cmp"
	"fmt"
	"slices"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// step makes a stage's work of a function that returns the job's error.
func step(work func(worker int, j *job) error) func(int, *job) {
	return func(worker int, j *job) { j.Fail(work(worker, j)) }
}

// enter reads the head of the image and waits for the memory that it takes, before a place in the queue is taken:
// no worker waits for memory, and nobody waits behind an image that does.
func (l *Line) enter(j *job) (err error) {
	it := &j.Item
	parts, err := it.request.parts(l.backend.Frames().Len())
	if err != nil {
		return err
	}
	if it.request.Raw.Compressed() {
		it.plan, err = l.decoder.Inspect(it.request.Image, parts...)
	} else {
		it.plan, err = l.decoder.InspectRaw(it.request.Image, it.request.Raw)
	}
	if err != nil {
		return err
	}
	reserve := l.budget.Reserve
	if j.Lane.Policy() == pipeline.Bulk {
		reserve = l.budget.ReserveBulk
	}
	it.memory, err = reserve(j.Context(), j.Lane.Caller, it.plan)
	return err
}

// leave gives back whatever the item still holds: the one way out for images and frames.
func (l *Line) leave(j *job) {
	it := &j.Item
	it.releaseImage()
	for i, f := range it.frames {
		f.Release()
		it.frames[i] = nil
	}
	it.frames = it.frames[:0]
	it.releaseRequest()
}

// releaseRequest gives back the memory of the request's image.
func (it *item) releaseRequest() {
	if release := it.request.Release; release != nil {
		it.request.Release, it.request.Image = nil, nil // regions and labels are still needed
		release()
	}
}

// releaseImage gives back the large part.
func (it *item) releaseImage() {
	it.image.Release()
	it.memory.Release()
	it.plan, it.image, it.memory = decode.Plan{}, decode.Image{}, nil
}

func (l *Line) decode(worker int, j *job) (err error) {
	it := &j.Item
	it.image, err = l.decoder.Decode(j.Context(), it.plan)
	it.memory.Shrink(len(it.image.Pix))
	if err != nil {
		return err
	}
	if seen := it.request.Seen; seen != nil {
		if it.result.Skipped = seen(it.pixels()); it.result.Skipped {
			return nil
		}
	}
	if it.image.Stride != 0 && len(it.request.Regions) <= 1 { // a raw frame, of which nothing was decoded
		if f := l.backend.Frames().TryGet(); f != nil {
			it.frames = append(it.frames, f)
			return l.fit(l.resizers[worker], it)
		}
	}
	return nil
}

// pixels is the decoded image.
func (it *item) pixels() Pixels {
	p := &it.image
	return Pixels{Pix: p.Pix, Width: p.Width, Height: p.Height, Stride: cmp.Or(p.Stride, 3*p.Width)}
}

// isResized says that decode has done what resize does, or that nothing more is to be done.
func isResized(j *job) bool { return len(j.Item.frames) > 0 || isSkipped(j) }

// isSkipped says that Request.Seen wants no more of the image.
func isSkipped(j *job) bool { return j.Item.result.Skipped }

func (l *Line) resize(worker int, j *job) (err error) {
	it := &j.Item
	if it.frames, err = l.backend.Frames().GetSeveral(j.Context(), it.frames, max(len(it.request.Regions), 1)); err != nil {
		return err
	}
	return l.fit(l.resizers[2*l.workers+worker], it)
}

// fit writes the image, or its regions, into the frames, and gives it back.
func (l *Line) fit(r *resize.Resizer, it *item) (err error) {
	whole := it.pixels()
	for i, f := range it.frames {
		p := whole
		if len(it.request.Regions) > 0 {
			p = whole.Crop(it.request.Regions[i])
		}
		if err := r.ResizeRows(f.Pixels, p.Pix, p.Width, p.Height, p.Stride); err != nil {
			return err
		}
	}
	if it.request.Thumbnail {
		if it.result.Thumbnail, err = Thumbnail(whole); err != nil {
			return err
		}
	}
	it.releaseImage() // the frame is all that the next stages need
	if !it.request.Raw.Compressed() {
		it.releaseRequest() // which is large
	}
	return nil
}

// encode has the frames encoded, in groups with those of others.
func (l *Line) encode(_ int, j *job) error {
	return l.batcher.Encode(j.Context(), j.Lane.Caller, j.Item.frames...)
}

func (l *Line) score(_ int, j *job) error {
	it := &j.Item
	for len(it.answers) < len(it.frames) {
		it.answers = slices.Grow(it.answers, 1)[:len(it.answers)+1] // with its memory
	}
	for i, f := range it.frames {
		labels, scoring := it.request.Labels, &it.request.Scoring
		if len(it.request.Regions) > 0 && it.request.Regions[i].Labels != nil {
			labels, scoring = it.request.Regions[i].Labels, &it.request.Regions[i].Scoring
		}
		if err := it.answers[i].score(f.Embedding, labels, scoring, &it.request); err != nil {
			return err
		}
	}
	return nil
}

// Score is the result of a request for a whole image, of whose vector, of unit length, all is known already: to the last bit what Do
// returns where the encoder has made that vector. The times are not set. The result is in the memory of r.Into, as that of Do.
func Score(vector []float32, r *Request) (Result, error) {
	it := item{request: *r, answers: make([]RegionResult, 1)}
	if err := it.answers[0].score(vector, r.Labels, &r.Scoring, r); err != nil {
		return Result{}, err
	}
	return it.give(r.Into), nil
}

// score fills a, in its memory, with what r wants to know.
func (a *RegionResult) score(embedding []float32, labels *Labels, scoring *Scoring, r *Request) error {
	if length := dot(embedding, embedding); !(length > 0.98 && length < 1.02) { // NaN, too
		return fmt.Errorf("%w: the image's embedding has the squared length %v and not 1", hailo.ErrEncode, length)
	}
	memory := *a
	*a = RegionResult{}
	if labels != nil {
		if err := labels.fit(len(embedding)); err != nil {
			return err
		}
		if r.Logits {
			a.Logits = resized(memory.Logits, labels.N)
		}
		a.Matches, a.Reason = rank(embedding, labels, scoring, a.Logits, memory.Matches)
	}
	if r.Embedding {
		a.Embedding = append(memory.Embedding[:0], embedding...)
	}
	return nil
}

// give returns the result, in the memory of into; if that is nil it is the item's own, which the item forgets.
func (it *item) give(into *Result) Result {
	r := it.result
	var lent RegionResult
	if into != nil {
		r.Regions, lent = into.Regions, RegionResult{Matches: into.Matches, Logits: into.Logits, Embedding: into.Embedding}
	}
	switch {
	case r.Skipped:
		r.Regions = nil
	case len(it.request.Regions) == 0:
		a := it.answers[0].give(lent, into != nil)
		r.Regions, r.Matches, r.Reason, r.Logits, r.Embedding = nil, a.Matches, a.Reason, a.Logits, a.Embedding
	default:
		r.Regions = resized(r.Regions, len(it.answers))
		for i := range r.Regions {
			r.Regions[i] = it.answers[i].give(r.Regions[i], into != nil)
		}
	}
	return r
}

// give returns a, in the memory that is lent, or else its own, which a forgets.
func (a *RegionResult) give(memory RegionResult, lent bool) RegionResult {
	if !lent {
		memory, *a = *a, RegionResult{}
		return memory
	}
	return RegionResult{
		Matches: moved(memory.Matches, a.Matches), Reason: a.Reason,
		Logits: moved(memory.Logits, a.Logits), Embedding: moved(memory.Embedding, a.Embedding),
	}
}

// moved returns from in the memory of to; nil only if from is nil.
func moved[T any](to, from []T) []T {
	switch {
	case from == nil:
		return nil
	case to == nil:
		to = []T{} // an empty list stays one
	}
	return append(to[:0], from...)
}

// resized returns n elements of any content, in the memory of s if that has room.
func resized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }
