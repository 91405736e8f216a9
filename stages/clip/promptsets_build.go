package clip

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/fewshot"
)

// version is one definition of a set on its way to answer.
type version struct {
	set    *promptSet
	etag   string
	labels int   // as they are defined
	bytes  int64 // that it takes in memory when it is ready, at most
	caller fair.Caller
	turns  *fair.Turns // that it takes while it is built
	since  time.Time   // its turn has begun; of who builds it
	inUse  int         // number of the encoder whose rows answer, of all where none does; of who builds it
	former bool        // the former version is kept, which answers after a restart; of who builds it
	ctx    context.Context
	cancel context.CancelCauseFunc // when it is replaced or deleted
	done   chan struct{}           // closed when it is ready, has failed, or was replaced or deleted

	// Guarded by PromptSets.mu.
	state          string // SetReady ...
	reason         string
	encoded, total int
	source         string
	alpha          float64
	warnings       []string
}

// newVersion makes a version of s that is d, for a caller. Who calls installs it, or cancels it.
func (p *PromptSets) newVersion(s *promptSet, d *sets.Definition, caller fair.Caller) *version {
	v := &version{
		set: s, etag: sets.ETag(*d, p.digests...), labels: len(d.Labels), caller: caller, turns: p.brief, inUse: len(p.encoders),
		state: SetEncoding, done: make(chan struct{}),
	}
	v.ctx, v.cancel = context.WithCancelCause(p.ctx)
	few, per := *d, 1 // counted without the texts: those may be a hundred thousand
	if d.Templates != nil {
		few.Templates, per = &sets.Templates{Name: "none"}, len(d.Templates.Texts())
	}
	examples, size := 0, 0
	for _, e := range few.Entries(sets.Scenes) {
		l := setLabel{Entry: e}
		v.total += l.texts() * per
		v.bytes += 4 * int64(max(e.Rows(), 1)*p.dim)
		examples += len(e.Examples)
		for _, one := range e.Examples {
			size += len(one.Vector) + len(one.Thumbnail)
		}
	}
	if examples > 0 {
		v.bytes *= 2 // rows for logits, too
	}
	if v.total > briefTexts || size > briefBytes {
		v.turns = p.long
	}
	return v
}

// install makes v the newest version of its set. The former one is over, but what it has made ready answers on.
func (p *PromptSets) install(v *version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := v.set.newest; old != nil {
		old.end()
	}
	v.set.newest = v
}

// errReplaced ends the context of a version that is not wanted any more.
var errReplaced = errors.New("the prompt set was replaced or deleted")

// end ends a version. PromptSets.mu is held.
func (v *version) end() {
	v.cancel(errReplaced)
	v.settle()
}

// settle lets those go on who wait for v. PromptSets.mu is held.
func (v *version) settle() {
	select {
	case <-v.done:
	default:
		close(v.done)
	}
}

// publish makes ready what answers from now on, unless v is over.
func (p *PromptSets) publish(v *version, ready *PromptSet, alpha float64, warnings []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.ctx.Err() != nil {
		return
	}
	v.set.answers.Store(ready)
	v.state, v.reason, v.encoded, v.source, v.alpha, v.warnings = SetReady, "", v.total, ready.ScoreSource, alpha, warnings
	v.settle()
}

// fail makes err what people see of v, unless it answers or is over.
func (p *PromptSets) fail(v *version, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.ctx.Err() == nil {
		p.log.Error("a prompt set cannot be encoded", "prompt_set", v.set.name, "answers", v.state == SetReady, "error", err)
	}
	if v.ctx.Err() == nil && v.state == SetEncoding {
		v.state, v.reason = SetFailed, err.Error()
	}
	v.settle()
}

func (p *PromptSets) state(v *version) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return v.state
}

// waits says why nothing of v is encoded now.
func (p *PromptSets) waits(v *version, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.state == SetEncoding {
		v.reason = "waiting for the encoder: " + err.Error()
	}
}

