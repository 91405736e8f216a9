package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// Config is the section "streams" of the configuration; NewHub relies on its bounds.
type Config struct {
	MaxStreams   int           `yaml:"max_streams" bounds:"1 to 1000"`   // defined and open ones together
	MaxListeners int           `yaml:"max_listeners" bounds:"1 to 1000"` // to events, of one address
	Linger       time.Duration `yaml:"linger" bounds:"0 to 1h"`          // how long the state of a stream outlives its last feed
	Sources      source.Named  `yaml:"sources"`                          // of single images, see Hub.Image
}

// Check calls fault for each rule that c breaks and that the bounds of its fields cannot say.
func (c Config) Check(fault func(field, format string, args ...any)) {
	for name, address := range c.Sources {
		if !event.ValidName(name) {
			fault("sources", "%q is out of bounds: names of 1 to 64 letters, digits, '.', '_' and '-'", name)
		} else if err := source.CheckNamed(address); err != nil {
			fault("sources", "%s: %w", name, err)
		}
	}
}

// Errors of streams, wrapped with what happened. What is wrong with a definition is a sets.Fault, and a prompt set that there is not
// an error of clip.PromptSets.Ready.
var (
	ErrNoStream      = errors.New("there is no such stream")
	ErrNoSource      = errors.New("there is no such source")
	ErrStreamsFull   = errors.New("there are too many streams")
	ErrListenersFull = errors.New("there are too many listeners to events from this address")
	ErrFed           = errors.New("the stream is fed by somebody else") // another feed, or its source
	ErrEnded         = errors.New("the stream was deleted")
	ErrStopping      = errors.New("the service is stopping")
	ErrLost          = errors.New("streams cannot be kept") // their file cannot be read or written
)

// Parts is what a hub works with. All belong to the caller, who closes them after the hub.
type Parts struct {
	Engine  *clip.Engine
	Bus     *event.Bus
	Store   Store // of definitions and events; nil: there is none, for the reason Lost
	Lost    error
	Limits  Limits           // of definitions
	Timeout time.Duration    // from when a frame was received until it expires
	Allowed outbound.Allowed // addresses that streams may be pulled from
	Frames  source.Limits    // of frames that are pulled
	Buffers Buffers          // for these
	Log     *slog.Logger

	// Changed is called when a stream was defined, changed or deleted. It must not block. May be nil.
	Changed func()

	// Encode appends an answer as JSON, as its sender gets it, for events of frames; nil: they have none.
	Encode func(b []byte, a *Answer) []byte
}

// Store keeps definitions and events: an event.Store.
type Store interface {
	Streams() (map[string][]byte, error)
	PutStream(ctx context.Context, id string, definition []byte) error
	DeleteStream(ctx context.Context, id string) error
	Add(ctx context.Context, e *event.Event) error
}

// Buffers lends memory for frames, and bounds what all callers have of it. Safe for concurrent use; neither blocks.
type Buffers struct {
	Get func(address string, size int) ([]byte, error) // an empty slice with room for size bytes
	Put func(address string, b []byte)
}

// Hub has all streams: those that are defined, and open ones that are not. Safe for concurrent use.
type Hub struct {
	settings atomic.Pointer[settings]
	parts    Parts
	log      *slog.Logger
	start    time.Time
	changing *fair.Turns        // to change a definition
	abort    context.Context    // ends when Close gives up on what is inside
	giveUp   context.CancelFunc // with ErrStopping
	running  sync.WaitGroup
	callers  atomic.Uint64 // feeds of sources so far
	meter    meter         // of all streams
	others   meter         // of those that are not in labelled
	places   places

	mu        sync.Mutex // taken before that of a stream
	ended     bool
	streams   map[string]*stream // by id
	listeners map[string]int     // by address
	labelled  map[string]*meter  // by id, see LabelledStats
}

// settings is what of the configuration can change while there are streams.
type settings struct {
	Config
	limits  Limits
	timeout time.Duration
}

