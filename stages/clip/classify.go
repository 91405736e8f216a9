package clip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// Request is an image and what to do with it.
type Request struct {
	Image     []byte // compressed, or as Raw says; it is only read
	Raw       decode.Raw
	Prompts   []string // to classify by. The strings may be kept, the slice is not
	PromptSet string   // to classify by instead of Prompts: the name of a set
	TopK      int      // at most so many matches; 0: all
	Cut       bool     // leave out the matches whose score is below Threshold
	Threshold float64
	Logits    bool          // the result has the logits of all labels, too
	Embedding bool          // the result has the embedding, too
	Lane      pipeline.Lane // where it enters

	Regions []Region                        // parts of the image that are answered for each by itself; none: the whole image
	Seen    func(stages.Pixels) (skip bool) // see stages.Request
	Into    *stages.Result                  // likewise: with the Result of an earlier request, no memory is taken for that of this one; not by batches

	// Release is called exactly once, whatever the call returns, when nothing reads the memory of Image any more: with an
	// error that may be after the call has returned. It must not block. May be nil.
	Release func()
}

// Region is a part of the image, see stages.Region. PromptSet "" stands for what the request is classified by; with a set for each
// region it need not have anything. TopK, Cut and Threshold are the request's.
type Region struct {
	X, Y, W, H float64
	PromptSet  string
}

// Result is what became of a request.
type Result struct {
	stages.Result
	Prompts  *cache.Prompts // the vectors of Request.Prompts, in their order; shared, only to be read
	Set      *PromptSet     // the version of Request.PromptSet that was used
	TextTime time.Duration  // that getting Prompts took

	Labels  *stages.Labels // what the image was compared with, also for Prompts; shared, only to be read. nil by EmbedImage
	Scoring stages.Scoring // and how, with what the request says of it
	Sets    []*PromptSet   // by region: the version of its own set; nil: it has none. Not by EmbedImage
}

// Classify says which of the prompts, or labels of the prompt set, fit the image. It blocks until that is known or ctx ends.
//
// Errors: of package pipeline ErrQueueFull, ErrSuperseded, ErrClosed, a PanicError, and ErrDeadline with the cause of ctx
// when that has ended; of packages decode and resize for the image, of cache for the prompts, of PromptSets.Ready for the set;
// those of hailo.Backend; stages.ErrRegion.
func (e *Engine) Classify(ctx context.Context, r *Request) (Result, error) {
	start, given := time.Now(), false
	defer func() {
		if !given && r.Release != nil {
			r.Release()
		}
	}()
	answers, err := e.answers(ctx, r, e.EmbedTexts)
	if err != nil {
		return Result{}, err
	}
	took := time.Since(start)
	given = true
	result, err := e.classify(ctx, r, answers)
	result.TextTime = took
	return result, err
}

// answers is what images are classified by: labels of a set or prompts.
type answers struct {
	labels  *stages.Labels
	scoring stages.Scoring // of which the request has its own part
	prompts *cache.Prompts // nil: it is set
	set     *PromptSet
	sets    []*PromptSet // of regions, nil where one has none; none: no region has one
}

// answers finds what r is classified by; embed gets the vectors of its prompts.
func (e *Engine) answers(
	ctx context.Context, r *Request, embed func(context.Context, fair.Caller, []string) (*cache.Prompts, error),
) (answers, error) {
	sets, own, err := e.setsOf(r.Regions)
	if err != nil {
		return answers{}, err
	}
	if r.PromptSet != "" {
		set, err := e.sets.Ready(r.PromptSet)
		if err != nil {
			return answers{}, err
		}
		return answers{labels: &set.Labels, scoring: set.Scoring, set: set, sets: sets}, nil
	}
	if own && len(r.Prompts) == 0 {
		return answers{sets: sets}, nil
	}
	prompts, err := embed(ctx, r.Lane.Caller, r.Prompts)
	if err != nil {
		return answers{}, err
	}
	labels, scoring := e.LabelsOf(prompts)
	return answers{labels: labels, scoring: scoring, prompts: prompts, sets: sets}, nil
}

// LabelsOf makes labels of the vectors of prompts, and says how images are compared with them, but for what a request says of it.
func (e *Engine) LabelsOf(prompts *cache.Prompts) (*stages.Labels, stages.Scoring) {
	scoring := stages.Scoring{LogitScale: e.config.LogitScale}
	if !e.config.ApplySoftmax {
		scoring.Activation = stages.None
	}
	return &stages.Labels{N: len(prompts.Rows), Rows: prompts.Matrix}, scoring
}

