package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
)

// ErrPlaced says that a stream is not this service's to change: somebody who gives streams to services has placed it here.
var ErrPlaced = errors.New("the stream is placed here by the fleet, and is changed there")

// Place has a stream run here, or changes it, until Displace: it is as one that Put has defined, but is not kept. Of the same changes
// of what holds, services that a stream is placed at at the same time make events with the same ids. Errors: those of Put, and ErrFed
// where a stream of that name is defined or fed here.
func (h *Hub) Place(ctx context.Context, id string, definition []byte) error {
	d, err := Parse(definition, h.settings.Load().limits)
	if err == nil && !event.ValidName(id) {
		err = sets.Fault{Field: "id", Problem: nameProblem}
	}
	if err != nil {
		return err
	}
	done, err := h.changing.Take(ctx, fair.Caller{})
	if err != nil {
		return err
	}
	defer done()
	before := h.find(id)
	if before != nil && !before.placed.Load() {
		return fmt.Errorf("%w: this service has a stream %.64q of its own", ErrFed, id)
	}
	if err := h.check(d); err != nil {
		return err
	}
	if err := h.room(before); err != nil {
		return err
	}
	if _, _, err := h.define(id, d, true); err != nil {
		return err
	}
	h.changed()
	return nil
}

// Displace ends a stream that was placed here. It does nothing where there is none.
func (h *Hub) Displace(ctx context.Context, id string) error {
	done, err := h.changing.Take(ctx, fair.Caller{})
	if err != nil {
		return err
	}
	defer done()
	s := h.find(id)
	if s == nil || !s.placed.Load() {
		return nil
	}
	h.mu.Lock()
	delete(h.streams, id)
	h.mu.Unlock()
	s.end(ErrEnded)
	h.changed()
	return nil
}

// Placed returns the streams that are placed here, by name.
func (h *Hub) Placed() (all []Info) {
	for _, s := range h.all() {
		if s.placed.Load() {
			all = append(all, s.info())
		}
	}
	return all
}

// identify gives an event of a placed stream the id that it has wherever the stream is placed: a hash over stream, region, kind, label
// and second; of several such events within a second, over their number, too.
func (s *stream) identify(e *event.Event) {
	if !s.placed.Load() {
		return
	}
	s.idMu.Lock()
	defer s.idMu.Unlock()
	second := e.Time.Unix()
	if s.idSecond != second {
		s.idSecond, s.ids = second, map[string]int{}
	}
	what := fmt.Sprintf("%q %q %q %q %q %d", s.id, e.Region, e.Kind, e.Label, e.State, second)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, s.ids[what]))
	s.ids[what]++
	e.ID = hex.EncodeToString(sum[:16])
}
