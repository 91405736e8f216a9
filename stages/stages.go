package stages

import (
	"cmp"
	"fmt"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// each makes a stage's work of a function for one job.
func each(work func(worker int, j *job) error) func(int, []*job) {
	return func(worker int, jobs []*job) {
		for _, j := range jobs {
			j.Fail(work(worker, j))
		}
	}
}

// enter reads the head of the image and waits for the memory that it takes, before a place in the queue is taken:
// no worker waits for memory, and nobody waits behind an image that does.
func (l *Line) enter(j *job) (err error) {
	it := &j.Item
	if it.request.Raw.Compressed() {
		it.plan, err = l.decoder.Inspect(it.request.Image)
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
	if it.frame != nil {
		it.frame.Release()
	}
	it.releaseRequest()
}

// releaseRequest gives back the memory of the request's image.
func (it *item) releaseRequest() {
	if release := it.request.Release; release != nil {
		it.request.Release, it.request.Image = nil, nil
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
	if it.image.Stride != 0 { // a raw frame, of which nothing was decoded
		if it.frame = l.backend.Frames().TryGet(); it.frame != nil {
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
func isResized(j *job) bool { return j.Item.frame != nil || isSkipped(j) }

// isSkipped says that Request.Seen wants no more of the image.
func isSkipped(j *job) bool { return j.Item.result.Skipped }

func (l *Line) resize(worker int, j *job) (err error) {
	if j.Item.frame, err = l.backend.Frames().Get(j.Context()); err != nil {
		return err
	}
	return l.fit(l.resizers[2*l.workers+worker], &j.Item)
}

// fit writes the image into the frame, and gives it back.
func (l *Line) fit(r *resize.Resizer, it *item) (err error) {
	p := it.pixels()
	if err := r.ResizeRows(it.frame.Pixels, p.Pix, p.Width, p.Height, p.Stride); err != nil {
		return err
	}
	if it.request.Thumbnail {
		if it.result.Thumbnail, err = Thumbnail(p); err != nil {
			return err
		}
	}
	it.releaseImage() // the frame is all that the next stages need
	if !it.request.Raw.Compressed() {
		it.releaseRequest() // which is large
	}
	return nil
}

// encode has the frame encoded, in a group with those of others.
func (l *Line) encode(_ int, j *job) error {
	return l.batcher.Encode(j.Context(), j.Lane.Caller, j.Item.frame)
}

func (l *Line) score(_ int, j *job) error {
	it, embedding := &j.Item, j.Item.frame.Embedding
	if length := dot(embedding, embedding); !(length > 0.98 && length < 1.02) { // NaN, too
		return fmt.Errorf("%w: the image's embedding has the squared length %v and not 1", hailo.ErrEncode, length)
	}
	if labels := it.request.Labels; labels != nil {
		if err := labels.fit(len(embedding)); err != nil {
			return err
		}
		if it.request.Logits {
			it.result.Logits = make([]float64, labels.N)
		}
		it.result.Matches, it.result.Reason = Rank(embedding, labels, it.request.Scoring, it.result.Logits)
	}
	if it.request.Embedding {
		it.result.Embedding = append([]float32(nil), embedding...)
	}
	return nil
}
