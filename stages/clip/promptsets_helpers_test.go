package clip

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// painter is a model for which an image points into the direction of its colour, and a text into that of the first colour
// that it names, and a little elsewhere. Two painters of other names make other vectors.
type painter struct {
	name   string
	frames *hailo.Frames
	away   atomic.Bool   // its device is lost
	gate   chan struct{} // holds a value for each batch of texts that may be encoded; nil: all may
	fail   func(text string) error

	mu     sync.Mutex
	texts  []string // encoded
	most   int      // batches of texts at once
	inside int
	images atomic.Int32 // encoded
}

const (
	paintedBatch = 4
	paintedDim   = 3
)

func (p *painter) Frames() *hailo.Frames { return p.frames }
func (p *painter) Close() error          { return nil }
func (p *painter) Info() hailo.Info {
	return hailo.Info{
		Backend: "cpu", Device: p.name, ImageBatch: 1, ImageCalls: 1, TextBatch: paintedBatch,
		TextDigest: "texts of " + p.name, ImageDigest: "images of " + p.name,
	}
}

func (p *painter) Status() hailo.Status { return hailo.Status{Ready: !p.away.Load()} }

func (p *painter) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		p.images.Add(1)
		v := []float32{float32(f.Pixels[0]), float32(f.Pixels[1]), float32(f.Pixels[2])}
		p.turn(v)
		if err := hailo.Normalize(f.Embedding, v); err != nil {
			return fmt.Errorf("%w: %w", hailo.ErrEncode, err)
		}
	}
	return nil
}

// turn makes the vectors of another painter other ones.
func (p *painter) turn(v []float32) {
	if p.name == "another" {
		v[0], v[1], v[2] = v[2], v[0], v[1]
	}
}

func (p *painter) vector(text string) ([]float32, error) {
	at := len(text)
	var c color.RGBA
	for name, colour := range colours {
		if i := strings.Index(text, name); i >= 0 && i < at {
			at, c = i, colour
		}
	}
	if at == len(text) {
		return nil, fmt.Errorf("%w: %q has no colour", hailo.ErrEncode, text)
	}
	h := fnv.New32()
	h.Write([]byte(text))
	v := []float32{float32(c.R), float32(c.G), float32(c.B)}
	for i := range v {
		v[i] += float32(h.Sum32()>>(8*i)&0xff) / 10
	}
	p.turn(v)
	return v, hailo.Normalize(v, v)
}

