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
	// lookEvery is the shortest interval at which handshakes look for new certificate files.
	lookEvery = 10 * time.Second
	// expiresSoon is how long before its expiry a certificate that is read gets a warning in the log.
	expiresSoon = 14 * 24 * time.Hour
	// maxPEM is the largest file of a certificate or key, in bytes.
	maxPEM = 1 << 20
)

// TLS names two PEM files: the certificate of the service with its intermediate certificates, and the private key. Both or neither.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// On says that TCP connections speak TLS.
func (t TLS) On() bool { return t.CertFile != "" }

// OwnClient returns an HTTP client for the service on this machine. It uses no proxy, and accepts only the certificate in
// c.TLS.CertFile, for any host name. If that file cannot be read, the certificate must be one that the machine trusts.
func (c Config) OwnClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	if text, err := safefile.ReadFile(c.TLS.CertFile, maxPEM); c.TLS.On() && err == nil {
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

// certificate is a certificate that handshakes read again when its files have changed. Safe for concurrent use.
type certificate struct {
	log *slog.Logger
	now atomic.Pointer[tls.Certificate] // the one in use

	mu     sync.Mutex
	files  TLS
	looked time.Time // when the files were last looked at
	stamp  stamp     // of the files as last read, valid or not
}

// stamp is the modification times and sizes of the two files, by which a change is noticed.
type stamp [2]struct {
	changed time.Time
	size    int64
}

// certificate reads the files. The log gets a warning of expiry, and the results of later reads.
func (t TLS) certificate(log *slog.Logger) (*certificate, error) {
	c := &certificate{files: t, log: log, looked: time.Now(), stamp: t.stamp()}
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

// read puts the certificate in the files in use; after an error the one before stays. The caller holds mu, once c is shared.
func (c *certificate) read() error {
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

// look reads the files again if they have changed, at most every lookEvery. It does not wait for another goroutine that looks.
func (c *certificate) look(now time.Time) {
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

// config is the configuration of TLS for connections.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.look(time.Now())
			return c.now.Load(), nil
		},
	}
}

// CheckFiles returns what is wrong with the files; nil if TLS is off.
func (t TLS) CheckFiles() (err error) {
	if t.On() {
		_, err = t.certificate(slog.New(slog.DiscardHandler))
	}
	return err
}

// SetCertificate reads a certificate from files and uses it for new connections. After an error the one before stays in use. It
// cannot turn TLS on or off.
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

// below is an accepted connection as package tls reads and writes it. Its Close does nothing, because conn.Close closes it.
type below struct {
	net.Conn
	arrived bool        // reads do not wait for more than what has arrived; only for the goroutine that reads
	ends    atomic.Bool // the connection is being closed
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

// SetWriteDeadline bounds the deadline once the connection ends: package tls sets one of five seconds for its last message.
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
	ready bool      // the handshake is done; only for the goroutine that reads
	until time.Time // the deadline of the handshake
}

// secure has the connection speak TLS. The handshake takes place in the first Read, so it never blocks the loop that accepts.
func (c *conn) secure(config *tls.Config) {
	b := &below{Conn: c.wire}
	c.tls = &secured{Conn: tls.Server(b, config), below: b, until: c.opened.Add(c.listener.handshakeTime)}
	c.Conn = c.tls.Conn
	_ = c.wire.SetWriteDeadline(c.tls.until) // fails on a closed connection, and so will the handshake
}

// shake does the handshake and says whether it has succeeded. A client of plain HTTP is answered with an error in plain HTTP.
func (c *conn) shake() bool {
	err := c.tls.Handshake()
	if c.tls.ready = err == nil; c.tls.ready {
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.wire.SetWriteDeadline(time.Time{})
		if c.latest.Equal(c.tls.until) {
			c.latest = time.Time{}
			if c.phase != leaving {
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

// isHTTP says whether the first five bytes of a connection are those of a request in plain HTTP.
func isHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET":
		return true
	}
	return false
}

// readNow is readNow of what the client has sent, decrypted where the connection speaks TLS.
func (c *conn) readNow(b []byte) int {
	if c.tls == nil {
		return readNow(c.wire, b)
	}
	c.tls.below.arrived = true
	defer func() { c.tls.below.arrived = false }()
	n, _ := c.tls.Read(b)
	return n
}

// sayEnd sends the closing message of TLS, unless another goroutine is writing. It blocks for partingTime at most.
func (c *conn) sayEnd() {
	if c.tls != nil {
		c.tls.below.ends.Store(true)
		_ = c.tls.Close()
	}
}

// alert is the answer to a TLS client that there is no room for, before any handshake: the fatal alert internal_error.
func alert() []byte { return []byte{21, 3, 1, 0, 2, 2, 80} }