// progress says how many texts of v are encoded, and of how many.
func (p *PromptSets) progress(v *version, encoded, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.state == SetEncoding {
		v.encoded, v.total, v.reason = encoded, total, ""
	}
}

// Versions that are built are in memory with all their texts. So that these are few, and that a set of some labels does
// not wait for one of a hundred thousand texts, they take turns: brief ones, of so many texts and bytes of examples,
// among themselves, and the others, whose turn ends after a while when another waits.
const (
	briefBuilds = 4 // at once
	longBuilds  = 2
	briefTexts  = 1000
	briefBytes  = 4 << 20
	longestTurn = 10 * time.Second
)

// errTurnOver says that a version goes on when it is its turn again.
var errTurnOver = errors.New("it is another prompt set's turn")

// turnOver says whether v is to let another version go on.
func (v *version) turnOver() bool { return time.Since(v.since) > longestTurn && v.turns.Waiting() }

// run builds v and makes what goes wrong known. It waits for devices that are lost, but not in v's turn.
func (p *PromptSets) run(v *version) {
	for pause := firstRetry; ; {
		err := p.runTurn(v)
		switch {
		case err == nil:
			return
		case errors.Is(err, errTurnOver):
			pause = firstRetry
			continue
		case errors.Is(err, hailo.ErrDeviceLost) && v.ctx.Err() == nil:
			p.waits(v, err)
			if err = sleep(v.ctx, pause); err == nil {
				pause = min(2*pause, lastRetry)
				continue
			}
		}
		p.fail(v, err)
		return
	}
}

