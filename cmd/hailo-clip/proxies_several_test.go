package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hailoclip/api/client"
)

// severalSamples are those for several services, by the program.
var severalSamples = map[string]string{"haproxy": "haproxy-several.cfg", "caddy": "Caddyfile-several"}

// asksAgain says that the proxy can ask a question again elsewhere which has a body: Caddy cannot, not even with request_buffers.
func (p *proxyProgram) asksAgain() bool { return p.name != "caddy" }

// beforeSeveral runs test with each proxy that has such a sample.
func beforeSeveral(t *testing.T, test func(t *testing.T, p *proxyProgram, start func(upstreams [3]string) (url string, roots *x509.CertPool))) {
	for i := range proxyPrograms {
		p := &proxyPrograms[i]
		sample, ok := severalSamples[p.name]
		if !ok {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, p, func(upstreams [3]string) (string, *x509.CertPool) {
				addresses := map[string]string{}
				for i, to := range upstreams {
					addresses[fmt.Sprintf("192.168.1.1%d:5000", i+1)] = strings.TrimPrefix(to, "http://")
				}
				return p.start(t, sample, addresses)
			})
		})
	}
}

// trusting is a client that is somebody else than the proxy, and keeps its connections.
func trusting(t *testing.T, roots *x509.CertPool) *http.Client {
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: from.DialContext, MaxIdleConnsPerHost: 16}}
	t.Cleanup(h.CloseIdleConnections)
	return h
}

// TestProxyOfSeveral: a service that is killed under load costs no request (with Caddy, at most those that it had), one that drains gets no new ones, and all that concerns a
// stream reaches the service that has it.
func TestProxyOfSeveral(t *testing.T) {
	beforeSeveral(t, func(t *testing.T, p *proxyProgram, start func([3]string) (string, *x509.CertPool)) {
		var services [3]*running
		var urls [3]string
		config := configFile(t, "server:\n  trusted_proxies: [127.0.0.1]\n  lame_duck: 10m\n")
		for i := range services {
			services[i] = serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu", "--config", config)
			urls[i] = services[i].url
		}
		url, roots := start(urls)
		h := trusting(t, roots)
		body := must(json.Marshal(catRequest(t)))
		l := &clients{end: make(chan struct{}), failed: map[string]int{}}
		until(t, "the proxy finds the services", func() bool {
			a, err := read(h.Get(url + "/readyz"))
			return err == nil && a.status == http.StatusOK
		})
		const asking = 8
		for range asking {
			l.running.Go(func() {
				for {
					select {
					case <-l.end:
						return
					default:
						l.ask(h, url, body)
					}
				}
			})
		}
		for i, r := range services {
			until(t, fmt.Sprint("service ", i, " has its part"), func() bool { return classified(t, r) > 3 })
		}
		places := streamsBehind(t, h, url)

		if err := services[0].cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-services[0].ended
		for range 3 {
			l.goesOn(t)
		}
		if !p.asksAgain() {
			l.forgive(t, asking)
		}
		if err := services[1].cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		drained := uint64(0)
		until(t, "the lame duck is left alone", func() bool {
			before := classified(t, services[1])
			l.goesOn(t)
			drained = classified(t, services[1])
			return drained == before
		})
		for range 3 {
			l.goesOn(t)
		}
		if n := classified(t, services[1]); n != drained {
			t.Errorf("%d requests for a service that drains", n-drained)
		}
		l.over(t, "one killed, one draining")
		for line := range strings.Lines(services[2].logged()) {
			if strings.Contains(line, `/v1/classify"`) && !strings.Contains(line, `"client":"127.0.0.2"`) {
				t.Fatalf("the caller is not known: %s", line)
			}
		}
		t.Logf("streams by their service: %v", places)
	})
}

// forgive forgets at most so many requests that have failed.
func (l *clients) forgive(t *testing.T, most int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, times := range l.failed {
		n += times
	}
	if t.Logf("%d requests failed", n); n <= most {
		clear(l.failed)
	}
}

// classified is how many images a service has been asked about.
func classified(t *testing.T, r *running) (n uint64) {
	t.Helper()
	var stats struct {
		Server struct{ Requests map[string]map[string]uint64 }
	}
	a := r.get(t, "/v1/stats")
	if err := json.Unmarshal([]byte(a.raw), &stats); err != nil {
		t.Fatal(err, a.raw)
	}
	for _, count := range stats.Server.Requests["/v1/classify"] {
		n += count
	}
	return n
}

// streamsBehind has streams made, watched and fed through the proxy. It returns how many are where.
func streamsBehind(t *testing.T, h *http.Client, url string) (found int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := must(client.New(url, client.Options{HTTP: h}))
	defer c.Close()
	prompts := []string{"a photo of a dog", "a photo of a cat"}
	streamsThroughProxy(t, c, must(os.ReadFile(samples+"cat.jpg")), prompts)
	const all = 12
	for i := range all {
		id := fmt.Sprint("gate-", i)
		if _, _, err := c.PutStream(ctx, id, client.StreamDefinition{Prompts: prompts}); err != nil {
			t.Fatal(id, err)
		}
		for range 3 {
			if _, err := c.StreamInfo(ctx, id); err != nil {
				t.Error(id, err)
			}
		}
	}
	list, err := c.Streams(ctx) // of one service
	if err != nil || len(list) > all {
		t.Errorf("%d of %d streams are on one service: %v", len(list), all, err)
	}
	return len(list)
}

