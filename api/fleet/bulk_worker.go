package fleet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"hailoclip/api/bulk"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

const (
	ackWait      = 30 * time.Second // see bulkWorker.patience
	progressTime = 10 * time.Second // after which a worker says that it still works on it
	bulkTime     = 2 * time.Minute  // for an image, with all that it waits for
	bulkBatch    = 16               // images ready for the pipeline, so that it does not wait for the broker
	largestFleet = 128              // nodes that can be busy at once, with 32 images each

	pullTime  = 10 * time.Second // of a request for images
	heartbeat = time.Second      // of the broker while such a request waits; two that are missing: it is to be asked again

	largeBytes = 2 * largestImage // of objects that a worker has in memory
)

// bulkCounts count what a worker has done since the start of the process.
type bulkCounts struct {
	encoded, failed, returned, duplicates, redelivered, dead, bytes atomic.Uint64
	inFlight                                                        atomic.Int64
}

// bulkWorker encodes images that are indexed through the broker.
type bulkWorker struct {
	*Conn
	model, digest string // the latter is bulk.Prepared: nodes that prepare images otherwise have a consumer of their own
	dimension     int    // of vectors
	atOnce        int    // images that keep the encoder busy
	embed         func(ctx context.Context, image []byte) ([]float32, error)
	healthy       func() bool
	again, lost   time.Duration // after which an image that failed is tried again; where the device was lost
	patience      time.Duration // after which an image of a worker that is gone is another's
	counts        *bulkCounts
	large         *semaphore.Weighted // bytes of objects in memory
}

// encodeBulk is the task of a node that encodes images of indexes.
func (n *Node) encodeBulk(ctx context.Context) error {
	e := n.parts.Engine
	lane := pipeline.NewLane(fair.Caller{Address: "fleet"}, pipeline.Bulk)
	w := &bulkWorker{
		Conn: n.Conn, model: e.Model(), digest: bulk.Prepared(e.ImageDigest(), e.Preparation()), dimension: e.Dimension(), atOnce: e.AtOnce(),
		again: time.Second, lost: 5 * time.Second, patience: ackWait, counts: &n.bulk, large: semaphore.NewWeighted(largeBytes),
		embed: func(ctx context.Context, image []byte) ([]float32, error) {
			r, err := e.EmbedImage(ctx, &clip.Request{Image: image, Lane: lane})
			return r.Embedding, err
		},
		healthy: func() bool { return e.State() != clip.Unhealthy },
	}
	return w.run(ctx)
}

// run works until ctx ends, or something is wrong with the broker.
func (w *bulkWorker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		for !w.healthy() { // images would only be tried in vain, and only so often
			if !pause(ctx, time.Second) {
				return nil
			}
		}
		if err := w.ready(ctx); err != nil {
			return err
		}
		consumer, err := w.consumer(ctx)
		if err != nil {
			return fmt.Errorf("fleet: the broker's consumer for images: %w", w.verdict(err, BulkStream))
		}
		if err := w.take(ctx, consumer); err != nil {
			return err
		}
	}
	return nil
}

// consumer is the one that all workers with this encoder take images from. It tells what their encoder is.
func (w *bulkWorker) consumer(ctx context.Context) (made jetstream.Consumer, err error) {
	ctx, end := w.ask(ctx, 0)
	defer end(&err)
	short := bulk.Short(w.digest)
	return w.js.CreateOrUpdateConsumer(ctx, BulkStream, jetstream.ConsumerConfig{
		Durable: consumerPrefix + short, FilterSubject: bulkSubject + short + ".>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: w.patience,
		MaxDeliver: maxDeliveries, MaxAckPending: 32 * largestFleet, MaxRequestBatch: bulkBatch, InactiveThreshold: 7 * 24 * time.Hour,
		Metadata: map[string]string{metaModel: w.model, metaDigest: w.digest, metaDimension: strconv.Itoa(w.dimension)},
	})
}

// take handles images until ctx ends, the broker falls silent or the encoder is unhealthy. It has asked for no more than one batch
// beyond those that keep the encoder busy: a fast node asks more often, which is all that shares the work out.
func (w *bulkWorker) take(ctx context.Context, consumer jetstream.Consumer) error {
	taking, end := context.WithCancelCause(ctx) // what has been taken is dealt with also when it has ended
	defer end(nil)
	images, err := consumer.Messages(jetstream.PullMaxMessages(bulkBatch), jetstream.PullExpiry(pullTime), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return err
	}
	room := make(chan struct{}, w.atOnce)
	var running sync.WaitGroup
	defer running.Wait()
	defer giveBack(images)
	for {
		select {
		case <-taking.Done():
			return stopped(taking, ctx)
		case room <- struct{}{}:
		}
		if !w.healthy() {
			return nil
		}
		m, err := images.Next(jetstream.NextContext(taking))
		switch {
		case err == nil:
			running.Go(func() {
				defer func() { <-room }()
				if err := w.handle(ctx, m); err != nil {
					end(fmt.Errorf("fleet: an image of an index cannot be dealt with: %w", err))
				}
			})
		case taking.Err() != nil:
			return stopped(taking, ctx)
		case errors.Is(err, jetstream.ErrNoHeartbeat) || errors.Is(err, jetstream.ErrConsumerDeleted):
			return onlyPermanent(w.verdict(err, BulkStream))
		default:
			return err
		}
	}
}

// stopped is why taking has ended before ctx; nil: it has not.
func stopped(taking, ctx context.Context) error {
	if ctx.Err() == nil {
		return context.Cause(taking)
	}
	return nil
}

// giveBack returns what was asked for and not begun, so that others have it at once.
func giveBack(images jetstream.MessagesContext) {
	images.Drain()
	for {
		m, err := images.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			images.Stop()
			return
		}
		_ = m.Nak() // else it is another's after ackWait
	}
}

// pause waits for d. It returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
