package bulk

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
)

// Verification is what Verify has found.
type Verification struct {
	Rows     int64    `json:"rows"`     // in the sink
	Expected int64    `json:"expected"` // paths that the journal says are there
	Missing  int64    `json:"missing"`  // of these, not in the sink
	Double   int64    `json:"double"`   // rows that are there more than once
	Stale    int64    `json:"stale"`    // rows of what has changed, vanished or waits, which the next run takes away or replaces
	Foreign  int64    `json:"foreign"`  // rows that the journal does not know
	Waiting  int64    `json:"waiting"`  // paths that have no row yet, as the journal knows
	Cut      bool     `json:"cut"`      // the last row is not whole; it does not count
	Examples []string `json:"examples"` // of paths that are missing, double or foreign
}

// Good says that the sink has exactly the rows that it should, and all of them; shared, that others may have rows there, too.
func (v Verification) Good(shared bool) bool {
	return v.Missing == 0 && v.Double == 0 && v.Stale == 0 && v.Waiting == 0 && !v.Cut && (shared || v.Foreign == 0)
}

func (v *Verification) example(what, path string) {
	if len(v.Examples) < 20 {
		v.Examples = append(v.Examples, what+": "+path)
	}
}

// verifier is a Verify that goes on.
type verifier struct {
	keeper
	Verification
	sink   Sink
	found  bits
	repair bool
	gone   []ID // rows that a repair takes away: else they would be there twice
}

// Verify compares what the sink has with what the journal says it has. It reads the rows of the sink one by one, and keeps a bit for each.
// With repair, what is missing, double or cut off waits again, so that the next Run makes its row, and goes on from what is there; rows
// of an Appender behind the last one that a run has noted are cut off, as a Run does it.
func Verify(ctx context.Context, j *Journal, s Sink, repair bool) (Verification, error) {
	v := verifier{keeper: keeper{suffix: Key(nil, j.Identity.Digest)[32:], journal: j}, sink: s, repair: repair}
	v.appender, _ = s.(Appender)
	v.placer, _ = s.(Placer)
	if v.appender != nil && v.appender.Mark() < j.mark {
		v.example("cut off", fmt.Sprintf("%d bytes of %d are left", v.appender.Mark(), j.mark))
	}
	if repair && v.appender != nil && !j.finishing && v.appender.Mark() > j.mark {
		before, err := Verify(ctx, j, s, false)
		if err != nil {
			return before, err
		}
		switch err = v.appender.Rewind(j.mark); {
		case err == nil:
			_, err = Verify(ctx, j, s, true)
			return before, err
		case !errors.Is(err, ErrChanged):
			return before, err
		}
	}
	again := map[uint64]struct{}{} // numbers of paths whose rows are double
	err := s.Each(ctx, func(key, path string) error { return v.row(key, path, again) })
	var cut *cutError
	if v.Cut = errors.As(err, &cut); v.Cut {
		v.example("cut off", cut.Error())
		err = nil
	}
	if err == nil && repair {
		err = v.clean(ctx, cut)
	}
	if err == nil {
		err = v.paths(ctx, again)
	}
	if err == nil && repair && v.placer != nil {
		err = v.moved(ctx)
	}
	j.rollback()
	return v.Verification, err
}

// row judges a row of the sink.
func (v *verifier) row(key, path string, again map[uint64]struct{}) error {
	v.Rows++
	r, known, err := v.journal.committed(path)
	if err != nil {
		return err
	}
	h, own := v.parse(key)
	old := false
	if own {
		old, err = v.journal.committedOld(h.with(path))
	}
	switch {
	case err != nil:
		return err
	case known && own && r.hash == h && r.state != waiting:
		if v.found.add(r.id) {
			return nil
		}
		v.Double++
		v.example("double", path)
		again[r.id] = struct{}{}
	case old:
		v.Stale++
	case known && own && r.hash == h:
		v.Stale++
	default:
		v.Foreign++
		v.example("foreign", path)
		return nil
	}
	if v.repair && v.appender != nil { // others replace it
		v.gone = append(v.gone, ID{key, path})
	}
	return nil
}

// clean takes away what a run would leave, and makes the journal agree with how long the sink is then.
func (v *verifier) clean(ctx context.Context, cut *cutError) error {
	if v.appender == nil {
		return nil
	}
	j := v.journal
	if cut != nil {
		if err := v.appender.Rewind(cut.place); err != nil {
			return err
		}
	}
	if remover, can := v.sink.(Remover); can {
		j.finishing = true // a process that is killed may leave the sink shorter than mark
		if err := errors.Join(j.commit(), remover.Remove(ctx, v.gone), v.sink.Finish(ctx), j.clear(bucketOld)); err != nil {
			return err
		}
		j.counts.Replaced = 0
	}
	j.finishing, j.mark = false, v.appender.Mark()
	return j.commit()
}

// paths looks for the paths whose rows are missing, or are double and were taken away.
func (v *verifier) paths(ctx context.Context, again map[uint64]struct{}) (err error) {
	after, full := "", true
	for err == nil && full {
		full = false
		missing := map[string]*record{}
		err = v.journal.each(after, func(path string, r *record) error {
			after = path
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case r.state == waiting:
				v.Waiting++
				return nil
			}
			v.Expected++
			if _, double := again[r.id]; v.found.has(r.id) && !double {
				return nil
			}
			if !v.found.has(r.id) {
				v.Missing++
				v.example("missing", path)
			}
			if missing[path] = r; len(missing) == 1024 {
				full = true
				return errStop
			}
			return nil
		})
		if err == nil && v.repair && len(missing) > 0 {
			err = v.journal.again(missing)
		}
	}
	return err
}

// committedOld says whether a row is to be taken away, as of the last commit. Any goroutine may call it.
func (j *Journal) committedOld(key []byte) (is bool, err error) {
	err = boltfile.Guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			is = tx.Bucket(bucketOld).Get(key) != nil
			return nil
		})
	})
	return is, err
}

// again has paths wait whose rows are missing, and has their images encoded again.
func (j *Journal) again(missing map[string]*record) error {
	for path, r := range missing {
		if err := j.anew(path, r); err != nil {
			return err
		}
	}
	j.counts.Complete = false
	return j.commit()
}

// Counts returns how many paths are in which state.
func (j *Journal) Counts() Counts { return j.counts }

// Failures tells each path that has no usable image, and why, up to n of them.
func (j *Journal) Failures(n int, tell func(path, why string)) error {
	list := map[string]*record{}
	var paths []string
	err := j.each("", func(path string, r *record) error {
		if r.state == failed || r.state == unreadable {
			paths = append(paths, path)
			list[path] = r
		}
		if len(paths) >= n {
			return errStop
		}
		return nil
	})
	for _, path := range paths {
		why := "it could not be read or encoded, as its row says"
		if r := list[path]; err == nil && r.state == failed {
			var o *outcome
			if o, err = j.outcome(r.hash); o != nil {
				why = o.error
			}
		}
		tell(path, why)
	}
	j.rollback()
	return err
}
