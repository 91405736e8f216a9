package pipeline

import (
	"context"
	"time"
)

// Job is one image on its way from a request to its answer.
//
// The caller of Do fills the first part and reads the second after Do has returned nil. Once
// given to Do the job belongs to the line: when Do returns an error, the line may still be
// working on it, so the caller must not touch the job, nor the memory behind Image, until
// Left has been called.
type Job struct {
	Image     []byte    // the compressed image; the stages only read it
	Prompts   []float32 // n x dimension, row-major, rows of unit length; shared, only read. Empty: no matches
	Scoring   Scoring   // how to turn cosines into matches
	Embedding bool      // also copy the image embedding into Result

	// Left is called exactly once for every job given to Do, whatever Do returns, when nothing
	// in the line will touch the job any more. It runs on a worker: it must not block. May be nil.
	Left func()

	// Result is what the stages found out.
	Result Result

	// State is what the stages keep for this job between them. It is released when the job
	// leaves the line. Only stages use it.
	State interface{ Release() }

	ctx    context.Context
	err    error
	done   chan struct{} // closed when the job has left the line
	queued time.Time     // when it was put into the queue it waits in
	stages [maxStages]StageTime
	passed int
}

// Scoring says how cosine similarities become matches.
type Scoring struct {
	LogitScale float64 // factor of the cosines before the softmax
	Softmax    bool    // score is the probability (with two prompts or more), not the cosine
	TopK       int     // at most this many matches
	Cut        bool    // leave out the matches whose score is below Threshold
	Threshold  float64
}

// Result is the answer of a job.
type Result struct {
	Embedding []float32 // unit length; nil unless asked for
	Matches   []Match   // by falling score, equal scores by falling cosine, then in the order of the prompts
}

// Match is a prompt that fits the image.
type Match struct {
	Prompt      int     // index of the prompt, from 0
	Cosine      float64 // -1..1
	Probability float64 // softmax over all prompts, 0..1
	Score       float64 // what matches are ordered by
}

// StageTime is the time that a job spent in one stage.
type StageTime struct {
	Stage string
	Wait  time.Duration // in the queue before it, gathering of the batch included
	Work  time.Duration // in its worker
}

// Context carries the deadline of the job. Stages only.
func (j *Job) Context() context.Context { return j.ctx }

// Fail makes err the outcome of the job: it leaves the line after this stage. The first error
// counts. Stages only.
func (j *Job) Fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// Failed says whether a stage has failed the job. Stages only.
func (j *Job) Failed() bool { return j.err != nil }

// Times returns the time in each stage that the job has passed, in order.
func (j *Job) Times() []StageTime { return j.stages[:j.passed] }

// leave ends the life of the job in the line. The holder of the job calls it once, and must
// not touch the job afterwards.
func (j *Job) leave() {
	if j.State != nil {
		j.State.Release()
		j.State = nil
	}
	left := j.Left
	close(j.done)
	if left != nil {
		left()
	}
}