func (p *painter) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	p.mu.Lock()
	p.inside++
	p.most = max(p.most, p.inside)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inside--
	}()
	if p.gate != nil {
		select {
		case <-p.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if p.away.Load() {
		return nil, hailo.ErrDeviceLost
	}
	vectors := make([][]float32, len(tokens))
	for i, t := range tokens {
		var text []byte
		for _, b := range t {
			text = append(text, byte(b))
		}
		err := error(nil)
		if p.fail != nil {
			err = p.fail(string(text))
		}
		if err == nil {
			vectors[i], err = p.vector(string(text))
		}
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.texts = append(p.texts, string(text))
		p.mu.Unlock()
	}
	return vectors, nil
}

// count returns how many texts were encoded since it was called last.
func (p *painter) count() int { return len(p.encoded()) }

func (p *painter) encoded() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	texts := p.texts
	p.texts = nil
	return texts
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// house is an engine with prompt sets in a file, which can be closed and opened again.
type house struct {
	t       testing.TB
	path    string
	painter *painter
	encoder hailo.Backend   // of images; nil: painter
	others  []hailo.Backend // of texts, after painter
	fixed   map[string]sets.Definition
	sigmoid bool
	room    int64
	log     *slog.Logger

	*Engine
	sets *PromptSets
}

func newHouse(t testing.TB, p *painter) *house {
	h := &house{t: t, path: filepath.Join(t.TempDir(), sets.FileName), painter: p, log: slog.New(slog.DiscardHandler)}
	t.Cleanup(h.close)
	return h
}

func (h *house) open() *house {
	h.t.Helper()
	store, err := sets.Open(h.path)
	if err != nil && !errors.Is(err, sets.ErrDamaged) {
		h.t.Fatal(err)
	}
	lost := err
	h.painter.frames = hailo.NewHeapFrames(4, 8, paintedDim)
	prompts := cache.OpenStore(cache.Config{
		Mode: cache.OnDemand, CacheMaxEntries: 1, CacheListBytes: 64 << 10, CacheFileMaxBytes: 4 << 20, MaxPending: 100,
	}, "", h.log)
	m := model.Manifest{Name: h.painter.name, ImageSize: 8, EmbeddingDimension: paintedDim, LogitScale: 10, Activation: model.Softmax}
	if h.sigmoid {
		m.Activation, m.LogitBias = model.Sigmoid, -5
	}
	h.Engine, err = New(
		Config{ApplySoftmax: true, Images: stages.Config{
			Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitCrop}}},
		pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100},
		Parts{
			Model: m,
			Tokenize: func(text string) (tokens []int32, cut bool) {
				for _, b := range []byte(text[:min(len(text), 100)]) {
					tokens = append(tokens, int32(b))
				}
				return tokens, len(text) > 100
			},
			Images: cmp.Or[hailo.Backend](h.encoder, h.painter), Texts: append([]hailo.Backend{h.painter}, h.others...), Encoders: h.painter,
			Store: prompts, Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 100),
			Sets: SetParts{File: store, Lost: lost, Configured: h.fixed, Limits: sets.Limits{PromptBytes: 1000}, MaxBytes: h.room, Log: h.log},
		})
	if err != nil {
		h.t.Fatal(err)
	}
	h.sets = h.PromptSets()
	return h
}

func (h *house) close() {
	if h.Engine != nil {
		if err := h.Close(context.Background()); err != nil {
			h.t.Error(err)
		}
		h.Engine = nil
	}
}

func (h *house) reopen() *house {
	h.close()
	return h.open()
}

// put fails the test where Put fails.
func (h *house) put(name string, d sets.Definition) SetInfo {
	h.t.Helper()
	info, _, err := h.sets.Put(h.t.Context(), name, d, Condition{})
	if err != nil {
		h.t.Fatal(err)
	}
	return info
}

// best is what the set answers to an image of one colour.
func (h *house) best(set, colour string) string {
	h.t.Helper()
	r, err := h.Classify(h.t.Context(), &Request{Image: imageOf(h.t, colour), PromptSet: set, TopK: 1})
	if err != nil {
		h.t.Fatal(err)
	}
	return r.Set.Names[r.Matches[0].Label]
}

// settled waits until the newest version of a set is ready or has failed.
func (h *house) settled(name string) SetInfo {
	h.t.Helper()
	<-h.sets.newest((*h.sets.all.Load())[name]).done
	info, err := h.sets.Info(h.t.Context(), name, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return info
}

// labels makes a definition of names and their prompts: "cat=a red cat|a red tom", "!sky=blue" is negative.
func labels(list ...string) (d sets.Definition) {
	for _, l := range list {
		name, prompts, has := strings.Cut(l, "=")
		label := sets.Label{Name: strings.TrimPrefix(name, "!"), Negative: name[0] == '!'}
		if has {
			label.Prompts = strings.Split(prompts, "|")
		}
		d.Labels = append(d.Labels, label)
	}
	return d
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// shade is an image of one colour, in base64.
func shade(t testing.TB, r, g, b uint8) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		m.Set(i%8, i/8, color.RGBA{r, g, b, 255})
	}
	var buffer bytes.Buffer
	if err := png.Encode(&buffer, m); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(buffer.Bytes())
}

// isFault is is for a fault of that field of a definition.
func isFault(t testing.TB, err error, field string) {
	t.Helper()
	var fault sets.Fault
	if !errors.As(err, &fault) || fault.Field != field {
		t.Errorf("error %v, want one of %s", err, field)
	}
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
