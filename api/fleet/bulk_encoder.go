package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/semaphore"

	"hailoclip/api/bulk"
)

const (
	mostPending  = 256              // images that the broker has not confirmed
	pendingBytes = 2 * LargestImage // of them
	mostUnstored = 1000             // results that are given out and not stored
	storeTime    = time.Minute      // for storing a result, then it is given out again
	openTime     = 15 * time.Second // to find the broker and an encoder
)

// EncoderOptions say what is encoded, and with what.
type EncoderOptions struct {
	Job    string // id: up to 64 letters, digits, - and _. The same job gets the results that a former process has not stored
	Source string // for people
	Model  string // name of the model; "": the one that the nodes have
	Log    *slog.Logger

	// Prepared returns the digest of the nodes' encoder with what is done to images before Send, see bulk.Resized; nil: nothing is.
	Prepared func(digest string) string
}

// Encoder has the nodes of a fleet encode images. It is a bulk.Encoder; Send may be called by several at once.
//
// While the broker is away, or its queue is full, Send waits. What a broker has lost has no result by the time that Idle says
// true. What the broker refuses for good is the error of Send and of Idle from then on.
type Encoder struct {
	*Conn
	encoder Encoders
	digest  string // of keys: the encoder's, or EncoderOptions.Prepared
	results chan bulk.Result
	slots   chan struct{} // of images that are not confirmed
	memory  *semaphore.Weighted
	sending sync.WaitGroup
	pending atomic.Int64 // images that are not confirmed
	ctx     context.Context
	stop    context.CancelFunc
	ended   sync.WaitGroup  // receive and tell
	failed  context.Context // ends when the broker has refused something for good, with the error
	fail    context.CancelCauseFunc

	mu       sync.Mutex
	job      job
	revision uint64
	full     time.Time // when the queue was found full last

	stuck bool // Idle has found images in the queue that no worker will be given
}

// OpenEncoder connects to the broker and finds out what the nodes encode with, which takes some seconds at most. Errors: ErrNoBroker,
// those of the broker, or that no node has the model.
func OpenEncoder(ctx context.Context, cfg Config, o EncoderOptions) (*Encoder, error) {
	if !name.MatchString(o.Job) {
		return nil, fmt.Errorf("fleet: job %q: up to 64 letters, digits, - and _", o.Job)
	}
	conn, err := Dial(cfg, o.Log)
	if err != nil {
		return nil, err
	}
	e := &Encoder{
		Conn: conn, results: make(chan bulk.Result), slots: make(chan struct{}, mostPending), memory: semaphore.NewWeighted(pendingBytes),
	}
	if err := e.open(ctx, o); err != nil {
		conn.Close()
		return nil, err
	}
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	e.failed, e.fail = context.WithCancelCause(context.Background())
	e.ended.Go(e.receive)
	e.ended.Go(e.tell)
	return e, nil
}

func (e *Encoder) open(ctx context.Context, o EncoderOptions) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	err := e.ready(ctx)
	for errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil { // the brokers of a cluster are choosing a leader
		err = e.ready(ctx)
	}
	if err != nil {
		return err
	}
	found, err := e.Encoders(ctx)
	if err != nil {
		return e.verdict(err, BulkStream)
	}
	if e.encoder, err = choose(found, o.Model); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	if e.digest = e.encoder.Digest; o.Prepared != nil {
		e.digest = o.Prepared(e.digest)
	}
	kept, revision, err := e.loadJob(ctx, o.Job)
	if err != nil {
		return e.verdict(err, "KV_"+JobBucket)
	}
	now := time.Now().UTC()
	e.job = job{JobStatus{Job: o.Job, Source: cut(o.Source, longestError), Model: e.encoder.Model, State: "running", Begun: now, Changed: now}, kept.Round}
	e.revision = revision
	_, err = e.inherit(ctx)
	return e.verdict(err, ResultStream)
}

// Model is the model's name.
func (e *Encoder) Model() string { return e.encoder.Model }

// Digest is that of the image encoder, with what is done to images before Send.
func (e *Encoder) Digest() string { return e.digest }

