package api

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// get asks for /health with a Host and more header lines.
func (s *service) get(t *testing.T, host string, lines ...string) reply {
	t.Helper()
	return only(t, s.send(t, "GET /health HTTP/1.1\r\nConnection: close\r\nHost: "+host+"\r\n"+strings.Join(append(lines, "", ""), "\r\n")))
}

func TestOrigin(t *testing.T) {
	plainOnly(t) // its origins are http
	closed := serve(t, nil)
	listed := serve(t, func(c *Config, _ *Service) {
		c.AllowedOrigins = []string{"https://app.example", "http://dev.example:8080"}
	})
	open := serve(t, func(c *Config, _ *Service) { c.AllowedOrigins = []string{"*"} })
	const cross = "Sec-Fetch-Site: cross-site"
	cases := []struct {
		name  string
		s     *service
		host  string
		lines []string
		ok    bool
	}{
		{"a program", closed, "x", nil, true},
		{"a page of ours", closed, "clip.local:5000", []string{"Origin: http://clip.local:5000", "Sec-Fetch-Site: same-origin"}, true},
		{"in other letters", closed, "Clip.local:5000", []string{"Origin: http://clip.LOCAL:5000"}, true},
		{"default port", closed, "clip.local", []string{"Origin: http://clip.local:80"}, true},
		{"behind a proxy with TLS", closed, "clip.local", []string{"Origin: https://clip.local"}, true},
		{"the address bar", closed, "clip.local", []string{"Sec-Fetch-Site: none"}, true},
		{"another port", closed, "clip.local:5000", []string{"Origin: http://clip.local:3000"}, false},
		{"another port of the same site", closed, "clip.local:5000", []string{"Origin: http://clip.local:3000", "Sec-Fetch-Site: same-site"}, false},
		{"another host", closed, "clip.local", []string{"Origin: http://evil.example"}, false},
		{"a host that begins like ours", closed, "clip.local", []string{"Origin: http://clip.local.evil.example"}, false},
		{"user info", closed, "clip.local", []string{"Origin: http://clip.local@evil.example"}, false},
		{"a file", closed, "clip.local", []string{"Origin: null"}, false},
		{"nonsense", closed, "clip.local", []string{"Origin: ://"}, false},
		{"empty", closed, "clip.local", []string{"Origin: "}, false},
		{"an image on another page", closed, "clip.local", []string{cross}, false},
		{"two origins", closed, "clip.local", []string{"Origin: http://clip.local", "Origin: http://evil.example"}, false},
		{"listed", listed, "clip.local", []string{"Origin: https://app.example", cross}, true},
		{"listed with a port", listed, "clip.local", []string{"Origin: http://dev.example:8080", cross}, true},
		{"listed with another scheme", listed, "clip.local", []string{"Origin: http://app.example", cross}, false},
		{"listed with another port", listed, "clip.local", []string{"Origin: https://app.example:8443"}, false},
		{"not listed", listed, "clip.local", []string{"Origin: https://evil.example"}, false},
		{"ours is always", listed, "clip.local", []string{"Origin: http://clip.local"}, true},
		{"cross-site without an origin", listed, "clip.local", []string{cross}, false},
		{"our name, but the browser says another site", closed, "clip.local", []string{"Origin: http://clip.local", cross}, false},
		{"any", open, "clip.local", []string{"Origin: null", cross}, true},
		{"any without an origin", open, "clip.local", []string{cross}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := c.s.get(t, c.host, c.lines...)
			origin := ""
			for _, l := range c.lines {
				if o, ok := strings.CutPrefix(l, "Origin: "); ok {
					origin = o
				}
			}
			if c.ok {
				r.wantOK(t)
			} else {
				r.wantError(t, 403, "origin_not_allowed", "server.allowed_origins")
				origin = ""
			}
			if got := r.header.Get("Access-Control-Allow-Origin"); got != origin {
				t.Errorf("Access-Control-Allow-Origin %q", got)
			}
			if vary := r.header.Get("Vary") == "Origin"; vary != (c.s != closed) {
				t.Errorf("Vary %q", r.header.Get("Vary"))
			}
		})
	}
	t.Run("nothing is worked on", func(t *testing.T) {
		for _, line := range []string{"Origin: http://evil.example", cross} {
			request := posted(classifyBody(waitingImage, "", "x"), "Connection: close\r\n", line, "\r\n")
			only(t, closed.send(t, request)).wantError(t, 403, "origin_not_allowed", "")
		}
		if n := len(closed.entered); n > 0 {
			t.Errorf("%d requests got to the device", n)
		}
	})
	t.Run("preflight", func(t *testing.T) {
		ask := "OPTIONS /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\nOrigin: "
		r := only(t, listed.send(t, ask+"https://app.example\r\n\r\n"))
		if r.status != 204 || len(r.body) > 0 || !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "POST") ||
			!strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "Content-Type") || r.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
			t.Errorf("%d %v %q", r.status, r.header, r.body)
		}
		only(t, listed.send(t, ask+"https://evil.example\r\n\r\n")).wantError(t, 403, "origin_not_allowed", "")
	})
}

