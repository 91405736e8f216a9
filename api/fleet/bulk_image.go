package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/bulk"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// handle makes a result of one image. Whatever happens it ends with an acknowledgement, or the broker gives the image out again. Error: the
// broker refuses for good what it takes to do so.
func (w *bulkWorker) handle(ctx context.Context, m jetstream.Msg) error {
	w.counts.inFlight.Add(1)
	defer w.counts.inFlight.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, bulkTime)
	defer cancel()
	var progress *time.Timer
	progress = time.AfterFunc(time.Hour, func() {
		if ctx.Err() != nil {
			return // it has been dealt with while the timer fired
		}
		_ = m.InProgress() // else another tries it, too
		progress.Reset(progressTime)
	})
	progress.Reset(progressTime)
	defer progress.Stop()
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("an image of an index made a worker fail", "subject", m.Subject(), "key", m.Headers().Get(headerKey), "panic", p)
			w.giveUp(ctx, m, w.again)
		}
	}()
	if about, err := m.Metadata(); err == nil && about.NumDelivered > 1 {
		w.counts.redelivered.Add(1)
	}
	job, shard, err := parseBulk(m.Subject())
	if err != nil {
		w.refuse(ctx, m, "unknown", err.Error())
		return nil
	}
	key, digest := m.Headers().Get(headerKey), m.Headers().Get(headerModel)
	if !keys.MatchString(key) || digest != w.digest {
		w.refuse(ctx, m, job, fmt.Sprintf("a message without a key, or for another encoder: %.80q, %.80q", key, digest))
		return nil
	}
	image, done, err := w.read(ctx, m)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		_ = m.TermWithReason("the image is gone") // a former delivery has its result, or who indexes sends it again
		return nil
	}
	if err != nil {
		return w.unable(ctx, m, w.verdict(err, "OBJ_"+InputStore))
	}
	defer done()
	w.counts.bytes.Add(uint64(len(image)))
	content := m.Headers().Get(headerContent)
	if content == "" && bulk.Key(image, w.digest) != key || content != "" && contentOf(image) != content {
		w.refuse(ctx, m, job, "the image is not that of its key")
		return nil
	}
	vector, err := w.embed(ctx, image)
	code := clip.ImageFault(err)
	switch {
	case err == nil:
	case code != "":
		w.counts.failed.Add(1)
	case errors.Is(err, hailo.ErrDeviceLost) || errors.Is(err, hailo.ErrClosed) || errors.Is(err, pipeline.ErrClosed):
		w.giveUp(ctx, m, w.lost)
		return nil
	default:
		w.log.Debug("an image of an index is given back", "job", job, "key", key, "error", err)
		w.giveUp(ctx, m, w.again)
		return nil
	}
	text := ""
	if code != "" {
		text = err.Error()
	}
	result := newResult(job, shard, key, w.digest, vector, code, text)
	duplicate, err := w.publish(ctx, result, m.Headers().Get(nats.MsgIdHdr), nil)
	if err != nil {
		return w.unable(ctx, m, err)
	}
	if duplicate {
		w.counts.duplicates.Add(1)
	}
	if name := m.Headers().Get(headerObject); name != "" {
		w.forget(ctx, name)
	}
	if code != "" {
		w.bury(ctx, DeadLetter{Key: key, Job: job, Reason: code + ": " + text, Tries: tries(m)}, m.Headers().Get(nats.MsgIdHdr))
		_ = m.TermWithReason(code)
		return nil
	}
	w.counts.encoded.Add(1)
	_ = m.Ack() // if it is lost the image is encoded again, and its result is the same
	return nil
}

// giveUp lets others, or this node later, try an image. The image keeps its place here for as long: a node that fails at once would else
// take all that there is, more often than those that work, until each was tried too often.
func (w *bulkWorker) giveUp(ctx context.Context, m jetstream.Msg, after time.Duration) {
	w.counts.returned.Add(1)
	_ = m.NakWithDelay(after) // else it is another's after ackWait
	pause(ctx, after)
}

// unable gives up an image for an error of the broker's, which it returns where it is a permanent one.
func (w *bulkWorker) unable(ctx context.Context, m jetstream.Msg, err error) error {
	if permanent(err) {
		w.counts.returned.Add(1)
		_ = m.NakWithDelay(w.lost) // others may do better
		return err
	}
	w.giveUp(ctx, m, w.again)
	return nil
}

// refuse ends a message that nobody can make anything of. It has no result: who has sent an image under its own key sends it again.
func (w *bulkWorker) refuse(ctx context.Context, m jetstream.Msg, job, reason string) {
	w.trouble.warn("refuse", "messages of an index are refused: see the dead letters", "subject", m.Subject(), "reason", reason)
	key := m.Headers().Get(headerKey)
	w.bury(ctx, DeadLetter{Key: key, Job: job, Reason: reason, Tries: tries(m)}, m.Headers().Get(nats.MsgIdHdr))
	w.counts.dead.Add(1)
	_ = m.TermWithReason(reason)
}

func tries(m jetstream.Msg) int {
	about, err := m.Metadata()
	if err != nil {
		return 1
	}
	return int(about.NumDelivered)
}

// read returns the image of a message, and what is to be called when it is no longer used.
func (w *bulkWorker) read(ctx context.Context, m jetstream.Msg) (image []byte, done func(), err error) {
	object := m.Headers().Get(headerObject)
	if object == "" {
		return m.Data(), func() {}, nil
	}
	ctx, end := w.ask(ctx, bulkTime)
	defer end(&err)
	store, err := w.js.ObjectStore(ctx, InputStore)
	if err != nil {
		return nil, nil, err
	}
	o, err := store.Get(ctx, object)
	if err != nil {
		return nil, nil, err
	}
	defer o.Close()
	info, err := o.Info()
	if err != nil {
		return nil, nil, err
	}
	if info.Size > largestImage {
		return nil, nil, fmt.Errorf("an image of %d bytes", info.Size)
	}
	if err := w.large.Acquire(ctx, int64(info.Size)); err != nil {
		return nil, nil, err
	}
	done = func() { w.large.Release(int64(info.Size)) }
	buf := bytes.NewBuffer(make([]byte, 0, info.Size))
	if _, err := io.Copy(buf, io.LimitReader(o, int64(info.Size)+1)); err != nil {
		done()
		return nil, nil, err
	}
	return buf.Bytes(), done, nil
}

// forget removes an object. One that stays ages out.
func (c *Conn) forget(ctx context.Context, object string) {
	asking, end := c.ask(ctx, askTime)
	store, err := c.js.ObjectStore(asking, InputStore)
	if err == nil {
		err = store.Delete(asking, object)
	}
	end(&err)
	if err != nil && ctx.Err() == nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		c.log.Debug("an image stays with the broker until its age removes it", "object", object, "error", err)
	}
}
