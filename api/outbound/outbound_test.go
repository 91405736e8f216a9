package outbound

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names are those that the resolver of tests knows.
var names = map[string][]string{
	"camera.local":       {"192.168.1.20"},
	"example.org":        {"93.184.216.34", "2606:2800:220:1::1"},
	"a.example.org":      {"93.184.216.35"},
	"inside.example.org": {"10.0.0.1"},
	"mixed.example.org":  {"127.0.0.1", "93.184.216.36", "::1"},
	"mapped.example.org": {"::ffff:127.0.0.1"},
	"nat64.example.org":  {"64:ff9b::7f00:1", "64:ff9b::5db8:d822"},
	"6to4.example.org":   {"2002:7f00:1::"},
	"zone.example.org":   {"fe80::1%eth0"},
	"evil.org":           {"93.184.216.99"},
	"sneaky.org":         {"192.168.1.20"},
}

func allowing(list ...string) Allowed {
	a := New(Config{Allow: list})
	a.resolve = func(ctx context.Context, host string) (all []netip.Addr, err error) {
		for _, s := range names[host] {
			all = append(all, netip.MustParseAddr(s))
		}
		if all == nil {
			err = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return all, err
	}
	return a
}

func TestResolve(t *testing.T) {
	const denied = "not in fetch.allow"
	cases := []struct{ list, host, port, want string }{
		{"", "camera.local", "80", denied},
		{"", "192.168.1.20", "80", denied},
		{"", "93.184.216.34", "80", denied},
		{"camera.local", "camera.local", "80", "private address"},
		{"camera.local 192.168.1.0/24", "camera.local", "80", "192.168.1.20:80"},
		{"camera.local 192.168.1.0/24", "CAMERA.local.", "80", "192.168.1.20:80"},
		{"192.168.1.20", "sneaky.org", "80", "192.168.1.20:80"}, // the address is listed itself
		{"192.168.1.20", "192.168.1.20", "8080", "192.168.1.20:8080"},
		{"192.168.1.20", "::ffff:192.168.1.20", "80", "192.168.1.20:80"},
		{"192.168.1.20:80", "192.168.1.20", "80", "192.168.1.20:80"},
		{"192.168.1.20:80", "192.168.1.20", "81", denied},
		{"192.168.1.20", "192.168.1.21", "80", denied},
		{"192.168.1.20", "evil.org", "80", denied},
		{"192.168.1.20", "unknown.org", "80", denied},
		{"example.org", "example.org", "443", "93.184.216.34:443"},
		{"example.org", "a.example.org", "443", denied},
		{"example.org:8443", "example.org", "443", denied},
		{"example.org:8443", "example.org", "8443", "93.184.216.34:8443"},
		{"*.example.org", "a.example.org", "80", "93.184.216.35:80"},
		{"*.example.org", "example.org", "80", denied},
		{"*.example.org", "evilexample.org", "80", denied},
		{"*.example.org", "inside.example.org", "80", "private address"},
		{"*.example.org 10.0.0.1", "inside.example.org", "80", "10.0.0.1:80"},
		{"*.example.org", "mixed.example.org", "80", "93.184.216.36:80"},
		{"*.example.org", "mapped.example.org", "80", "private address"},
		{"*.example.org", "nat64.example.org", "80", "[64:ff9b::5db8:d822]:80"},
		{"*.example.org", "6to4.example.org", "80", "private address"},
		{"*.example.org fe80::/10", "zone.example.org", "80", "private address"},
		{"*.example.org", "unknown.example.org", "80", "no such host"},
		{"[fd00::1]:80", "fd00::1", "80", "[fd00::1]:80"},
		{"::1", "::1", "80", "[::1]:80"},
		{"::1", "::1%lo", "80", denied},
		{"0.0.0.0/0 example.org", "127.0.0.1", "80", "127.0.0.1:80"}, // listed itself
		{"example.org", "example.org", "0", denied},
		{"example.org", "example.org", "http", denied},
		{"example.org", "example.org", "080", denied},
		{"example.org", "example.org", "", denied},
		{"example.org", "user@example.org", "80", denied},
		{"example.org", "example.org/", "80", denied},
		{"example.org", "exämple.org", "80", denied},
		{"example.org 127.0.0.1", "2130706433", "80", denied},
		{"example.org 127.0.0.1", "127.1", "80", denied},
		{"example.org 127.0.0.1", "0x7f.1", "80", denied},
		{"example.org", "", "80", denied},
		{"example.org", strings.Repeat("a.", 300) + "example.org", "80", denied},
	}
	for _, c := range cases {
		got, err := allowing(strings.Fields(c.list)...).Resolve(t.Context(), c.host, c.port)
		if strings.Contains(c.want, ":") {
			if got != c.want || err != nil {
				t.Errorf("%s: %s %s: %q, %v; want %s", c.list, c.host, c.port, got, err, c.want)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) || (c.want != "no such host") != errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: %s %s: %q, %v; want %s", c.list, c.host, c.port, got, err, c.want)
		}
	}
	if _, err := (Allowed{}).Resolve(t.Context(), "localhost", "80"); !errors.Is(err, ErrNotAllowed) {
		t.Error(err)
	}
}

func TestPublic(t *testing.T) {
	for want, list := range map[bool]string{
		true: "1.1.1.1 93.184.216.34 172.32.0.1 100.128.0.1 223.255.255.255 2606:4700::1111 64:ff9b::101:101 ::ffff:1.1.1.1",
		false: `0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8
			192.0.2.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
			255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::a00:1
			64:ff9b::a9fe:a9fe 64:ff9b:1::a00:1 64:ff9b:1::101:101 100::1 2001::1 2001:db8::1 2002:a00:1:: 2002:101:101::
			3fff::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 5f00::1 4000::1`,
	} {
		for s := range strings.FieldsSeq(list) {
			if Public(netip.MustParseAddr(s)) != want {
				t.Errorf("%s: %v", s, !want)
			}
		}
	}
}

func TestConfigCheck(t *testing.T) {
	check := func(s string) (faults int) {
		Config{Allow: []string{s}}.Check(func(field, format string, args ...any) { faults++ })
		return faults
	}
	for s := range strings.FieldsSeq(`a a.b a.b:1 *.a.b *.a.b:65535 1.2.3.4 1.2.3.4:80 1.2.3.0/24 ::1 [::1]:80 fd00::/8 0.0.0.0/0
		xn--exmple-cua.org a_b.c ::ffff:1.2.3.4`) {
		if check(s) > 0 {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range strings.Fields(`* *.  *. a.*.b **.a a:0 a:70000 a:http a: 1.2.3.4/24 1.2.3 127.1 1.2.3.4:0 fe80::1%eth0
		::ffff:0:0/96 http://a a/b user@a ä.org a..b .a [::1] -.5`) {
		if check(s) == 0 {
			t.Errorf("%s is accepted", s)
		}
	}
	if check("") == 0 || check("a b") == 0 {
		t.Error("no name is accepted")
	}
}

// A client dials the address that was looked at, asks no proxy, and does not leave the host.
func TestClient(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/other":
			http.Redirect(w, r, "http://other.example:"+port+"/", http.StatusFound)
		case "/address":
			http.Redirect(w, r, "http://127.0.0.1:"+port+"/", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/head":
			w.Header().Set("X-Long", strings.Repeat("x", 100<<10))
		default:
			io.WriteString(w, r.Host)
		}
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())

	a := New(Config{Allow: []string{"camera.example", "other.example", "127.0.0.1:" + port}})
	looked := 0
	a.resolve = func(context.Context, string) ([]netip.Addr, error) {
		if looked++; looked%2 == 0 { // the name is another's the next time it is asked for
			return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	client := a.Client()
	defer client.CloseIdleConnections()
	for path, want := range map[string]string{
		"": "camera.example", "same": "camera.example", "other": "not in fetch.allow", "address": "not in fetch.allow",
		"file": "not in fetch.allow", "loop": "too many redirects", "head": "exceeded",
	} {
		looked = 0
		client.CloseIdleConnections()
		got := ""
		resp, err := client.Get("http://camera.example:" + port + "/" + path)
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			got = string(b)
		} else {
			got = err.Error()
		}
		if !strings.Contains(got, want) || looked > 1 {
			t.Errorf("%s: %s (%d look-ups)", path, got, looked)
		}
	}
	client.CloseIdleConnections()
	looked = 1
	if _, err := client.Get("http://camera.example:" + port + "/"); !errors.Is(err, ErrNotAllowed) {
		t.Error(err)
	}
	if _, err := a.DialContext(t.Context(), "udp", "127.0.0.1:"+port); !errors.Is(err, ErrNotAllowed) {
		t.Error(err)
	}
}

// FuzzResolve: whatever list and host, what is returned is listed itself, or a public address of a name that is listed.
func FuzzResolve(f *testing.F) {
	f.Add("camera.local *.example.org:80 10.0.0.0/8", "inside.example.org", "80", []byte{10, 0, 0, 1})
	f.Add("example.org", "example.org.", "443", []byte("\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00\x7f\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, list, host, port string, ip []byte) {
		resolved, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		a := New(Config{Allow: strings.Fields(list)})
		a.resolve = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{resolved}, nil }
		got, err := a.Resolve(t.Context(), host, port)
		if err != nil {
			if !errors.Is(err, ErrNotAllowed) {
				t.Error(err)
			}
			return
		}
		to, err := netip.ParseAddrPort(got)
		if err != nil || to.Addr().Is4In6() {
			t.Fatal(got, err)
		}
		listed, named := false, false
		for s := range strings.FieldsSeq(list) {
			if p, err := netip.ParsePrefix(s); err == nil && p.Contains(to.Addr()) {
				listed = true
			}
			if h, _, err := net.SplitHostPort(s); err == nil {
				s = h
			}
			if addr, err := netip.ParseAddr(s); err == nil && addr.Unmap() == to.Addr() {
				listed = true
			}
			name := strings.TrimSuffix(strings.ToLower(host), ".")
			if s = strings.TrimSuffix(strings.ToLower(s), "."); s == name || strings.HasPrefix(s, "*.") && strings.HasSuffix(name, s[1:]) {
				named = true
			}
		}
		if !listed && (!named || !Public(to.Addr())) {
			t.Errorf("%q lets %q be %s", list, host, got)
		}
		if to.Addr().IsLoopback() && !listed || to.Addr().IsPrivate() && !listed || to.Addr().IsLinkLocalUnicast() && !listed {
			t.Error(got)
		}
	})
}
