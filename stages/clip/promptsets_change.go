package clip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
)

// Condition is what a change of a set depends on, and who asks for it. The zero value is no condition.
type Condition struct {
	IfMatch     string // ETag without quotes; "*": there must be such a set; "": no condition
	IfNoneMatch bool   // there must be no such set

	Caller fair.Caller // whose turn images wait for
}

// Put makes or replaces a set. Images of d become examples; an example that has only its id is that of the stored version.
// It blocks until the set is encoded, but returns it with the state encoding when a tenth of the time that ctx leaves is
// left, 2 s at most; encoding then goes on. It does not change d, and keeps its strings and the bytes of its examples.
//
// Errors: sets.Fault for what d says, of decode and the line for its images, ErrManaged, ErrPrecondition, ErrSetsFull,
// ErrSetsLost, ErrSetsAway, and pipeline.ErrDeadline while its images are encoded. With an error nothing has changed.
func (p *PromptSets) Put(ctx context.Context, name string, d sets.Definition, c Condition) (info SetInfo, created bool, err error) {
	if !sets.ValidName(name) {
		return SetInfo{}, false, sets.Fault{Field: "name", Problem: "must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
	}
	d = d.Normalized()
	if err := d.Validate(*p.limits.Load()); err != nil {
		return SetInfo{}, false, err
	}
	if err := p.canScore(&d); err != nil {
		return SetInfo{}, false, err
	}
	if _, err := p.changeable(name, c, true); err != nil { // before anything is encoded for nothing
		return SetInfo{}, false, err
	}
	if err := p.embedImages(ctx, &d, c.Caller); err != nil {
		return SetInfo{}, false, late(ctx, err)
	}
	return p.change(ctx, name, c, true, func(old func() (sets.Definition, error)) (sets.Definition, error) {
		err := keepExamples(&d, old)
		return d, err
	})
}

// changeable returns the set that may be changed, nil where a new one may be made.
func (p *PromptSets) changeable(name string, c Condition, create bool) (*promptSet, error) {
	s, etag := (*p.all.Load())[name], ""
	if s != nil {
		etag = p.newest(s).etag
	}
	switch lost := p.lost; {
	case s != nil && s.fixed != nil:
		return nil, fmt.Errorf("%w: %.64q", ErrManaged, name)
	case lost != nil:
		return nil, lost
	case s != nil && c.IfNoneMatch:
		return nil, fmt.Errorf("%w: there is a set %.64q", ErrPrecondition, name)
	case s != nil && c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != etag:
		return nil, fmt.Errorf("%w: its ETag is %q", ErrPrecondition, etag)
	case s == nil && c.IfMatch != "":
		return nil, fmt.Errorf("%w: there is no set %.64q", ErrPrecondition, name)
	case s == nil && !create:
		return nil, fmt.Errorf("%w: %.64q", ErrNoSet, name)
	}
	return s, nil
}

// keepExamples fills in the examples of d that have only their id, from the stored version, whichever label has them there.
func keepExamples(d *sets.Definition, old func() (sets.Definition, error)) error {
	var kept map[string]sets.Example
	for _, o := range d.Owners() {
		for i := range *o.Examples {
			e := &(*o.Examples)[i]
			if e.Vector != nil {
				continue
			}
			if kept == nil {
				stored, err := old()
				if err != nil {
					return err
				}
				kept = map[string]sets.Example{}
				for _, o := range stored.Owners() {
					for _, e := range *o.Examples {
						kept[e.ID] = e
					}
				}
			}
			found, ok := kept[e.ID]
			if !ok {
				return sets.Fault{Field: fmt.Sprintf("%s.examples[%d]", o.Where, i), Problem: "has only an id, which no example of the set has"}
			}
			*e = found
		}
	}
	return nil
}

// change makes a version of a set by an edit of the stored one, and waits for it. old is empty where there is none.
func (p *PromptSets) change(
	ctx context.Context, name string, c Condition, create bool,
	edit func(old func() (sets.Definition, error)) (sets.Definition, error),
) (info SetInfo, created bool, err error) {
	type outcome struct {
		version *version
		d       sets.Definition
		created bool
	}
	o, err := exclusive(ctx, p, c.Caller, func(ctx context.Context) (outcome, error) {
		return onNewest(ctx, p, name, func(at newest) (o outcome, err error) {
			s, err := p.changeable(name, c, create)
			if err != nil {
				return o, err
			}
			o.d, err = edit(func() (sets.Definition, error) {
				if s == nil {
					return sets.Definition{}, nil
				}
				return p.definition(ctx, s)
			})
			if err == nil {
				err = o.d.Validate(*p.limits.Load())
			}
			if err != nil {
				return o, err
			}
			if o.created = s == nil; o.created {
				s = &promptSet{name: name}
			}
			v := p.newVersion(s, &o.d, c.Caller)
			if now := p.newest(s); now != nil && now.etag == v.etag && p.state(now) != SetFailed {
				v.cancel(nil)
				o.version = now // it is what is there
				return o, nil
			}
			o.version = v
			defer func() {
				if err != nil {
					v.cancel(err)
				}
			}()
			if err := p.room(v); err != nil {
				return o, err
			}
			r := sets.Record{Name: name, Definition: o.d, Changed: time.Now().UTC()}
			if err := at.put(ctx, &r); err != nil {
				return o, err
			}
			return o, p.put(ctx, v, r)
		})
	})
	if err != nil {
		return SetInfo{}, false, err
	}
	p.wait(ctx, o.version)
	return p.info(o.version, o.d, false), o.created, nil
}

// put keeps a version of a set, and begins to build it.
func (p *PromptSets) put(ctx context.Context, v *version, r sets.Record) error {
	r.Former = p.former(ctx, v.set, &r.Definition)
	v.former = len(r.Former) > 0
	return p.parts.File.Put(ctx, r, p.rowKeys(&r.Definition), func() {
		p.install(v)
		if (*p.all.Load())[r.Name] != v.set {
			p.setAll(func(all map[string]*promptSet) { all[r.Name] = v.set })
		}
		p.start(func() { p.run(v) })
	})
}

// setAll replaces the map of all sets. Only one change is made at a time.
func (p *PromptSets) setAll(change func(all map[string]*promptSet)) {
	all := maps.Clone(*p.all.Load())
	change(all)
	p.all.Store(&all)
}

// exclusive makes a change while no other one is made. When ctx ends first it returns pipeline.ErrDeadline: a change that the
// disk has begun by then may come true later, and until then no other is made, so that each sees what was before it.
func exclusive[T any](
	ctx context.Context, p *PromptSets, caller fair.Caller, change func(context.Context) (T, error),
) (result T, err error) {
	end, err := p.changing.Take(ctx, caller)
	if err != nil {
		return result, pipeline.Late(ctx)
	}
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	begun := p.start(func() {
		defer end()
		o := outcome{err: errors.New("panic")}
		defer func() { done <- o }()
		defer pipeline.Recover("prompt sets", &o.err)
		o.result, o.err = change(context.WithoutCancel(ctx))
	})
	if !begun {
		end()
		return result, pipeline.ErrClosed
	}
	select {
	case o := <-done:
		return o.result, p.storeError(o.err)
	case <-ctx.Done():
		return result, pipeline.Late(ctx)
	}
}

// storeError gives an error of the store its meaning here, and remembers one of the file until a change succeeds.
func (p *PromptSets) storeError(err error) error {
	var fault sets.Fault
	var panicked *pipeline.PanicError
	switch {
	case err == nil:
		p.trouble.Store(nil)
	case errors.As(err, &fault), errors.As(err, &panicked):
	case errors.Is(err, sets.ErrFull):
		err = fmt.Errorf("%w: %w", ErrSetsFull, err)
	case !isOurs(err):
		err = fmt.Errorf("%w: %w", ErrSetsLost, err)
		p.trouble.Store(&err)
	}
	return err
}

func isOurs(err error) bool {
	ours := []error{ErrNoSet, ErrManaged, ErrPrecondition, ErrSetsFull, ErrSetsLost, ErrSetsAway, ErrRevision}
	return slices.ContainsFunc(ours, func(our error) bool { return errors.Is(err, our) })
}

// wait waits until v is ready or over, but only until a tenth of the time that ctx leaves is left.
func (p *PromptSets) wait(ctx context.Context, v *version) {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left-min(left/10, nearDeadline))
		defer cancel()
	}
	select {
	case <-v.done:
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
}

