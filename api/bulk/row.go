package bulk

import (
	"context"
	"fmt"
	"math"
)

// found notes an image that the source has and that was read, and has it encoded unless it has been.
func (k *keeper) found(ctx context.Context, f *found) error {
	j := k.journal
	sent := false
	defer func() {
		if !sent {
			f.image.release()
		}
	}()
	old, known, err := j.path(f.path)
	if err != nil {
		return err
	}
	var before *record
	if known {
		before = &old
	}
	now := record{size: f.size, modified: f.modified, state: waiting, hash: f.image.hash}
	if f.err != nil {
		now.state, now.hash = unreadable, hash{}
	}
	k.dirty = true
	switch {
	case known && old.hash == now.hash && (old.state == stored || old.state == failed || old.state == unreadable):
		now.state = old.state // only its time is another, or it still cannot be read
		k.seen.add(old.id)
		return j.set(f.path, before, &now)
	case known && old.hash != now.hash || known && old.state != waiting:
		if err := j.supersede(f.path, &old); err != nil {
			return err
		}
	}
	var o *outcome
	if f.err == nil {
		if o, err = j.outcome(now.hash); err != nil {
			return err
		}
	}
	has := false
	if f.err != nil || o != nil { // else it is asked when there is a result
		if has, err = k.keeps(f.path, now.hash); err != nil {
			return err
		}
	}
	var row Row
	switch {
	case f.err != nil:
		row = Row{Error: f.err.Error()}
	case o != nil && o.error != "":
		row, now.state = Row{Error: o.error}, failed
	case o != nil && has:
		now.state = stored
	case o != nil:
		found, err := k.find(ctx, now.hash, o)
		if err != nil {
			return err
		}
		if found == nil {
			if err := j.dropOutcome(now.hash); err != nil {
				return err
			}
			break
		}
		row, now.state = *found, stored
	}
	if err := j.set(f.path, before, &now); err != nil {
		return err
	}
	k.seen.add(now.id)
	if now.state != waiting {
		if known && old.state == waiting && old.hash == now.hash {
			if err := j.remove(bucketWaiting, now.hash.with(f.path)); err != nil {
				return err
			}
		}
		if has {
			return nil
		}
		row.Key, row.Path, row.Model = k.key(now.hash), f.path, k.job.Encoder.Model()
		return k.emit(ctx, row)
	}
	if err := j.put(bucketWaiting, now.hash.with(f.path), nil); err != nil {
		return err
	}
	if f.fault != "" {
		return k.result(ctx, &Result{Key: k.key(now.hash), Error: f.fault})
	}
	if _, is := k.under[now.hash]; !is {
		k.under[now.hash] = struct{}{}
		k.queue = append(k.queue, f.image)
		k.unsent.Add(1)
		sent = true
	}
	return nil
}

// keeps says that there is a row of a content that the path has had before, which stays. Elsewhere than in an Appender such a row is put
// again: it only may be there, see Journal.unput.
func (k *keeper) keeps(path string, h hash) (bool, error) {
	has, err := k.journal.revive(path, h)
	return has && k.appender != nil, err
}

// find returns a row of an image that has one; nil if there is none after all.
func (k *keeper) find(ctx context.Context, h hash, o *outcome) (*Row, error) {
	key := k.key(h)
	for i := range k.rows {
		if k.rows[i].Key == key {
			return &k.rows[i], nil
		}
	}
	if k.placer != nil {
		if o.place >= 0 {
			if row, err := k.placer.At(o.place); err == nil && row.Key == key && row.Error == "" {
				return &row, nil
			}
		}
		return nil, nil
	}
	row, ok, err := k.job.Sink.Find(ctx, key)
	if err != nil || !ok || row.Error != "" {
		return nil, err
	}
	return &row, nil
}

// emit has a row put soon.
func (k *keeper) emit(ctx context.Context, row Row) error {
	if k.rows = append(k.rows, row); len(k.rows) < batchRows {
		return nil
	}
	return k.flush(ctx)
}

// result makes the rows of an image.
func (k *keeper) result(ctx context.Context, r *Result) error {
	stored, err := k.resultRows(ctx, r)
	if err != nil || r.Stored == nil {
		return err
	}
	if !stored {
		r.Stored() // there is nothing to be done with it
		return nil
	}
	k.told = append(k.told, r.Stored)
	return nil
}

// resultRows says whether something is to be stored.
func (k *keeper) resultRows(ctx context.Context, r *Result) (bool, error) {
	j := k.journal
	h, ok := k.parse(r.Key)
	if !ok || !k.fits(r) {
		return false, nil // it stays waiting, if it does
	}
	delete(k.under, h)
	o, err := j.outcome(h)
	if err != nil {
		return false, err
	}
	row, state := Row{Key: k.key(h), Model: k.job.Encoder.Model(), Error: r.Error, Matches: r.Matches}, stored
	switch {
	case r.Error != "" && r.Again:
		row.Key, state = k.key(hash{}), unreadable
	case r.Error != "":
		state = failed
	case k.job.Score != nil:
		row.Matches = k.job.Score(r.Vector)
	case r.Matches == nil:
		row.Embedding = r.Vector
	}
	any := false
	for {
		paths, err := j.some(bucketWaiting, h[:], batchRows)
		if err != nil {
			return any, err
		}
		if len(paths) == 0 {
			return any, nil
		}
		k.dirty = true // also after a flush in here
		if !any {
			any = true
			k.encoded++
			if o == nil && state != unreadable {
				if err := j.setOutcome(h, &outcome{place: -1, error: r.Error}, true); err != nil {
					return any, err
				}
			}
		}
		for _, path := range paths {
			if err := k.settled(ctx, string(path), h, state, row); err != nil {
				return any, err
			}
		}
	}
}

// settled notes that a path waits no more, and puts its row.
func (k *keeper) settled(ctx context.Context, path string, h hash, s state, row Row) error {
	j := k.journal
	if err := j.remove(bucketWaiting, h.with(path)); err != nil {
		return err
	}
	old, known, err := j.path(path)
	if err != nil || !known || old.hash != h || old.state != waiting {
		return err
	}
	now, has := old, false
	now.state = s
	if s == unreadable {
		now.hash = hash{}
	}
	if has, err = k.keeps(path, now.hash); err != nil {
		return err
	}
	if err := j.set(path, &old, &now); err != nil || has {
		return err
	}
	row.Path = path
	return k.emit(ctx, row)
}

// fits says that a result is one of this job.
func (k *keeper) fits(r *Result) bool {
	if r.Error != "" || r.Matches != nil && k.job.Score == nil && k.job.What != "" {
		return true
	}
	if len(r.Vector) == 0 || k.job.Dimension > 0 && len(r.Vector) != k.job.Dimension {
		k.misfit = fmt.Sprintf(": vectors come with %d numbers, not %d", len(r.Vector), k.job.Dimension)
		return false
	}
	length := 0.0
	for _, x := range r.Vector {
		length += float64(x) * float64(x)
	}
	if !(math.Abs(length-1) < 0.02) { // NaN, too
		k.misfit = fmt.Sprintf(": vectors come with the length %.3g, not 1", math.Sqrt(length))
		return false
	}
	return true
}
