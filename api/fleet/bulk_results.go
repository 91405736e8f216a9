package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/bulk"
)

// resultsConsumer is that of the job, which is made where it is missing: what is not stored is given out again, also to the next process.
// from is where it begins then; 0: with all results that there are.
func (e *Encoder) resultsConsumer(ctx context.Context, from uint64) (found jetstream.Consumer, err error) {
	ctx, end := e.ask(ctx, 0)
	defer end(&err)
	found, err = e.js.Consumer(ctx, ResultStream, durable(e.job.Job))
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return found, err
	}
	c := jetstream.ConsumerConfig{
		Durable: durable(e.job.Job), FilterSubject: resultSubject + e.job.Job + ".>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: storeTime,
		MaxAckPending: mostUnstored, InactiveThreshold: 7 * 24 * time.Hour,
	}
	if from > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	return e.js.CreateConsumer(ctx, ResultStream, c)
}

// durable is the name of the consumer of a job's results.
func durable(job string) string { return "job-" + job }

// inherit is resultsConsumer. It has the results given out again that a former process of the job has not stored, or that went astray
// with a connection, as their confirmations do, without waiting for storeTime. Some that are stored may be among them.
func (e *Encoder) inherit(ctx context.Context) (consumer jetstream.Consumer, err error) {
	ctx, end := e.ask(ctx, 0)
	defer end(&err)
	consumer, err = e.resultsConsumer(ctx, 0)
	if err != nil {
		return nil, err
	}
	info := consumer.CachedInfo()
	if info.NumAckPending == 0 {
		return consumer, nil
	}
	if err := e.js.DeleteConsumer(ctx, ResultStream, durable(e.job.Job)); err != nil {
		return nil, err
	}
	return e.resultsConsumer(ctx, info.AckFloor.Stream+1)
}

// receive gives out results until the encoder is closed.
func (e *Encoder) receive() {
	defer close(e.results)
	for told := false; e.ctx.Err() == nil; {
		err := e.Await(e.ctx)
		if err == nil {
			err = e.verdict(e.receiveSome(e.ctx), ResultStream)
		}
		switch {
		case err == nil:
			told = false
			continue
		case permanent(err):
			e.fail(fmt.Errorf("fleet: results cannot be taken from the broker: %w", err))
			<-e.ctx.Done()
			return
		case !told && e.ctx.Err() == nil && !errors.Is(err, ErrNoBroker):
			told = true
			e.log.Warn("results are asked for again", "job", e.job.Job, "error", err)
		}
		pause(e.ctx, time.Second)
	}
}

// receiveSome gives out results until ctx ends, the connection is lost or the broker falls silent.
func (e *Encoder) receiveSome(ctx context.Context) (err error) {
	ctx, end := e.ask(ctx, 0)
	defer end(&err)
	if err := e.Setup(ctx); err != nil {
		return err
	}
	consumer, err := e.inherit(ctx)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(mostPending), jetstream.PullExpiry(pullTime), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat) || errors.Is(err, jetstream.ErrConsumerDeleted):
			return onlyPermanent(e.verdict(err, ResultStream))
		default:
			return err
		}
		r, code, err := parseResult(m.Headers(), m.Data(), e.encoder.Digest, e.digest)
		if err != nil {
			e.trouble.warn("result", "messages that are no results are left out", "job", e.job.Job, "error", err)
			_ = m.Ack() // who has sent the image sends it again
			continue
		}
		r.Again = code == codeDead // lost nodes and devices use up its tries, too
		r.Stored = func() {
			e.count(r, code)
			_ = m.Ack() // else it is given out again, which changes nothing
		}
		select {
		case e.results <- r:
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *Encoder) count(r bulk.Result, code string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.job.Done++
	if r.Error != "" {
		e.job.Failed++
	}
	if code == codeDead {
		e.job.Dead++
	}
}

