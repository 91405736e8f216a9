package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// Writing wears out an SD card, and anybody can make requests fail. So the failures of a route with the same status have at most
// failuresLogged lines in failuresTime. The next line says how many were left out.
const (
	failuresLogged = 10
	failuresTime   = 10 * time.Second
)

// lines decides which requests of a route have a line in the log. Safe for concurrent use.
type lines struct {
	successes atomic.Uint64

	mu       sync.Mutex
	byStatus map[int]*failures // by status; 0: see ended
}

// failures are those with the same status.
type failures struct {
	since   time.Time // when the current failuresTime began
	logged  int       // lines since then
	leftOut uint64    // failures without a line since the last one
}

// SetLogEvery changes Service.LogEvery. It may be called while the server serves.
func (s *Server) SetLogEvery(n int) { s.logEvery.Store(int64(n)) }

// answered says whether a success is logged: the first of each every successes; none if every is 0.
func (l *lines) answered(every int) bool {
	return every > 0 && (l.successes.Add(1)-1)%uint64(every) == 0
}

// failed says whether a failure is logged, and if so how many with the same status were left out since the last line.
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

// ended is failed for lines that are not of a request: the end of a stream, and what fasthttp says about a connection.
func (l *lines) ended(now time.Time) (logged bool, leftOut uint64) { return l.failed(0, now) }