// Apply changes the section and Parts.Limits and Timeout. Feeds keep the timeout with which they have begun, and streams that are
// there stay, however many may be.
func (h *Hub) Apply(cfg Config, l Limits, timeout time.Duration) {
	h.settings.Store(&settings{cfg, l, timeout})
}

// NewHub begins with the streams that are kept, and pulls their sources. The caller closes it.
func NewHub(cfg Config, p Parts) (*Hub, error) {
	h := &Hub{
		parts: p, log: p.Log, start: time.Now(), changing: fair.NewTurns(1),
		streams: map[string]*stream{}, listeners: map[string]int{}, labelled: map[string]*meter{},
	}
	h.Apply(cfg, p.Limits, p.Timeout)
	h.places.free = p.Engine.AtOnce()
	h.abort, h.giveUp = context.WithCancel(context.Background())
	if p.Store == nil {
		return h, nil
	}
	kept, err := p.Store.Streams()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	for id, text := range kept {
		d, err := Parse(text, p.Limits)
		if err == nil && !event.ValidName(id) {
			err = errors.New("this is no name of a stream")
		}
		if err != nil {
			h.log.Error("a stream that is kept cannot be used; it stays in the file", "stream", fmt.Sprintf("%.64q", id), "error", err)
			continue
		}
		h.streams[id] = h.newStream(id, d, true)
		h.streams[id].kept = h.streams[id].plan.Load()
	}
	for _, s := range h.streams {
		s.pull()
	}
	return h, nil
}

// Put defines a stream by JSON, as Parse reads it, or changes it while it runs, durably. A source whose password is masked, as Get
// returns it, stays as it is. Errors: sets.Faults, ErrStreamsFull, ErrLost, ErrStopping, of prompt sets, and those of package source
// for an address that it refuses.
func (h *Hub) Put(ctx context.Context, id string, definition []byte) (info Info, created bool, err error) {
	d, err := Parse(definition, h.settings.Load().limits)
	if err == nil && !event.ValidName(id) {
		err = sets.Fault{Field: "id", Problem: nameProblem}
	}
	if err != nil {
		return Info{}, false, err
	}
	done, err := h.changing.Take(ctx, fair.Caller{})
	if err != nil {
		return Info{}, false, err
	}
	defer done()
	before := h.find(id)
	if before != nil {
		if before.placed.Load() {
			return Info{}, false, ErrPlaced
		}
		if old := before.plan.Load().Source; old != "" && d.Source == source.Mask(old) {
			d.Source = old
		}
	}
	if err := h.check(d); err != nil {
		return Info{}, false, err
	}
	if err := h.room(before); err != nil {
		return Info{}, false, err
	}
	if err := h.keep(ctx, id, d); err != nil {
		return Info{}, false, err
	}
	s, created, err := h.define(id, d, false)
	if err != nil {
		return Info{}, false, err
	}
	h.changed()
	return s.info(), created, nil
}

// check says what of a definition cannot be used here.
func (h *Hub) check(d Definition) error {
	if d.Source != "" {
		if err := source.Check(d.Source, source.Options{Allowed: h.parts.Allowed}); err != nil {
			return err
		}
	}
	for _, r := range append([]Region{{PromptSet: d.PromptSet}}, d.Regions...) {
		if r.PromptSet == "" {
			continue
		}
		if _, err := h.parts.Engine.PromptSets().Ready(r.PromptSet); err != nil && !errors.Is(err, clip.ErrSetNotReady) {
			return err
		}
	}
	return nil
}

// room makes a place for a stream that is to be defined, which may be there already, or says why there is none.
func (h *Hub) room(s *stream) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return ErrStopping
	case s == nil:
		return h.makeRoom("")
	}
	return nil
}