// setsOf returns the sets of regions, none if no region has one, and whether each of them has.
func (e *Engine) setsOf(regions []Region) (sets []*PromptSet, all bool, err error) {
	all = len(regions) > 0
	for i := range regions {
		if regions[i].PromptSet == "" {
			all = false
			continue
		}
		set, err := e.sets.Ready(regions[i].PromptSet)
		if err != nil {
			return nil, false, fmt.Errorf("region %d: %w", i, err)
		}
		if sets == nil {
			sets = make([]*PromptSet, len(regions))
		}
		sets[i] = set
	}
	return sets, all, nil
}

func (e *Engine) classify(ctx context.Context, r *Request, a answers) (Result, error) {
	l := stages.Request{Labels: a.labels, Logits: r.Logits, Embedding: r.Embedding, Regions: regionsOf(r.Regions)}
	if a.labels != nil {
		a.scoring = scoringOf(r, a.labels, a.scoring)
		l.Scoring = a.scoring
	}
	for i, set := range a.sets {
		if set != nil {
			l.Regions[i].Labels, l.Regions[i].Scoring = &set.Labels, scoringOf(r, &set.Labels, set.Scoring)
		}
	}
	result, err := e.run(ctx, r, l)
	result.Prompts, result.Set, result.Labels, result.Scoring, result.Sets = a.prompts, a.set, a.labels, a.scoring, a.sets
	return result, err
}

// scoringOf is that of labels with the request's own part.
func scoringOf(r *Request, labels *stages.Labels, s stages.Scoring) stages.Scoring {
	s.TopK, s.Cut, s.Threshold = cmp.Or(r.TopK, labels.N), r.Cut, r.Threshold
	return s
}

// regionsOf are the regions as the line takes them, without labels.
func regionsOf(regions []Region) (list []stages.Region) {
	if len(regions) > 0 {
		list = make([]stages.Region, len(regions))
	}
	for i, r := range regions {
		list[i] = stages.Region{X: r.X, Y: r.Y, W: r.W, H: r.H}
	}
	return list
}

// EmbedImage returns the embedding of the image, or those of its regions. It blocks and fails as Classify does.
func (e *Engine) EmbedImage(ctx context.Context, r *Request) (Result, error) {
	return e.run(ctx, r, stages.Request{Embedding: true, Regions: regionsOf(r.Regions)})
}

// Thumbnails returns a small JPEG of each region of the image, without regions one of the image: see stages.Thumbnail. The image is
// decoded in a bulk lane of the caller's: it is never refused, takes no place of other requests and is not superseded. Only Image, Raw,
// Regions, the caller of Lane, and Release of r are looked at. It blocks and fails as Classify does.
func (e *Engine) Thumbnails(ctx context.Context, r *Request) ([][]byte, error) {
	var jpegs [][]byte
	var failed error
	l := Request{Image: r.Image, Raw: r.Raw, Lane: pipeline.NewLane(r.Lane.Caller, pipeline.Bulk), Release: r.Release}
	regions := regionsOf(r.Regions)
	l.Seen = func(whole stages.Pixels) bool {
		parts := []stages.Pixels{whole}
		for i, r := range regions {
			parts = append(parts[:i], whole.Crop(r))
		}
		for _, p := range parts {
			jpeg, err := stages.Thumbnail(p)
			jpegs, failed = append(jpegs, jpeg), errors.Join(failed, err)
		}
		return true // no more is wanted
	}
	if _, err := e.run(ctx, &l, stages.Request{Regions: regions}); err != nil {
		return nil, err // a worker may still be making some
	}
	return jpegs, failed
}

// run takes the image of r through the line, or has it encoded elsewhere.
func (e *Engine) run(ctx context.Context, r *Request, l stages.Request) (Result, error) {
	if result, ok, err := e.spill(ctx, r, &l); ok {
		return result, err
	}
	return e.runHere(ctx, r, l)
}

func (e *Engine) runHere(ctx context.Context, r *Request, l stages.Request) (Result, error) {
	l.Image, l.Raw, l.Lane, l.Seen, l.Into, l.Release = r.Image, r.Raw, r.Lane, r.Seen, r.Into, r.Release
	result, err := e.line.Do(ctx, &l)
	if err == nil && e.parts.Observe != nil {
		e.parts.Observe(result.Times)
	}
	return Result{Result: result}, err
}

// EmbedTexts returns the vectors of texts for a caller, in their order. It blocks until they are there or ctx ends. The
// next text encoder is asked only while the one before has lost its device: what that has in the cache is still good.
// Errors: those of package cache, of hailo.Backend, and pipeline.ErrDeadline with the cause of ctx.
func (e *Engine) EmbedTexts(ctx context.Context, caller fair.Caller, texts []string) (*cache.Prompts, error) {
	return e.embed(ctx, caller, texts, (*cache.TextEmbeddings).Get)
}

// awaitTexts is EmbedTexts for a batch: it is never refused, see cache.TextEmbeddings.Await.
func (e *Engine) awaitTexts(ctx context.Context, caller fair.Caller, texts []string) (*cache.Prompts, error) {
	return e.embed(ctx, caller, texts, (*cache.TextEmbeddings).Await)
}

