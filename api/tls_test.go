package api

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// overTLS has all tests of this package that send by helpers do so by TLS: go test ./api -tls.
var overTLS = flag.Bool("tls", false, "speak TLS")

// plainOnly skips tests that cannot speak TLS.
func plainOnly(t *testing.T) {
	if *overTLS {
		t.Skip("over plain connections alone")
	}
}

// clientTLS trusts every service.
var clientTLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // of this test

// tlsClient is a client's connection whose sending side can be closed as that of TCP.
type tlsClient struct {
	*tls.Conn
	tcp net.Conn
}

func (c tlsClient) CloseWrite() error {
	return errors.Join(c.Conn.CloseWrite(), c.tcp.(*net.TCPConn).CloseWrite())
}

// testTLS makes a certificate in a folder, in place of the one that is there.
func testTLS(t testing.TB, dir string) TLS {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<60))), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	made := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	files := TLS{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	noError(t, os.WriteFile(files.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}), 0o600))
	noError(t, os.WriteFile(files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}), 0o600))
	return files
}

func secure(t *testing.T, change func(*Config, *Service)) *service {
	t.Helper()
	return serve(t, func(c *Config, svc *Service) {
		if c.TLS = testTLS(t, t.TempDir()); change != nil {
			change(c, svc)
		}
	})
}

func TestTLS(t *testing.T) {
	s := secure(t, kept(t))
	t.Run("versions and protocols", func(t *testing.T) {
		for _, tt := range []struct {
			min, max uint16
			protos   []string
			ok       bool
		}{
			{0, 0, nil, true},
			{tls.VersionTLS12, tls.VersionTLS12, []string{"h2", "http/1.1"}, true},
			{tls.VersionTLS13, tls.VersionTLS13, []string{"http/1.1"}, true},
			{tls.VersionTLS10, tls.VersionTLS11, nil, false},
			{0, 0, []string{"h2"}, false},
		} {
			config := clientTLS.Clone()
			config.MinVersion, config.MaxVersion, config.NextProtos = tt.min, tt.max, tt.protos
			c, err := tls.Dial("tcp", s.addr, config)
			if (err == nil) != tt.ok {
				t.Errorf("%+v: %v", tt, err)
			}
			if err != nil {
				continue
			}
			if got := c.ConnectionState().NegotiatedProtocol; tt.protos != nil && got != "http/1.1" {
				t.Errorf("%+v: %q", tt, got)
			}
			c.Close()
		}
	})
	t.Run("requests of one connection", func(t *testing.T) {
		c, ask := s.asker(t, askHealth)
		ask().wantOK(t)
		ask().wantOK(t)
		noError(t, c.Close())
		s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
	})
	t.Run("large bodies and answers", func(t *testing.T) {
		s.post(t, "/v1/classify", classifyBody(goodImage, "", strings.Repeat("x", 2000))+strings.Repeat(" ", 500_000)).wantOK(t)
		if r := s.do(t, "GET", "/openapi.yaml", ""); len(r.body) != len(openAPIDocument) {
			t.Errorf("%d bytes", len(r.body))
		}
	})
	t.Run("the end is said", func(t *testing.T) {
		c := s.send(t, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil { // io.ErrUnexpectedEOF if it is not
			t.Error(err)
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		for _, request := range []string{askHealth, posted(classifyBody(goodImage, "", "x")), "HEAD / HTTP/1.0\r\n\r\n"} {
			c := must(net.Dial("tcp", s.addr))
			defer c.Close()
			must(io.WriteString(c, request))
			only(t, c).wantError(t, 400, "malformed_request", "https://")
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, sent := range []string{"\x00\x01\x02\x03\x04\x05", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70_000), "SSH-2.0-x\r\n", "\x16"} {
			c := must(net.Dial("tcp", s.addr))
			_, _ = io.WriteString(c, sent)
			_ = c.(*net.TCPConn).CloseWrite()
			if b, _ := io.ReadAll(c); strings.HasPrefix(string(b), "HTTP/") {
				t.Errorf("%.10q: %s", sent, b)
			}
			c.Close()
		}
	})
	t.Run("an origin in the clear is not ours", func(t *testing.T) {
		s.do(t, "GET", "/health", "", "Origin", "http://"+s.addr).wantError(t, 403, "origin_not_allowed", "")
		s.do(t, "GET", "/health", "", "Origin", "https://"+s.addr).wantOK(t)
	})
	t.Run("streams", func(t *testing.T) {
		s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x","y"],"events":{"on":"frames"}}`)
		l := s.listenTo(t, "door/events?frames=1")
		ws := s.dial(t, `{"id":"door"}`)
		show(t, ws, imageFile(goodImage))
		if _, b, err := ws.Read(t.Context()); err != nil || !strings.Contains(string(b), "classifications") {
			t.Errorf("%s %v", b, err)
		}
		if m := l.next(t); m.kind != "frame" {
			t.Errorf("%+v", m)
		}
	})
	until(t, func() bool { return strings.Contains(s.log.String(), "a TLS handshake has failed") })
}

// TestTLSClientGone: the request of a client that closes its connection, or its side of it, is given up.
func TestTLSClientGone(t *testing.T) {
	s := secure(t, nil)
	for _, end := range []func(tlsClient) error{tlsClient.Close, tlsClient.CloseWrite} {
		c := s.send(t, posted(classifyBody(waitingImage, "", "x")))
		<-s.entered
		noError(t, end(c.(tlsClient)))
		until(t, func() bool { return s.listeners[0].count() == 0 })
	}
	if n := strings.Count(s.log.String(), `"code":"client_gone"`); n != 2 {
		t.Errorf("%d requests are given up", n)
	}
}

// TestHandshakesThatHang: clients that do not go on with their handshake hold places, which they lose to those who come.
func TestHandshakesThatHang(t *testing.T) {
	s := secure(t, func(c *Config, _ *Service) { c.MaxConnections = 2 })
	until(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.listeners) == 1 })
	var hang []net.Conn
	for _, sent := range []string{"", "\x16\x03\x01"} {
		c := must(net.Dial("tcp", s.addr))
		t.Cleanup(func() { c.Close() })
		must(io.WriteString(c, sent))
		hang = append(hang, c)
	}
	l := s.listeners[0]
	until(t, func() bool { return l.count() == 2 })
	l.mu.Lock()
	l.idleTime = 0
	l.mu.Unlock()
	for range 3 {
		_, ask := s.asker(t, askHealth)
		ask().wantOK(t)
	}
	for _, c := range hang {
		noError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%q %v", b, err)
		}
	}
}