// keep writes a definition to the file.
func (h *Hub) keep(ctx context.Context, id string, d Definition) error {
	if h.parts.Store == nil {
		return fmt.Errorf("%w: %w", ErrLost, h.parts.Lost)
	}
	text, err := d.canonical()
	if err == nil {
		err = h.parts.Store.PutStream(ctx, id, text)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// define has a stream as it is kept now, or placed.
func (h *Hub) define(id string, d Definition, placed bool) (s *stream, created bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return nil, false, ErrStopping // it is kept, and there after the next start
	}
	if s = h.streams[id]; s == nil {
		s = h.newStream(id, d, true)
		s.placed.Store(placed)
		h.streams[id] = s
		created = true
	}
	s.label.Store(h.label(id, false, true))
	s.mu.Lock()
	created = created || s.kept == nil
	s.kept = newPlan(d)
	s.restore()
	s.mu.Unlock()
	s.pull()
	return s, created, nil
}

func (h *Hub) changed() {
	if h.parts.Changed != nil {
		h.parts.Changed()
	}
}

func (h *Hub) find(id string) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

func missing(id string) error { return fmt.Errorf("%w: %.64q", ErrNoStream, id) }

// Get returns a stream; List all that have a name, by id. The password of a source is masked.
func (h *Hub) Get(id string) (Info, error) {
	s := h.find(id)
	if s == nil || s.unnamed() {
		return Info{}, missing(id)
	}
	return s.info(), nil
}

func (h *Hub) List() []Info {
	list := []Info{}
	for _, s := range h.all() {
		if !s.unnamed() {
			list = append(list, s.info())
		}
	}
	return list
}

// all returns the streams by id.
func (h *Hub) all() []*stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.streams), func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
}