func (e *Engine) embed(
	ctx context.Context, caller fair.Caller, texts []string,
	get func(*cache.TextEmbeddings, context.Context, fair.Caller, []string) (*cache.Prompts, error),
) (found *cache.Prompts, err error) {
	for _, encoder := range e.texts {
		if found, err = get(encoder, ctx, caller, texts); !errors.Is(err, hailo.ErrDeviceLost) {
			break
		}
	}
	return found, late(ctx, err)
}

// EmbedTextBatch returns the vector or the error of each text, in their order. The texts wait for the encoder however many
// others do, in turn with those of other callers. It blocks until all are there or ctx ends. The next text encoder is
// asked as by EmbedTexts, whose errors these are but for cache.ErrBusy.
func (e *Engine) EmbedTextBatch(ctx context.Context, caller fair.Caller, texts []string) (vectors []cache.Vector, errs []error) {
	for _, encoder := range e.texts {
		vectors, errs = encoder.AwaitEach(ctx, caller, texts)
		if !errors.Is(errors.Join(errs...), hailo.ErrDeviceLost) {
			break
		}
	}
	for i := range errs {
		errs[i] = late(ctx, errs[i])
	}
	return vectors, errs
}

// EmbedText is EmbedTexts for a single text.
func (e *Engine) EmbedText(ctx context.Context, caller fair.Caller, text string) (cache.Vector, error) {
	found, err := e.EmbedTexts(ctx, caller, []string{text})
	if err != nil {
		return cache.Vector{}, err
	}
	return found.Rows[0], nil
}

// late is pipeline.ErrDeadline with the cause of ctx if ctx has ended, else err. Encoders report the end of ctx in words
// of their own, and an error after it is most likely that.
func late(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return pipeline.Late(ctx)
}

// Batch is many images.
type Batch struct {
	Len    int
	AtOnce int                              // images that are open at a time; 0: as many as keep the line busy
	Known  func(*cache.Prompts)             // told the vectors of the prompts before the first image, not with a set; nil: nobody is
	Open   func(i int) ([]byte, error)      // image i; called once for each, several at a time
	Raw    func(i int) decode.Raw           // what kind of raw frame that is, zero for a compressed image; nil: all are compressed
	Done   func(i int, r Result, err error) // what came of it, or why not; called once for each, one at a time
}

// ClassifyBatch is Classify with the prompts of r, or the set as it is at the beginning, for every image of b. They enter by a
// bulk lane of the caller's, so that none is refused (nor are their prompts), and some are open at a time. An image that
// fails, to be opened too, fails alone. r.Release is called for each that was opened. Once ctx has ended no more are opened,
// and Done is not called for those. The error is of the prompts or the set, the cause of ctx when that has ended, or a
// pipeline.PanicError of Open or Done.
func (e *Engine) ClassifyBatch(ctx context.Context, r Request, b Batch) error {
	answers, err := e.answers(ctx, &r, e.awaitTexts)
	if err != nil {
		return err
	}
	if b.Known != nil && answers.prompts != nil {
		b.Known(answers.prompts)
	}
	return e.each(ctx, r, b, func(r *Request) (Result, error) { return e.classify(ctx, r, answers) })
}

// EmbedImageBatch is ClassifyBatch without prompts: it embeds the images.
func (e *Engine) EmbedImageBatch(ctx context.Context, r Request, b Batch) error {
	return e.each(ctx, r, b, func(r *Request) (Result, error) { return e.EmbedImage(ctx, r) })
}

// each does one thing with every image of a batch. It returns when the last one is done.
func (e *Engine) each(ctx context.Context, r Request, b Batch, do func(*Request) (Result, error)) error {
	r.Lane, r.Into = pipeline.NewLane(r.Lane.Caller, pipeline.Bulk), nil
	var running errgroup.Group
	running.SetLimit(cmp.Or(b.AtOnce, e.open))
	var one sync.Mutex // calls Done
	with := func(i int) (failed error) {
		defer pipeline.Recover("batch", &failed)
		r, result := r, Result{}
		var err error
		if b.Raw != nil {
			r.Raw = b.Raw(i)
		}
		if r.Image, err = b.Open(i); err == nil {
			result, err = do(&r)
		}
		one.Lock()
		defer one.Unlock()
		b.Done(i, result, err)
		return nil
	}
	if b.Len == 1 && ctx.Err() == nil {
		return cmp.Or(with(0), context.Cause(ctx)) // whose goroutine has its stack already
	}
	for i := 0; i < b.Len && ctx.Err() == nil; i++ {
		running.Go(func() error { return with(i) })
	}
	return cmp.Or(running.Wait(), context.Cause(ctx)) // errors of images went to Done
}
