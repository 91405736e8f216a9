package bulk

import "sync"

// Counts are how many paths are in which state, over all runs.
type Counts struct {
	Waiting    int64 `json:"waiting"`    // without a row yet
	Stored     int64 `json:"stored"`     // with an embedding or classifications
	Failed     int64 `json:"failed"`     // with an error: the image cannot be used
	Unreadable int64 `json:"unreadable"` // with an error: it could not be read, or encoded
	Images     int64 `json:"images"`     // different contents among Stored and Failed
	Replaced   int64 `json:"replaced"`   // rows of what has changed or vanished that are still to be taken away
	Vanished   int64 `json:"vanished"`   // paths that the source did not have any more in its last whole pass
	Passes     int64 `json:"passes"`     // of the source that came to their end
	Complete   bool  `json:"complete"`   // the last run came to its end
}

// Paths are all that are known.
func (c *Counts) Paths() int64 { return c.Waiting + c.Stored + c.Failed + c.Unreadable }

// of is the count of a state.
func (c *Counts) of(s state) *int64 {
	return [states]*int64{waiting: &c.Waiting, stored: &c.Stored, failed: &c.Failed, unreadable: &c.Unreadable}[s]
}

// bits is a set of small numbers. Safe for concurrent use.
type bits struct {
	mu    sync.Mutex
	words []uint64
	n     int64 // how many are in it
}

// add says whether i is new.
func (s *bits) add(i uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uint64(len(s.words)) <= i/64 {
		s.words = append(s.words, 0)
	}
	w, bit := &s.words[i/64], uint64(1)<<(i%64)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	s.n++
	return true
}

func (s *bits) has(i uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i/64 < uint64(len(s.words)) && s.words[i/64]&(1<<(i%64)) != 0
}