// TestHandshakeTime: a handshake has an end, also where its client sends a byte now and then.
func TestHandshakeTime(t *testing.T) {
	cfg := testConfig()
	l := newListener(must(cfg.Listen()), cfg, nil, slog.New(slog.DiscardHandler))
	defer l.Close()
	certificate := must(testTLS(t, t.TempDir()).certificate(l.log))
	l.tls, l.handshakeTime = certificate.config(), 50*time.Millisecond
	client := must(net.Dial("tcp", l.Addr().String()))
	defer client.Close()
	c := must(l.Accept())
	defer c.Close()
	go func() {
		for {
			if _, err := io.WriteString(client, "\x16\x03\x01\x0f\xff"); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // so that the buffer of the record does not fill
		}
	}()
	noError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d %v", n, err)
	}
}

// TestIdleTLSEnds: an idle connection that makes room is told so, and a request that crosses its end is answered.
func TestIdleTLSEnds(t *testing.T) {
	s := secure(t, func(c *Config, _ *Service) { c.MaxConnections = 1 })
	c, ask := s.asker(t, askHealth)
	ask().wantOK(t)
	l := s.listeners[0]
	until(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.open {
			return c.makeWay(false)
		}
		return false
	})
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	// A request that has come, and has not been read, when its connection is told to go.
	c, ask = s.asker(t, askHealth)
	ask().wantOK(t)
	var served *conn
	l.mu.Lock()
	for open := range l.open { // among which the one before may still be
		if open.RemoteAddr().String() == c.LocalAddr().String() {
			served = open
		}
	}
	l.mu.Unlock()
	until(t, func() bool { p, _, _ := served.doing(); return p == idle })
	must(io.WriteString(c, askHealth))
	l.mu.Lock()
	served.makeWay(false)
	l.mu.Unlock()
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		must(read(resp)).wantOK(t)
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestTLSShutdown(t *testing.T) {
	s := secure(t, nil)
	c := s.send(t, posted(classifyBody(waitingImage, "", "x")))
	<-s.entered
	idleOne, ask := s.asker(t, askHealth)
	ask().wantOK(t)
	ended := s.shutdown()
	until(t, s.stopping.Load)
	s.release()
	r := must(read(must(http.ReadResponse(bufio.NewReader(c), nil))))
	if r.wantOK(t); !r.last {
		t.Error("the connection is kept")
	}
	for _, c := range []net.Conn{c, idleOne} {
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("an end that was not said: %v", err)
		}
	}
	noError(t, <-ended)
}

