package clip

import (
	"bytes"
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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
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
			Images: h.painter, Texts: append([]hailo.Backend{h.painter}, h.others...), Encoders: h.painter,
			Store: prompts, Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 100),
			Sets: SetParts{Store: store, Lost: lost, Configured: h.fixed, Limits: sets.Limits{PromptBytes: 1000}, MaxBytes: h.room, Log: h.log},
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

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// TestPromptSet goes through the life of one: it answers as soon as it is there, a change encodes no more than what is
// new, and conditions hold.
func TestPromptSet(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	_, err := h.Classify(t.Context(), &Request{Image: imageOf(t, "red"), PromptSet: "traffic"})
	is(t, err, ErrNoSet)
	info, created, err := h.sets.Put(t.Context(), "traffic", labels("stop=a red light|a red lamp", "go=a green light"), Condition{IfNoneMatch: true})
	if err != nil || !created || info.State != SetReady || info.Encoded != 3 || info.Total != 3 || info.ScoreSource != "text" || p.count() != 3 {
		t.Fatalf("created %v, %+v: %v", created, info, err)
	}
	if got := h.best("traffic", "red") + h.best("traffic", "green"); got != "stopgo" {
		t.Errorf("answers %s", got)
	}
	again, created, err := h.sets.Put(t.Context(), "traffic", labels("stop=a red light|a red lamp", "go=a green light"), Condition{IfMatch: info.ETag})
	if err != nil || created || again.ETag != info.ETag || p.count() != 0 {
		t.Errorf("the same again: %+v: %v", again, err)
	}
	_, _, err = h.sets.Put(t.Context(), "traffic", labels("stop=red"), Condition{IfNoneMatch: true})
	is(t, err, ErrPrecondition)
	changed, created, err := h.sets.Put(t.Context(), "traffic", labels("go=a green light", "stop=a red light|a red lamp", "wait=a blue lamp"), Condition{IfMatch: "*"})
	if got := p.encoded(); err != nil || created || changed.ETag == info.ETag || !slices.Equal(got, []string{"a blue lamp"}) {
		t.Errorf("%q encoded: %v", got, err)
	}
	_, _, err = h.sets.Put(t.Context(), "traffic", labels("stop=red"), Condition{IfMatch: info.ETag})
	is(t, err, ErrPrecondition)
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{IfMatch: info.ETag}), ErrPrecondition)
	_, _, err = h.sets.Put(t.Context(), "none", labels("stop=red"), Condition{IfMatch: "*"})
	is(t, err, ErrPrecondition)
	h.put("a", labels("red"))
	if got := p.encoded(); len(got) != 7 || !slices.Contains(got, "itap of a red.") {
		t.Errorf("a name alone: %q", got)
	}
	list, err := h.sets.List()
	want := []SetSummary{{"a", 1, SetReady, h.settled("a").ETag, "one", false}, {"traffic", 3, SetReady, changed.ETag, "one", false}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%+v: %v", list, err)
	}
	got, err := h.sets.Info(t.Context(), "traffic", true)
	if err != nil || got.ETag != changed.ETag || len(got.Labels) != 3 || got.Labels[1].Prompts[1] != "a red lamp" {
		t.Errorf("%+v: %v", got, err)
	}
	if st := h.Stats().Sets; st.Sets != 2 || st.Encoded != 11 || st.Bytes != 4*paintedDim*4 || st.Encoding+st.Failed+st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = h.sets.Ready("traffic") }); n != 0 {
		t.Errorf("asking for a set allocates %v times", n)
	}
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{IfMatch: changed.ETag}), nil)
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{}), ErrNoSet)
	_, err = h.sets.Ready("traffic")
	is(t, err, ErrNoSet)
	_, err = h.sets.Info(t.Context(), "traffic", false)
	is(t, err, ErrNoSet)
}

