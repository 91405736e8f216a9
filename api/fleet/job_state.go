package fleet

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// JobState is how a job stands at the broker.
type JobState struct {
	JobStatus
	Queued   uint64       `json:"queued"`                 // images that wait for a worker, or that one has
	Unstored uint64       `json:"unstored"`               // results that whoever indexes has not stored
	Letters  []DeadLetter `json:"dead_letters,omitempty"` // the last ones, the newest first
}

// Job asks the broker for a job and its last dead letters, letters at most; nil: it knows no such job. It takes some seconds at most.
// Errors: those of the broker.
func (c *Conn) Job(ctx context.Context, id string, letters int) (s *JobState, err error) {
	ctx, end := c.ask(ctx, 3*readTime)
	defer end(&err)
	j, revision, err := c.loadJob(ctx, id)
	if errors.Is(err, jetstream.ErrBucketNotFound) || err == nil && (revision == 0 || j.Job != id) {
		return nil, nil
	} else if err != nil {
		return nil, c.verdict(err, "KV_"+JobBucket)
	}
	s = &JobState{JobStatus: j.now()}
	if s.Queued, err = c.queued(ctx, bulkSubject+"*."+id+".>"); err != nil {
		return nil, c.verdict(err, BulkStream)
	}
	results, err := c.js.Consumer(ctx, ResultStream, durable(id))
	if err == nil {
		s.Unstored = results.CachedInfo().NumPending + uint64(max(results.CachedInfo().NumAckPending, 0))
	} else if !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, c.verdict(err, ResultStream)
	}
	if s.Letters, err = c.DeadLetters(ctx, id, letters); errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil
	}
	return s, err
}

// queued counts images of a subject.
func (c *Conn) queued(ctx context.Context, subject string) (n uint64, err error) {
	images, err := c.js.Stream(ctx, BulkStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	info, err := images.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, err
	}
	for _, messages := range info.State.Subjects {
		n += messages
	}
	return n, nil
}
