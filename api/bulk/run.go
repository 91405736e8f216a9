package bulk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Job is what Run does. Source, Sink, Encoder and Journal are the caller's, who closes them afterwards.
type Job struct {
	Source  Source
	Sink    Sink
	Encoder Encoder
	Journal *Journal
	Name    string // of the sink, as the journal knows it

	Dimension int                            // of vectors; others are not stored
	What      string                         // what Score or the encoder classifies by; "": rows hold embeddings
	Score     func(vector []float32) []Match // makes the matches of rows; nil: the encoder does, or there are none

	// Prepare makes of an image what the encoder gets; key and row stay those of the image. It blocks, and is called for several at once. An
	// error that wraps ErrImage is the image's own, with any other one it is tried again in the next run. nil: it gets the image itself.
	Prepare func(ctx context.Context, image []byte) ([]byte, error)

	MaxImageBytes int64        // of images whose size is not known before they are read; 0: 32 MiB
	Window        int          // images that may be under way at a time; 0: 4,096
	Readers       int          // that open images at a time; 0: 8
	Prune         bool         // take away the rows of what the source does not have any more, if all it has could be read
	Progress      func(Status) // told what has changed, after each commit and once a second; called by one goroutine. nil: nobody is
}

// Status is how a run stands.
type Status struct {
	Counts           // of the journal
	Seen       int64 `json:"seen"`       // images that the source has named in this pass
	Unchanged  int64 `json:"unchanged"`  // of these, the ones that were done before and have not changed
	Encoded    int64 `json:"encoded"`    // images that the encoder has made something of in this run
	Rows       int64 `json:"rows"`       // stored in this run
	Bytes      int64 `json:"bytes"`      // of images, read in this run
	Sent       int64 `json:"sent"`       // of them, and of what was made of them, handed to the encoder
	UnderWay   int64 `json:"under_way"`  // images that the encoder has
	Enumerated bool  `json:"enumerated"` // the source has named all it has
}

// Bounds of a run.
const (
	batchRows  = 256              // rows in a Put
	batchTime  = time.Second      // after which fewer are put
	lateness   = 10 * time.Second // in which what was begun must be stored when the context has ended
	memory     = 64 << 20         // bytes of images that were read and are not handed over
	maxRetries = 3                // passes over the source in a row that bring no result
)

// Run goes through the source, and has the sink get a row for each path. It returns when the sink has all, or with the first
// error; what is stored by then stays, and another Run goes on from there. Errors: ErrOtherJob; those of source, sink, encoder
// and journal; the cause of ctx, when that has ended.
func Run(ctx context.Context, job Job) (Status, error) {
	job.MaxImageBytes, job.Window, job.Readers = cmp.Or(job.MaxImageBytes, 32<<20), cmp.Or(job.Window, 4096), cmp.Or(job.Readers, 8)
	k := &keeper{job: &job, journal: job.Journal, under: map[hash]struct{}{}, last: time.Now()}
	if job.Journal == nil || job.Source == nil || job.Sink == nil || job.Encoder == nil {
		return Status{}, errors.New("bulk: a job needs a source, a sink, an encoder and a journal")
	}
	var giveUp context.CancelFunc
	k.late, giveUp = context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(lateness, giveUp)
		context.AfterFunc(k.late, func() { timer.Stop() })
	})()
	err := k.open(ctx)
	if err == nil {
		err = k.run(ctx)
	}
	if err != nil {
		k.abandon()
	}
	k.journal.rollback()
	return k.status(), err
}

// open makes sink and journal agree.
func (k *keeper) open(ctx context.Context) error {
	digest := k.job.Encoder.Digest()
	if len(digest) < 8 {
		return fmt.Errorf("bulk: the encoder's digest is %q", digest)
	}
	k.suffix = Key(nil, digest)[32:]
	j := k.journal
	fresh := j.New()
	if err := j.Is(Identity{
		Version: journalVersion, Source: k.job.Source.Name(), Sink: k.job.Name, Model: k.job.Encoder.Model(), Digest: digest,
		Prep: PrepVersion, What: cmp.Or(k.job.What, "embedding"),
	}); err != nil {
		return err
	}
	if a, ok := k.job.Sink.(Appender); ok {
		k.appender = a
		switch {
		case fresh && a.Mark() != 0:
			return errors.New("the output has rows that the journal does not know: name another file, or remove this one")
		case j.finishing:
			j.mark = a.Mark() // before, or after rows were cut out: it is whole both times
		default:
			if err := a.Rewind(j.mark); err != nil {
				return err
			}
		}
	}
	k.placer, _ = k.job.Sink.(Placer)
	if j.finishing { // rows may be taken away that the journal still has
		if err := k.finish(ctx); err != nil {
			return err
		}
	}
	j.counts.Complete = false
	if err := j.unput(); err != nil {
		return err
	}
	return errors.Join(j.commit(), k.reaches(ctx))
}