// TestPooling compares rows with an independent computation.
func TestPooling(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	d := labels("x=red|blue", "y=green|red|blue")
	d.Templates = &sets.Templates{List: []string{"{}", "the {}"}}
	d.Labels[1].Pool = "max"
	h.put("s", d)
	mean := func(texts ...string) []float32 {
		sum := make([]float32, paintedDim)
		for _, text := range texts {
			v, _ := p.vector(text)
			for i := range v {
				sum[i] += v[i]
			}
		}
		if err := hailo.Normalize(sum, sum); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	want := slices.Concat(mean("red", "the red", "blue", "the blue"), mean("green", "the green"), mean("red", "the red"), mean("blue", "the blue"))
	s, err := h.sets.Ready("s")
	if err != nil || !slices.Equal(s.Labels.Of, []int32{0, 1, 1, 1}) || s.Labels.N != 2 || len(s.Labels.Rows) != len(want) {
		t.Fatalf("%+v: %v", s, err)
	}
	for i := range want {
		if d := math.Abs(float64(s.Labels.Rows[i] - want[i])); d > 1e-6 {
			t.Errorf("number %d is %v, want %v", i, s.Labels.Rows[i], want[i])
		}
	}
}

// TestRestart opens the same file again: nothing is encoded, and all is as it was, byte for byte.
func TestRestart(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p)
	h.fixed = map[string]sets.Definition{"fixed": labels("red").Normalized()}
	h.open()
	h.put("texts", labels("red=a red thing|red", "green=green", "!blue=blue"))
	d := labels("red=red", "green=green")
	d.Background.Auto, d.Background.Prompts = false, []string{"blue"}
	d.Labels[0].Images = []string{shade(t, 255, 0, 9), shade(t, 255, 9, 0)}
	d.Labels[1].Images = []string{shade(t, 9, 255, 9), shade(t, 0, 255, 0)}
	info := h.put("images", d)
	if info.ScoreSource != "gda" || info.Alpha == 0 {
		t.Fatalf("%+v", info)
	}
	before := map[string]*PromptSet{}
	for _, name := range []string{"texts", "images", "fixed"} {
		h.settled(name)
		before[name], _ = h.sets.Ready(name)
	}
	infos, _ := h.sets.Info(t.Context(), "images", true)
	p.count()
	p.images.Store(0)
	h.reopen()
	for name, want := range before {
		got, err := h.sets.Ready(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *want) {
			t.Errorf("%s is\n%+v after a restart, and was\n%+v", name, *got, *want)
		}
	}
	if again, err := h.sets.Info(t.Context(), "images", true); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", infos) {
		t.Errorf("%+v: %v", again, err)
	}
	if n, images := p.count(), p.images.Load(); n+int(images) != 0 {
		t.Errorf("a restart encodes %d texts, %d images", n, images)
	}
	h.close()
}

// TestResume is cut in the middle: what was encoded by then is not encoded again.
func TestResume(t *testing.T) {
	p := &painter{name: "one", gate: make(chan struct{}, 100)}
	h := newHouse(t, p).open()
	var list []string
	for i := range 20 {
		list = append(list, fmt.Sprintf("%d=red %d|red %d again", i, i, i))
	}
	for range 5 {
		p.gate <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	put := make(chan SetInfo, 1)
	go func() {
		info, _, err := h.sets.Put(ctx, "s", labels(list...), Condition{})
		is(t, err, nil)
		put <- info
	}()
	for { // until the fifth batch is through
		if info, err := h.sets.Info(t.Context(), "s", false); err == nil && info.Encoded == 20 {
			if info.State != SetEncoding || info.Total != 40 {
				t.Errorf("%+v", info)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	_, err := h.sets.Ready("s")
	is(t, err, ErrSetNotReady)
	h.close()
	if info := <-put; info.State != SetEncoding || info.Encoded != 20 {
		t.Errorf("who waited for it: %+v", info)
	}
	p.gate = nil
	p.count()
	h.open()
	if info, n := h.settled("s"), p.count(); info.State != SetReady || n != 20 {
		t.Errorf("%d texts encoded after a restart: %+v", n, info)
	}
}

// TestAnotherModel makes all sets anew: of their prompts, and of the thumbnails of their examples. What has no thumbnail does
// not count until the first model comes back, which finds everything as it was.
func TestAnotherModel(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	d := labels("red=red", "green=green")
	d.Labels[0].Images = []string{shade(t, 255, 0, 0)}
	before := h.put("s", d)
	info, err := h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{0, 3, 0}}, Condition{})
	if err != nil || info.ScoreSource != "prototype" || len(info.Labels[1].Examples) != 1 || len(info.Warnings) != 0 || info.ETag == before.ETag {
		t.Fatalf("%+v: %v", info, err)
	}
	was, _ := h.sets.Ready("s")

	another := &painter{name: "another"}
	h.painter = another
	h.reopen()
	now := h.settled("s")
	if now.State != SetReady || now.ETag == info.ETag || another.count() != 2 || another.images.Load() != 1 ||
		!now.Labels[0].Examples[0].FromThumbnail || now.Labels[1].Examples[0].FromThumbnail || len(now.Warnings) != 2 {
		t.Errorf("%d images: %+v", another.images.Load(), now)
	}
	if got := h.best("s", "red") + h.best("s", "green"); got != "redgreen" {
		t.Errorf("answers %s", got)
	}
	h.reopen()
	if _, err := h.sets.Ready("s"); err != nil || another.count() != 0 || another.images.Load() != 3 {
		t.Errorf("a restart encodes again: %d images, %v", another.images.Load(), err)
	}
	p.count()
	h.painter = p
	h.reopen()
	again, err := h.sets.Ready("s")
	if err != nil || again.ETag != info.ETag || !slices.Equal(again.Labels.Rows, was.Labels.Rows) || p.count() != 0 {
		t.Errorf("the first model again: %+v: %v", again, err)
	}
}

// TestFrameSeesOneVersion changes a set while images are classified: each answer is of one version or of the other.
func TestFrameSeesOneVersion(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	versions := []sets.Definition{labels("red=red", "blue=blue"), labels("green=green", "red again=red|red thing", "blue again=blue", "more=blue")}
	names := [][]string{{"red", "blue"}, {"green", "red again", "blue again", "more"}}
	h.put("s", versions[0])
	var stop atomic.Bool
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for !stop.Load() {
				r, err := h.Classify(t.Context(), &Request{Image: imageOf(t, "red"), PromptSet: "s"})
				if err != nil {
					t.Error(err)
					return
				}
				i := slices.IndexFunc(names, func(n []string) bool { return slices.Equal(n, r.Set.Names) })
				if i < 0 || len(r.Matches) != len(names[i]) || r.Set.Names[r.Matches[0].Label] != names[i][i] {
					t.Errorf("%+v of %+v", r.Matches, r.Set.Names)
				}
			}
		})
	}
	for i := range 20 {
		h.put("s", versions[(i+1)%2])
	}
	stop.Store(true)
	running.Wait()
}

