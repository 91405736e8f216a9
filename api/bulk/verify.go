package bulk

import (
	"context"
	"errors"
	"fmt"
)

// Verification is what Verify has found.
type Verification struct {
	Rows     int64    `json:"rows"`     // in the sink
	Expected int64    `json:"expected"` // paths that the journal says are there
	Missing  int64    `json:"missing"`  // of these, not in the sink
	Double   int64    `json:"double"`   // rows that are there more than once
	Foreign  int64    `json:"foreign"`  // rows that the journal does not know, or with a key that is not the path's
	Waiting  int64    `json:"waiting"`  // paths that have no row yet, as the journal knows
	Examples []string `json:"examples"` // of paths that are missing, double or foreign
}

// Good says that the sink has exactly the rows that it should, and all of them.
func (v *Verification) Good() bool {
	return v.Missing == 0 && v.Double == 0 && v.Foreign == 0 && v.Waiting == 0 && v.Rows == v.Expected
}

func (v *Verification) example(what, path string) {
	if len(v.Examples) < 20 {
		v.Examples = append(v.Examples, what+": "+path)
	}
}

// Verify compares what the sink has with what the journal says it has. It reads the rows of the sink one by one, and keeps a bit for each.
// With repair, what is missing waits again, so that the next Run makes its row, and a row of an Appender that is not whole is cut off.
func Verify(ctx context.Context, j *Journal, s Sink, repair bool) (v Verification, err error) {
	k := keeper{suffix: Key(nil, j.Identity.Digest)[32:], journal: j}
	appender, appends := s.(Appender)
	if appends && appender.Mark() < j.mark {
		v.example("cut off", fmt.Sprintf("%d bytes of %d are left", appender.Mark(), j.mark))
	}
	var found bits
	err = s.Each(ctx, func(key, path string) error {
		v.Rows++
		r, ok, err := j.committed(path)
		switch {
		case err != nil:
			return err
		case !ok || r.state == waiting || k.key(r.hash) != key:
			v.Foreign++
			v.example("foreign", path)
		case !found.add(r.id):
			v.Double++
			v.example("double", path)
		}
		return nil
	})
	torn, is := errors.AsType[*tornError](err)
	if is {
		v.Foreign++
		v.example("foreign", torn.Error())
		err = nil
	}
	if err == nil && repair && appends { // what is left is what the next Run begins with
		if is {
			err = appender.Rewind(torn.place)
		}
		j.mark = min(j.mark, appender.Mark())
	}
	after, full := "", true
	for err == nil && full {
		full = false
		missing := map[string]*record{}
		err = j.each(after, func(path string, r *record) error {
			after = path
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case r.state == waiting:
				v.Waiting++
				return nil
			}
			v.Expected++
			if found.has(r.id) {
				return nil
			}
			v.Missing++
			v.example("missing", path)
			if missing[path] = r; len(missing) == 1024 {
				full = true
				return errStop
			}
			return nil
		})
		if err == nil && repair && len(missing) > 0 {
			err = j.again(missing)
		}
	}
	if err == nil && repair {
		err = j.commit()
	}
	j.rollback()
	return v, err
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
		why := "it could not be read"
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
