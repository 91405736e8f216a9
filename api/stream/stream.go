package stream

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hailoclip/api/stream/source"
	"hailoclip/pipeline"
)

// stream is one that is defined, or open.
type stream struct {
	hub     *Hub
	id      string
	plan    atomic.Pointer[plan]
	placed  atomic.Bool // see Hub.Place
	pending atomic.Bool // a change needs more frames
	watched atomic.Bool // there are watches
	meter   meter
	label   atomic.Pointer[meter] // see Hub.label
	outbox  outbox

	idMu     sync.Mutex     // guards what events of a placed stream are identified by
	idSecond int64          // of the last one
	ids      map[string]int // and how many of each kind there were in that second

	mu       sync.Mutex // guards what follows; taken after that of the hub
	kept     *plan      // what it is defined as; nil: it is not. A feed may have it otherwise for as long as it lasts
	ended    bool
	feed     *Feed // nil: none
	puller   *puller
	watches  []*watch    // what holds in each region; nil: nothing is known
	watching *plan       // whose regions those are
	linger   *time.Timer // nil: the stream is fed
	lingers  int         // how often that was set
	unfedAt  time.Time   // when, the last time
}

// Info is a stream as GET answers with it.
type Info struct {
	ID string `json:"id"`
	Definition
	State    []RegionState `json:"state,omitempty"`        // with events: what holds now
	Fed      bool          `json:"fed"`                    // a feed is open, or the source delivers
	Trouble  string        `json:"trouble,omitempty"`      // what is wrong with the source, without credentials
	Code     string        `json:"trouble_code,omitempty"` // auth, not_found, codec, timeout, not_allowed, no_ffmpeg, unavailable
	Degraded bool          `json:"degraded"`               // frames come faster than they are answered, for ten seconds
	Stats    Stats         `json:"stats"`
}

// RegionState is what holds in a region, "" for the whole frame.
type RegionState struct {
	Region string    `json:"region,omitempty"`
	State  string    `json:"state"`  // the most likely of the labels that hold; "unknown": none
	Labels []string  `json:"labels"` // that hold
	Score  float64   `json:"score"`
	Since  time.Time `json:"since,omitzero"` // when that began; not there before the first change
}

// newStream makes one. The caller holds the hub's lock.
func (h *Hub) newStream(id string, d Definition, defined bool) *stream {
	s := &stream{hub: h, id: id}
	s.label.Store(h.label(id, s.unnamed(), defined))
	s.outbox.stream, s.outbox.changed.L = s, &s.outbox.mu
	s.plan.Store(newPlan(d))
	return s
}

// unnamed says that the stream belongs to one feed.
func (s *stream) unnamed() bool { return strings.HasPrefix(s.id, "~") }

// open makes a feed of the stream, for which d is in force from then on. The caller holds the hub's lock.
func (s *stream) open(ctx context.Context, o Opening, d Definition) (*Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old := s.feed; {
	case s.ended:
		return nil, ErrEnded
	case s.plan.Load().Source != "" && s.puller == nil, s.puller != nil && s.puller.caller != o.Caller:
		return nil, ErrFed
	case old != nil && !old.stale():
		return nil, ErrFed
	case old != nil:
		old.end(ErrFed)
	}
	s.restore() // after the feed before
	if o.Definition != nil {
		s.plan.Store(newPlan(d))
	}
	s.feed = newFeed(ctx, s, o)
	if s.puller == nil { // whose frames are still to come
		s.fed()
	}
	return s.feed, nil
}

// restore has the stream be as it is defined, if it is. The caller holds mu.
func (s *stream) restore() {
	if s.kept != nil {
		s.plan.Store(s.kept)
	}
}

// begin is what a feed begins with: not what the one before has made of it, if the stream is defined.
func (s *stream) begin() *plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept != nil {
		return s.kept
	}
	return s.plan.Load()
}

// stale says that another feed may take the place of f: it is over, or has pushed nothing for long.
func (f *Feed) stale() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over || !f.blocked && time.Since(f.pushed) >= max(staleFeed, 3*f.gap)
}

// fed ends the time for which the stream has no frames. The caller holds mu.
func (s *stream) fed() {
	if s.linger != nil {
		s.linger.Stop()
		s.linger = nil
	}
}

// unfed begins the time for which the state of a stream outlives its feed. The caller holds mu.
func (s *stream) unfed() {
	if s.linger != nil || s.ended {
		return
	}
	s.lingers++
	n := s.lingers
	s.unfedAt = time.Now()
	s.linger = time.AfterFunc(s.hub.settings.Load().Linger, func() { s.forget(n) })
}

// forget ends a stream that is not defined, and of others what holds, when linger has run out for the time n.
func (s *stream) forget(n int) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.linger == nil || s.lingers != n || s.ended {
		return
	}
	s.release()
	if s.linger = nil; s.kept == nil {
		s.ended = true
		delete(s.hub.streams, s.id)
	}
}

// left is what a feed calls when it has ended.
func (s *stream) left(f *Feed) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feed != f {
		return
	}
	s.feed = nil
	s.restore()
	if s.unnamed() {
		s.ended = true
		delete(s.hub.streams, s.id)
		return
	}
	s.unfed()
}

// end ends the stream for good, which is not found any more.
func (s *stream) end(why error) {
	s.stop(why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
}

// stop ends the feed and the source.
func (s *stream) stop(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.fed()
	if s.feed != nil {
		s.feed.end(why)
	}
	if s.puller != nil {
		s.puller.cancel()
	}
}

// caught is deferred: a panic is logged, and an error.
func (s *stream) caught(stage, message string, err *error) {
	if v := recover(); v != nil {
		failed := &pipeline.PanicError{Stage: stage, Value: v, Stack: debug.Stack()}
		s.hub.log.Error(message, "stream", s.id, "error", failed, "stack", string(failed.Stack))
		*err = failed
	}
}

// frame counts a frame that has come.
func (s *stream) frame() {
	s.meter.frame()
	s.label.Load().frame()
	s.hub.meter.frame()
}

// settled counts what became of it.
func (s *stream) settled(a *Answer) {
	now := s.hub.now()
	s.meter.outcome(a, now)
	s.label.Load().outcome(a, now)
	s.hub.meter.outcome(a, now)
}

// changed counts events, and those that were not stored.
func (s *stream) changed(events, unstored int) {
	s.meter.changed(events, unstored)
	s.label.Load().changed(events, unstored)
	s.hub.meter.changed(events, unstored)
}

func (s *stream) status() (fed, degraded bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fed = s.feed != nil
	if s.puller != nil {
		fed = s.puller.delivers
	}
	return fed, s.meter.degraded(s.hub.now())
}

func (s *stream) info() Info {
	i := Info{ID: s.id, Definition: s.plan.Load().Definition, Stats: s.meter.stats(s.hub.now())}
	i.Fed, i.Degraded = s.status()
	if i.Source != "" {
		i.Source = source.Mask(i.Source)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puller != nil && s.puller.trouble != nil {
		i.Trouble, i.Code = s.puller.trouble.Error(), "unavailable"
		if trouble, ok := errors.AsType[*source.Error](s.puller.trouble); ok {
			i.Code = trouble.Code
		}
	}
	i.State = s.states()
	return i
}
