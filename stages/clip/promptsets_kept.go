package clip

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/stages/fewshot"
)

// keptRows is what the file holds of a set beside its definition, all of which is made again where it is missing or not
// sound: rows of labels and vectors of thumbnails, each after the number of texts that were cut; discriminants, as alpha,
// the bias and the rows.
type keptRows map[sets.Key][]float32

// loadKept returns what is kept of a set: nothing where that cannot be read.
func (p *PromptSets) loadKept(ctx context.Context, s *promptSet) keptRows {
	if p.parts.File == nil {
		return nil
	}
	rows, err := p.parts.File.Rows(ctx, s.rowsIn())
	if err != nil && !errors.Is(err, sets.ErrNotFound) && ctx.Err() == nil {
		p.log.Warn("what was encoded of a prompt set cannot be read, and is encoded again", "prompt_set", s.name, "error", err)
	}
	return rows
}

// rowsIn is where the store has the rows of s.
func (s *promptSet) rowsIn() string {
	if s.fixed != nil {
		return sets.Shared
	}
	return s.name
}

// unitRows returns n rows of a label, and how many of its texts were cut; nil where they are not kept.
func (k keptRows) unitRows(key sets.Key, n, dim int) (rows []float32, cut int) {
	numbers := k[key]
	if len(numbers) != 1+n*dim {
		return nil, 0
	}
	for i := 1; i < len(numbers); i += dim {
		if !isUnit(numbers[i : i+dim]) {
			return nil, 0
		}
	}
	return numbers[1:], int(numbers[0])
}

// discriminantKey names the discriminant of labels, whose texts the encoder of that digest has encoded.
func (p *PromptSets) discriminantKey(digest string, labels []setLabel, alpha sets.Alpha) sets.Key {
	h := sha256.New()
	fmt.Fprintln(h, "discriminant", digest, p.imageDigest(), p.engine.config.LogitScale, float64(alpha))
	for i := range labels {
		key := labels[i].Key(digest)
		_, _ = h.Write(key[:])
		for _, e := range labels[i].Examples {
			fmt.Fprint(h, " ", e.ID, p.foreign(&e))
		}
	}
	return sets.Key(h.Sum(nil))
}

// rowKeys names all that may be kept of a set that is d.
func (p *PromptSets) rowKeys(d *sets.Definition) (keys []sets.Key) {
	labels, _ := newLabels(d, nil)
	for _, encoder := range p.encoders {
		digest := encoder.Info().TextDigest
		for i := range labels {
			keys = append(keys, labels[i].Key(digest))
		}
		keys = append(keys, p.discriminantKey(digest, labels, d.FewShot.Alpha))
	}
	for _, o := range d.Owners() {
		for i := range *o.Examples {
			keys = append(keys, p.thumbnailKey(&(*o.Examples)[i]))
		}
	}
	return keys
}

// fit returns the discriminant of classes, whose texts the encoder of that digest has encoded. It is fitted where it is not
// kept, one at a time for all sets; without encode that is errUnfinished.
func (p *PromptSets) fit(j *job, digest string, classes []fewshot.Class) (*fewshot.Discriminant, error) {
	n, v, alpha := len(classes), j.version, j.definition.FewShot.Alpha
	key := p.discriminantKey(digest, j.labels, alpha)
	if numbers := j.kept[key]; len(numbers) == 1+n*(p.dim+1) {
		return &fewshot.Discriminant{Alpha: shortest(numbers[0]), Bias: numbers[1 : 1+n], Rows: numbers[1+n:]}, nil
	}
	if !j.encode {
		return nil, errUnfinished
	}
	done, err := p.fitting.Take(v.ctx, v.caller)
	if err != nil {
		return nil, err
	}
	defer done()
	d, err := fewshot.Fit(classes, p.engine.config.LogitScale, float64(alpha))
	if err == nil {
		keep := p.newKeeper(v)
		keep.add(key, slices.Concat([]float32{float32(d.Alpha)}, d.Bias, d.Rows))
		keep.flush()
	}
	return d, err
}

