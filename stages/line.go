package stages

import (
	"context"
	"sync"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/batch"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// Line is the four stages at work over one backend; Stuck is that of package pipeline. Safe for concurrent use.
type Line struct {
	*line
	backend  hailo.Backend
	batcher  *batch.Batcher
	decoder  *decode.Decoder
	budget   *decode.Budget
	workers  int
	resizers []*resize.Resizer // one for each number of a worker, of decode, then of resize
	jobs     sync.Pool         // of *job that are not in use
}

type (
	line = pipeline.Pipeline[item]
	job  = pipeline.Job[item]
)

// item is a request on its way, and what the stages keep for it between them.
type item struct {
	request Request
	result  Result
	plan    decode.Plan
	memory  *decode.Reservation // for plan, then for image
	image   decode.Image
	frames  []*hailo.Frame // one for each region, one for the whole image without regions
	answers []RegionResult // likewise
}

// NewLine starts the stages for frames of size x size pixels. Decoding takes no more memory than budget
// says. The caller closes the line before the backend.
func NewLine(cfg Config, performance pipeline.Config, backend hailo.Backend, size int, budget *decode.Budget) (*Line, error) {
	l := &Line{backend: backend, decoder: decode.NewDecoder(cfg.Decode, size), budget: budget, workers: performance.WorkerThreads}
	for range 2 * 2 * l.workers { // those of two stages; pipeline.Stage says why twice as many
		l.resizers = append(l.resizers, resize.New(cfg.Resize, size))
	}
	l.jobs.New = func() any { return new(job) }
	l.batcher = batch.New(backend, performance.MaxWait)
	return l, l.start(l.stages(performance))
}

func (l *Line) start(stages []pipeline.Stage[item]) (err error) {
	l.line, err = pipeline.New(pipeline.Hooks[item]{Enter: l.enter, Leave: l.leave}, stages...)
	return err
}

// stages lists the stages. The deep queue is the first one, which holds
// compressed images; behind it wait no more decoded ones than there are workers, because those are
// a hundred times as large. A raw frame that needs no decoding is resized by the first stage, if the backend has room for
// it: to change hands costs as much as the copy.
func (l *Line) stages(cfg pipeline.Config) []pipeline.Stage[item] {
	frames := l.backend.Frames().Len()
	return []pipeline.Stage[item]{
		{Name: "decode", Queue: cfg.MaxQueueSize, Workers: l.workers, Work: step(l.decode)},
		{Name: "resize", Queue: l.workers, Workers: l.workers, Work: step(l.resize), Skip: isResized},
		{Name: "encode", Queue: frames, Workers: l.batcher.Room(), Work: step(l.encode), Skip: isSkipped},
		{Name: "score", Queue: frames, Workers: 1, Work: step(l.score), Skip: isSkipped},
	}
}

// Stats returns the counters of every stage, in order. The batches of the encode stage are the groups that the backend got.
func (l *Line) Stats() []pipeline.StageStats {
	stats := l.line.Stats()
	stats[2].Batches = l.batcher.Stats().Groups
	return stats
}

// Held counts the groups for which a free device waited, and for how long in all.
func (l *Line) Held() (groups uint64, took time.Duration) {
	s := l.batcher.Stats()
	return s.Held, s.Hold
}

// Rate is how many images a second the backend encodes in full runs, as measured; 0: not known.
func (l *Line) Rate() float64 { return l.batcher.Rate() }

// Close is that of package pipeline.
func (l *Line) Close(ctx context.Context) error {
	err := l.line.Close(ctx)
	l.batcher.Close()
	return err
}

// Do takes a request through the line. It blocks until that is done or ctx ends. It copies r; see Request.Release for
// what r refers to. Errors: ErrRegion; those of package pipeline, of decode and resize for an image that cannot be used, of hailo
// for an encoder that failed, each wrapped with what happened.
func (l *Line) Do(ctx context.Context, r *Request) (Result, error) {
	j := l.jobs.Get().(*job)
	j.Item.request, j.Lane = *r, r.Lane
	if err := l.line.Do(ctx, j); err != nil {
		return Result{}, err // the line may still work on j
	}
	result := j.Item.give(r.Into)
	copy(result.Times[:], j.Times())
	j.Item = item{frames: j.Item.frames[:0], answers: j.Item.answers[:0]} // for the next one
	l.jobs.Put(j)
	return result, nil
}

// Refuses says why a request of the caller would be refused now, nil when it would not. It is for refusing cheaply,
// before a request is read or parsed; Do is what decides.
func (l *Line) Refuses(caller fair.Caller) error {
	return l.line.Refuses(pipeline.Lane{Caller: caller})
}
