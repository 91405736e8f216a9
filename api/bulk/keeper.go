package bulk

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// keeper is the goroutine that knows how everything stands: it alone changes journal and sink.
type keeper struct {
	job      *Job
	journal  *Journal
	suffix   string // of all keys
	appender Appender
	placer   Placer

	under  map[hash]struct{} // images that are to be sent, or have no result yet
	queue  []image           // to be sent
	unsent atomic.Int64      // images in queue, or with the goroutine that sends
	rows   []Row             // to be put
	told   []func()          // Result.Stored of those
	dirty  bool              // something is not committed
	broken bool              // what is not committed makes no sense, or cannot be
	misfit string            // what was wrong with the last result that was none of this job
	late   context.Context   // ends some time after that of Run, so that what was begun is finished
	last   time.Time         // commit

	flight  *flight
	landing []string // paths in flight that the next commit has

	seen       bits // numbers of paths that this run has met
	named      atomic.Int64
	unchanged  atomic.Int64
	bytes      atomic.Int64
	sent       atomic.Int64
	encoded    int64
	put        int64
	enumerated bool
}

// image is one that was read, on its way to the encoder.
type image struct {
	hash  hash
	bytes []byte
	done  func() // nothing needs its memory any more
}

// found is an image that was read, or could not be.
type found struct {
	path           string
	size, modified int64
	image          image
	err            error
	fault          string // why the image cannot be used, for good
}

// key is the key that h stands for; zero is what could not be read.
func (k *keeper) key(h hash) string {
	return hex.EncodeToString(h[:]) + k.suffix
}

// parse is the other way round; ok says that it is a key of this job.
func (k *keeper) parse(key string) (h hash, ok bool) {
	if len(key) != 32+len(k.suffix) || key[32:] != k.suffix {
		return h, false
	}
	_, err := hex.Decode(h[:], []byte(key[:32]))
	return h, err == nil
}

func (k *keeper) status() Status {
	return Status{
		Counts: k.journal.counts, Seen: k.named.Load(), Unchanged: k.unchanged.Load(), Encoded: k.encoded, Rows: k.put,
		Bytes: k.bytes.Load(), Sent: k.sent.Load(), UnderWay: int64(len(k.under)), Enumerated: k.enumerated,
	}
}

func (k *keeper) tell() {
	if k.job.Progress != nil {
		k.job.Progress(k.status())
	}
}

