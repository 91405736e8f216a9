package main

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"
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

var toldLines = regexp.MustCompile(`lines"?[:=](\d+)`)

func TestLogDropsAndCounts(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		for name, gone := range map[string]error{"a reader that stops": nil, "a file that cannot be written": errors.New("disk full")} {
			out := &reader{gone: gone}
			q := newLogQueue(out)
			log := q.logger(configs.Logging{Level: "error", Format: format})
			long := strings.Repeat("x", 1<<10)
			out.mu.Lock()
			log.Error("first")
			if gone != nil {
				out.mu.Unlock()
			}
			lines := 2 * maxQueuedLog / len(long)
			for range lines {
				log.Error(long) // would block for ever
			}
			if gone != nil {
				q.flush(time.Hour)
				out.mu.Lock()
				out.gone = nil
			}
			out.mu.Unlock()
			q.flush(time.Hour)
			log.Error("last")
			q.flush(time.Hour)
			written, told := out.written.String(), 0
			for _, m := range toldLines.FindAllStringSubmatch(written, -1) {
				n, _ := strconv.Atoi(m[1])
				told += n
			}
			if !strings.Contains(written, "last") || !strings.Contains(written, "dropped") {
				t.Errorf("%s, %s: the last line, or what was dropped, is not there", name, format)
			}
			want := lines - strings.Count(written, long)
			if told != want && told != want+1 { // "first" is one of them, or is not
				t.Errorf("%s, %s: %d lines are told as dropped, %d of %d are not there", name, format, told, want, lines)
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

// TestLogChangesWhileItIsUsed: level and format change for loggers that are there already. What is no terminal gets JSON.
func TestLogChangesWhileItIsUsed(t *testing.T) {
	out := &reader{}
	q := newLogQueue(out)
	log := q.logger(configs.Logging{Level: "info", Format: "auto"}).With("kept", 1).WithGroup("group")
	for _, step := range []struct {
		c    configs.Logging
		want string
	}{
		{configs.Logging{Level: "info", Format: "auto"}, `"level":"INFO","msg":"a line","kept":1,"group":{"n":2}}`},
		{configs.Logging{Level: "info", Format: "text"}, `level=INFO msg="a line" kept=1 group.n=2`},
		{configs.Logging{Level: "error", Format: "json"}, ""},
		{configs.Logging{Level: "DEBUG", Format: "json"}, `"msg":"a line"`},
	} {
		q.apply(step.c)
		log.Info("a line", "n", 2)
		q.flush(time.Hour)
		out.mu.Lock()
		if got := out.written.String(); !strings.Contains(got, step.want) || step.want == "" && got != "" {
			t.Errorf("%+v: %q", step.c, got)
		}
		out.written.Reset()
		out.mu.Unlock()
	}
	q.term = true
	q.apply(configs.Logging{Level: "info", Format: "auto"})
	log.Info("a line")
	q.flush(time.Hour)
	if got := out.written.String(); !strings.Contains(got, `msg="a line"`) {
		t.Errorf("a terminal gets %q", got)
	}
}