// nearDeadline is how long before the end of a caller's time it is told that its set is not encoded yet, at most.
const nearDeadline = 2 * time.Second

// Delete removes a set. Errors: ErrNoSet, ErrManaged, ErrPrecondition, ErrSetsLost, ErrSetsAway.
func (p *PromptSets) Delete(ctx context.Context, name string, c Condition) error {
	_, err := exclusive(ctx, p, c.Caller, func(ctx context.Context) (none struct{}, err error) {
		return onNewest(ctx, p, name, func(at newest) (none struct{}, err error) {
			s, err := p.changeable(name, c, false)
			if err != nil {
				return none, err
			}
			if err := at.delete(ctx, name); err != nil {
				return none, err
			}
			return none, p.remove(ctx, s)
		})
	})
	return err
}

// remove forgets a set that is kept.
func (p *PromptSets) remove(ctx context.Context, s *promptSet) error {
	return p.parts.File.Delete(ctx, s.name, func() {
		p.setAll(func(all map[string]*promptSet) { delete(all, s.name) })
		p.mu.Lock()
		defer p.mu.Unlock()
		s.newest.end()
	})
}

// Example is an image (compressed, only read until the call returns), or a vector of the model's dimension, which is
// scaled to unit length, or with Model what an image encoder has made before: its vector as it is and, if there is one, the
// thumbnail of the image, which must be there where the encoder is not the one in use.
type Example struct {
	Image     []byte
	Vector    []float32
	Model     string // digest of the image encoder; "": the one in use
	Thumbnail []byte // JPEG, with Model
}