// TestConditionsHold has many clients add a label each, to what each has read: no label is lost. And of many that make a set,
// one does.
func TestConditionsHold(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	var made atomic.Int32
	var running sync.WaitGroup
	const clients = 8
	for i := range clients {
		running.Go(func() {
			if _, created, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{IfNoneMatch: true}); err == nil && created {
				made.Add(1)
			} else if !errors.Is(err, ErrPrecondition) {
				t.Errorf("%v", err)
			}
			for {
				info, err := h.sets.Info(t.Context(), "s", false)
				if err != nil {
					t.Error(err)
					return
				}
				d := info.Definition
				d.Labels = append(d.Labels, labels(fmt.Sprintf("%d=blue", i)).Labels...)
				_, _, err = h.sets.Put(t.Context(), "s", d, Condition{IfMatch: info.ETag})
				if err == nil {
					return
				} else if !errors.Is(err, ErrPrecondition) {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	if info := h.settled("s"); made.Load() != 1 || len(info.Labels) != 1+clients || info.State != SetReady {
		t.Errorf("made %d times, %d labels", made.Load(), len(info.Labels))
	}
}

// TestDeviceLost encodes elsewhere while a device is away, and again when it is back. A set that nothing can encode waits,
// and says for what.
func TestDeviceLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &painter{name: "one"}, &painter{name: "another"}
		h := newHouse(t, first)
		h.others = []hailo.Backend{second}
		h.open()
		first.away.Store(true)
		info := h.put("s", labels("red=red", "blue=blue"))
		if info.State != SetReady || len(info.Warnings) != 1 || !strings.Contains(info.Warnings[0], "another") || first.count() != 0 || second.count() != 2 {
			t.Errorf("%+v", info)
		}
		second.away.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		info, _, err := h.sets.Put(ctx, "waits", labels("red=red"), Condition{})
		if err != nil || info.State != SetEncoding || !strings.Contains(info.Reason, "device lost") || time.Since(start) != 28*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(start), info, err)
		}
		first.away.Store(false)
		time.Sleep(lastRetry)
		synctest.Wait()
		for _, name := range []string{"s", "waits"} {
			if info := h.settled(name); info.State != SetReady || len(info.Warnings) != 0 || info.Reason != "" {
				t.Errorf("%+v", info)
			}
		}
		if n := first.count(); n != 3 || second.count() != 0 {
			t.Errorf("the device that is back has encoded %d", n)
		}
		if got := h.best("s", "red"); got != "red" {
			t.Errorf("answers %s", got)
		}
		h.close()
	})
}

