package stream

import (
	"sync"

	"hailoclip/pipeline/fair"
)

// places bounds the frames of policy latest in the engine: as many as keep it busy. More would only wait there, and be old when they
// are answered. Feeds are served in turn. Safe for concurrent use.
type places struct {
	mu      sync.Mutex
	free    int
	waiting fair.Queue[*Feed] // each once, see Feed.queued
}

// take takes a place for a frame of f. If there is none it is false, and granted is called later. The caller holds the lock of f.
func (p *places) take(f *Feed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case f.queued:
		return false
	case p.free > 0:
		p.free--
		return true
	}
	f.queued = true
	p.waiting.Push(f.caller, f)
	return false
}

// give gives a place back, to the feed whose turn it is. The caller holds no lock of a feed.
func (p *places) give() {
	for {
		p.mu.Lock()
		f, ok := p.waiting.Pop()
		if !ok {
			p.free++
		}
		p.mu.Unlock()
		if !ok || f.granted() {
			return
		}
	}
}
