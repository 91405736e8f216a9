package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"hailoclip/configs"
)

const (
	maxQueuedLog   = 1 << 20     // bytes of lines that may wait for the reader of standard error
	maxQueuedLines = 1 << 13     // and how many
	maxLogWrite    = 4 << 10     // bytes from which on a write has enough: what a pipe takes whole or not at all
	flushTimeout   = time.Second // how long the end of the program waits for that reader
)

// stderr is what logs and messages are written to. It writes to standard error and never blocks.
var stderr = newLogQueue(os.Stderr)

// logQueue writes whole lines to a file whose reader may be slow, stop for ever, or be gone: no
// request, no /health and no SIGTERM waits for it. One goroutine writes; lines that do not
// fit into the queue, or that cannot be written, are dropped and counted, and the number is logged
// as soon as something can be written again. Safe for concurrent use.
type logQueue struct {
	out     io.Writer // only the goroutine writes to it
	queue   chan queuedLog
	bytes   atomic.Int64                // in the queue
	dropped atomic.Uint64               // lines dropped since that was last told
	told    atomic.Pointer[slog.Logger] // writes to out: how the number of dropped lines is told
}

// queuedLog is text to write, or a channel to close when all before it is written.
type queuedLog struct {
	text    []byte
	flushed chan struct{}
}

func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, queue: make(chan queuedLog, maxQueuedLines)}
	q.told.Store(slog.New(slog.NewTextHandler(out, nil)))
	go q.run()
	return q
}

// Write queues lines, each with its end, or drops them. It does not fail.
func (q *logQueue) Write(lines []byte) (int, error) {
	if size := int64(len(lines)); q.bytes.Add(size) <= maxQueuedLog {
		select {
		case q.queue <- queuedLog{text: bytes.Clone(lines)}:
			return len(lines), nil
		default:
		}
	}
	q.bytes.Add(-int64(len(lines)))
	q.dropped.Add(countLines(lines))
	return len(lines), nil
}

func countLines(b []byte) uint64 { return uint64(bytes.Count(b, []byte("\n"))) }

// run writes what is queued, for ever, as much at a time as there is.
func (q *logQueue) run() {
	var text []byte
	for next := range q.queue {
		if next.flushed == nil {
			runtime.Gosched() // requests that are answered at the same time have their lines in one write
		}
		text = append(text[:0], next.text...)
		for next.flushed == nil && len(text) < maxLogWrite && len(q.queue) > 0 {
			next = <-q.queue
			text = append(text, next.text...)
		}
		q.write(text)
		if next.flushed != nil {
			close(next.flushed)
		}
	}
}

// write writes lines, counts those that could not be written, and tells of those that were not.
func (q *logQueue) write(lines []byte) {
	if len(lines) == 0 {
		return
	}
	n, err := q.out.Write(lines)
	q.bytes.Add(-int64(len(lines)))
	if err != nil {
		q.dropped.Add(countLines(lines[n:]))
	} else if dropped := q.dropped.Swap(0); dropped > 0 {
		q.told.Load().Warn("log lines were dropped, because nobody read the log or it could not be written", "lines", dropped)
	}
}

// flush waits until all lines are written, but no longer than limit.
func (q *logQueue) flush(limit time.Duration) {
	flushed, late := make(chan struct{}), time.After(limit)
	select {
	case q.queue <- queuedLog{flushed: flushed}:
	case <-late:
		return
	}
	select {
	case <-flushed:
	case <-late:
	}
}

// logger returns a logger as the configuration says. How the last one looks is how the number of dropped lines is told.
func (q *logQueue) logger(c configs.Logging) *slog.Logger {
	handler := func(w io.Writer, o *slog.HandlerOptions) slog.Handler {
		if c.Format == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	q.told.Store(slog.New(handler(q.out, nil)))
	return slog.New(handler(q, &slog.HandlerOptions{Level: c.SlogLevel()}))
}
