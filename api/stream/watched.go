package stream

import (
	"cmp"
	"slices"

	"hailoclip/api/stream/event"
)

// Watched returns the streams that are defined and make events, by id. It does not block.
func (h *Hub) Watched() []event.Watched {
	list := []event.Watched{}
	for _, s := range h.all() {
		if w, ok := s.overview(); ok {
			list = append(list, w)
		}
	}
	return list
}

func (s *stream) overview() (event.Watched, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plan.Load()
	if s.kept == nil || p.Events == nil {
		return event.Watched{}, false
	}
	w, now := event.Watched{ID: s.id, Thumbnails: p.Events.Thumbnails}, s.states()
	for _, region := range p.regions {
		r := event.Region{Name: region.Name, Labels: p.Prompts, State: unknown}
		if i := slices.IndexFunc(now, func(n RegionState) bool { return n.Region == region.Name }); i >= 0 {
			r.State, r.Score, r.Holds, r.Since = now[i].State, now[i].Score, now[i].Labels, now[i].Since
		}
		if name := cmp.Or(region.PromptSet, p.PromptSet); name != "" {
			r.Labels = nil
			if set, err := s.hub.parts.Engine.PromptSets().Ready(name); err == nil {
				for i, label := range set.Names {
					if set.Labels.Ordinary(i) {
						r.Labels = append(r.Labels, label)
					}
				}
			}
		}
		w.Regions = append(w.Regions, r)
	}
	return w, true
}
