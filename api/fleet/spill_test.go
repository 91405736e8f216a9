package fleet

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"hailoclip/api/fleet/broker"
	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// spillNode is a node in this process, which hands images on and takes those of others.
type spillNode struct {
	engine *clip.Engine
	node   *Node
}

// newSpillNode starts a node; the test ends it.
func newSpillNode(t *testing.T, url, name string) spillNode {
	t.Helper()
	chip, log := &hashed{frames: hailo.NewHeapFrames(4, 8, hashedDim)}, slog.New(slog.DiscardHandler)
	engine, err := clip.New(
		clip.Config{Images: stages.Config{
			Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitSquash}}},
		pipeline.Config{WorkerThreads: 2, MaxQueueSize: 10},
		clip.Parts{
			Model:    model.Manifest{Name: "hashed", ImageSize: 8, EmbeddingDimension: hashedDim, LogitScale: 10, ContextLength: 77},
			Tokenize: func(string) ([]int32, bool) { return []int32{0}, false }, Images: chip, Texts: []hailo.Backend{chip}, Encoders: chip,
			Store:  cache.OpenStore(cache.Config{Mode: cache.OnDemand, CacheMaxEntries: 1, CacheListBytes: 1 << 10, MaxPending: 1}, "", log),
			Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 10),
		})
	if err != nil {
		t.Fatal(err)
	}
	node, err := Join(Config{URL: url, Node: name, Domain: "hub", Spill: true}, Parts{Engine: engine, Version: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		node.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-stopped
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return spillNode{engine, node}
}

// imageOf is a PNG, unlike those of other numbers.
func imageOf(t testing.TB, n int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	m.Set(n%8, n/8%8, color.RGBA{255, byte(n), 0, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// work has an engine work until its rate is known.
func work(t *testing.T, e *clip.Engine) {
	t.Helper()
	var working sync.WaitGroup
	for n := range 6 {
		working.Go(func() {
			for e.Load().Rate == 0 {
				_, _ = e.EmbedHere(t.Context(), &clip.Request{Image: imageOf(t, n)}) // refused at times
			}
		})
	}
	working.Wait()
}

// full is the load of an engine that takes nothing more.
var full = clip.Load{Waiting: 10, InFlight: 4, Batch: 1, Rate: 1}

// TestSpillBetweenNodes: the vector of another node is this one's, to the last bit; a node that stops is not asked.
func TestSpillBetweenNodes(t *testing.T) {
	b := startBroker(t, broker.Config{})
	here, there := newSpillNode(t, b.URL(), "here"), newSpillNode(t, b.URL(), "there")
	work(t, there.engine)
	s, caller := here.node.spill, fair.Caller{Address: "x"}
	waitFor(t, func() bool { return s.Takes(caller) })
	for n := range 20 {
		image := imageOf(t, n)
		want, err := here.engine.EmbedHere(t.Context(), &clip.Request{Image: image})
		if err != nil {
			t.Fatal(err)
		}
		var got []float32
		waitFor(t, func() (ok bool) { // on a busy machine the other node is not always done in time
			got, ok = s.Embed(t.Context(), caller, image, full)
			return ok
		})
		if !slices.Equal(got, want.Embedding) {
			t.Fatalf("%v, want %v", got, want.Embedding)
		}
	}
	waitFor(t, func() bool {
		if _, ok := s.Embed(t.Context(), caller, []byte("no image"), full); ok {
			t.Error("the vector of no image")
		}
		return here.node.newStatus(t.Context()).Spill.Failed[failImage] == 1
	})
	if _, ok := s.Embed(t.Context(), caller, make([]byte, 9<<20), full); ok {
		t.Error("an image larger than a message")
	}
	idle := clip.Load{Room: 10, Batch: 1, Rate: 1e6}
	if _, ok := s.Embed(t.Context(), caller, imageOf(t, 1), idle); ok {
		t.Error("sent away, although it is done sooner here")
	}
	status := here.node.newStatus(t.Context())
	if c := status.Spill; c.Sent != 20 || c.Failed[failTooLarge] != 1 || c.InFlight != 0 {
		t.Errorf("%+v", c)
	}
	if c := there.node.Status(t.Context()).Spill; c.Taken < 20 || c.Refused == 0 {
		t.Errorf("%+v", c)
	}
	waitFor(t, func() bool { return there.node.spill.taken.len() == 0 })
	there.node.Leave()
	waitFor(t, func() bool { return !s.Takes(caller) })
	for _, p := range here.node.Peers() {
		if p.Health != map[string]string{"here": healthy, "there": stopping}[p.Node] {
			t.Errorf("%+v", p)
		}
	}
}

// TestSpillAnswers: whatever another node answers, or does not, becomes a vector of unit length or none.
func TestSpillAnswers(t *testing.T) {
	b := startBroker(t, broker.Config{})
	here := newSpillNode(t, b.URL(), "here")
	s := here.node.spill
	c := dial(t, Config{URL: b.URL(), Node: "there"})
	var mu sync.Mutex
	var answer func(m *nats.Msg)
	if _, err := c.nc.Subscribe(encodeSubject+"there.image", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ms, err := strconv.Atoi(m.Header.Get(headerDeadline)); err != nil || ms < 1 || m.Header.Get(headerModel) != s.want.digest {
			t.Errorf("headers %v", m.Header)
		}
		answer(m)
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return here.node.maxPayload.Load() > 0 })
	vector := hashVector([]byte("x"))
	code := func(code string) func(*nats.Msg) {
		return func(m *nats.Msg) {
			a := nats.NewMsg(m.Reply)
			a.Header.Set(headerError, code)
			_ = c.nc.PublishMsg(a)
		}
	}
	with := func(change func(v []float32) []float32) func(*nats.Msg) {
		return func(m *nats.Msg) { _ = m.Respond(appendVector(nil, change(slices.Clone(vector)))) }
	}
	for _, c := range []struct {
		what   string
		answer func(*nats.Msg)
		fail   string
	}{
		{"a vector", with(func(v []float32) []float32 { return v }), ""},
		{"too short", with(func(v []float32) []float32 { return v[1:] }), failVector},
		{"not a number", with(func(v []float32) []float32 { v[3] = float32(math.NaN()); return v }), failVector},
		{"infinite", with(func(v []float32) []float32 { v[3] = float32(math.Inf(1)); return v }), failVector},
		{"not of unit length", with(func(v []float32) []float32 { v[0] += 0.1; return v }), failVector},
		{"nothing", with(func([]float32) []float32 { return nil }), failVector},
		{"busy", code(failBusy), failBusy},
		{"another model", code(failModel), failModel},
		{"a code that is not known", code(strings.Repeat("x", 1000)), failOther},
		{"no answer", func(*nats.Msg) {}, failTimeout},
	} {
		t.Run(c.what, func(t *testing.T) {
			mu.Lock()
			answer = c.answer
			mu.Unlock()
			l := loadOf("there", "1")
			l.Digests, l.Prep, l.Rate = []string{s.want.digest}, s.want.prep, 1e4
			here.node.peers.hear(time.Now(), l)
			_, failedBefore := byReason(&s.count.failed)
			got, ok := s.Embed(t.Context(), fair.Caller{Address: "x"}, []byte("image"), full)
			if ok != (c.fail == "") || ok && !slices.Equal(got, vector) {
				t.Errorf("%v %v", ok, got)
			}
			if _, failed := byReason(&s.count.failed); c.fail != "" && failed[c.fail] != failedBefore[c.fail]+1 {
				t.Errorf("%v, before %v", failed, failedBefore)
			}
			if n := here.node.peers.nodes["there"]; n.there != 0 || n.suspect != (c.fail == failBusy || c.fail == failTimeout) {
				t.Errorf("%+v", n)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	here.node.peers.hear(time.Now(), func() Load {
		l := loadOf("there", "1")
		l.Digests, l.Prep = []string{s.want.digest}, s.want.prep
		return l
	}())
	if _, ok := s.Embed(ctx, fair.Caller{Address: "x"}, []byte("image"), full); ok || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error("answered after the deadline")
	}
	if here.node.peers.nodes["there"].suspect {
		t.Error("a node is not to blame for the deadline of who asks")
	}
}

// TestImagesOfOthers: messages that are no requests are refused, each by itself, and good ones are answered afterwards.
func TestImagesOfOthers(t *testing.T) {
	b := startBroker(t, broker.Config{})
	there := newSpillNode(t, b.URL(), "there")
	c := dial(t, Config{URL: b.URL(), Node: "here"})
	s := there.node.spill
	good := map[string]string{headerDeadline: "60000", headerModel: s.want.digest, headerPrep: s.want.prep, headerNode: "here"}
	ask := func(image []byte, change ...string) *nats.Msg {
		t.Helper()
		m := nats.NewMsg(encodeSubject + "there.image")
		m.Data = image
		for key, value := range good {
			m.Header.Set(key, value)
		}
		if len(change) > 0 {
			m.Header.Set(change[0], change[1])
		}
		reply, err := c.nc.RequestMsg(m, 20*time.Second)
		if err != nil {
			t.Fatal(change, err)
		}
		return reply
	}
	waitFor(t, func() bool { // it has subscribed
		_, err := c.nc.Request(encodeSubject+"there.image", nil, time.Second)
		return !errors.Is(err, nats.ErrNoResponders)
	})
	for _, x := range []struct{ key, value, code string }{
		{headerDeadline, "", failMalformed}, {headerDeadline, "0", failMalformed}, {headerDeadline, "1e3", failMalformed},
		{headerDeadline, "99999999999999999999", failMalformed}, {headerNode, "", failMalformed}, {headerNode, "a.b", failMalformed},
		{headerModel, "another", failModel}, {headerPrep, "another", failModel},
	} {
		if got := ask(imageOf(t, 1), x.key, x.value).Header.Get(headerError); got != x.code {
			t.Errorf("%s %q: %q, want %q", x.key, x.value, got, x.code)
		}
	}
	for data, code := range map[string]string{"": failMalformed, "no image": failImage, string(imageOf(t, 1)[:40]): failImage} {
		if got := ask([]byte(data)).Header.Get(headerError); got != code {
			t.Errorf("%.20q: %q, want %q", data, got, code)
		}
	}
	if reply := ask(imageOf(t, 1)); len(reply.Data) != 4*hashedDim || len(reply.Header) > 0 {
		t.Errorf("%v, %d bytes", reply.Header, len(reply.Data))
	}
	for range maxTaken { // as many as nobody alone may have
		if !s.taken.enter("here", 1) {
			break
		}
	}
	if got := ask(imageOf(t, 1)).Header.Get(headerError); got != failBusy || s.taken.len() != maxTaken/2 {
		t.Errorf("%q, with %d under way", got, s.taken.len())
	}
	there.node.leaving.Store(true)
	if got := ask(imageOf(t, 1)).Header.Get(headerError); got != failStopping {
		t.Errorf("%q of a node that stops", got)
	}
}

// TestLimiter: nobody gets more than what is left.
func TestLimiter(t *testing.T) {
	l := newLimiter(12, 1000)
	fill := func(who string) (n int) {
		for l.enter(who, 10) {
			n++
		}
		return n
	}
	if a, b, c := fill("a"), fill("b"), fill("c"); a != 6 || b != 3 || c != 2 || l.len() != 11 {
		t.Errorf("%d %d %d", a, b, c)
	}
	l.leave("a", 10)
	if l.takes("a") || !l.takes("d") || l.enter("d", 1000) || !l.enter("d", 10) {
		t.Errorf("%+v", l)
	}
}

// TestChoice: of two nodes the one that is sooner done, of many any; none that cannot, and none where it is done sooner here.
func TestChoice(t *testing.T) {
	now, w := time.Unix(1000, 0), want{digest: "d", prep: "p"}
	change := func(f func(*Load)) Load {
		l := loadOf("x", "1")
		f(&l)
		return l
	}
	for what, c := range map[string]struct {
		here  clip.Load
		nodes map[string]Load
		want  string
	}{
		"faster":  {full, map[string]Load{"a": change(func(l *Load) { l.Queued = 10 }), "b": change(func(l *Load) { l.Queued, l.Rate = 5, 72 })}, "a"},
		"shorter": {full, map[string]Load{"a": change(func(l *Load) { l.Queued = 40 }), "b": change(func(l *Load) { l.Queued, l.Rate = 5, 72 })}, "b"},
		"here":    {clip.Load{Room: 1, InFlight: 5, Rate: 335}, map[string]Load{"a": change(func(l *Load) { l.Queued = 5 })}, ""},
		"there":   {clip.Load{Room: 1, InFlight: 6, Rate: 335}, map[string]Load{"a": change(func(l *Load) { l.Queued = 5 })}, "a"},
		"none can": {full, map[string]Load{
			"a": change(func(l *Load) { l.Health = "degraded" }), "b": change(func(l *Load) { l.Health = stopping }),
			"c": change(func(l *Load) { l.Site = "elsewhere" }), "d": change(func(l *Load) { l.Digests = []string{"other", "d"} }),
			"e": change(func(l *Load) { l.Prep = "other" }), "f": change(func(l *Load) { l.Rate = 0 }),
			"g": change(func(l *Load) { l.Free = 0 }), "h": change(func(l *Load) { l.Spill = false }),
		}, ""},
	} {
		p := newPeers()
		for node, l := range c.nodes {
			l.Node = node
			p.hear(now, l)
		}
		if got, ok := p.take(now, w, c.here, ""); got.node != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v %v, want %q", what, got, ok, c.want)
		}
		if _, ok := p.take(now.Add(aliveFor), w, c.here, ""); ok || p.any(now.Add(aliveFor), w) {
			t.Errorf("%s: a dead node", what)
		}
	}
	p, seen := newPeers(), map[string]int{}
	for _, node := range []string{"a", "b", "c", "d"} {
		l := loadOf(node, "1")
		l.Free = 1000
		if node == "d" {
			l.Queued = 100 // the other of two has always less
		}
		p.hear(now, l)
	}
	for range 3000 {
		c, ok := p.take(now, w, full, "c")
		if !ok {
			t.Fatal("none")
		}
		seen[c.node]++
		p.done(c.node, false)
	}
	if seen["a"] < 1300 || seen["b"] < 1300 || seen["c"] > 0 || seen["d"] > 0 {
		t.Errorf("%v", seen)
	}
	for range 10 { // what is under way there counts
		c, _ := p.take(now, w, full, "c")
		seen[c.node]++
	}
	if a, b := p.nodes["a"].there, p.nodes["b"].there; a+b != 10 || a < 2 || b < 2 {
		t.Errorf("%d and %d are under way", a, b)
	}
}
