package api

import (
	"context"
	"net"
	"testing"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

func TestCallerAddress(t *testing.T) {
	proxies := []string{"10.0.0.0/8", "192.0.2.7", "2001:db8:ff::/48", "::ffff:192.0.2.8"}
	for _, tt := range []struct {
		name      string
		trusted   []string
		peer      string
		forwarded []string // header lines
		want      string
	}{
		{"IPv4", nil, "198.51.100.4:1234", nil, "198.51.100.4"},
		{"IPv4 in IPv6", nil, "[::ffff:198.51.100.4]:1234", nil, "198.51.100.4"},
		{"IPv6 is its network", nil, "[2001:db8:1:2:3:4:5:6]:1", nil, "2001:db8:1:2::/64"},
		{"IPv6 with a zone", nil, "[fe80::1%lo]:1", nil, "fe80::/64"},
		{"nobody is trusted", nil, "198.51.100.4:1", []string{"203.0.113.9"}, "198.51.100.4"},
		{"the peer is not trusted", proxies, "198.51.100.4:1", []string{"203.0.113.9"}, "198.51.100.4"},
		{"a proxy", proxies, "10.1.2.3:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"a proxy by its address", proxies, "192.0.2.7:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"not its neighbour", proxies, "192.0.2.6:1", []string{"203.0.113.9"}, "192.0.2.6"},
		{"a proxy written as IPv6", proxies, "192.0.2.8:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"what the client wrote does not count", proxies, "10.1.2.3:1", []string{"192.0.2.99, 10.9.9.9, 203.0.113.9"}, "203.0.113.9"},
		{"several proxies", proxies, "10.1.2.3:1", []string{"1.1.1.1,203.0.113.9 , 10.4.4.4,\t192.0.2.7"}, "203.0.113.9"},
		{"several lines", proxies, "10.1.2.3:1", []string{"1.1.1.1", "203.0.113.9", "10.4.4.4"}, "203.0.113.9"},
		{"only proxies", proxies, "10.1.2.3:1", []string{"10.4.4.4, 10.5.5.5"}, "10.4.4.4"},
		{"a proxy that says nothing", proxies, "10.1.2.3:1", nil, "10.1.2.3"},
		{"an empty line", proxies, "10.1.2.3:1", []string{""}, "10.1.2.3"},
		{"no address", proxies, "10.1.2.3:1", []string{"203.0.113.9, unknown"}, "10.1.2.3"},
		{"no address behind a proxy", proxies, "10.1.2.3:1", []string{"203.0.113.9, _x, 10.4.4.4"}, "10.4.4.4"},
		{"with a port", proxies, "10.1.2.3:1", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv6 behind a proxy", proxies, "10.1.2.3:1", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"},
		{"IPv6 with brackets and port", proxies, "10.1.2.3:1", []string{"[2001:db8:1:2:3:4:5:6]:80"}, "2001:db8:1:2::/64"},
		{"IPv6 with brackets", proxies, "10.1.2.3:1", []string{"[2001:db8:1:2:3:4:5:6]"}, "2001:db8:1:2::/64"},
		{"an IPv6 proxy", proxies, "[2001:db8:ff::1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		{"IPv4 in IPv6 behind a proxy", proxies, "10.1.2.3:1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, func(c *Config, _ *Service) { c.TrustedProxies = tt.trusted })
			peer := must(net.ResolveTCPAddr("tcp", tt.peer))
			var request fasthttp.Request
			for _, line := range tt.forwarded {
				request.Header.Add("x-forwarded-for", line)
			}
			var ctx fasthttp.RequestCtx
			ctx.Init(&request, peer, nil)
			if got := s.rules.Load().caller(&ctx); got != (fair.Caller{Address: tt.want}) {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.UnixAddr{Name: "@"}, nil)
	if got := newService(t, nil).rules.Load().caller(&ctx); got.Address != "local" {
		t.Errorf("a socket of the machine: %+v", got)
	}
}

// tellCallers serves POST /caller, each request to which sends its caller.
func (s *service) tellCallers(callers chan<- fair.Caller) {
	s.rules.Load().router.POST("/caller", (&route{
		reads: []reader{{accepts: isJSON, limit: 2, read: func(*request) error { return nil }}},
		do: image(func(_ context.Context, r *clip.Request) (clip.Result, error) {
			callers <- r.Lane.Caller
			r.Release()
			return clip.Result{}, nil
		}),
		answers: func(*request) error { return nil },
	}).handle(s.other, nil))
}

// TestCallerIsHandedOn asks on two connections, twice on the first.
func TestCallerIsHandedOn(t *testing.T) {
	callers := make(chan fair.Caller, 3)
	s := newService(t, nil)
	s.tellCallers(callers)
	s.listen(t)
	dial := func() (ask func() fair.Caller) {
		_, post := s.asker(t, "POST /caller HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		return func() fair.Caller {
			post().wantOK(t)
			return <-callers
		}
	}
	first, second := dial(), dial()
	a, b, again := first(), second(), first()
	if a != again || a.Address != "127.0.0.1" || b.Address != a.Address || a.Connection == 0 || a.Connection == b.Connection {
		t.Errorf("%+v, %+v and %+v", a, b, again)
	}
}