// TestTextsThatCannotBeEncoded end in a state that says so; what was ready before answers on.
func TestTextsThatCannotBeEncoded(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red"))
	info := h.put("s", labels("red=red", "odd=blue|mauve|green"))
	if info.State != SetFailed || !strings.Contains(info.Reason, `label "odd": "mauve"`) || h.Stats().Sets.Failed != 1 {
		t.Errorf("%+v", info)
	}
	if s, err := h.sets.Ready("s"); err != nil || len(s.Names) != 1 {
		t.Errorf("%+v: %v", s, err)
	}
	h.put("new", labels("mauve=mauve"))
	_, err := h.sets.Ready("new")
	if is(t, err, ErrSetNotReady); !strings.Contains(err.Error(), "mauve") {
		t.Errorf("%v", err)
	}
	p.fail = func(text string) error {
		if text == "blue" {
			panic("of the encoder")
		}
		return nil
	}
	if info := h.put("new", labels("blue=blue")); info.State != SetFailed || !strings.Contains(info.Reason, "panic") {
		t.Errorf("%+v", info)
	}
	p.fail = nil
	if info := h.put("new", labels("blue=blue")); info.State != SetReady { // the same again is tried again
		t.Errorf("%+v", info)
	}
}

// TestEncodingIsFair has two sets of many texts and a third: they take turns, a batch each, and one batch is encoded at a time.
func TestEncodingIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		var running sync.WaitGroup
		put := func(name string, n int) {
			running.Go(func() {
				var prompts []string
				for i := range n {
					prompts = append(prompts, fmt.Sprintf("red %s %d", name, i))
				}
				h.put(name, labels("red="+strings.Join(prompts, "|")))
			})
			synctest.Wait()
		}
		put("a", 40)
		put("b", 40)
		put("c", 4)
		for range 21 {
			p.gate <- struct{}{}
			synctest.Wait()
		}
		running.Wait()
		var order []string
		for i, text := range p.encoded() {
			if i%paintedBatch == 0 {
				order = append(order, strings.Fields(text)[1])
			}
		}
		if got := strings.Join(order, ""); got != "abc"+strings.Repeat("ab", 9) || p.most != 1 {
			t.Errorf("%s, %d at once", got, p.most)
		}
		h.close()
	})
}

// TestClientsFirst lets texts of clients that wait go before those of sets, but not for ever.
func TestClientsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		var running sync.WaitGroup
		texts := func(what string) {
			running.Go(func() {
				var list []string
				for i := range 12 {
					list = append(list, fmt.Sprintf("red %s %d", what, i))
				}
				if _, err := h.EmbedTexts(t.Context(), fair.Caller{Address: "client"}, list); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		texts("client")
		running.Go(func() { h.put("s", labels("red=red")) })
		time.Sleep(longestWay / 2)
		if st := h.Stats(); st.Sets.Encoding != 1 || st.Cache.Pending == 0 {
			t.Errorf("%+v", st)
		}
		for range 3 {
			p.gate <- struct{}{}
		}
		time.Sleep(lookForTexts)
		synctest.Wait()
		if got := p.encoded(); len(got) != 12 || slices.Contains(got, "red") {
			t.Errorf("%q", got)
		}
		p.gate <- struct{}{}
		running.Wait()
		if got := p.encoded(); !slices.Equal(got, []string{"red"}) {
			t.Errorf("%q", got)
		}
		texts("others") // two batches are with the encoder, one waits
		running.Go(func() { h.put("s", labels("blue=blue")) })
		time.Sleep(longestWay)
		synctest.Wait()
		if p.most != 3 {
			t.Errorf("%d batches at once: the set waits for ever", p.most)
		}
		for range 4 {
			p.gate <- struct{}{}
		}
		running.Wait()
		h.close()
	})
}