func TestDismissTLS(t *testing.T) {
	cfg := testConfig()
	cfg.TLS = testTLS(t, t.TempDir())
	ln := must(cfg.Listen())
	answer := make(chan reply, 1)
	c := tls.Client(must(net.Dial("tcp", ln.Addr().String())), clientTLS)
	defer c.Close()
	go func() {
		_, _ = io.WriteString(c, askHealth)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			answer <- must(read(resp))
		}
		close(answer)
	}()
	noError(t, cfg.Dismiss(ln))
	if r, ok := <-answer; ok { // unless this machine takes longer for a handshake than there is
		r.wantError(t, 503, "stopping", "")
	}
}

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, func(c *Config, _ *Service) { c.TLS = testTLS(t, dir) })
	serial := func() string {
		c := must(tls.Dial("tcp", s.addr, clientTLS))
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	agoIsLongEnough := func() {
		s.certificate.mu.Lock()
		defer s.certificate.mu.Unlock()
		s.certificate.looked = time.Now().Add(-lookEvery)
	}
	c, ask := s.asker(t, askHealth) // goes on whatever happens
	defer c.Close()
	ask().wantOK(t)
	first := serial()
	testTLS(t, dir)
	if serial() != first {
		t.Error("the files are read for each connection")
	}
	agoIsLongEnough()
	second := serial()
	if second == first {
		t.Error("a change of the files is not noticed")
	}
	noError(t, os.WriteFile(filepath.Join(dir, "key.pem"), []byte("a key that is none"), 0o600))
	agoIsLongEnough()
	if serial() != second || !strings.Contains(s.log.String(), "the new certificate is not taken") {
		t.Error("a bad key is taken, or nobody is told")
	}
	if err := s.SetCertificate(s.cfg.TLS); err == nil || strings.Contains(err.Error(), "a key that is none") {
		t.Error(err)
	}
	noError(t, os.Remove(filepath.Join(dir, "cert.pem")))
	if err := s.SetCertificate(s.cfg.TLS); err == nil || serial() != second {
		t.Error(err)
	}
	testTLS(t, dir)
	noError(t, s.SetCertificate(s.cfg.TLS))
	if serial() == second {
		t.Error("it is not read again")
	}
	if s.SetCertificate(TLS{}) == nil || serve(t, nil).SetCertificate(s.cfg.TLS) == nil && !*overTLS {
		t.Error("TLS ends, or begins")
	}
	third, elsewhere := serial(), testTLS(t, t.TempDir())
	if s.SetCertificate(TLS{"/does/not/exist", elsewhere.KeyFile}) == nil || serial() != third {
		t.Error("there is no such file")
	}
	if noError(t, s.SetCertificate(elsewhere)); serial() == third {
		t.Error("other files are not read")
	}
	ask().wantOK(t)
}

func TestBadCertificates(t *testing.T) {
	good, other := testTLS(t, t.TempDir()), testTLS(t, t.TempDir())
	log := slog.New(slog.DiscardHandler)
	for _, files := range []TLS{{"/does/not/exist", good.KeyFile}, {good.CertFile, "/does/not/exist"}, {good.CertFile, other.KeyFile}, {good.KeyFile, good.CertFile}, {t.TempDir(), good.KeyFile}} {
		if _, err := files.certificate(log); err == nil || !strings.Contains(err.Error(), "server.tls") {
			t.Errorf("%+v: %v", files, err)
		}
	}
}

// TestOwnClient takes the certificate of the configuration, and no other.
func TestOwnClient(t *testing.T) {
	s := secure(t, nil)
	client := s.cfg.OwnClient()
	defer client.CloseIdleConnections()
	resp, err := client.Get(s.cfg.URLOf(s.listeners[0].Addr()) + "/health")
	noError(t, err)
	must(read(resp)).wantOK(t)
	other := Config{TLS: testTLS(t, t.TempDir())}
	if resp, err := other.OwnClient().Get(s.url + "/health"); err == nil {
		resp.Body.Close()
		t.Error("another certificate is taken")
	}
}
