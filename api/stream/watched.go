package stream

import (
	"cmp"
	"slices"

	"hailoclip/stages"
)

// Watched is a stream that makes events, for whoever tells other systems what holds.
type Watched struct {
	ID         string
	Thumbnails bool
	Regions    []WatchedRegion
}

// WatchedRegion is a region of one, with the labels that can hold; none where its prompt set is not ready.
type WatchedRegion struct {
	RegionState
	Can []string
}

// Watched returns the streams that are defined and make events, by id. It does not block.
func (h *Hub) Watched() (list []Watched) {
	for _, s := range h.all() {
		if w, ok := s.overview(); ok {
			list = append(list, w)
		}
	}
	return list
}

func (s *stream) overview() (Watched, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plan.Load()
	if s.kept == nil || p.Events == nil {
		return Watched{}, false
	}
	w, now := Watched{ID: s.id, Thumbnails: p.Events.Thumbnails}, s.states()
	for _, region := range p.regions {
		r := WatchedRegion{Can: p.Prompts, RegionState: RegionState{Region: region.Name, State: unknown}}
		if i := slices.IndexFunc(now, func(n RegionState) bool { return n.Region == region.Name }); i >= 0 {
			r.RegionState = now[i]
		}
		if name := cmp.Or(region.PromptSet, p.PromptSet); name != "" {
			r.Can = nil
			if set, err := s.hub.parts.Engine.PromptSets().Ready(name); err == nil {
				for i, label := range set.Names {
					if set.Labels.Kinds == nil || i < set.Labels.N && set.Labels.Kinds[i] == stages.Ordinary {
						r.Can = append(r.Can, label)
					}
				}
			}
		}
		w.Regions = append(w.Regions, r)
	}
	return w, true
}
