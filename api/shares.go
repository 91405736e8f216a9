package api

import (
	"context"
	"sync"

	"hailoclip/pipeline/fair"
)

// shares let callers in, in turn, so many at once, and no more than so many of one address. Safe for concurrent use.
type shares struct {
	all   *fair.Turns
	ofOne int

	mu  sync.Mutex
	own map[string]*ownShare // by address of callers that are inside, or wait
}

// ownShare is that of one address.
type ownShare struct {
	turns *fair.Turns
	n     int // that are inside, or wait
}

func newShares(all, ofOne int) *shares {
	return &shares{all: fair.NewTurns(all), ofOne: ofOne, own: map[string]*ownShare{}}
}

// take waits until c is let in, which lasts until done is called, once. When ctx ends first, the error is its cause.
func (s *shares) take(ctx context.Context, c fair.Caller) (done func(), err error) {
	s.mu.Lock()
	own := s.own[c.Address]
	if own == nil {
		own = &ownShare{turns: fair.NewTurns(s.ofOne)}
		s.own[c.Address] = own
	}
	own.n++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if own.n--; own.n == 0 {
			delete(s.own, c.Address)
		}
	}
	ofOwn, err := own.turns.Take(ctx, c)
	if err != nil {
		leave()
		return nil, err
	}
	ofAll, err := s.all.Take(ctx, c)
	if err != nil {
		ofOwn()
		leave()
		return nil, err
	}
	return func() { ofAll(); ofOwn(); leave() }, nil
}