// TestExamples: which rows they make, what the set says of them, and that a change keeps those that it names.
func TestExamples(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	two := func(r, g, b uint8) []string { return []string{shade(t, r, g, b), shade(t, r-20, g|16, b|4)} }
	for name, c := range map[string]struct {
		mode   string
		red    []string
		green  []string
		back   []string
		source string
		warns  string
	}{
		"none":            {"auto", nil, nil, nil, "text", ""},
		"one":             {"auto", two(255, 0, 0)[:1], nil, nil, "prototype", ""},
		"one each":        {"auto", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", ""},
		"two each":        {"auto", two(255, 0, 0), two(20, 255, 0), nil, "gda", ""},
		"and background":  {"auto", two(255, 0, 0), two(20, 255, 0), two(20, 0, 255), "gda", ""},
		"background only": {"auto", nil, nil, two(20, 0, 255), "prototype", ""},
		"off":             {"off", two(255, 0, 0), two(20, 255, 0), nil, "text", ""},
		"prototype":       {"prototype", two(255, 0, 0), two(20, 255, 0), nil, "prototype", ""},
		"gda":             {"gda", two(255, 0, 0), two(20, 255, 0), nil, "gda", ""},
		"gda of too few":  {"gda", two(255, 0, 0), two(20, 255, 0)[:1], nil, "prototype", `label "green" has 1`},
		"gda of one each": {"gda", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", "two examples of every label"},
		"gda of the same": {"gda", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", ""},
	} {
		d := labels("red=red", "green=green")
		d.FewShot.Mode = c.mode
		d.Labels[0].Images, d.Labels[1].Images, d.Background.Images = c.red, c.green, c.back
		info := h.put("s", d)
		if info.State != SetReady || info.ScoreSource != c.source || (info.Alpha > 0) != (c.source == "gda") ||
			(len(info.Warnings) > 0) != (c.warns != "" || name == "gda of the same") || !strings.Contains(strings.Join(info.Warnings, "\n"), c.warns) {
			t.Errorf("%s: %s", name, mustJSON(t, info))
		}
		s, err := h.sets.Ready("s")
		if err != nil || (s.Labels.Logits != nil) != (c.source == "gda") || s.Labels.Of != nil || h.best("s", "red") != "red" {
			t.Errorf("%s: %+v: %v", name, s, err)
		}
		if slices.Contains(s.Names, "background") != (c.back != nil) {
			t.Errorf("%s: %q", name, s.Names)
		}
	}
	d := labels("red=red", "green")
	d.Labels[1].Images = two(20, 255, 0)
	info := h.put("s", d)
	if p.count(); info.Total != 1 || len(info.Labels[1].Examples) != 2 || info.Labels[1].Examples[0].Vector != nil || info.Labels[1].Images != nil {
		t.Errorf("a label of images alone: %s", mustJSON(t, info))
	}
	full, err := h.sets.Info(t.Context(), "s", true)
	if e := full.Labels[1].Examples[0]; err != nil || len(e.Vector) != 4*paintedDim || e.Model != "images of one" || !bytes.HasPrefix(e.Thumbnail, []byte{0xff, 0xd8}) {
		t.Errorf("%+v: %v", e, err)
	}
	p.images.Store(0)
	d = info.Definition // with ids
	d.Labels[0].Examples, d.Labels[1].Examples = d.Labels[1].Examples[:1], nil
	moved := h.put("s", d)
	if len(moved.Labels[0].Examples) != 1 || len(moved.Labels[1].Examples) != 0 || p.images.Load() != 0 || moved.Total != 1+7 {
		t.Errorf("an example of another label: %s", mustJSON(t, moved))
	}
	d = info.Definition
	d.Labels[0].Examples = []sets.Example{{ID: strings.Repeat("0", 32)}}
	_, _, err = h.sets.Put(t.Context(), "s", d, Condition{})
	var fault sets.Fault
	if !errors.As(err, &fault) || fault.Field != "labels[0].examples[0]" {
		t.Errorf("%v", err)
	}
	h.put("copy", full.Definition) // as it was exported
	if a, b := h.settled("copy"), p.images.Load(); b != 0 || len(a.Labels[1].Examples) != 2 || a.ScoreSource != "prototype" {
		t.Errorf("%d images: %s", b, mustJSON(t, a))
	}
}

// TestImagesThatCannotBeUsed name themselves, and change nothing.
func TestImagesThatCannotBeUsed(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	before := h.put("s", labels("red=red"))
	good := shade(t, 255, 0, 0)
	for name, c := range map[string]struct {
		images []string
		want   error
		says   string
	}{
		"no image":  {[]string{good, base64.StdEncoding.EncodeToString([]byte("text"))}, decode.ErrNotImage, "labels[1].images[1]: "},
		"no base64": {[]string{"!"}, nil, "labels[1].images[0] is"},
		"cut":       {[]string{good[:60]}, decode.ErrTruncated, "labels[1].images[0]: "},
		"too many":  {slices.Repeat([]string{good}, 17), nil, "more than 16"},
	} {
		d := labels("red=red", "green=green")
		d.Labels[1].Images = c.images
		_, _, err := h.sets.Put(t.Context(), "s", d, Condition{})
		var fault sets.Fault
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &fault) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := h.sets.Put(t.Context(), "..", labels("red"), Condition{})
	var fault sets.Fault
	if !errors.As(err, &fault) || fault.Field != "name" {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	d := labels("red=red", "green=green")
	d.Labels[1].Images = []string{good}
	_, _, err = h.sets.Put(ended, "s", d, Condition{})
	is(t, err, pipeline.ErrDeadline)
	if now := h.settled("s"); now.ETag != before.ETag {
		t.Errorf("%+v", now)
	}
}

func TestAddExample(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	add := func(name, label string, e Example, c Condition) (SetInfo, error) {
		return h.sets.AddExample(t.Context(), name, label, e, c)
	}
	_, err := add("s", "red", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrNoSet)
	first := h.put("s", labels("red=red", "green=green"))
	info, err := add("s", "red", Example{Image: imageOf(t, "red")}, Condition{IfMatch: first.ETag})
	if err != nil || info.ScoreSource != "prototype" || len(info.Labels[0].Examples) != 1 {
		t.Errorf("%+v: %v", info, err)
	}
	_, err = add("s", "red", Example{Vector: []float32{1, 2, 0}}, Condition{IfMatch: first.ETag})
	is(t, err, ErrPrecondition)
	again, err := add("s", "red", Example{Image: imageOf(t, "red")}, Condition{})
	if err != nil || again.ETag != info.ETag {
		t.Errorf("the same again: %+v: %v", again, err)
	}
	info, err = add("s", "", Example{Vector: []float32{0, 0, 5}}, Condition{})
	if err != nil || len(info.Background.Examples) != 1 || info.Background.Examples[0].FromThumbnail {
		t.Errorf("%+v: %v", info, err)
	}
	for name, e := range map[string]Example{"another dimension": {Vector: []float32{1}}, "no direction": {Vector: make([]float32, 3)}, "nothing": {}} {
		var fault sets.Fault
		if _, err := add("s", "red", e, Condition{}); !errors.As(err, &fault) || fault.Field != "vector" {
			t.Errorf("%s: %v", name, err)
		}
	}
	var fault sets.Fault
	if _, err = add("s", "mauve", Example{Vector: []float32{1, 0, 0}}, Condition{}); !errors.As(err, &fault) || fault.Field != "label" {
		t.Errorf("%v", err)
	}
	_, err = add("s", "red", Example{Image: []byte("text")}, Condition{})
	is(t, err, decode.ErrNotImage)
	for i := range 16 {
		info, err = add("s", "green", Example{Vector: []float32{float32(i), 50, 0}}, Condition{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err = add("s", "green", Example{Vector: []float32{17, 50, 0}}, Condition{}); !errors.As(err, &fault) || len(info.Labels[1].Examples) != 16 {
		t.Errorf("the 17th: %v", err)
	}
	if _, err = add("s", "red", Example{Vector: []float32{50, 3, 0}}, Condition{}); err != nil {
		t.Fatal(err)
	}
	if info := h.settled("s"); info.ScoreSource != "gda" { // of two labels with two
		t.Errorf("%s", mustJSON(t, info))
	}
}

func TestCalibrate(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("red=red", "green=green")
	d.Labels[1].Threshold = &sets.Threshold{Enter: 0.5, Exit: 0.25}
	h.put("s", d)
	info, err := h.sets.Calibrate(t.Context(), "s", map[string]sets.Threshold{"red": {Enter: 0.75, Exit: 0.5}}, 2, Condition{})
	s, _ := h.sets.Ready("s")
	if err != nil || info.Temperature != 2 || s.Scoring.Temperature != 2 || *s.Thresholds[0] != (sets.Threshold{Enter: 0.75, Exit: 0.5}) ||
		*s.Thresholds[1] != *d.Labels[1].Threshold || s.ETag != info.ETag {
		t.Errorf("%+v, %+v: %v", info, s, err)
	}
	var fault sets.Fault
	_, err = h.sets.Calibrate(t.Context(), "s", map[string]sets.Threshold{"mauve": {}}, 0, Condition{})
	if !errors.As(err, &fault) {
		t.Errorf("%v", err)
	}
	_, err = h.sets.Calibrate(t.Context(), "none", nil, 2, Condition{})
	is(t, err, ErrNoSet)
}

// TestWarnings: of negatives that stand too close to a label, and of texts that the model reads in part only.
func TestWarnings(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("stop=red", "long=green "+strings.Repeat("x", 100), "!other=red too", "!far=blue")
	d.Background.Prompts = []string{"green"}
	info := h.put("s", d)
	said := strings.Join(info.Warnings, "\n")
	if len(info.Warnings) != 3 || !strings.Contains(said, `the negative "other" is close to label "stop"`) ||
		!strings.Contains(said, `the negative "green" is close to label "long"`) || !strings.Contains(said, `label "long": 1 texts are longer`) {
		t.Errorf("%q", info.Warnings)
	}
	s, _ := h.sets.Ready("s")
	if !slices.Equal(s.Truncated, []bool{false, true, false, false, false}) || !slices.Equal(s.Names, []string{"stop", "long", "other", "far", "green"}) {
		t.Errorf("%+v", s)
	}
	var list []string
	for i := range 40 {
		list = append(list, fmt.Sprintf("!%d=red %d", i, i))
	}
	if info := h.put("s", labels(append(list, "stop=red")...)); len(info.Warnings) != maxWarnings+1 {
		t.Errorf("%d warnings", len(info.Warnings))
	}
}

// TestActivations: a model that is not trained for a sigmoid is not asked for one, not after a change of the model either.
func TestActivations(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("red=red", "green=green")
	d.Activation = "sigmoid"
	var fault sets.Fault
	if _, _, err := h.sets.Put(t.Context(), "s", d, Condition{}); !errors.As(err, &fault) || fault.Field != "activation" {
		t.Errorf("%v", err)
	}
	h.sigmoid = true
	h.reopen()
	h.put("s", d)
	if s, err := h.sets.Ready("s"); err != nil || s.Scoring.Activation != stages.Sigmoid || s.Scoring.LogitBias != -5 {
		t.Errorf("%+v: %v", s, err)
	}
	d.Activation, d.Labels[0].Negation, d.Labels[1].Negation = "pair", []string{"blue"}, []string{"blue too"}
	h.put("pair", d)
	s, err := h.sets.Ready("pair")
	if err != nil || s.Scoring.Activation != stages.Pair || !slices.Equal(s.Labels.Negations, []int32{2, 3, -1, -1}) || s.Labels.Kinds[2] != stages.Negation {
		t.Errorf("%+v: %v", s, err)
	}
	h.sigmoid = false
	h.reopen()
	if info := h.settled("s"); info.State != SetFailed || !strings.Contains(info.Reason, "sigmoid") {
		t.Errorf("%+v", info)
	}
}

// TestReplacedWhileEncoding and deleted: nothing more is encoded for it, and what was ready answers on.
func TestReplacedWhileEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		p.gate <- struct{}{}
		h.put("s", labels("red=red"))
		var running sync.WaitGroup
		put := func(name, prompts string) {
			running.Go(func() { h.put(name, labels("red="+prompts)) })
			synctest.Wait()
		}
		put("s", "red 1|red 2|red 3|red 4|red 5")
		put("gone", "red gone")
		if s, err := h.sets.Ready("s"); err != nil || s.ETag == h.sets.newest((*h.sets.all.Load())["s"]).etag {
			t.Errorf("%+v: %v", s, err)
		}
		put("s", "red again")
		is(t, h.sets.Delete(t.Context(), "gone", Condition{}), nil)
		synctest.Wait()
		for range 10 {
			p.gate <- struct{}{}
		}
		running.Wait()
		if got := p.encoded(); !slices.Equal(got, []string{"red", "red again"}) {
			t.Errorf("%q", got)
		}
		_, err := h.sets.Ready("gone")
		is(t, err, ErrNoSet)
		h.close()
	})
}

// TestConfiguredSets answer as others do, cannot be changed, and hide those of the same name.
func TestConfiguredSets(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red"))
	h.fixed = map[string]sets.Definition{"s": labels("green=green").Normalized()}
	h.reopen()
	if info := h.settled("s"); !info.ReadOnly || info.Labels[0].Name != "green" || info.State != SetReady {
		t.Errorf("%+v", info)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{})
	is(t, err, ErrManaged)
	is(t, h.sets.Delete(t.Context(), "s", Condition{}), ErrManaged)
	_, err = h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrManaged)
	p.count()
	h.reopen()
	if h.settled("s"); p.count() != 0 {
		t.Error("a restart encodes what the configuration has")
	}
	h.fixed = nil
	h.reopen()
	if info := h.settled("s"); info.ReadOnly || info.Labels[0].Name != "red" || p.count() != 0 {
		t.Errorf("%+v", info)
	}
}

// TestFileLost has a file that is no store: the service is degraded and says why, sets of the configuration answer, and the file
// stays as it is.
func TestFileLost(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p)
	h.fixed = map[string]sets.Definition{"fixed": labels("red=red").Normalized()}
	content := []byte(strings.Repeat("not a database ", 1000))
	if err := os.WriteFile(h.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	h.open()
	if health := h.Health(); h.State() != Degraded || health.State != Degraded || !strings.Contains(health.Reason, sets.FileName) {
		t.Errorf("%+v", health)
	}
	if st := h.Stats().Sets; !strings.Contains(st.Lost, sets.FileName) {
		t.Errorf("%+v", st)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{})
	is(t, err, ErrSetsLost)
	is(t, h.sets.Delete(t.Context(), "s", Condition{}), ErrSetsLost)
	_, err = h.sets.Ready("s")
	is(t, err, ErrSetsLost)
	_, err = h.sets.Info(t.Context(), "s", false)
	is(t, err, ErrSetsLost)
	list, err := h.sets.List()
	if is(t, err, ErrSetsLost); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	h.settled("fixed")
	if got := h.best("fixed", "red"); got != "red" {
		t.Errorf("answers %s", got)
	}
	h.close()
	if now, err := os.ReadFile(h.path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the file has changed: %v", err)
	}
}

// TestFileThatTakesNothing refuses changes, says so, and is well when a change succeeds again.
func TestFileThatTakesNothing(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	before := h.put("s", labels("red=red"))
	away := h.path + ".away"
	if err := os.Rename(h.path, away); err != nil {
		t.Fatal(err)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("green=green"), Condition{})
	is(t, err, ErrSetsLost)
	if health := h.Health(); health.State != Degraded || !strings.Contains(health.Reason, "deleted or replaced") {
		t.Errorf("%+v", health)
	}
	if s, err := h.sets.Ready("s"); err != nil || s.ETag != before.ETag {
		t.Errorf("%+v: %v", s, err)
	}
	if err := os.Rename(away, h.path); err != nil {
		t.Fatal(err)
	}
	h.put("s", labels("green=green"))
	if health := h.Health(); health.State != Healthy || health.Reason != "" {
		t.Errorf("%+v", health)
	}
}

// TestRoom: all sets together have a bound, which a smaller version of a set makes room in.
func TestRoom(t *testing.T) {
	h := newHouse(t, &painter{name: "one"})
	h.room = 4 * paintedDim * 5 // five rows
	h.open()
	h.put("a", labels("1=red", "2=red", "3=red"))
	_, _, err := h.sets.Put(t.Context(), "b", labels("1=red", "2=red", "3=red"), Condition{})
	is(t, err, ErrSetsFull)
	_, err = h.sets.AddExample(t.Context(), "a", "1", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrSetsFull)
	h.put("a", labels("1=red", "2=red"))
	h.put("b", labels("1=red", "2=red", "3=red"))
	is(t, h.sets.Delete(t.Context(), "a", Condition{}), nil)
	h.put("c", labels("1=red", "2=red"))
}

// TestBatchHasOneVersion changes a set in the middle of a batch.
func TestBatchHasOneVersion(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	first := h.put("s", labels("red=red"))
	image := imageOf(t, "red")
	n := 0
	err := h.ClassifyBatch(t.Context(), Request{PromptSet: "s", Logits: true}, Batch{
		Len: 20, AtOnce: 1, Open: func(int) ([]byte, error) { return image, nil },
		Done: func(i int, r Result, err error) {
			if n++; i == 3 {
				h.put("s", labels("green=green"))
			}
			if err != nil || r.Set.ETag != first.ETag || len(r.Logits) != 1 {
				t.Errorf("%d: %+v: %v", i, r, err)
			}
		},
	})
	if err != nil || n != 20 {
		t.Errorf("%d images: %v", n, err)
	}
	is(t, h.ClassifyBatch(t.Context(), Request{PromptSet: "none"}, Batch{}), ErrNoSet)
}
