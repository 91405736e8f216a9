package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/api/fleet/broker"
	"hailoclip/api/outbound"
	streams "hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func init() {
	textTime, textWait = time.Minute, time.Minute
	cameraDead, cameraMark = 500*time.Millisecond, 4*time.Second
}

const hashedDim = 16

// hashed is an encoder whose vectors follow from the input alone, and that counts the texts it has encoded.
type hashed struct {
	frames *hailo.Frames
	texts  atomic.Int64
	gate   chan struct{} // holds a value for each batch of texts that may be encoded; nil: all may
}

func (h *hashed) Frames() *hailo.Frames { return h.frames }
func (h *hashed) Close() error          { return nil }
func (h *hashed) Status() hailo.Status  { return hailo.Status{Ready: true} }
func (h *hashed) Info() hailo.Info {
	return hailo.Info{Backend: "cpu", Device: "test", ImageBatch: 1, ImageCalls: 1, TextBatch: 8, TextDigest: "0123456789abcdef", ImageDigest: "fedcba9876543210"}
}

// hashVector is a vector of unit length that follows from b.
func hashVector(b []byte) []float32 {
	v := make([]float32, hashedDim)
	sum := sha256.Sum256(b)
	for i := range v {
		v[i] = float32(int8(sum[2*i])) + float32(sum[2*i+1])/256
	}
	if hailo.Normalize(v, v) != nil {
		panic("a vector without direction")
	}
	return v
}

func (h *hashed) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		copy(f.Embedding, hashVector(f.Pixels))
	}
	return nil
}

func (h *hashed) EncodeTexts(ctx context.Context, tokens [][]int32) ([][]float32, error) {
	if h.gate != nil {
		select {
		case <-h.gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	vectors := make([][]float32, len(tokens))
	for i, t := range tokens {
		b, _ := binary.Append(nil, binary.LittleEndian, t)
		vectors[i] = hashVector(b)
	}
	h.texts.Add(int64(len(tokens)))
	return vectors, nil
}

// brokerIn starts a broker with its files in dir.
func brokerIn(t *testing.T, dir string) *broker.Broker {
	return startBroker(t, broker.Config{Dir: dir, Name: "hub"})
}

// shareNode is a node in this process, with an engine of its own.
type shareNode struct {
	t       testing.TB
	name    string
	dir     string // of its files
	url     string
	config  func(*Config)
	chip    *hashed
	engine  *clip.Engine
	allow   []string // hosts that cameras may be at
	hub     *streams.Hub
	sets    *clip.PromptSets
	node    *Node
	stop    context.CancelFunc
	stopped chan struct{}
}

// newShareNode starts a node, whose files stay when it is closed and opened again.
func newShareNode(t testing.TB, url, name string, config func(*Config)) *shareNode {
	m := &shareNode{t: t, name: name, url: url, dir: t.TempDir(), config: config, allow: []string{"127.0.0.0/8"}, chip: &hashed{frames: hailo.NewHeapFrames(4, 8, hashedDim)}}
	m.open()
	t.Cleanup(m.close)
	return m
}

func (m *shareNode) open() {
	m.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("FLEET_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("member", m.name)
	}
	file, err := sets.Open(filepath.Join(m.dir, sets.FileName))
	if err != nil {
		m.t.Fatal(err)
	}
	store := cache.OpenStore(cache.Config{
		Mode: cache.OnDemand, CacheEnabled: true, CacheMaxEntries: 10000, CacheListBytes: 1 << 20, CacheFileMaxBytes: 4 << 20, MaxPending: 100000,
	}, "", log)
	m.engine, err = clip.New(
		clip.Config{ApplySoftmax: true, Images: stages.Config{
			Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitSquash}}},
		pipeline.Config{WorkerThreads: 2, MaxQueueSize: 10},
		clip.Parts{
			Model: model.Manifest{Name: "hashed", ImageSize: 8, EmbeddingDimension: hashedDim, LogitScale: 10, ContextLength: 77},
			Tokenize: func(text string) (tokens []int32, cut bool) {
				for _, b := range []byte(text[:min(len(text), 75)]) {
					tokens = append(tokens, int32(b))
				}
				return tokens, len(text) > 75
			},
			Images: m.chip, Texts: []hailo.Backend{m.chip}, Encoders: m.chip, Store: store,
			Budget: decode.NewBudget(1<<30, math.MaxInt64, 2, 10),
			Sets:   clip.SetParts{File: file, Limits: sets.Limits{PromptBytes: 1000}, Log: log},
		})
	if err != nil {
		m.t.Fatal(err)
	}
	m.sets = m.engine.PromptSets()
	cfg := Config{URL: m.url, Node: m.name, Domain: "hub", Share: true}
	if m.config != nil {
		m.config(&cfg)
	}
	if m.hub, err = streams.NewHub(streams.Config{MaxStreams: 64, MaxListeners: 8}, streams.Parts{
		Engine: m.engine, Bus: event.NewBus(100), Lost: errors.New("there is no file"), Limits: streams.Limits{Prompts: 100, PromptBytes: 100},
		Timeout: 30 * time.Second, Log: log, Allowed: outbound.New(outbound.Config{Allow: m.allow}), Frames: source.Limits{FrameBytes: 1 << 20},
		Buffers: streams.Buffers{
			Get: func(_ string, size int) ([]byte, error) { return make([]byte, 0, size), nil },
			Put: func(string, []byte) {},
		},
	}); err != nil {
		m.t.Fatal(err)
	}
	if m.node, err = Join(cfg, Parts{Engine: m.engine, Streams: m.hub, Version: "test", Log: log}); err != nil {
		m.t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.stopped = make(chan struct{})
	go func() {
		defer close(m.stopped)
		m.node.Run(ctx)
	}()
}

func (m *shareNode) close() {
	if m.stop == nil {
		return
	}
	m.stop()
	<-m.stopped
	m.stop = nil
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := errors.Join(m.hub.Close(ctx), m.engine.Close(ctx)); err != nil {
		m.t.Error(err)
	}
}

// labelled is a set of labels.
func labelled(names ...string) sets.Definition {
	var d sets.Definition
	for _, name := range names {
		d.Labels = append(d.Labels, sets.Label{Name: name, Prompts: []string{"a " + name}})
	}
	return d
}

func (m *shareNode) put(name string, d sets.Definition, c clip.Condition) (clip.SetInfo, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	info, _, err := m.sets.Put(ctx, name, d, c)
	return info, err
}

// mustPut waits until the node has its connection, too.
func (m *shareNode) mustPut(name string, d sets.Definition) clip.SetInfo {
	m.t.Helper()
	var info clip.SetInfo
	m.until("put "+name, func() (err error) {
		info, err = m.put(name, d, clip.Condition{})
		return err
	})
	return info
}

// until waits until done returns nil.
func (m *shareNode) until(what string, done func() error) {
	m.t.Helper()
	wait(m.t, m.name+": "+what, done)
}

// wait waits until done returns nil, for longer than any machine takes.
func wait(t testing.TB, what string, done func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := done()
		if err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// has waits until a set has that ETag and answers.
func (m *shareNode) has(name, etag string) {
	m.t.Helper()
	m.until("set "+name, func() error {
		s, err := m.sets.Ready(name)
		if err == nil && s.ETag != etag {
			err = fmt.Errorf("it answers by %q, want %q", s.ETag, etag)
		}
		return err
	})
}

// lacks waits until there is no such set.
func (m *shareNode) lacks(name string) {
	m.t.Helper()
	m.until("no set "+name, func() error {
		if _, err := m.sets.Info(m.t.Context(), name, false); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}
