package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// socket holds a listening socket, as systemd does, and starts services that accept from it, one after the other.
type socket struct {
	file *os.File
	url  string
}

func newSocket(t *testing.T) *socket {
	t.Helper()
	ln := must(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener)
	defer ln.Close()
	s := &socket{must(ln.File()), "http://" + ln.Addr().String()}
	t.Cleanup(func() { s.file.Close() })
	return s
}

// start starts the service and waits until it serves. Its socket has that name.
func (s *socket) start(t *testing.T, state, name string, args ...string) *running {
	t.Helper()
	c := command(state, append([]string{"serve", "--backend", "cpu", "--model", "demo"}, args...)...)
	c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES="+name, "HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=64")
	c.ExtraFiles = []*os.File{s.file}
	return start(t, by(c, "sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`)).serving(t)
}

// clients are closed loops, and what they have seen.
type clients struct {
	end               chan struct{}
	running           sync.WaitGroup
	answered, crossed atomic.Int64

	mu     sync.Mutex
	failed map[string]int // how, and how many
}

func (l *clients) fails(how string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[how]++
}

// underLoad has 16 clients with a connection each, and 4 that open one for every request, classify an image again and again,
// and never send a request twice. One that crosses the end of a connection which was idle for longer than a server that stops
// waits for the next request is counted by itself.
func underLoad(t *testing.T, url string) *clients {
	t.Helper()
	l := &clients{end: make(chan struct{}), failed: map[string]int{}}
	body := must(json.Marshal(catRequest(t)))
	for i := range 20 {
		transport := &http.Transport{DisableKeepAlives: i >= 16}
		l.running.Go(func() {
			defer transport.CloseIdleConnections()
			for {
				select {
				case <-l.end:
					return
				default:
					l.ask(&http.Client{Transport: transport}, url, body)
				}
			}
		})
	}
	return l
}

func (l *clients) ask(client *http.Client, url string, body []byte) {
	request := must(http.NewRequest(http.MethodPost, url+"/v1/classify", bytes.NewReader(body)))
	request.Header.Set("Content-Type", "application/json")
	var on httptrace.GotConnInfo
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { on = info },
	}))
	switch a, err := read(client.Do(request)); {
	case errors.Is(err, io.EOF) && on.Reused && on.IdleTime > 400*time.Millisecond:
		l.crossed.Add(1)
	case err != nil:
		l.fails(strings.ReplaceAll(err.Error(), url, ""))
	case a.status != http.StatusOK || a.best() != "a photo of a cat":
		l.fails(fmt.Sprint(a.status, " ", a.raw))
	default:
		l.answered.Add(1)
	}
}

// goesOn waits until every client has been answered again, on average.
func (l *clients) goesOn(t *testing.T) {
	t.Helper()
	before := l.answered.Load()
	until(t, "clients are answered", func() bool { return l.answered.Load() >= before+40 })
}

// over ends the load and fails the test where a request has.
func (l *clients) over(t *testing.T, what string) {
	t.Helper()
	close(l.end)
	l.running.Wait()
	for how, n := range l.failed {
		t.Errorf("%d requests failed: %.300s", n, how)
	}
	t.Logf("%s: %d requests answered, %d sent on a connection that was just being closed", what, l.answered.Load(), l.crossed.Load())
}

// times is how often something is done under load: HAILO_TEST_LONG, 50 times.
func times() int {
	if os.Getenv("HAILO_TEST_LONG") != "" {
		return 50
	}
	return 3
}

// TestRestartsLoseNoRequest: the service ends and starts again on a socket of systemd's, while clients ask on.
func TestRestartsLoseNoRequest(t *testing.T) {
	t.Parallel()
	s, state := newSocket(t), t.TempDir()
	r := s.start(t, state, "http")
	l := underLoad(t, s.url)
	for range times() {
		l.goesOn(t)
		r.stop(t)
		r = s.start(t, state, "hailo-clip.socket") // the name that a unit gives which names none
	}
	l.goesOn(t)
	l.over(t, fmt.Sprint(times(), " restarts"))
	r.stop(t)
}

// TestSocketsOfSystemd: a socket for something else is told and closed, and the port is taken then; a descriptor that is no
// socket stops the start. No process that the service starts has them.
func TestSocketsOfSystemd(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	other := s.start(t, t.TempDir(), "metrics", "--host", "127.0.0.1", "--port", "0")
	if other.url == s.url {
		t.Error("it serves a socket that is for something else")
	}
	other.logs(t, "its name must be http or admin", `"metrics"`)
	operators := s.start(t, t.TempDir(), "admin", "--host", "127.0.0.1", "--port", "0")
	if resp, err := http.Get(s.url + "/metrics"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the socket for operators answers %+v, %v", resp, err)
	}
	operators.stop(t)
	other.classifies(t)
	other.stop(t)

	c := command(t.TempDir(), "serve", "--backend", "cpu", "--model", "demo")
	c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	c.ExtraFiles = []*os.File{must(os.Open(os.DevNull))}
	runProgram(t, by(c, "sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`)).expect(t, exitFailed, `the socket "http" of systemd is none to accept connections from`)
}

// TestSocketActivate has systemd's own program hold the socket.
func TestSocketActivate(t *testing.T) {
	t.Parallel()
	needPrograms(t, "systemd-socket-activate")
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	address := ln.Addr().String()
	ln.Close() // some port that is free
	c := command(t.TempDir(), "serve", "--backend", "cpu", "--model", "demo")
	r := start(t, by(c, "systemd-socket-activate", "-E", asProgram, "-E", "HAILO_CLIP_STATE_DIR", "-E", "HOME", "-l", address))
	until(t, "it listens", func() bool { return strings.Contains(r.logged(), "Listening on") })
	r.url = "http://" + address
	r.classifies(t) // which starts it
	r.logs(t, "a socket of systemd is used")
	r.stop(t)
}

// TestLameDuck: for so long everything is served, but on connections that end, and whoever asks is told that the service is
// about to stop.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	r := serve(t, t.TempDir(), "--backend", "cpu", "--model", "demo", "--config", configFile(t, "server:\n  lame_duck: 10m\n"))
	r.classifies(t)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "it drains", func() bool { return r.get(t, "/readyz").status == http.StatusServiceUnavailable })
	for range 3 {
		if a := r.classifies(t); !a.last {
			t.Error("the connection stays open")
		}
	}
	if a := r.get(t, "/health"); a.status != http.StatusOK {
		t.Error(a.raw)
	}
	r.logs(t, `"lame_duck":"10m0s"`)
}
