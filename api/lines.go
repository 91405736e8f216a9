package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// An SD card wears out by what is written to it, and everybody can make requests fail. So of failures that are alike, those of
// a route with the same status, failuresLogged have a line in failuresTime; how many were left out stands in the next one.
const (
	failuresLogged = 10
	failuresTime   = 10 * time.Second
)

// lines says which requests of a route have a line in the log. Safe for concurrent use.
type lines struct {
	successes atomic.Uint64

	mu       sync.Mutex
	byStatus map[int]*failures // 0 is for what ended that was no request
}

// failures are those with the same status.
type failures struct {
	since   time.Time // when their time began
	logged  int       // since then
	leftOut uint64    // since the last line
}

// SetLogEvery changes Service.LogEvery.
func (s *Server) SetLogEvery(n int) { s.logEvery.Store(int64(n)) }

// answered says whether a success is logged: one in every, the first of them; 0: none.
func (l *lines) answered(every int) bool {
	return every > 0 && (l.successes.Add(1)-1)%uint64(every) == 0
}

// failed says whether a failure is logged, and how many like it were left out since the last one that was.
func (l *lines) failed(status int, now time.Time) (logged bool, leftOut uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.byStatus[status]
	if f == nil {
		if l.byStatus == nil {
			l.byStatus = map[int]*failures{}
		}
		f = &failures{}
		l.byStatus[status] = f
	}
	if now.Sub(f.since) >= failuresTime {
		f.since, f.logged = now, 0
	}
	if f.logged >= failuresLogged {
		f.leftOut++
		return false, 0
	}
	f.logged++
	leftOut, f.leftOut = f.leftOut, 0
	return true, leftOut
}

// ended is failed for what is no request: the end of a stream, or what the HTTP server says of a connection.
func (l *lines) ended(now time.Time) (logged bool, leftOut uint64) { return l.failed(0, now) }
