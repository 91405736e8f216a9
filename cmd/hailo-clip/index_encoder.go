package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"hailoclip/api/bulk"
	"hailoclip/api/client"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/clip"
)

// indexLabels say what images are classified by; with neither they are embedded.
type indexLabels struct {
	Prompt []string `short:"p" xor:"what" sep:"none" placeholder:"TEXT" help:"Classify by descriptions instead of storing embeddings; give several."`
	Set    string   `name:"prompt-set" xor:"what" placeholder:"NAME" help:"Classify by the labels of a prompt set instead, of the service, or with --fleet of the fleet or this host."`
	TopK   int      `short:"k" default:"3" help:"Labels in a row; 0 is all (default ${default})."`
}

func (l *indexLabels) check() error {
	if err := checkPrompts(l.Prompt); err != nil {
		return err
	}
	if l.TopK < 0 {
		return usageError{fmt.Errorf("--top-k: %d is out of bounds: 0 or more", l.TopK)}
	}
	return nil
}

// what names the kind of rows, for the journal; version is that of the set, or of what encodes prompts where the digest of the image
// encoder does not say that, too.
func (l *indexLabels) what(version string) string {
	switch {
	case l.Set != "":
		return fmt.Sprintf("prompt set %s, version %.12s, best %d", l.Set, version, l.TopK)
	case len(l.Prompt) > 0:
		return fmt.Sprintf("%d prompts, %.8x, best %d", len(l.Prompt), sha256.Sum256([]byte(strings.Join(l.Prompt, "\x00")+version)), l.TopK)
	}
	return ""
}

// indexEncoder is an encoder, and what is known of its results.
type indexEncoder struct {
	bulk.Encoder
	dimension int
	what      string
	score     func(vector []float32) []bulk.Match
	prepare   func(ctx context.Context, image []byte) ([]byte, error) // see bulk.Job
}

// tell passes on how far the run is, where somebody wants to know.
func (e indexEncoder) tell(s bulk.Status) {
	if t, ok := e.Encoder.(interface{ Tell(found int64, all bool) }); ok {
		found := s.Encoded + s.UnderWay // not paths: equal images are sent once, and unreadable ones never
		t.Tell(found, s.Enumerated && (s.UnderWay > 0 || s.Complete))
	}
}

// withEncoder calls work with the encoder that the flags name, and closes it afterwards. source is the name of what is indexed.
func (c *indexRunCmd) withEncoder(ctx context.Context, g *globals, source string, work func(indexEncoder) error) error {
	if c.Fleet {
		return c.withFleet(ctx, g, source, work)
	}
	if c.URL != "" || c.Set != "" {
		a := asks{keyFlag: c.keyFlag, URL: c.URL}
		return a.service(ctx, g, func(s *client.Client) error {
			e, err := c.serviceEncoder(ctx, s)
			if err != nil {
				return err
			}
			return errors.Join(work(e), e.Close(ctx))
		})
	}
	return withEngine(ctx, g, func(e *engine) error {
		own := indexEncoder{dimension: e.Dimension(), what: c.what("")}
		var err error
		if own.score, err = c.score(ctx, e); err != nil {
			return err
		}
		own.Encoder = ownEncoder(e.Engine)
		return errors.Join(work(own), own.Close(ctx))
	})
}

// score makes matches of vectors; nil: there are no prompts.
func (l *indexLabels) score(ctx context.Context, e *engine) (func([]float32) []bulk.Match, error) {
	if len(l.Prompt) == 0 {
		return nil, nil
	}
	prompts, err := e.EmbedTexts(ctx, fair.Caller{}, l.Prompt)
	if err != nil {
		return nil, err
	}
	labels, scoring := e.LabelsOf(prompts)
	return l.rank(labels, scoring, l.Prompt), nil
}

// rank makes the matches that a service answers with.
func (l *indexLabels) rank(labels *stages.Labels, scoring stages.Scoring, names []string) func([]float32) []bulk.Match {
	scoring.TopK = cmp.Or(l.TopK, labels.N)
	return func(vector []float32) []bulk.Match {
		ranked, _ := stages.Rank(vector, labels, scoring, nil)
		list := make([]bulk.Match, len(ranked))
		for i, m := range ranked {
			list[i] = bulk.Match{Label: names[m.Label], Score: m.Score, Probability: m.Probability, Cosine: m.Cosine}
		}
		return list
	}
}

// ownEncoder is the engine of this process.
func ownEncoder(e *clip.Engine) *bulk.Direct {
	lane := pipeline.NewLane(fair.Caller{}, pipeline.Bulk)
	digest := bulk.Prepared(e.ImageDigest(), e.Preparation())
	return bulk.NewDirect(e.Model(), digest, 2*e.AtOnce(), func(ctx context.Context, image []byte) ([]float32, []bulk.Match, error) {
		r, err := e.EmbedImage(ctx, &clip.Request{Image: image, Lane: lane})
		if clip.ImageFault(err) != "" {
			return nil, nil, fmt.Errorf("%w: %w", bulk.ErrImage, err)
		}
		return r.Embedding, nil, err
	})
}
