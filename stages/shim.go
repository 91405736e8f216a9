package stages

import (
	"context"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/decode"
)

// Until the branch of the pipeline is merged.
type (
	Scoring = pipeline.Scoring
	Match   = pipeline.Match
	Request struct {
		Image     []byte
		Prompts   []float32
		Scoring   Scoring
		Embedding bool
		Caller    fair.Caller
		Left      func()
	}
	Result struct {
		Matches   []Match
		Embedding []float32
		Times     []pipeline.StageTime
	}
	Running struct{ *pipeline.Pipeline }
)

func OpenLine(cfg Config, perf pipeline.Config, b hailo.Backend, size int, budget *decode.Budget) (*Running, error) {
	p, err := pipeline.New(NewLine(cfg, b, size, perf.WorkerThreads, budget).Stages(perf)...)
	return &Running{p}, err
}

func (r *Running) Do(ctx context.Context, q *Request) (Result, error) {
	job := &pipeline.Job{Image: q.Image, Prompts: q.Prompts, Scoring: q.Scoring, Embedding: q.Embedding, Caller: q.Caller, Left: q.Left}
	if err := r.Pipeline.Do(ctx, job); err != nil {
		return Result{}, err
	}
	return Result{job.Result.Matches, job.Result.Embedding, job.Times()}, nil
}
