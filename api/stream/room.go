package stream

import (
	"fmt"
	"time"
)

// makeRoom says why there is no room for another stream of an address ("": it is to be defined). Where there are too many, one that is
// not defined makes way: that which has been without a feed for longest or, if all are fed, that whose feed has pushed nothing for
// longest, and for staleFeed at least, of an address that has more of them than this one would have. The caller holds mu.
func (h *Hub) makeRoom(address string) error {
	if len(h.streams) < h.settings.Load().MaxStreams {
		return nil
	}
	full := fmt.Errorf("%w: %d", ErrStreamsFull, h.settings.Load().MaxStreams)
	open := map[string]int{} // streams by the address of their feed
	for _, s := range h.streams {
		if whose, _, loose := s.loose(); loose {
			open[whose]++
		}
	}
	var (
		spare *stream
		unfed bool
		first time.Time
	)
	for _, s := range h.streams {
		whose, since, loose := s.loose()
		if !loose || whose != "" && (unfed || time.Since(since) < staleFeed || open[whose] <= open[address]+1) {
			continue
		}
		if spare == nil || whose == "" && !unfed || since.Before(first) {
			spare, unfed, first = s, whose == "", since
		}
	}
	if spare == nil {
		return full
	}
	delete(h.streams, spare.id)
	spare.end(fmt.Errorf("%w, and this one has made way", full))
	return nil
}

// loose says whether a stream may make way: it is not defined. whose is the address of its feed, "" if it has none, since when the feed
// has pushed last, or has ended.
func (s *stream) loose() (whose string, since time.Time, loose bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feed == nil {
		return "", s.unfedAt, s.kept == nil
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return s.feed.caller.Address, s.feed.pushed, s.kept == nil
}
