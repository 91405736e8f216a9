package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/hailo"
)

// TestReadyz: ready means that requests are served, on the device or what stands in for it; alive it is always.
func TestReadyz(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []struct {
		name   string
		change func()
		status int
		want   string
	}{
		{"well", func() {}, 200, `{"status":"ready"}`},
		{"on the CPU", func() {
			s.device.status.Store(&hailo.Status{Ready: true, Degraded: true, Why: hailo.Because("on the CPU")})
		},
			200, `{"status":"ready","reason":"on the CPU"}`},
		{"lost", func() { s.lose("no device") }, 503, `{"status":"unavailable","reason":"no device"}`},
		{"back", func() { s.device.status.Store(&hailo.Status{Ready: true}) }, 200, `{"status":"ready"}`},
		{"draining", func() { s.LameDuck(t.Context()) }, 503, `{"status":"stopping","reason":"The service is stopping"}`},
	} {
		c.change()
		r := s.do(t, "GET", "/readyz", "")
		if string(r.body) != c.want || r.status != c.status {
			t.Errorf("%s: %d %s, want %d %s", c.name, r.status, r.body, c.status, c.want)
		}
		if head := s.do(t, "HEAD", "/readyz", ""); head.status != c.status || len(head.body) != 0 {
			t.Errorf("%s: HEAD %d %q", c.name, head.status, head.body)
		}
		if alive := s.do(t, "GET", "/healthz", ""); alive.status != 200 || string(alive.body) != `{"status":"ok"}` {
			t.Errorf("%s: /healthz %d %s", c.name, alive.status, alive.body)
		}
	}
	s.post(t, "/v1/embed/text", `{"text":"x"}`).wantOK(t) // until it stops, it serves whoever comes
	s.stopping.Store(true)
	if r := s.do(t, "GET", "/readyz", ""); r.status != 503 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestStarting: before the service begins, probes are answered, and everybody else is afterwards, whatever part of the
// request has come; and who has hung up takes no place.
func TestStarting(t *testing.T) {
	plainOnly(t) // it dials by itself
	for network, ln := range map[string]net.Listener{
		"tcp":  must(testConfig().Listen()),
		"unix": must(net.Listen("unix", filepath.Join(t.TempDir(), "socket"))),
	} {
		t.Run(network, func(t *testing.T) {
			s := newService(t, func(c *Config, _ *Service) { c.MaxConnections = 2 * maxEarly })
			early := Starting(ln)
			connect := func(sent string) net.Conn {
				c := must(net.Dial(network, ln.Addr().String()))
				t.Cleanup(func() { c.Close() })
				must(c.Write([]byte(sent)))
				return c
			}
			kept := map[string]net.Conn{}
			for _, sent := range []string{"", "G", "GET /healthz", "GET /healthy HTTP/1.1\r\n", "GET /health HTTP/1.1\r\n",
				"POST /healthz HTTP/1.1\r\n", "\x16\x03\x01"} {
				kept[sent] = connect(sent)
			}
			for range 2 * maxEarly {
				connect("").Close()
				connect("GET /health HTTP/1.1\r\n").Close()
			}
			for _, c := range []struct{ request, status, body string }{
				{"GET /healthz HTTP/1.1\r\n", "200", `{"status":"ok"}`},
				{"GET /healthz?verbose HTTP/1.1\r\n", "200", `{"status":"ok"}`},
				{"HEAD /healthz HTTP/1.1\r\n", "200", ""},
				{"GET /readyz HTTP/1.1\r\n", "503", `"status":"starting"`},
				{"HEAD /readyz HTTP/1.0\r\n", "503", ""},
			} {
				nc := connect(c.request + "Host: x\r\n\r\n")
				method, _, _ := strings.Cut(c.request, " ")
				resp := must(http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method}))
				r := must(read(resp))
				if fmt.Sprint(r.status) != c.status || !strings.Contains(string(r.body), c.body) || (c.body == "") != (len(r.body) == 0) || !r.last {
					t.Errorf("%q: %d %q", c.request, r.status, r.body)
				}
			}
			s.serve(t, early)
			rest := map[string]string{
				"": "GET /health HTTP/1.1\r\n", "G": "ET /readyz HTTP/1.1\r\n", "GET /healthz": " HTTP/1.1\r\n",
				"POST /healthz HTTP/1.1\r\n": "Content-Length: 0\r\n",
			}
			want := map[string]int{"GET /healthy HTTP/1.1\r\n": 404, "POST /healthz HTTP/1.1\r\n": 405, "\x16\x03\x01": 400}
			for sent, c := range kept {
				must(c.Write([]byte(rest[sent] + "Host: x\r\n\r\n")))
				r := must(read(must(http.ReadResponse(bufio.NewReader(c), nil))))
				if r.status != max(want[sent], 200) {
					t.Errorf("%q: %d %s", sent, r.status, r.body)
				}
			}
		})
	}
}

// TestStartingFails: who waits for a service that does not begin is told so, or sees the connection closed.
func TestStartingFails(t *testing.T) {
	ln := must(testConfig().Listen())
	early := Starting(ln)
	c := must(net.Dial("tcp", ln.Addr().String()))
	defer c.Close()
	must(c.Write([]byte("GET /health HTTP/1.1\r\n\r\n")))
	noError(t, testConfig().Dismiss(early))
	only(t, c).wantError(t, 503, "stopping", "stopping")

	ln = must(testConfig().Listen())
	early = Starting(ln)
	silent := must(net.Dial("tcp", ln.Addr().String()))
	defer silent.Close()
	noError(t, early.Close())
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the connection stays open")
	}
}
