package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// TestLogReaderMayStopOrLeave has a service whose log nobody reads any more.
func TestLogReaderMayStopOrLeave(t *testing.T) {
	needONNX(t)
	for _, gone := range []bool{false, true} {
		cmd := command(t, t.TempDir(), "serve", "--host", "127.0.0.1", "--port", "0", "--backend", "cpu", "--model", "demo")
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil { // full after some lines
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill() //nolint:errcheck // gone already, unless the test failed
		out.Close()
		var said struct{ URL string }
		for lines := bufio.NewScanner(in); said.URL == "" && lines.Scan(); {
			_ = json.Unmarshal(lines.Bytes(), &said)
		}
		if gone {
			in.Close()
		}
		client := http.Client{Timeout: time.Minute}
		for n := range 200 {
			answer, err := client.Get(said.URL + "/no-such-path")
			if err != nil {
				t.Fatalf("gone: %v: request %d: %v", gone, n, err)
			}
			answer.Body.Close()
		}
		answer, err := client.Get(said.URL + "/health")
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal("gone:", gone, answer, err)
		}
		answer.Body.Close()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitOK {
			t.Errorf("gone: %v: ended with %v", gone, cmd.ProcessState)
		}
	}
}

// TestReaderOfStandardOutputLeaves is "hailo-clip ... | head -1" with a reader that has left already.
func TestReaderOfStandardOutputLeaves(t *testing.T) {
	for _, args := range [][]string{{"config", "show", "--default"}, {"models", "list"}, {"models", "list", "--json"}, {"--help"}, {"doctor"}} {
		in, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		var errs bytes.Buffer
		cmd := command(t, t.TempDir(), args...)
		cmd.Stdout, cmd.Stderr = out, &errs
		_ = cmd.Run() // the code is in ProcessState
		out.Close()
		if code := cmd.ProcessState.ExitCode(); code != exitPipe || errs.Len() > 0 {
			t.Errorf("%v: %v: %s", args, cmd.ProcessState, errs.String())
		}
	}
}
