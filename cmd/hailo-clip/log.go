package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/term"

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
	term    bool      // it is a terminal
	queue   chan queuedLog
	bytes   atomic.Int64                // in the queue
	dropped atomic.Uint64               // lines dropped since that was last told
	lost    atomic.Uint64               // lines dropped in all
	level   slog.LevelVar               // of all loggers
	json    atomic.Bool                 // likewise
	told    atomic.Pointer[slog.Logger] // writes to out: how the number of dropped lines is told
}

// queuedLog is text to write, or a channel to close when all before it is written.
type queuedLog struct {
	text    []byte
	flushed chan struct{}
}

func newLogQueue(out io.Writer) *logQueue {
	q := &logQueue{out: out, queue: make(chan queuedLog, maxQueuedLines)}
	if f, ok := out.(*os.File); ok {
		q.term = term.IsTerminal(int(f.Fd()))
	}
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
	q.drop(countLines(lines))
	return len(lines), nil
}

func (q *logQueue) drop(lines uint64) {
	q.dropped.Add(lines)
	q.lost.Add(lines)
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
		q.drop(countLines(lines[n:]))
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

// logger returns a logger as the configuration says.
func (q *logQueue) logger(c configs.Logging) *slog.Logger {
	q.apply(c)
	o := &slog.HandlerOptions{Level: &q.level}
	return slog.New(formats{queue: q, json: slog.NewJSONHandler(q, o), text: slog.NewTextHandler(q, o)})
}

// apply changes level and format of all loggers, and the format in which dropped lines are told. Safe while they are used.
func (q *logQueue) apply(c configs.Logging) {
	asJSON := c.Format == "json" || c.Format != "text" && !q.term
	q.level.Set(c.SlogLevel())
	q.json.Store(asJSON)
	if asJSON {
		q.told.Store(slog.New(slog.NewJSONHandler(q.out, nil)))
	} else {
		q.told.Store(slog.New(slog.NewTextHandler(q.out, nil)))
	}
}

// formats is a handler that writes JSON or text, as the last apply of its queue says.
type formats struct {
	queue      *logQueue
	json, text slog.Handler
}

func (f formats) now() slog.Handler {
	if f.queue.json.Load() {
		return f.json
	}
	return f.text
}

func (f formats) Enabled(ctx context.Context, level slog.Level) bool {
	return f.now().Enabled(ctx, level)
}

func (f formats) Handle(ctx context.Context, r slog.Record) error { return f.now().Handle(ctx, r) }

func (f formats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return formats{f.queue, f.json.WithAttrs(attrs), f.text.WithAttrs(attrs)}
}

func (f formats) WithGroup(name string) slog.Handler {
	return formats{f.queue, f.json.WithGroup(name), f.text.WithGroup(name)}
}