// Idle says that the broker has neither an image of the job nor a result that is not stored, so that what has none is lost. While that is
// not so, or the broker is away, it returns false a moment later. Errors: the cause of ctx, and what the broker refuses for good.
func (e *Encoder) Idle(ctx context.Context) (bool, error) {
	if why := e.shutOut(refusedFor); why != nil { // whoever waits for results is not told
		e.fail(fmt.Errorf("%w: %w", ErrNoBroker, why))
	}
	if err := context.Cause(e.failed); err != nil {
		return false, err
	}
	idle, err := e.idle(ctx)
	if idle && err == nil {
		e.nextRound(ctx)
		return true, nil
	}
	if err != nil && e.Connected() {
		if err = e.verdict(err, BulkStream, ResultStream); !permanent(err) {
			err = e.Setup(ctx) // a broker that came back empty; the next call tells
		}
		if permanent(err) {
			e.fail(err)
			return false, err
		}
	}
	if !pause(ctx, 100*time.Millisecond) {
		return false, context.Cause(ctx)
	}
	return false, nil
}

func (e *Encoder) idle(ctx context.Context) (idle bool, err error) {
	if e.pending.Load() > 0 {
		return false, nil
	}
	ctx, end := e.ask(ctx, askTime)
	defer end(&err)
	images, err := e.js.Stream(ctx, BulkStream)
	if err != nil {
		return false, err
	}
	short := bulk.Short(e.encoder.Digest)
	info, err := images.Info(ctx, jetstream.WithSubjectFilter(bulkSubject+short+"."+e.job.Job+".>"))
	if err != nil {
		return false, err
	}
	if len(info.State.Subjects) > 0 {
		return false, e.endStuck(ctx, images, info.State.Subjects)
	}
	consumer, err := e.js.Consumer(ctx, ResultStream, durable(e.job.Job)) // asked second: a result is there before its image goes
	if err != nil {
		return false, err
	}
	results := consumer.CachedInfo()
	return results.NumPending == 0 && results.NumAckPending == 0, nil
}

// endStuck ends images that were given out too often while no node listened. The first time that nothing of the queue is given out or
// waits it only notes that.
func (e *Encoder) endStuck(ctx context.Context, images jetstream.Stream, subjects map[string]uint64) error {
	workers, err := images.Consumer(ctx, consumerPrefix+bulk.Short(e.encoder.Digest))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil // no worker has come yet
	}
	if err != nil {
		return err
	}
	w := workers.CachedInfo()
	stuck := w.NumPending == 0 && w.NumAckPending == 0
	if !stuck || !e.stuck {
		e.stuck = stuck
		return nil
	}
	for subject := range subjects {
		for {
			m, err := images.GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Sequence > w.Delivered.Stream {
				break
			}
			if err != nil {
				return err
			}
			if _, err := e.endImage(ctx, m.Sequence, maxDeliveries); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextRound gives what is sent from now on other ids.
func (e *Encoder) nextRound(ctx context.Context) {
	e.mu.Lock()
	e.job.Round++
	e.mu.Unlock()
	e.save(ctx)
}

// Tell stores how many images there are, as far as is known; all says that there are no more.
func (e *Encoder) Tell(found int64, all bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.job.Found, e.job.All = found, all
}

// tell stores the state of the job every now and then.
func (e *Encoder) tell() {
	for before := int64(0); pause(e.ctx, jobTime); {
		e.mu.Lock()
		rate := float64(e.job.Done-before) / jobTime.Seconds()
		before = e.job.Done
		if e.job.Rate == 0 {
			e.job.Rate = rate
		}
		e.job.Rate += (rate - e.job.Rate) / 4
		if e.job.Left = 0; e.job.All && e.job.Rate > 0 {
			e.job.Left = float64(max(e.job.Found-e.job.Done, 0)) / e.job.Rate
		}
		e.mu.Unlock()
		e.save(e.ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.job.All && e.job.Done >= e.job.Found {
		e.job.State = "done"
	}
}

// save stores the job. When it fails the next time does; what another has stored meanwhile is replaced then, but for its round.
func (e *Encoder) save(ctx context.Context) {
	if !e.Connected() {
		return
	}
	ctx, end := e.ask(ctx, askTime)
	e.mu.Lock()
	e.job.Changed = time.Now().UTC()
	j, revision := e.job, e.revision
	e.mu.Unlock()
	revision, err := e.saveJob(ctx, j, revision)
	if errors.Is(err, jetstream.ErrKeyExists) {
		var kept job
		kept, revision, err = e.loadJob(ctx, j.Job)
		j.Round = max(j.Round, kept.Round)
	}
	end(&err)
	if err != nil {
		revision = 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision, e.job.Round = revision, max(e.job.Round, j.Round)
}