// Delete ends a stream and forgets its definition. Its events stay. Errors: ErrNoStream, ErrLost.
func (h *Hub) Delete(ctx context.Context, id string) error {
	done, err := h.changing.Take(ctx, fair.Caller{})
	if err != nil {
		return err
	}
	defer done()
	s := h.find(id)
	if s == nil || s.unnamed() {
		return missing(id)
	}
	if s.placed.Load() {
		return ErrPlaced
	}
	s.mu.Lock()
	defined := s.kept != nil
	s.mu.Unlock()
	if defined {
		if h.parts.Store == nil {
			return fmt.Errorf("%w: %w", ErrLost, h.parts.Lost)
		}
		if err := h.parts.Store.DeleteStream(ctx, id); err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	h.mu.Lock()
	delete(h.streams, id)
	h.mu.Unlock()
	s.end(ErrEnded)
	h.changed()
	return nil
}

// Opening says how a feed is opened.
type Opening struct {
	ID string // of the stream; "": what Definition has as its "id" or, without one, a stream of its own that ends with the feed

	// Definition is JSON, as Parse reads it, and may have an "id" beside the fields. Of a stream that is not defined it says all; that
	// stream ends linger after its last feed. Of one that is, it says what is to change, as Merge does, while the feed lasts. nil: nothing.
	Definition []byte

	Caller fair.Caller // of this feed alone

	// Answer is called with what became of each frame, in the order of Push, one at a time, from a goroutine of the hub. While it
	// blocks, further answers wait, and with policy latest frames are superseded. It must return once ctx of Open has ended, and not
	// close the feed. May be nil. Events are told by the bus, after Answer has returned, to listeners for Feed.ID.
	Answer func(*Answer)
}

// Open opens a feed, which ends with ctx or Close. A feed that has pushed nothing for long, see staleFeed, makes way for another one,
// also for that of another stream, see makeRoom.
// Errors: ErrNoStream, ErrFed, ErrStreamsFull, ErrStopping, sets.Faults, of prompt sets.
func (h *Hub) Open(ctx context.Context, o Opening) (*Feed, error) {
	id := o.ID
	if id == "" && o.Definition != nil {
		var named struct {
			ID string `json:"id"`
		}
		if err := sets.ReadObject(o.Definition, h.settings.Load().limits.Prompts+maxFields, false, &named); err != nil {
			return nil, err
		}
		id = named.ID
	}
	if id != "" && !event.ValidName(id) {
		return nil, sets.Fault{Field: "id", Problem: nameProblem}
	}
	for {
		if f, err := h.open(ctx, id, o); !errors.Is(err, errChanged) {
			return f, err
		}
	}
}

// errChanged says that a stream was defined, or otherwise, while a definition was merged onto what it was.
var errChanged = errors.New("the stream has changed")

func (h *Hub) open(ctx context.Context, id string, o Opening) (*Feed, error) {
	before, begin, d := h.find(id), (*plan)(nil), Definition{}
	switch {
	case before != nil:
		begin = before.begin()
		d = begin.Definition
	case o.Definition == nil:
		return nil, missing(id)
	}
	if o.Definition != nil {
		var err error
		if d, err = d.merge(o.Definition, h.settings.Load().limits, true); err != nil {
			return nil, err
		}
		if before == nil && d.Source != "" || before != nil && d.Source != begin.Source {
			return nil, errSource
		}
		if err := h.check(d); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[id]
	switch {
	case h.ended:
		return nil, ErrStopping
	case s == nil && before != nil:
		return nil, missing(id) // it was deleted meanwhile
	case s != before || s != nil && s.begin() != begin:
		return nil, errChanged
	case s == nil:
		if err := h.makeRoom(o.Caller.Address); err != nil {
			return nil, err
		}
		s = h.newStream(cmp.Or(id, newUnnamed()), d, false)
	}
	f, err := s.open(ctx, o, d)
	if err != nil {
		return nil, err
	}
	h.streams[s.id] = s
	return f, nil
}

var errSource = sets.Fault{Field: "source", Problem: "can be given only where the stream is defined"}

// newUnnamed makes an id that is no name, so that the stream can be found by its feed alone.
func newUnnamed() string { return fmt.Sprintf("~%016x", rand.Uint64()) }

// Listen begins to listen to events for an address, of which there are MaxListeners at most. done is called once, and closes the
// listener. Error: ErrListenersFull.
func (h *Hub) Listen(address string, f event.Filter, lastID string) (l *event.Listener, done func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[address] >= h.settings.Load().MaxListeners {
		return nil, nil, fmt.Errorf("%w: %d", ErrListenersFull, h.settings.Load().MaxListeners)
	}
	h.listeners[address]++
	l = h.parts.Bus.Listen(f, lastID)
	return l, func() {
		l.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.listeners[address]--; h.listeners[address] == 0 {
			delete(h.listeners, address)
		}
	}, nil
}

// HubStats is what GET /v1/stats says of streams.
type HubStats struct {
	Streams   int `json:"streams"`
	Fed       int `json:"fed"`
	Degraded  int `json:"degraded"`
	Listeners int `json:"listeners"`
	Stats

	ByName []LabelledStats `json:"by_name"`
}

// Stats returns the counters of all streams since the start.
func (h *Hub) Stats() HubStats {
	now := h.now()
	st := HubStats{Stats: h.meter.stats(now), ByName: h.labelledStats(now)}
	for _, s := range h.all() {
		fed, degraded := s.status()
		st.Streams++
		if fed {
			st.Fed++
		}
		if degraded {
			st.Degraded++
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.listeners {
		st.Listeners += n
	}
	return st
}

// now is the time since the hub began, for meters.
func (h *Hub) now() time.Duration { return time.Since(h.start) }

// End refuses new feeds and frames, answers those that are inside and ends feeds and sources. It does not wait. The engine must still
// be running.
func (h *Hub) End() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	for _, s := range h.all() {
		s.stop(ErrStopping)
	}
}

// abortTime is how long Close waits for what it has given up.
const abortTime = time.Second

// Close does what End does and waits for it. When ctx ends first, what is inside expires, and the cause of ctx is returned.
func (h *Hub) Close(ctx context.Context) error {
	h.End()
	defer h.giveUp()
	ended := make(chan struct{})
	go func() {
		h.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	h.giveUp()
	patience := time.NewTimer(abortTime)
	defer patience.Stop()
	select {
	case <-ended:
	case <-patience.C:
	}
	return fmt.Errorf("streams were cut short: %w", context.Cause(ctx))
}