// TestWarning: it is on every answer, the bad ones too.
func TestWarning(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.Warning = "simulated-vectors" })
	const end = "Host: x\r\nConnection: close\r\n\r\n"
	for _, request := range []string{"GET /health HTTP/1.1\r\n" + end, "GET /nowhere HTTP/1.1\r\n" + end, "POST /v1/classify HTTP/1.1\r\n" + end,
		"OPTIONS /v1/classify HTTP/1.1\r\n" + end, "GET /health HTTP/1.1\r\nOrigin: x\r\n" + end, "nonsense\r\n\r\n"} {
		if got := only(t, s.send(t, request)).header.Get("X-Clip-Warning"); got != "simulated-vectors" {
			t.Errorf("%.20q: warning %q", request, got)
		}
	}
	if r := serve(t, nil).do(t, "GET", "/health", ""); r.header.Get("X-Clip-Warning") != "" {
		t.Error("a warning of nothing")
	}
}

func TestHost(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.AllowedHosts = []string{"clip.local", "proxy.example:8443"} })
	for host, ok := range map[string]bool{
		"clip.local": true, "clip.local:5000": true, "CLIP.LOCAL.": true, "proxy.example:8443": true, "localhost:5000": true,
		"127.0.0.1": true, "192.0.2.7:5000": true, "[::1]:5000": true, "[fe80::1]": true,
		"proxy.example": false, "proxy.example:80": false, "evil.example": false, "clip.local.evil.example": false, "127.0.0.1.evil.example": false, ":": false,
	} {
		t.Run(host, func(t *testing.T) {
			if r := s.get(t, host); ok {
				r.wantOK(t)
			} else {
				r.wantError(t, 403, "host_not_allowed", "server.allowed_hosts")
			}
		})
	}
}

func TestListen(t *testing.T) {
	const four, six = "127.0.0.1", "::1"
	if ln, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		ln.Close()
	}
	if got := (Config{Host: "::1", Port: 5000}).Addr(); got != "[::1]:5000" {
		t.Errorf("Addr is %s", got)
	}
	cases := []struct {
		host string
		on   []string
		url  string
	}{
		{"0.0.0.0", []string{four}, "http://127.0.0.1:"},
		{"127.0.0.1", []string{four}, "http://127.0.0.1:"},
		{"", []string{four, six}, "http://localhost:"},
		{"::", []string{four, six}, "http://localhost:"},
		{"[::]", []string{four, six}, "http://localhost:"},
		{"::1", []string{six}, "http://[::1]:"},
		{"[::1]", []string{six}, "http://[::1]:"},
	}
	for _, c := range cases {
		t.Run(c.host, func(t *testing.T) {
			cfg := Config{Host: c.host}
			ln := must(cfg.Listen())
			defer ln.Close()
			port := ln.Addr().(*net.TCPAddr).Port
			for _, address := range []string{four, six} {
				conn, err := net.Dial("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
				if err == nil {
					conn.Close()
				}
				if (err == nil) != slices.Contains(c.on, address) {
					t.Errorf("%s: %v", address, err)
				}
			}
			want := fmt.Sprint(c.url, port)
			cfg.Port = port
			if got := cfg.URLOf(ln.Addr()); got != want || cfg.URL() != want {
				t.Errorf("URL %s, by the configuration %s, want %s", got, cfg.URL(), want)
			}
		})
	}
}
