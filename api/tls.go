package api

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hailoclip/hailo/safefile"
)

const (
	// handshakeTime is how long a client has for the TLS handshake.
	handshakeTime = 10 * time.Second
	// lookEvery is how often the files of the certificate are looked at, where clients come.
	lookEvery = 10 * time.Second
	// expiresSoon is when the log begins to warn of a certificate that expires.
	expiresSoon = 14 * 24 * time.Hour
	maxPEM      = 1 << 20
)

// TLS names the files of the service's certificate, in PEM: it and those between it and the root, and its key. Both or neither.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// On says that the port speaks TLS.
func (t TLS) On() bool { return t.CertFile != "" }

// OwnClient asks the service on this machine, of which it takes the certificate that the configuration names, whatever name that is
// for; and without a proxy.
func (c Config) OwnClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	if text, err := safefile.ReadFile(c.TLS.CertFile, maxPEM); c.TLS.On() && err == nil { // else it must be one that this machine trusts
		if block, _ := pem.Decode(text); block != nil {
			t.TLSClientConfig = &tls.Config{
				MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
				VerifyConnection: func(s tls.ConnectionState) error {
					if !bytes.Equal(s.PeerCertificates[0].Raw, block.Bytes) {
						return fmt.Errorf("the certificate is not that of %s", c.TLS.CertFile)
					}
					return nil
				},
			}
		}
	}
	return &http.Client{Transport: t}
}

// Certificate is a certificate that is read again when its files have changed. Safe for concurrent use.
type Certificate struct {
	files TLS
	log   *slog.Logger
	now   atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	looked time.Time
	stamp  stamp // of what was read last, whether it was good or not
}

// stamp tells the content of two files from what was there before.
type stamp [2]struct {
	changed time.Time
	size    int64
}

// Certificate reads the certificate; the log is told what comes of it later.
func (t TLS) Certificate(log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: t, log: log, looked: time.Now(), stamp: t.stamp()}
	return c, c.read()
}

func (t TLS) stamp() (s stamp) {
	for i, name := range [...]string{t.CertFile, t.KeyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i].changed, s[i].size = info.ModTime(), info.Size()
		}
	}
	return s
}

// read takes what is in the files; with an error the certificate stays what it was.
func (c *Certificate) read() error {
	cert, err := safefile.ReadFile(c.files.CertFile, maxPEM)
	if err != nil {
		return fmt.Errorf("server.tls.cert_file: %w", err)
	}
	key, err := safefile.ReadFile(c.files.KeyFile, maxPEM)
	if err != nil {
		return fmt.Errorf("server.tls.key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("server.tls: %s and %s: %w", c.files.CertFile, c.files.KeyFile, err)
	}
	if end := pair.Leaf.NotAfter; time.Until(end) < expiresSoon {
		c.log.Warn("the certificate of server.tls expires soon, or has expired", "file", c.files.CertFile, "expires", end)
	}
	c.now.Store(&pair)
	return nil
}

// look reads the files again if they have changed, and nobody has looked just before.
func (c *Certificate) look(now time.Time) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if now.Sub(c.looked) < lookEvery {
		return
	}
	c.looked = now
	found := c.files.stamp()
	if found == c.stamp {
		return
	}
	c.stamp = found
	if err := c.read(); err != nil {
		c.log.Error("the new certificate is not taken, and the one before stays in use", "error", err)
		return
	}
	c.log.Info("a new certificate is in use", "file", c.files.CertFile, "expires", c.now.Load().Leaf.NotAfter)
}

// config is what connections are secured with.
func (c *Certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.look(time.Now())
			return c.now.Load(), nil
		},
	}
}

// CheckFiles says what is wrong with the files, if they are needed.
func (t TLS) CheckFiles() (err error) {
	if t.On() {
		_, err = t.Certificate(slog.New(slog.DiscardHandler))
	}
	return err
}

// SetCertificate reads the certificate again, from files that may have other names, for the connections from now on. With an error
// it stays what it was. Whether TLS is spoken cannot change.
func (s *Server) SetCertificate(files TLS) error {
	c := s.certificate
	if (c != nil) != files.On() {
		return errors.New("TLS is begun or ended by a restart")
	}
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.files
	c.files, c.stamp = files, files.stamp()
	err := c.read()
	if err != nil {
		c.files, c.stamp = before, before.stamp()
	}
	return err
}

// below is the connection below TLS, which closes it not itself: see conn.Close.
type below struct {
	net.Conn
	arrived bool // reads return what has arrived and do not wait; of the goroutine that reads
	ends    atomic.Bool
}

func (b *below) Read(p []byte) (int, error) {
	if !b.arrived {
		return b.Conn.Read(p)
	}
	if n := readNow(b.Conn, p); n > 0 {
		return n, nil
	}
	return 0, os.ErrDeadlineExceeded // after which TLS can go on
}

func (b *below) Close() error { return nil }

// SetWriteDeadline leaves little time once the connection ends: package tls wants five seconds to say so.
func (b *below) SetWriteDeadline(t time.Time) error {
	if latest := time.Now().Add(partingTime); b.ends.Load() && t.After(latest) {
		t = latest
	}
	return b.Conn.SetWriteDeadline(t)
}

// secured is what a connection has if it speaks TLS.
type secured struct {
	*tls.Conn
	below *below
	ready bool      // the handshake is done; of the goroutine that reads
	until time.Time // when it has to be
}

// secure has the connection speak TLS. It begins with the first read, which is never in the loop that accepts connections.
func (c *conn) secure(config *tls.Config) {
	b := &below{Conn: c.wire}
	c.tls = &secured{Conn: tls.Server(b, config), below: b, until: c.opened.Add(c.listener.handshakeTime)}
	c.Conn = c.tls.Conn
	_ = c.wire.SetWriteDeadline(c.tls.until) // fails on a closed connection, and so will the handshake
}

// shake does the handshake, and says whether the client can be talked to. The client of plain HTTP is told what is wrong.
func (c *conn) shake() bool {
	err := c.tls.Handshake()
	if c.tls.ready = err == nil; c.tls.ready {
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.wire.SetWriteDeadline(time.Time{})
		if c.latest.Equal(c.tls.until) {
			if c.latest = (time.Time{}); c.phase != leaving {
				_ = c.Conn.SetReadDeadline(c.bounded())
			}
		}
		return true
	}
	if h, ok := errors.AsType[tls.RecordHeaderError](err); ok && h.Conn != nil && isHTTP(h.RecordHeader) {
		_, _ = c.wire.Write(refusal(fail(errMalformed, "This port speaks TLS: ask it with https://"), "")) // it is over either way
		c.lingers.Store(true)
	}
	c.listener.log.Debug("a TLS handshake has failed", "client", c.wire.RemoteAddr().String(), "error", err)
	return false
}

// isHTTP says that five bytes begin a request of plain HTTP.
func isHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET":
		return true
	}
	return false
}

// readNow reads what has arrived, without waiting for more, and returns its length.
func (c *conn) readNow(b []byte) int {
	if c.tls == nil {
		return readNow(c.wire, b)
	}
	c.tls.below.arrived = true
	defer func() { c.tls.below.arrived = false }()
	n, _ := c.tls.Read(b)
	return n
}

// sayEnd tells the client of a connection with TLS that there will be no more, unless somebody is writing.
func (c *conn) sayEnd() {
	if c.tls != nil {
		c.tls.below.ends.Store(true)
		_ = c.tls.Close()
	}
}

// alert is what a TLS client that there is no room for gets, before any handshake: internal_error.
func alert() []byte { return []byte{21, 3, 1, 0, 2, 2, 80} }
