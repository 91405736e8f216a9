package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hailoclip/pipeline/fair"
)

// short is a folder whose name is short enough for a socket.
func short(t *testing.T) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "clip"))
	t.Cleanup(func() { noError(t, os.RemoveAll(dir)) })
	return dir
}

// serveSocket makes a server that listens on its Unix socket, too, and returns a client of that.
func serveSocket(t *testing.T, change func(*Config, *Service)) (*service, *http.Client) {
	t.Helper()
	s := serve(t, func(c *Config, svc *Service) {
		if c.Socket = filepath.Join(short(t), "clip.sock"); change != nil {
			change(c, svc)
		}
	})
	ln := must(s.cfg.ListenSocket())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() { noError(t, <-ended) })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.cfg.Socket)
	}}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		s.stop()
	})
	return s, client
}

func TestUnixSocket(t *testing.T) {
	old := unix.Umask(0o077) // which must not narrow it
	s, client := serveSocket(t, func(c *Config, _ *Service) { c.AllowedHosts = []string{"clip.local"} })
	unix.Umask(old)
	info := must(os.Lstat(s.cfg.Socket))
	if info.Mode() != fs.ModeSocket|socketMode {
		t.Errorf("mode %v", info.Mode())
	}
	ask := func(host string, lines ...string) reply {
		req := must(http.NewRequest(http.MethodGet, "http://"+host+"/health", nil))
		for i := 0; i < len(lines); i += 2 {
			req.Header.Set(lines[i], lines[i+1])
		}
		resp, err := client.Do(req)
		noError(t, err)
		return must(read(resp))
	}
	ask("localhost").wantOK(t)
	ask("clip.local", "Origin", "http://clip.local").wantOK(t)
	ask("evil.example").wantError(t, 403, "host_not_allowed", "")
	ask("localhost", "Origin", "https://evil.example").wantError(t, 403, "origin_not_allowed", "") // by a proxy
	s.do(t, "GET", "/health", "").wantOK(t)                                                        // the port serves, too
	if _, err := s.cfg.ListenSocket(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two services on one socket: %v", err)
	}
	s.stop()
	if _, err := os.Lstat(s.cfg.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestUnixCallers: a user is a caller, and a proxy that is trusted says who asks.
func TestUnixCallers(t *testing.T) {
	callers := make(chan fair.Caller, 1)
	trusted := false
	for _, want := range []string{fmt.Sprintf("local:%d", os.Getuid()), "192.0.2.7"} {
		s, client := serveSocket(t, func(c *Config, _ *Service) {
			if trusted {
				c.TrustedProxies = []string{proxyUnix}
			}
		})
		s.tellCallers(callers)
		req := must(http.NewRequest(http.MethodPost, "http://localhost/caller", strings.NewReader("{}")))
		req.Header.Set("X-Forwarded-For", "198.51.100.1, 192.0.2.7")
		resp, err := client.Do(req)
		noError(t, err)
		must(read(resp)).wantOK(t)
		if got := <-callers; got.Address != want || got.Connection == 0 {
			t.Errorf("%+v, want %s", got, want)
		}
		trusted = true
	}
}

func TestStaleSocket(t *testing.T) {
	c := testConfig()
	c.Socket = filepath.Join(short(t), "clip.sock")
	dead := must(net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"}))
	dead.SetUnlinkOnClose(false)
	noError(t, dead.Close())
	ln, err := c.ListenSocket()
	noError(t, err)
	// Another process takes the place, which is its own then.
	noError(t, os.Remove(c.Socket))
	other := must(net.Listen("unix", c.Socket))
	noError(t, ln.Close())
	if _, err := os.Lstat(c.Socket); err != nil {
		t.Errorf("the socket of another process is removed: %v", err)
	}
	if _, err := c.ListenSocket(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("another process answers there: %v", err)
	}
	noError(t, other.Close())

	for name, make := range map[string]func() error{
		"file":   func() error { return os.WriteFile(c.Socket, []byte("mine"), 0o600) },
		"folder": func() error { return os.Mkdir(c.Socket, 0o700) },
		"link":   func() error { return os.Symlink(filepath.Join(filepath.Dir(c.Socket), "nowhere"), c.Socket) },
	} {
		noError(t, make())
		if _, err := c.ListenSocket(); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: %v", name, err)
		}
		noError(t, os.Remove(c.Socket)) // it is still there
	}
	c.Socket = filepath.Join(filepath.Dir(c.Socket), "nowhere", "clip.sock")
	if _, err := c.ListenSocket(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "server.socket") {
		t.Error(err)
	}
}

// TestSocketsAtOnce: of many services that find a stale socket one gets its place.
func TestSocketsAtOnce(t *testing.T) {
	c := testConfig()
	c.Socket = filepath.Join(short(t), "clip.sock")
	dead := must(net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"}))
	dead.SetUnlinkOnClose(false)
	noError(t, dead.Close())
	const many = 16
	found := make(chan net.Listener, many)
	for range many {
		go func() {
			ln, err := c.ListenSocket()
			if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
				t.Error(err)
			}
			found <- ln
		}()
	}
	var got []net.Listener
	for range many {
		if ln := <-found; ln != nil {
			got = append(got, ln)
		}
	}
	if len(got) != 1 {
		t.Errorf("%d have it", len(got))
	}
	for _, ln := range got {
		noError(t, ln.Close())
	}
}

// TestSocketShutdown: who has connected is answered, and nobody is reset.
func TestSocketShutdown(t *testing.T) {
	s, _ := serveSocket(t, nil)
	dial := func() net.Conn { return must(net.Dial("unix", s.cfg.Socket)) }
	busy, idleOne := dial(), dial()
	defer busy.Close()
	defer idleOne.Close()
	must(io.WriteString(busy, posted(classifyBody(waitingImage, "", "x"))))
	<-s.entered
	ended := s.shutdown()
	until(t, func() bool { _, err := os.Lstat(s.cfg.Socket); return err != nil })
	if _, err := net.Dial("unix", s.cfg.Socket); err == nil {
		t.Error("it takes newcomers")
	}
	s.release()
	must(read(must(http.ReadResponse(bufio.NewReader(busy), nil)))).wantOK(t)
	for _, c := range []net.Conn{busy, idleOne} {
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	}
	noError(t, <-ended)
}

// TestSocketClientGone: the request of a client that closes its connection is given up.
func TestSocketClientGone(t *testing.T) {
	s, _ := serveSocket(t, nil)
	c := must(net.Dial("unix", s.cfg.Socket))
	must(io.WriteString(c, posted(classifyBody(waitingImage, "", "x"))))
	<-s.entered
	noError(t, c.Close())
	until(t, func() bool { return strings.Contains(s.log.String(), `"code":"client_gone"`) })
}

// TestSocketIsPlain: TLS is for the port.
func TestSocketIsPlain(t *testing.T) {
	s, client := serveSocket(t, func(c *Config, _ *Service) { c.TLS = testTLS(t, t.TempDir()) })
	resp, err := client.Get("http://localhost/health")
	noError(t, err)
	must(read(resp)).wantOK(t)
	s.do(t, "GET", "/health", "").wantOK(t)
}