// AddExample adds an example to a label of a set; label "" is the background, and so is Background, unless a label has that
// name. One that the label has changes nothing. It blocks and fails as Put does, and with ErrNoSet.
func (p *PromptSets) AddExample(ctx context.Context, name, label string, e Example, c Condition) (SetInfo, error) {
	if _, err := p.changeable(name, c, false); err != nil {
		return SetInfo{}, err
	}
	var made sets.Example
	var err error
	switch {
	case e.Image != nil:
		// A copy, because the line may read it still when it has failed.
		made, err = p.embedExample(ctx, pipeline.NewLane(c.Caller, pipeline.Bulk), bytes.Clone(e.Image))
	case e.Model != "":
		made, err = p.madeExample(e)
	default:
		made, err = p.vectorExample(e.Vector)
	}
	if err != nil {
		return SetInfo{}, late(ctx, err)
	}
	return p.edit(ctx, name, c, func(d *sets.Definition) error {
		examples := &d.Background.Examples
		if i := indexOf(d.Labels, label); i >= 0 {
			examples = &d.Labels[i].Examples
		} else if label != "" && label != Background {
			return sets.Fault{Field: "label", Problem: fmt.Sprintf("is %.64q, which is no label of the set", label)}
		}
		*examples = addExample(*examples, made)
		return nil
	})
}

// edit changes the stored version of a set. Error: ErrNoSet, those of Put.
func (p *PromptSets) edit(ctx context.Context, name string, c Condition, edit func(d *sets.Definition) error) (SetInfo, error) {
	info, _, err := p.change(ctx, name, c, false, func(old func() (sets.Definition, error)) (sets.Definition, error) {
		d, err := old()
		if err == nil {
			err = edit(&d)
		}
		return d, err
	})
	return info, err
}

func (p *PromptSets) vectorExample(v []float32) (sets.Example, error) {
	if want := p.dim; len(v) != want {
		return sets.Example{}, sets.Fault{Field: "vector", Problem: fmt.Sprintf("has %d numbers, the model's have %d", len(v), want)}
	}
	scaled := make([]float32, len(v))
	if err := hailo.Normalize(scaled, v); err != nil {
		return sets.Example{}, sets.Fault{Field: "vector", Problem: "is " + err.Error()}
	}
	return p.exampleOf(scaled), nil
}

// madeExample keeps the vector to the last bit, so that an image that is added again is known.
func (p *PromptSets) madeExample(e Example) (sets.Example, error) {
	made := p.exampleOf(e.Vector)
	made.Model, made.Thumbnail = e.Model, bytes.Clone(e.Thumbnail)
	if len(made.Thumbnail) == 0 {
		made.Thumbnail = nil
	}
	if p.foreign(&made) && made.Thumbnail == nil {
		return sets.Example{}, sets.Fault{Field: "vector", Problem: "is of another model, and there is no thumbnail"}
	}
	return made, nil
}

func indexOf(labels []sets.Label, name string) int {
	return slices.IndexFunc(labels, func(l sets.Label) bool { return l.Name == name })
}

// Calibrate stores thresholds by label, for those that are given (nil: the label has none any more), and a temperature, if it is
// above 0. It fails as AddExample does.
func (p *PromptSets) Calibrate(
	ctx context.Context, name string, thresholds map[string]*sets.Threshold, temperature float64, c Condition,
) (SetInfo, error) {
	return p.edit(ctx, name, c, func(d *sets.Definition) error {
		if temperature > 0 {
			d.Temperature = temperature
		}
		for label, t := range thresholds {
			i := indexOf(d.Labels, label)
			if i < 0 {
				return sets.Fault{Field: "thresholds", Problem: fmt.Sprintf("has %.64q, which is no label of the set", label)}
			}
			d.Labels[i].Threshold = t
		}
		return nil
	})
}

var activations = map[string]stages.Activation{
	"": stages.Softmax, "softmax": stages.Softmax, "sigmoid": stages.Sigmoid, "pair": stages.Pair, "none": stages.None,
}
