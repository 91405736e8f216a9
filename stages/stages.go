// Package stages is what the four stages of the pipeline do: decode a compressed image, resize
// it straight into a frame of the backend, encode frames in batches, and score the embedding
// against the prompts.
package stages

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// Line is the four stages over one backend, and what they use.
type Line struct {
	backend  hailo.Backend
	decoder  *decode.Decoder
	budget   *decode.Budget
	workers  int
	resizers []*resize.Resizer // one for each number of a worker
}

// NewLine prepares the stages for frames of size x size pixels, in which decoding takes no more memory than
// budget says.
func NewLine(cfg Config, backend hailo.Backend, size, workers int, budget *decode.Budget) *Line {
	l := &Line{backend: backend, decoder: decode.NewDecoder(cfg.Decode, size), budget: budget, workers: workers}
	for range 2 * workers { // pipeline.Stage says why twice
		l.resizers = append(l.resizers, resize.New(cfg.Resize, size))
	}
	return l
}

// Stages lists the stages for pipeline.New. The deep queue is the first one, which holds
// compressed images; behind it wait no more pictures than there are workers, because a decoded
// picture is a hundred times as large.
func (l *Line) Stages(cfg pipeline.Config) []pipeline.Stage {
	info := l.backend.Info()
	return []pipeline.Stage{
		{Name: "decode", Queue: cfg.MaxQueueSize, Workers: l.workers, Enter: l.enter, Work: each(l.decode)},
		{Name: "resize", Queue: l.workers, Workers: l.workers, Work: each(l.resize)},
		{Name: "encode", Queue: l.backend.Frames().Len(), Workers: info.ImageCalls,
			Batch: info.ImageBatch, MaxWait: cfg.MaxWait, Work: l.encode},
		{Name: "score", Queue: l.backend.Frames().Len(), Workers: 1, Work: each(l.score)},
	}
}

// each makes a stage's work of a function for one job.
func each(work func(worker int, job *pipeline.Job) error) func(int, []*pipeline.Job) {
	return func(worker int, jobs []*pipeline.Job) {
		for _, job := range jobs {
			if err := work(worker, job); err != nil {
				job.Fail(meaning(err))
			}
		}
	}
}

// state is what the stages keep for a job between them.
type state struct {
	plan    decode.Plan
	memory  *decode.Reservation // for plan, then for picture
	picture decode.Image
	frame   *hailo.Frame
}

// Release gives back whatever the job still holds: the one way out for pictures and frames.
func (s *state) Release() {
	s.releasePicture()
	if s.frame != nil {
		s.frame.Release()
	}
}

// releasePicture gives back the large part.
func (s *state) releasePicture() {
	s.picture.Release()
	s.memory.Release()
	s.plan, s.picture, s.memory = decode.Plan{}, decode.Image{}, nil
}

// enter reads the head of the image and waits for the memory that it takes, before a place in the queue is taken:
// no worker waits for memory, and nobody waits behind an image that does.
func (l *Line) enter(job *pipeline.Job) error {
	plan, err := l.decoder.Inspect(job.Image)
	if err != nil {
		return meaning(err)
	}
	memory, err := l.budget.Reserve(job.Context(), job.Caller, plan)
	if err != nil {
		return meaning(err)
	}
	job.State = &state{plan: plan, memory: memory}
	return nil
}

func (l *Line) decode(_ int, job *pipeline.Job) (err error) {
	s := job.State.(*state)
	s.picture, err = l.decoder.Decode(job.Context(), s.plan)
	s.memory.Shrink(len(s.picture.Pix))
	return err
}

func (l *Line) resize(worker int, job *pipeline.Job) error {
	s := job.State.(*state)
	frame, err := l.backend.Frames().Get(job.Context())
	if err != nil {
		return err
	}
	s.frame = frame
	if err := l.resizers[worker].Resize(frame.Pixels, s.picture.Pix, s.picture.Width, s.picture.Height); err != nil {
		return err
	}
	s.releasePicture() // the frame is all that the next stages need
	return nil
}

