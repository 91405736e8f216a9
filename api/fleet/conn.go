// Package fleet joins a node to others over NATS: it hands interactive requests to idle nodes, encodes images that are indexed
// through the broker, and shares prompt sets, vectors of texts, model files and cameras. Without a configured broker nothing of it runs.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoBroker says that the broker cannot be reached.
var ErrNoBroker = errors.New("the broker of the fleet cannot be reached")

// Conn is a connection to the broker, which is made again whenever it is lost. Safe for concurrent use.
type Conn struct {
	Config Config // with the name of the node
	nc     *nats.Conn
	js     jetstream.JetStream
	log    *slog.Logger
}

// Dial begins to connect and returns at once; what is asked before there is a connection waits or fails by its own time limit.
func Dial(cfg Config, log *slog.Logger) (*Conn, error) {
	if cfg.Node == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("fleet.node is empty, and the host has no name: %w", err)
		}
		cfg.Node = cmp.Or(strings.Map(func(r rune) rune {
			if r < 128 && name.MatchString("a"+string(r)) {
				return r
			}
			return '-'
		}, host[:min(len(host), 64)]), "node")
	}
	options := []nats.Option{
		nats.Name("hailo-clip " + cfg.Node), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.NoEcho(),
		nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.ReconnectBufSize(-1), nats.Timeout(5 * time.Second),
		nats.ConnectHandler(func(*nats.Conn) { log.Info("connected to the broker of the fleet", "node", cfg.Node) }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to the broker of the fleet again", "node", cfg.Node) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("the broker of the fleet is lost", "error", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Warn("the broker of the fleet reports an error", "subject", subject, "error", err)
		}),
	}
	nc, err := nats.Connect(cfg.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBroker, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Conn{Config: cfg, nc: nc, js: js, log: log}, nil
}

// Connected says that there is a connection now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Await blocks until there is a connection. Errors: ErrNoBroker with the cause of ctx.
func (c *Conn) Await(ctx context.Context) error {
	for !c.nc.IsConnected() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoBroker, errors.Join(context.Cause(ctx), c.nc.LastError()))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// Close sends what waits to be sent, for a second at most, and closes the connection.
func (c *Conn) Close() {
	_ = c.nc.FlushTimeout(time.Second) // the broker may be gone
	c.nc.Close()
}
