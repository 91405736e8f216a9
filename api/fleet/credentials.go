package fleet

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"hailoclip/api/fleet/members"
)

// identity reads the credentials, if there are any, and returns the configuration with what they say, and how to connect.
// A broker that is reached by tls:// must speak TLS 1.3, and with credentials be certified by their authority.
func (c Config) identity(log *slog.Logger) (Config, []nats.Option, error) {
	if c.Credentials == "" {
		if c.Node == "" {
			host, err := os.Hostname()
			if err != nil {
				return c, nil, fmt.Errorf("fleet.node is empty, and the host has no name: %w", err)
			}
			c.Node = members.NameOf(host, "node")
		}
		if strings.Contains(c.URL, "tls://") {
			return c, []nats.Option{nats.Secure(&tls.Config{MinVersion: tls.VersionTLS13})}, nil
		}
		return c, nil, nil
	}
	own, warning, err := members.ReadFile(c.Credentials)
	if err != nil {
		return c, nil, fmt.Errorf("fleet.credentials: %w", err)
	}
	if warning != "" {
		log.Warn(warning)
	}
	if c.Node != "" && c.Node != own.Node {
		return c, nil, fmt.Errorf("fleet.node is %s, but the credentials in %s are those of %s", c.Node, c.Credentials, own.Node)
	}
	if strings.Contains(c.URL, "nats://") {
		return c, nil, fmt.Errorf("fleet.url is %s: with credentials it must be tls://", shown(c.URL))
	}
	public, err := own.Public()
	if err != nil {
		return c, nil, fmt.Errorf("fleet.credentials: %s: %w", c.Credentials, err)
	}
	c.Node, c.URL = own.Node, cmp.Or(c.URL, own.URL)
	return c, []nats.Option{nats.Secure(own.TLS()), nats.Nkey(public, own.Sign)}, nil
}

const (
	retold    = 10 * time.Minute // for which the same trouble is not told again
	mostWarns = 16               // in that time
)

// seldom logs each trouble with the broker once, and again after a while. Safe for concurrent use.
type seldom struct {
	log  *slog.Logger
	mu   sync.Mutex
	told map[string]bool
	at   time.Time // of the first of them
}

// warn logs a message, unless that was told with the same key.
func (s *seldom) warn(key, message string, more ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told == nil || time.Since(s.at) > retold {
		s.told, s.at = map[string]bool{}, time.Now()
	}
	if !s.told[key] && len(s.told) < mostWarns {
		s.told[key] = true
		s.log.Warn(message, more...)
	}
}

// over has the next trouble told.
func (s *seldom) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = nil
}