// TestProxyAsksOnce: when a connection breaks before the answer, HAProxy asks a question again elsewhere, a change never is. Of a
// service that says 503, HAProxy asks the next for the same request, Caddy for the ones after it.
func TestProxyAsksOnce(t *testing.T) {
	beforeSeveral(t, func(t *testing.T, p *proxyProgram, start func([3]string) (string, *x509.CertPool)) {
		var breaking, busy atomic.Bool // the next request is not answered; gets 503
		var asked atomic.Int64
		var urls [3]string
		var answered [3]atomic.Bool
		for i := range urls {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" {
					return
				}
				answered[i].Store(true)
				_, _ = io.Copy(io.Discard, r.Body)
				switch asked.Add(1); {
				case breaking.CompareAndSwap(true, false):
					panic(http.ErrAbortHandler)
				case busy.CompareAndSwap(true, false):
					http.Error(w, "busy", http.StatusServiceUnavailable)
				}
			}))
			s.Config.ErrorLog = nil
			t.Cleanup(s.Close)
			urls[i] = s.URL
		}
		url, roots := start(urls)
		h := trusting(t, roots)
		ask := func(method, path string) (status int, tries int64) {
			t.Helper()
			before := asked.Load()
			request := must(http.NewRequest(method, url+path, strings.NewReader(`{"image": "`+strings.Repeat("A", 100_000)+`"}`)))
			request.Header.Set("Content-Type", "application/json")
			response, err := h.Do(request)
			if err != nil { // as HAProxy answers on a connection that had answers before: the client decides
				return http.StatusBadGateway, asked.Load() - before
			}
			response.Body.Close()
			return response.StatusCode, asked.Load() - before
		}
		ready := func() {
			t.Helper()
			for _, path := range []string{"/v1/classify", "/v1/prompt-sets/yard"} {
				until(t, "the proxy finds the services", func() bool { status, _ := ask(http.MethodGet, path); return status == http.StatusOK })
			}
		}
		ready()
		breaking.Store(true)
		if status, tries := ask(http.MethodPost, "/v1/classify"); p.asksAgain() && (status != http.StatusOK || tries != 2) {
			t.Errorf("a question on a connection that breaks: %d after %d tries", status, tries)
		}
		for _, change := range []string{"PUT /v1/prompt-sets/yard", "POST /v1/prompt-sets/yard/examples", "DELETE /v1/streams/gate", "POST /v1/streams/gate/frames",
			"POST /admin/reload"} {
			ready()
			breaking.Store(true)
			method, path, _ := strings.Cut(change, " ")
			if status, tries := ask(method, path); status != http.StatusBadGateway || tries != 1 {
				t.Errorf("%s on a connection that breaks: %d after %d tries", change, status, tries)
			}
		}
		for i := range answered { // those passed over, because they have broken a connection, are back
			answered[i].Store(false)
		}
		until(t, "the proxy finds all services", func() bool {
			status, _ := ask(http.MethodGet, "/v1/classify")
			return status == http.StatusOK && answered[0].Load() && answered[1].Load() && answered[2].Load()
		})
		busy.Store(true)
		status, tries := ask(http.MethodPost, "/v1/classify")
		if want := map[string]int{"haproxy": http.StatusOK, "caddy": http.StatusServiceUnavailable}[p.name]; status != want || tries > 2 {
			t.Errorf("a service that is busy: %d after %d tries", status, tries)
		}
		for range 4 {
			if status, _ := ask(http.MethodPost, "/v1/classify"); status != http.StatusOK {
				t.Errorf("after a service was busy: %d", status)
			}
		}
	})
}

// TestProxyPassesDeadOver: services that are gone from the beginning cost nobody more than the way to another.
func TestProxyPassesDeadOver(t *testing.T) {
	beforeSeveral(t, func(t *testing.T, _ *proxyProgram, start func([3]string) (string, *x509.CertPool)) {
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(s.Close)
		gone := "127.0.0.1:" + freePort(t)
		url, roots := start([3]string{gone, gone, s.URL})
		h := trusting(t, roots)
		h.Timeout = patience
		for _, path := range []string{"/v1/classify", "/v1/streams/a/frames", "/v1/prompt-sets/b", "/v1/stream"} {
			begun := time.Now()
			for range 10 {
				response, err := h.Post(url+path, "application/json", strings.NewReader("{}"))
				if err != nil || response.StatusCode != http.StatusOK {
					t.Fatalf("%s: %v %v", path, response, err)
				}
				response.Body.Close()
			}
			t.Log(path, time.Since(begun))
		}
	})
}