// encode encodes a batch. When the encoder refuses a batch of several, each frame gets a try of its
// own, so that one bad frame fails alone. A lost device or a deadline is the same for all.
func (l *Line) encode(_ int, jobs []*pipeline.Job) {
	err := l.encodeFrames(jobs)
	alone := len(jobs) > 1 && errors.Is(err, hailo.ErrEncode)
	for i := range jobs {
		if alone {
			err = l.encodeFrames(jobs[i : i+1])
		}
		if err != nil {
			jobs[i].Fail(meaning(err))
		}
	}
}

// encodeFrames makes one call of the backend, which may take as long as one job of the batch waits.
func (l *Line) encodeFrames(jobs []*pipeline.Job) error {
	frames := make([]*hailo.Frame, len(jobs))
	for i, job := range jobs {
		frames[i] = job.State.(*state).frame
	}
	ctx, stop := whileOneWaits(jobs)
	defer stop()
	return l.backend.EncodeImages(ctx, frames)
}

// whileOneWaits returns a context that ends with the last of the jobs' contexts. One that ends early, as that of
// a client who has gone, takes nothing from the others. The caller calls stop.
func whileOneWaits(jobs []*pipeline.Job) (ctx context.Context, stop func()) {
	if len(jobs) == 1 {
		return jobs[0].Context(), func() {}
	}
	var last time.Time
	bounded := true
	for _, job := range jobs {
		deadline, ok := job.Context().Deadline()
		if bounded = bounded && ok; deadline.After(last) {
			last = deadline
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	forget := func() {}
	if bounded { // for backends that look at it
		ctx, forget = context.WithDeadline(ctx, last)
	}
	var waiting atomic.Int32
	waiting.Store(int32(len(jobs)))
	stops := make([]func() bool, len(jobs))
	for i, job := range jobs {
		stops[i] = context.AfterFunc(job.Context(), func() {
			if waiting.Add(-1) == 0 {
				cancel(context.Cause(job.Context()))
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		forget()
		cancel(nil)
	}
}

func (l *Line) score(_ int, job *pipeline.Job) error {
	embedding := job.State.(*state).frame.Embedding
	if length := dot(embedding, embedding); !(length > 0.98 && length < 1.02) { // NaN, too
		return fmt.Errorf("%w: the image's embedding has the squared length %v and not 1", hailo.ErrEncode, length)
	}
	if len(job.Prompts)%len(embedding) != 0 {
		return fmt.Errorf("prompts of %d numbers do not fit embeddings of %d", len(job.Prompts), len(embedding))
	}
	job.Result.Matches = Rank(embedding, job.Prompts, job.Scoring)
	if job.Embedding {
		job.Result.Embedding = append([]float32(nil), embedding...)
	}
	return nil
}

// refusals says which of the pipeline's errors it is that an image is refused for.
var refusals = []struct{ from, to error }{
	{decode.ErrTooManyPixels, pipeline.ErrImageTooLarge},
	{decode.ErrTooMuchMemory, pipeline.ErrImageTooLarge},
	{decode.ErrBusy, pipeline.ErrQueueFull},
	{decode.ErrUnsupportedFormat, pipeline.ErrUnsupportedImage},
	{decode.ErrNotImage, pipeline.ErrBadImage},
	{decode.ErrTruncated, pipeline.ErrBadImage},
	{decode.ErrCorrupt, pipeline.ErrBadImage},
	{resize.ErrTooExtreme, pipeline.ErrBadImage},
}

// failures says which of the pipeline's errors an error of the backend is.
var failures = []struct{ from, to error }{
	{context.DeadlineExceeded, pipeline.ErrDeadline},
	{context.Canceled, pipeline.ErrDeadline},
	{hailo.ErrDeviceLost, pipeline.ErrUnavailable},
	{hailo.ErrClosed, pipeline.ErrUnavailable},
	{hailo.ErrEncode, pipeline.ErrEncode},
}

// meaning wraps err in the pipeline's error for it.
func meaning(err error) error {
	for _, m := range refusals {
		if errors.Is(err, m.from) {
			return &refusal{kind: m.to, err: err}
		}
	}
	for _, m := range failures {
		if errors.Is(err, m.from) {
			return fmt.Errorf("%w: %w", m.to, err)
		}
	}
	return err
}

// refusal is both errors, with the words of the second alone: a codec's say already what is wrong with the
// image, and a client should not read it twice.
type refusal struct{ kind, err error }

func (r *refusal) Error() string   { return r.err.Error() }
func (r *refusal) Unwrap() []error { return []error{r.kind, r.err} }