// runTurn waits for v's turn and builds v of the definition that is kept. A panic is an error of the set.
func (p *PromptSets) runTurn(v *version) (err error) {
	done, err := v.turns.Take(v.ctx, v.caller)
	if err != nil {
		return err
	}
	defer done()
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("panic while a prompt set was made ready", "prompt_set", v.set.name, "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	v.since = time.Now()
	d, err := p.definition(v.ctx, v.set)
	if err != nil {
		return err
	}
	if sets.ETag(d, p.digests...) != v.etag {
		return errReplaced // by one that is not installed yet
	}
	return p.build(v, &d, true)
}

// job is a version that is being built.
type job struct {
	version    *version
	definition sets.Definition // with those examples that can be used
	labels     []setLabel
	kept       keptRows
	encode     bool     // what is not kept
	warnings   []string // so far
}

// errUnfinished says that something would have to be encoded.
var errUnfinished = errors.New("not all of the set is encoded")

// build makes v ready, of what is kept and, with encode, of what it encodes: texts, and thumbnails of examples by another
// model. It blocks until that is done, or the version is over. Without encode it returns errUnfinished where something is
// missing.
//
// A set is encoded by one text encoder, as vectors of two do not mix: the first one whose device is not lost. Where that is
// not the first of all, the set is encoded again by that one when its device is back; until then build fails with hailo.ErrDeviceLost.
func (p *PromptSets) build(v *version, d *sets.Definition, encode bool) error {
	if err := p.canScore(d); err != nil {
		return err
	}
	j := &job{version: v, kept: p.loadKept(v.ctx, v.set), encode: encode}
	if !encode && len(j.kept) == 0 && v.total > 0 {
		return errUnfinished
	}
	vectors, err := p.useExamples(j, d)
	if err != nil {
		return err
	}
	labels, total := newLabels(&j.definition, vectors)
	j.labels = labels
	for i, encoder := range p.encoders[:v.inUse] {
		if j.loadRows(encoder, p.dim) {
			if err := p.finish(j, i); err != nil {
				return err
			}
			v.inUse = i
			break
		}
	}
	switch {
	case v.inUse == 0:
		return nil
	case !encode:
		return errUnfinished
	}
	for i, encoder := range p.encoders[:v.inUse] {
		j.loadRows(encoder, p.dim)
		encoded := known(labels)
		p.progress(v, encoded, total)
		err = p.encodeRows(v, encoder, labels, func(n int) error {
			encoded += n
			p.progress(v, encoded, total)
			if i > 0 && encoded < total && p.encoders[0].Status().Ready {
				return fmt.Errorf("%w, but is back", hailo.ErrDeviceLost)
			}
			return nil
		})
		if err == nil {
			err = p.finish(j, i)
		}
		if err == nil && i > 0 {
			v.inUse = i
			return hailo.ErrDeviceLost // of the encoders before
		}
		if !errors.Is(err, hailo.ErrDeviceLost) {
			return err
		}
	}
	return err
}

// canScore says what of d the model cannot do.
func (p *PromptSets) canScore(d *sets.Definition) error {
	m := &p.engine.parts.Model
	if d.Activation == "sigmoid" && m.Activation != model.Sigmoid {
		return sets.Fault{Field: "activation", Problem: "must not be sigmoid: model " + m.Name +
			" is not trained for it; pair gives independent answers"}
	}
	return nil
}

// newLabels returns the labels of d, and how many texts they have. vectors are those of the examples, by id.
func newLabels(d *sets.Definition, vectors map[string][]float32) (labels []setLabel, texts int) {
	thresholds := map[string]*sets.Threshold{}
	for i := range d.Labels {
		thresholds[d.Labels[i].Name] = d.Labels[i].Threshold
	}
	for _, e := range d.Entries(sets.Scenes) {
		l := setLabel{Entry: e}
		if e.Role == sets.Ordinary {
			l.threshold = thresholds[e.Name]
		}
		for _, example := range e.Examples {
			l.vectors = append(l.vectors, vectors[example.ID])
		}
		labels, texts = append(labels, l), texts+l.texts()
	}
	return labels, texts
}

// loadRows takes the rows that are kept of an encoder, and says whether those are all.
func (j *job) loadRows(encoder hailo.Backend, dim int) (all bool) {
	all = true
	digest := encoder.Info().TextDigest
	for i := range j.labels {
		l := &j.labels[i]
		if l.encoder != digest {
			l.encoder, l.rows = digest, nil
		}
		if l.rows == nil && len(l.Groups) > 0 {
			l.rows, l.truncated = j.kept.unitRows(l.Key(digest), l.Rows(), dim)
			all = all && l.rows != nil
		}
	}
	return all
}

// known counts the texts of labels whose rows are known.
func known(labels []setLabel) (n int) {
	for i := range labels {
		if labels[i].rows != nil {
			n += labels[i].texts()
		}
	}
	return n
}

// finish makes the version that answers of labels whose texts the encoder of that number has encoded.
func (p *PromptSets) finish(j *job, encoder int) error {
	dim, info, v, d, labels := p.dim, p.encoders[encoder].Info(), j.version, &j.definition, j.labels
	l, err := compile(labels, dim, d.FewShot.Mode, func(classes []fewshot.Class) (*fewshot.Discriminant, error) {
		return p.fit(j, info.TextDigest, classes)
	})
	if err != nil {
		return err
	}
	warnings := slices.Concat(j.warnings, l.warnings, closeNegatives(labels, &l.Labels, dim), cutTexts(labels))
	if encoder > 0 {
		warnings = append(warnings, "the texts are encoded by "+info.Device+", and once more when the device is back")
	}
	ready := &PromptSet{
		Name: v.set.name, ETag: v.etag, ScoreSource: l.source, Labels: l.Labels, Dim: dim,
		Names: make([]string, len(labels)), Truncated: make([]bool, len(labels)), Thresholds: make([]*sets.Threshold, len(labels)),
		Scoring: stages.Scoring{
			Activation: activations[d.Activation], LogitScale: p.engine.config.LogitScale, LogitBias: p.engine.parts.Model.LogitBias,
			Temperature: d.Temperature, TopK: len(d.Labels), MinCosine: d.MinCosine, MinMargin: d.MinMargin,
		},
	}
	for i := range labels {
		l := &labels[i]
		ready.Names[i], ready.Truncated[i], ready.Thresholds[i] = l.Name, l.truncated > 0, l.threshold
	}
	p.publish(v, ready, l.alpha, warnings)
	if v.former {
		v.former = false
		p.dropFormer(v)
	}
	return nil
}