// shortest is the number with the fewest digits that x may stand for: 0.1 and not 0.10000000149.
func shortest(x float32) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	return f
}

// longEncoding is how many texts take so long to encode that a restart meanwhile should not leave a set without answers:
// about a second.
const longEncoding = 64

// answering is what answered when a version was put that takes long to encode, as it is kept.
type answering struct {
	Digests []string // as PromptSets.digests
	Set     *PromptSet
}

// former returns what is to be kept of the version of s that answers now, because d takes long to encode; nil when it does
// not, or there is none.
func (p *PromptSets) former(ctx context.Context, s *promptSet, d *sets.Definition) []byte {
	ready := s.answers.Load()
	if ready == nil {
		return nil
	}
	labels, total := newLabels(d, nil)
	if total < longEncoding {
		return nil
	}
	j := &job{kept: p.loadKept(ctx, s), labels: labels}
	if j.loadRows(p.encoders[0], p.dim); total-known(labels) < longEncoding {
		return nil
	}
	text, _ := json.Marshal(answering{p.digests, ready}) // finite numbers always work
	return text
}

// answerAsBefore has s answer by what former has returned before a restart, unless the model is another one.
func (p *PromptSets) answerAsBefore(s *promptSet, former []byte) {
	var a answering
	switch {
	case len(former) == 0:
	case json.Unmarshal(former, &a) != nil || a.Set == nil || a.Set.Dim != p.dim:
		p.log.Warn("the former version of a prompt set cannot be read, and does not answer", "prompt_set", s.name)
	case slices.Equal(a.Digests, p.digests):
		s.answers.Store(a.Set)
	}
}

// dropFormer removes what former has returned, now that v answers. Where that fails it is removed after the next restart.
func (p *PromptSets) dropFormer(v *version) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx), diskTime)
	defer cancel()
	err := p.parts.File.DropFormer(ctx, v.set.name, func() bool { return !errors.Is(context.Cause(v.ctx), errReplaced) })
	if err != nil && !errors.Is(err, sets.ErrNotFound) {
		p.log.Warn("the former version of a prompt set cannot be removed", "prompt_set", v.set.name, "error", err)
	}
}

// keeper writes what is kept of a version, not all at once and not each by itself. What cannot be written is made again
// after a restart. Safe for concurrent use.
type keeper struct {
	sets    *PromptSets
	version *version

	mu      sync.Mutex
	waiting keptRows
	since   time.Time // of the oldest of them
	lost    bool      // some could not be written
}

const (
	keepEvery = time.Second      // how much encoding a crash costs, at most
	diskTime  = 10 * time.Second // after which what cannot be written is not waited for
)

func (p *PromptSets) newKeeper(v *version) *keeper {
	return &keeper{sets: p, version: v, waiting: keptRows{}}
}

func (k *keeper) add(key sets.Key, numbers []float32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) == 0 {
		k.since = time.Now()
	}
	if k.waiting[key] = numbers; time.Since(k.since) >= keepEvery {
		k.write()
	}
}

// flush writes what waits, and says whether all that was ever added is kept.
func (k *keeper) flush() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.write()
	return !k.lost
}

func (k *keeper) write() {
	p := k.sets
	if len(k.waiting) > 0 && p.parts.File != nil && !errors.Is(context.Cause(k.version.ctx), errReplaced) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(k.version.ctx), diskTime) // while the program ends, too
		defer cancel()
		err := p.parts.File.PutRows(ctx, k.version.set.rowsIn(), k.waiting)
		k.lost = k.lost || err != nil
		if err != nil && !errors.Is(err, sets.ErrNotFound) {
			p.log.Warn("what was encoded of a prompt set cannot be kept", "prompt_set", k.version.set.name, "error", err)
		}
	}
	k.waiting = keptRows{}
}
