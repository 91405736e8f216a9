package npu

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	maxLogLine  = 400 // bytes of a line of the worker that are kept
	maxLogBurst = 50  // lines of the worker that are logged in maxLogEvery
	maxLogEvery = 10 * time.Second
)

// lineLog logs what the workers write to stderr, one worker after the other: in lines, neither long nor
// many, and what a worker says again that the one before it said is left out, until one was ready.
type lineLog struct {
	log *slog.Logger

	mu      sync.Mutex
	said    map[string]bool // by this worker, at most maxLogBurst
	before  map[string]bool // by the one before it
	line    []byte          // of the line that has not ended yet, at most maxLogLine
	last    string
	window  time.Time
	lines   int // logged since window
	dropped int
}

// next is for the start of a worker.
func (l *lineLog) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.said, l.line, l.last = l.said, map[string]bool{}, nil, ""
}

// ready forgets what was said: a worker has succeeded.
func (l *lineLog) ready() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before, l.said = nil, map[string]bool{}
}

// Write never fails: a worker must not die because of its log.
func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, part[:min(len(part), maxLogLine-len(l.line))]...)
		if ended {
			l.emit()
		}
		rest = after
	}
	return len(b), nil
}

func (l *lineLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.emit()
}

func (l *lineLog) emit() {
	text := string(bytes.ToValidUTF8(bytes.TrimSpace(l.line), []byte("?")))
	l.line = l.line[:0]
	if text == "" {
		return
	}
	l.last = text
	if len(l.said) < maxLogBurst {
		l.said[text] = true
	}
	if l.before[text] {
		return
	}
	if now := time.Now(); now.Sub(l.window) > maxLogEvery {
		if l.dropped > 0 {
			l.log.Warn("npu worker: lines left out", "lines", l.dropped)
		}
		l.window, l.lines, l.dropped = now, 0, 0
	}
	if l.lines++; l.lines > maxLogBurst {
		l.dropped++
		return
	}
	l.log.Log(context.Background(), levelOf(text), "npu worker", "line", text)
}

// levelOf is that which the vendor's library gives its line.
func levelOf(line string) slog.Level {
	_, rest, _ := strings.Cut(line, "[HailoRT] [")
	switch level, _, _ := strings.Cut(rest, "]"); level {
	case "error", "critical":
		return slog.LevelError
	case "warning":
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (l *lineLog) lastLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
