package pipeline

import "sync/atomic"

type counters struct {
	passed, failed, expired, calls atomic.Uint64
	busy                           atomic.Int32
}

// StageStats is what a stage has done since the start, and what it does now.
type StageStats struct {
	Stage    string   `json:"stage"`
	Workers  int      `json:"workers"`
	Busy     int      `json:"busy"`     // workers at work now
	Stuck    int      `json:"stuck"`    // workers past the deadline of their jobs now
	Queued   int      `json:"queued"`   // jobs waiting in front of it now
	Capacity int      `json:"capacity"` // jobs that can wait
	Passed   uint64   `json:"passed"`   // jobs it finished
	Failed   uint64   `json:"failed"`   // jobs that left the line here with an error
	Expired  uint64   `json:"expired"`  // jobs that left the line here because their deadline had passed
	Batches  []uint64 `json:"batches"`  // Batches[n]: groups of n jobs done together; each call of Work is a group of 1
}

// Stats returns the counters of every stage, in order.
func (p *Pipeline[T]) Stats() []StageStats {
	stats := make([]StageStats, len(p.lines))
	for i, l := range p.lines {
		s := &stats[i]
		*s = StageStats{
			Stage: l.Name, Workers: l.Workers, Busy: int(l.busy.Load()),
			Queued: len(l.in), Capacity: cap(l.in),
			Passed: l.passed.Load(), Failed: l.failed.Load(), Expired: l.expired.Load(),
			Batches: []uint64{0, l.calls.Load()},
		}
		if l.door != nil {
			s.Queued = l.door.len()
		}
		l.crew.mu.Lock()
		s.Stuck = l.crew.stuck
		l.crew.mu.Unlock()
	}
	return stats
}

// Load is how much a pipeline has to do now.
type Load struct {
	Waiting int    // jobs at the front door
	Room    int    // more that could wait there
	Inside  int    // jobs behind it
	Done    uint64 // jobs that have passed the last stage since the start
}

// Load counts the jobs. It is cheap and allocates nothing.
func (p *Pipeline[T]) Load() (load Load) {
	for i, l := range p.lines {
		load.Inside += int(l.busy.Load())
		if i > 0 {
			load.Inside += len(l.in)
		}
	}
	door := p.door()
	load.Waiting = door.len()
	load.Room = max(cap(door.announce)-load.Waiting, 0)
	load.Done = p.lines[len(p.lines)-1].passed.Load()
	return load
}