// Dimension is how many numbers a vector has.
func (e *Encoder) Dimension() int { return e.encoder.Dimension }

// Results has what becomes of images, until Close.
func (e *Encoder) Results() <-chan bulk.Result { return e.results }

// Send hands an image to the broker, with Prepared what was made of the image of the key. It returns before the broker has it.
func (e *Encoder) Send(ctx context.Context, key string, image []byte) error {
	if !keys.MatchString(key) {
		return fmt.Errorf("fleet: %q is no key", key)
	}
	if len(image) > LargestImage {
		return fmt.Errorf("fleet: an image of %d bytes is out of bounds: up to %d", len(image), LargestImage)
	}
	select {
	case <-e.ctx.Done():
		return errors.New("fleet: the encoder is closed")
	case <-e.failed.Done():
		return context.Cause(e.failed)
	case <-ctx.Done():
		return context.Cause(ctx)
	case e.slots <- struct{}{}:
	}
	if err := e.memory.Acquire(ctx, int64(len(image))); err != nil {
		<-e.slots
		return context.Cause(ctx)
	}
	e.pending.Add(1)
	e.mu.Lock()
	round := e.job.Round
	e.job.Found++
	e.mu.Unlock()
	e.sending.Go(func() {
		defer func() {
			e.pending.Add(-1)
			e.memory.Release(int64(len(image)))
			<-e.slots
		}()
		if err := e.send(e.ctx, key, image, round); err != nil && e.ctx.Err() == nil {
			e.fail(fmt.Errorf("fleet: images cannot be sent to the broker: %w", err))
		}
	})
	return nil
}

func (e *Encoder) send(ctx context.Context, key string, image []byte, round int) error {
	m := nats.NewMsg(bulkSubject + bulk.Short(e.encoder.Digest) + "." + e.job.Job + "." + shardOf(key))
	m.Header.Set(headerKey, key)
	m.Header.Set(headerModel, e.encoder.Digest)
	if e.digest != e.encoder.Digest {
		m.Header.Set(headerContent, contentOf(image))
	}
	m.Data = image
	id := fmt.Sprintf("%s.%s.%d", e.job.Job, key, round)
	if len(image) > inlineImage {
		if err := e.lend(ctx, id, image); err != nil {
			return err
		}
		m.Data = nil
		m.Header.Set(headerObject, id)
	}
	_, err := e.publish(ctx, m, id, e.isFull)
	return err
}

// lend stores a large image with the broker, as publish does a message.
func (e *Encoder) lend(ctx context.Context, id string, image []byte) error {
	for tries, wait := 1, 100*time.Millisecond; ; tries, wait = tries+1, min(2*wait, 2*time.Second) {
		err := e.putInput(ctx, id, image)
		if err == nil {
			return nil
		}
		if err := e.tryAgain(ctx, err, tries, wait, e.isFull, "OBJ_"+InputStore); err != nil {
			return err
		}
	}
}

func (e *Encoder) putInput(ctx context.Context, id string, image []byte) (err error) {
	ctx, end := e.ask(ctx, bulkTime)
	defer end(&err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer e.refused.watch(cancel, "OBJ_"+InputStore)()
	store, err := e.js.ObjectStore(ctx, InputStore)
	if err == nil {
		_, err = store.PutBytes(ctx, id, image)
	}
	return err
}

// isFull tells, once in a while, that who indexes waits for the workers.
func (e *Encoder) isFull() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.full) > time.Minute {
		e.log.Info("the broker's queue of images is full: sending goes on as the nodes encode", "job", e.job.Job)
	}
	e.full = time.Now()
}

// Close ends sending and receiving. What the broker has, stays with it for the next process of the job. It waits until ctx ends at most.
func (e *Encoder) Close(ctx context.Context) error {
	e.stop()
	done := make(chan struct{})
	go func() {
		e.sending.Wait()
		e.ended.Wait()
		e.save(context.WithoutCancel(ctx))
		e.Conn.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		e.nc.Close() // ends what still waits
		<-done
		return context.Cause(ctx)
	}
}
