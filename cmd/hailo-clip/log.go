package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"hailoclip/configs"
)

const (
	maxQueuedLog = 1 << 20     // bytes of lines that may wait for the reader of standard error
	lastWords    = time.Second // how long the end of the program waits for that reader
)

// stderr is what logs and messages are written to. It writes to standard error and never blocks.
var stderr = newLogQueue(os.Stderr)

// logQueue writes whole lines to a file whose reader may be slow, stop for ever, or be gone: no
// request, no /health and no SIGTERM waits for it. One goroutine writes; lines that do not
// fit into the queue, or that cannot be written, are dropped and counted, and the number is logged
// as soon as something can be written again. Safe for concurrent use.
type logQueue struct {
	out io.Writer // only the goroutine writes to it

	mu      sync.Mutex
	more    sync.Cond // pending is no longer empty
	pending []byte    // lines that wait
	dropped uint64    // lines dropped since that was last told
	writing bool      // the goroutine is inside out
	flushed []chan struct{}
	told    *slog.Logger // writes to out: how the number of dropped lines is told
}

func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, told: slog.New(slog.NewTextHandler(out, nil))}
	q.more.L = &q.mu
	go q.run()
	return q
}

// Write queues lines, each with its end, or drops them. It does not fail.
func (q *logQueue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending)+len(lines) > maxQueuedLog {
		q.dropped += countLines(lines)
		return len(lines), nil
	}
	q.pending = append(q.pending, lines...)
	q.more.Signal()
	return len(lines), nil
}

func countLines(b []byte) uint64 { return uint64(bytes.Count(b, []byte("\n"))) }

// run writes what is queued, for ever.
func (q *logQueue) run() {
	var batch []byte
	q.mu.Lock()
	for {
		q.writing = false
		for len(q.pending) == 0 {
			for _, done := range q.flushed {
				close(done)
			}
			q.flushed = nil
			q.more.Wait()
		}
		batch, q.pending = q.pending, batch[:0]
		q.writing = true
		q.mu.Unlock()
		n, err := q.out.Write(batch)
		q.mu.Lock()
		if err != nil {
			q.dropped += countLines(batch[n:])
		} else if dropped, told := q.dropped, q.told; dropped > 0 {
			q.dropped = 0
			q.mu.Unlock()
			told.Warn("log lines were dropped, because nobody read the log or it could not be written", "lines", dropped)
			q.mu.Lock()
		}
	}
}

// flush waits until all lines are written, but no longer than limit.
func (q *logQueue) flush(limit time.Duration) {
	q.mu.Lock()
	if len(q.pending) == 0 && !q.writing {
		q.mu.Unlock()
		return
	}
	done := make(chan struct{})
	q.flushed = append(q.flushed, done)
	q.mu.Unlock()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// newLogger logs to standard error as the configuration says.
func newLogger(c configs.Logging) *slog.Logger { return stderr.logger(c) }

// logger returns a logger whose lines are queued. How the last one looks is how the number of dropped lines is told.
func (q *logQueue) logger(c configs.Logging) *slog.Logger {
	level := c.SlogLevel()
	handler := func(w io.Writer, o *slog.HandlerOptions) slog.Handler {
		if c.Format == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = slog.New(handler(q.out, nil))
	return slog.New(handler(q, &slog.HandlerOptions{Level: level}))
}
