package clip

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
)

// embedImages makes examples of all images of d. Errors name the image.
func (p *PromptSets) embedImages(ctx context.Context, d *sets.Definition, caller fair.Caller) error {
	lane := pipeline.NewLane(caller, pipeline.Bulk)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running errgroup.Group
	running.SetLimit(p.engine.open)
	var first sync.Once
	var failed error
	all := d.Owners()
	made := make([][]sets.Example, len(all))
	for n, o := range all {
		made[n] = make([]sets.Example, len(*o.Images))
		for i, coded := range *o.Images {
			running.Go(func() error {
				at := fmt.Sprintf("%s.images[%d]", o.Where, i)
				image, err := base64.StdEncoding.DecodeString(coded)
				if err != nil {
					err = sets.Fault{Field: at, Problem: "is not base64"}
				} else if made[n][i], err = p.embedExample(ctx, lane, image); err != nil {
					err = fmt.Errorf("%s: %w", at, err)
				}
				if err != nil {
					first.Do(func() { failed = err })
					cancel() // the others are for nothing
				}
				return nil
			})
		}
	}
	_ = running.Wait()
	for n, o := range all {
		for _, e := range made[n] {
			*o.Examples = addExample(*o.Examples, e)
		}
		*o.Images = nil
	}
	return failed
}

// embedExample makes an example of an image, which may be read until the line is done with it.
func (p *PromptSets) embedExample(ctx context.Context, lane pipeline.Lane, image []byte) (sets.Example, error) {
	result, err := p.engine.run(ctx, &Request{Image: image, Lane: lane}, stages.Request{Embedding: true, Thumbnail: true})
	if err != nil {
		return sets.Example{}, err
	}
	e := p.exampleOf(result.Embedding)
	e.Thumbnail = result.Thumbnail
	return e, nil
}

// exampleOf is an example of a vector by the image encoder in use.
func (p *PromptSets) exampleOf(vector []float32) sets.Example {
	b := sets.FormatVector(vector)
	return sets.Example{ID: sets.ExampleID(b), Model: p.imageDigest(), Vector: b}
}

// addExample appends an example, unless it is there already.
func addExample(list []sets.Example, e sets.Example) []sets.Example {
	if slices.ContainsFunc(list, func(other sets.Example) bool { return other.ID == e.ID }) {
		return list
	}
	return append(list, e)
}

func (p *PromptSets) imageDigest() string { return p.digests[len(p.digests)-1] }

// foreign says that the vector of an example is not of the image encoder in use.
func (p *PromptSets) foreign(e *sets.Example) bool {
	return e.Model != p.imageDigest() || len(e.Vector) != 4*p.dim
}

// thumbnailKey names the vector that the image encoder in use makes of an example's thumbnail.
func (p *PromptSets) thumbnailKey(e *sets.Example) sets.Key {
	return sha256.Sum256([]byte("thumbnail " + p.imageDigest() + " " + string(e.Thumbnail)))
}

// useExamples sets the definition to d with those examples that can be used, and returns their vectors by id. An example
// whose vector is of another image encoder gets one made of its thumbnail, which needs encode where it is not kept; without a
// thumbnail it cannot be used. The stored example stays as it is, so that its own vector is there when its encoder comes back.
func (p *PromptSets) useExamples(j *job, d *sets.Definition) (vectors map[string][]float32, err error) {
	v, vectors := j.version, map[string][]float32{}
	j.definition = *d
	j.definition.Labels = slices.Clone(d.Labels)
	all := j.definition.Owners()
	var missing []*sets.Example
	for _, o := range all {
		for i := range *o.Examples {
			e := &(*o.Examples)[i]
			if !p.foreign(e) {
				vectors[e.ID] = sets.ParseVector(e.Vector)
			} else if e.Thumbnail != nil {
				if vectors[e.ID], _ = j.kept.unitRows(p.thumbnailKey(e), 1, p.dim); vectors[e.ID] == nil {
					missing = append(missing, e)
				}
			}
		}
	}
	if len(missing) > 0 {
		if !j.encode {
			return nil, errUnfinished
		}
		if err := p.embedThumbnails(v, missing, vectors); err != nil {
			return nil, err
		}
	}
	for _, o := range all {
		used, from, useless := []sets.Example(nil), 0, 0
		for i := range *o.Examples {
			switch e := &(*o.Examples)[i]; {
			case vectors[e.ID] == nil:
				useless++
				continue
			case p.foreign(e):
				from++
			}
			used = append(used, (*o.Examples)[i])
		}
		*o.Examples = used
		if from > 0 {
			j.warnings = append(j.warnings,
				fmt.Sprintf("%s: %d examples are of another model: their vectors are made of their thumbnails", o.Where, from))
		}
		if useless > 0 {
			j.warnings = append(j.warnings,
				fmt.Sprintf("%s: %d examples are of another model, without a thumbnail that can be used: they do not count", o.Where, useless))
		}
	}
	return vectors, nil
}

// embedThumbnails adds the vectors of thumbnails, and keeps them. One that cannot be encoded gets none.
func (p *PromptSets) embedThumbnails(v *version, examples []*sets.Example, vectors map[string][]float32) error {
	lane := pipeline.NewLane(fair.Caller{}, pipeline.Bulk)
	keep := p.newKeeper(v)
	var mu sync.Mutex
	var running errgroup.Group
	running.SetLimit(p.engine.open)
	for _, e := range examples {
		running.Go(func() error {
			mu.Lock()
			known := vectors[e.ID] != nil // before the device was lost, or of another label
			mu.Unlock()
			if known {
				return nil
			}
			result, err := p.engine.run(v.ctx, &Request{Image: e.Thumbnail, Lane: lane}, stages.Request{Embedding: true})
			switch {
			case v.ctx.Err() != nil, errors.Is(err, hailo.ErrDeviceLost), errors.Is(err, pipeline.ErrClosed):
				return err
			case err != nil:
				p.log.Warn("the thumbnail of an example cannot be encoded", "example", e.ID, "error", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			vectors[e.ID] = result.Embedding
			keep.add(p.thumbnailKey(e), append([]float32{0}, result.Embedding...))
			return nil
		})
	}
	err := running.Wait()
	keep.flush()
	return err
}