// reaches says what is wrong with a sink other than an Appender that has lost the first row of which the journal knows: most likely
// it was emptied, or made anew.
func (k *keeper) reaches(ctx context.Context) error {
	if k.appender != nil {
		return nil
	}
	key, path := "", ""
	if err := k.journal.each("", func(p string, r *record) error {
		if r.state == waiting {
			return nil
		}
		key, path = k.key(r.hash), p
		return errStop
	}); err != nil || key == "" {
		return err
	}
	_, ok, err := k.job.Sink.Find(ctx, key)
	if err != nil || ok {
		return err
	}
	return fmt.Errorf("the output lacks the row of %q, and maybe others, which the journal says are there: verify --repair has them made again", path)
}

// run makes passes over the source until nothing waits, then finishes the sink.
func (k *keeper) run(ctx context.Context) error {
	for retries, before := 0, int64(-1); ; {
		if err := k.pass(ctx); err != nil {
			return err
		}
		if err := k.settle(ctx); err != nil {
			return err
		}
		left := k.journal.counts.Waiting
		if left == 0 {
			break
		}
		if retries++; left < before || before < 0 {
			retries = 0
		}
		if before = left; retries == maxRetries {
			return fmt.Errorf("%d images have no result after %d more passes%s", left, retries, k.misfit)
		}
	}
	if err := k.finish(ctx); err != nil {
		return err
	}
	k.tell()
	return nil
}

// settle notes what a whole pass has not met: what waits there does so no more, and with Prune its rows are taken away.
func (k *keeper) settle(ctx context.Context) error {
	j := k.journal
	j.counts.Passes++
	if j.counts.Vanished = j.counts.Paths() - k.seen.n; j.counts.Vanished < 0 {
		return fmt.Errorf("the journal has %d paths, of which %d were met", j.counts.Paths(), k.seen.n)
	}
	prune := k.job.Prune && k.seen.n > 0
	if prune && j.counts.Vanished > 0 && j.counts.Unreadable > 0 { // of which some may have vanished, too
		if err := j.commit(); err != nil {
			return err
		}
		if err := j.each("", func(_ string, r *record) error {
			if r.state != unreadable || !k.seen.has(r.id) {
				return nil
			}
			prune = false // what is missing may only be out of reach
			return errStop
		}); err != nil {
			return err
		}
	}
	after := ""
	for j.counts.Vanished > 0 && ctx.Err() == nil {
		if err := j.commit(); err != nil {
			return err
		}
		gone := map[string]*record{}
		last := after
		if err := j.each(after, func(path string, r *record) error {
			if last = path; !k.seen.has(r.id) && (prune || r.state == waiting) {
				gone[path] = r
			}
			if len(gone) == 1024 {
				return errStop
			}
			return nil
		}); err != nil {
			return err
		}
		for path, r := range gone {
			if err := errors.Join(j.supersede(path, r), j.forget(path, r)); err != nil {
				return err
			}
			j.counts.Vanished--
		}
		if after = last; len(gone) < 1024 {
			break
		}
	}
	return cmp.Or(context.Cause(ctx), j.commit())
}

// finish takes rows away that are superseded, and finishes the sink.
func (k *keeper) finish(ctx context.Context) error {
	j := k.journal
	j.finishing = true
	if err := j.commit(); err != nil {
		return err
	}
	remover, can := k.job.Sink.(Remover)
	removed := false
	for after := []byte(nil); can; {
		ids, last, err := k.olds(after)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		if err := remover.Remove(ctx, ids); err != nil {
			return err
		}
		removed, after = true, last
	}
	if err := k.job.Sink.Finish(ctx); err != nil {
		return err
	}
	if removed {
		if err := j.clear(bucketOld); err != nil {
			return err
		}
		j.counts.Replaced = 0
	}
	if k.appender != nil {
		j.mark = k.appender.Mark()
	}
	j.finishing, j.counts.Complete = false, true
	if err := j.commit(); err != nil || !removed || k.placer == nil {
		return err
	}
	return k.moved(ctx)
}

// moved notes where rows are when some were taken away.
func (k *keeper) moved(ctx context.Context) error {
	n, j := 0, k.journal
	err := k.placer.Moved(ctx, func(key string, place int64) error {
		h, ok := k.parse(key)
		if !ok {
			return nil
		}
		o, err := j.outcome(h)
		if err != nil || o == nil {
			return err
		}
		o.place = place
		if n++; n%4096 == 0 {
			err = j.commit()
		}
		return errors.Join(err, j.setOutcome(h, o, false))
	})
	return errors.Join(err, j.commit())
}

// olds returns up to a batch of rows to be taken away, after a key of their bucket, and the last key.
func (k *keeper) olds(after []byte) (ids []ID, last []byte, err error) {
	err = k.journal.change(bucketOld, func(b *bbolt.Bucket) error {
		c := b.Cursor()
		key, _ := c.Seek(after)
		if string(key) == string(after) {
			key, _ = c.Next()
		}
		for ; key != nil && len(ids) < batchRows; key, _ = c.Next() {
			ids = append(ids, ID{Key: k.key(hash(key)), Path: string(key[len(hash{}):])})
			last = append(last[:0], key...)
		}
		return nil
	})
	return ids, last, err
}
