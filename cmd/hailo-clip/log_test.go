package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"hailoclip/configs"
)

// reader is a file whose reader may stop or be gone.
type reader struct {
	mu      sync.Mutex // held: it does not read
	gone    error
	written bytes.Buffer
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone != nil {
		return 0, r.gone
	}
	return r.written.Write(b)
}

func TestLogDropsAndCounts(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		for name, broken := range map[string]bool{"a reader that stops": false, "a file that cannot be written": true} {
			out := &reader{}
			q := newLogQueue(out)
			log := q.logger(configs.Logging{Level: "error", Format: format})
			long := strings.Repeat("x", 1<<10)
			out.mu.Lock()
			log.Error("first")
			lines := 2 * maxQueuedLog / len(long)
			if broken {
				out.gone = errors.New("disk full")
				out.mu.Unlock()
			}
			for range lines {
				log.Error(long) // would block for ever
			}
			if broken {
				q.flush(time.Hour)
				out.mu.Lock()
				out.gone = nil
			}
			out.mu.Unlock()
			q.flush(time.Hour)
			log.Error("last")
			q.flush(time.Hour)
			told, kept := uint64(0), 0
			for line := range strings.Lines(out.written.String()) {
				if strings.Contains(line, "xxx") {
					kept++
				}
				var said struct {
					Msg   string
					Lines uint64
				}
				if format == "json" {
					if err := json.Unmarshal([]byte(line), &said); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
					told += said.Lines
				}
			}
			if !strings.Contains(out.written.String(), "last") || !strings.Contains(out.written.String(), "dropped") {
				t.Errorf("%s, %s: the last line, or what was dropped, is not there", name, format)
			}
			if want := uint64(lines - kept); format == "json" && told-want > 1 { // "first" is one of them, or is not
				t.Errorf("%s: %d lines are told as dropped, %d of %d are not there", name, told, want, lines)
			}
		}
	}
}

func TestLogFlushIsBounded(t *testing.T) {
	out := &reader{}
	out.mu.Lock()
	defer out.mu.Unlock()
	q := newLogQueue(out)
	_, _ = q.Write([]byte("a line\n"))
	q.flush(time.Millisecond) // or the test hangs
}
