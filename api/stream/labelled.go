package stream

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// maxLabelled is how many streams have counters of their own in LabelledStats.
const maxLabelled = 64

// OtherStreams is the name of all streams without counters of their own.
const OtherStreams = "-"

// States of LabelledStats.State.
const (
	StateGone     = "gone"     // there is no such stream any more; its counters go on when it comes back
	StateIdle     = "idle"     // it is not fed
	StateFed      = "fed"      // it is fed, and keeps up
	StateDegraded = "degraded" // frames come faster than they are answered
	StateTrouble  = "trouble"  // its source does not deliver
)

// LabelledStats are the counters of a stream by its name, since the start of the service: whoever draws them over time needs names
// that are few and stay. Defined streams have them, and others with a name while there is room, maxLabelled in all; the rest counts
// as OtherStreams. They outlive the stream, until its room is needed for another one that is defined; then they are added to those.
type LabelledStats struct {
	Stream string `json:"stream"`
	State  string `json:"state,omitempty"` // "" for OtherStreams
	Stats
}

// label returns the meter that a stream counts in beside its own, by name. The caller holds the hub's lock.
func (h *Hub) label(id string, unnamed, defined bool) *meter {
	m := h.labelled[id]
	switch {
	case m != nil:
		return m
	case unnamed:
		return &h.others
	case len(h.labelled) >= maxLabelled && (!defined || !h.unlabel()):
		return &h.others
	}
	m = &meter{}
	h.labelled[id] = m
	return m
}

// unlabel frees the room of a stream that is gone. The caller holds the hub's lock.
func (h *Hub) unlabel() bool {
	for id, m := range h.labelled {
		if h.streams[id] == nil {
			h.others.add(m.stats(h.now()))
			delete(h.labelled, id)
			return true
		}
	}
	return false
}

// labelledStats returns them by name, OtherStreams last.
func (h *Hub) labelledStats(now time.Duration) []LabelledStats {
	h.mu.Lock()
	labelled, streams := maps.Clone(h.labelled), maps.Clone(h.streams)
	h.mu.Unlock()
	var list []LabelledStats
	for id, m := range labelled {
		l := LabelledStats{Stream: id, State: StateGone, Stats: m.stats(now)}
		if s := streams[id]; s != nil {
			l.State = s.state()
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b LabelledStats) int { return cmp.Compare(a.Stream, b.Stream) })
	return append(list, LabelledStats{Stream: OtherStreams, Stats: h.others.stats(now)})
}

// state is one of the states of LabelledStats.
func (s *stream) state() string {
	fed, degraded := s.status()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.puller != nil && s.puller.trouble != nil:
		return StateTrouble
	case !fed:
		return StateIdle
	case degraded:
		return StateDegraded
	}
	return StateFed
}