// pass goes through the source once, until all that it has sent has a result or is lost.
func (k *keeper) pass(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	k.enumerated = false
	k.named.Store(0)
	k.unchanged.Store(0)
	k.flight, k.landing = newFlight(), nil
	founds := k.read(ctx, cancel)
	sends, sent := k.send(ctx, cancel)
	defer func() {
		cancel(nil)
		close(sends)
		<-sent
		for f := range founds { // its goroutines have ended when it is closed
			f.image.release()
		}
		for _, i := range k.queue {
			i.release()
		}
		k.queue = nil
		clear(k.under)
	}()
	tick := time.NewTicker(batchTime)
	defer tick.Stop()
	for quiet := false; ; {
		if k.enumerated && len(k.under) == 0 {
			return k.flush(k.late)
		}
		in, out, next := founds, sends, image{}
		if k.enumerated || len(k.under) >= k.job.Window {
			in = nil
		}
		if len(k.queue) > 0 {
			next = k.queue[0]
		} else {
			out = nil
		}
		var err error
		select {
		case f, more := <-in:
			if !more {
				k.enumerated = context.Cause(ctx) == nil
				err = context.Cause(ctx)
				break
			}
			quiet = false
			if err = k.check(k.found(k.late, &f)); err == nil {
				if k.landing = append(k.landing, f.path); k.flight.waits(f.path) {
					err = k.flush(k.late)
				}
			}
		case <-k.flight.hurry:
			err = k.flush(k.late)
		case out <- next:
			k.queue[0] = image{} // else its bytes stay
			k.queue = k.queue[1:]
		case r, more := <-k.job.Encoder.Results():
			if !more {
				err = errors.New("the encoder was closed")
				break
			}
			quiet = false
			err = k.check(k.result(k.late, &r))
		case <-tick.C:
			if (k.dirty || len(k.told) > 0) && time.Since(k.last) >= batchTime {
				err = k.flush(k.late)
			}
			if k.tell(); err == nil && quiet && k.unsent.Load() == 0 && (in == nil) {
				err = k.lost(ctx)
			}
			quiet = true
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// lost gives up what is under way if the encoder says that nothing is. It stays waiting for the next pass.
func (k *keeper) lost(ctx context.Context) error {
	idle, err := k.job.Encoder.Idle(ctx)
	if err != nil || !idle {
		return err
	}
	for {
		select {
		case r, more := <-k.job.Encoder.Results():
			if !more {
				return errors.New("the encoder was closed")
			}
			if err := k.check(k.result(k.late, &r)); err != nil {
				return err
			}
		default:
			clear(k.under)
			return nil
		}
	}
}

// check notes that a change has failed, and may be half made.
func (k *keeper) check(err error) error {
	k.broken = k.broken || err != nil
	return err
}

// send starts the goroutine that hands images to the encoder, which may block.
func (k *keeper) send(ctx context.Context, failed context.CancelCauseFunc) (sends chan image, ended chan struct{}) {
	sends, ended = make(chan image, batchRows), make(chan struct{})
	go func() {
		defer close(ended)
		for i := range sends {
			if ctx.Err() == nil {
				if err := k.job.Encoder.Send(ctx, k.key(i.hash), i.bytes); err != nil {
					failed(err)
				}
				k.sent.Add(int64(len(i.bytes)))
			}
			i.release()
			k.unsent.Add(-1)
		}
	}()
	return sends, ended
}

func (i *image) release() {
	if i.done != nil {
		i.done()
	}
}

// flush puts rows into the sink, and makes the journal agree.
func (k *keeper) flush(ctx context.Context) error {
	k.broken = true // until it is done
	if len(k.rows) > 0 {
		if err := k.announce(); err != nil {
			return fmt.Errorf("the journal: %w", err)
		}
		if err := k.job.Sink.Put(ctx, k.rows); err != nil {
			return fmt.Errorf("the output: %w", err)
		}
		if err := errors.Join(k.places(), k.journal.clear(bucketPutting)); err != nil {
			return err
		}
		if k.put += int64(len(k.rows)); k.appender != nil {
			k.journal.mark = k.appender.Mark()
		}
	}
	if k.dirty || len(k.rows) > 0 {
		if err := k.journal.commit(); err != nil {
			return fmt.Errorf("the journal: %w", err)
		}
	}
	k.broken = false
	if k.flight != nil {
		k.flight.land(k.landing)
		k.landing = k.landing[:0]
	}
	for _, stored := range k.told {
		stored()
	}
	clear(k.rows)
	clear(k.told)
	k.rows, k.told, k.dirty, k.last = k.rows[:0], k.told[:0], false, time.Now()
	k.tell()
	return nil
}

// announce notes which rows are about to be put, since of a sink that is no Appender nobody knows afterwards what a process that was
// killed has put there.
func (k *keeper) announce() error {
	if k.appender != nil {
		return nil
	}
	hashes := make([]hash, len(k.rows))
	for i := range k.rows {
		hashes[i], _ = k.parse(k.rows[i].Key)
	}
	return k.journal.announce(hashes, k.rows)
}

// places remembers where rows are.
func (k *keeper) places() error {
	if k.placer == nil {
		return nil
	}
	for i, place := range k.placer.Places() {
		h, ok := k.parse(k.rows[i].Key)
		if !ok {
			continue
		}
		o, err := k.journal.outcome(h)
		if err != nil {
			return err
		}
		if o != nil && o.place < 0 && o.error == "" {
			o.place = place
			if err := k.journal.setOutcome(h, o, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// abandon ends a run that has failed: rows that are ready are put, unless that is what has failed.
func (k *keeper) abandon() {
	if k.broken {
		k.journal.rollback()
	} else if err := k.flush(k.late); err == nil {
		return
	}
	if k.appender != nil && !k.journal.finishing {
		_ = k.appender.Rewind(k.journal.mark) // else the next run does it
	}
}
