// Package fleet joins a node to others over NATS: it hands interactive requests to idle nodes, encodes images that are indexed
// through the broker, and shares prompt sets, vectors of texts, model files and cameras. Without a configured broker nothing of it runs.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet/members"
)

// ErrNoBroker says that the broker cannot be reached.
var ErrNoBroker = errors.New("the broker of the fleet cannot be reached")

// Conn is a connection to the broker, which is made again whenever it is lost. Safe for concurrent use.
type Conn struct {
	Config Config // with the name of the node
	nc     *nats.Conn
	js     jetstream.JetStream // the main broker's, wherever the node is connected; see ask
	log    *slog.Logger
	life   life

	trouble     seldom // for the log
	refused     refusals
	shut        atomic.Pointer[shut]
	connections atomic.Uint64 // made so far
	reconnected chan struct{} // has something after each of them; room for one
	setting     chan struct{} // held by Setup
	setUp       struct {      // what it has seen last
		connection uint64
		at         time.Time
	}
}

// Dial begins to connect and returns at once; what is asked before there is a connection waits or fails by its own time limit.
func Dial(cfg Config, log *slog.Logger) (*Conn, error) {
	cfg, options, err := cfg.identity(log)
	if err != nil {
		return nil, err
	}
	c := &Conn{Config: cfg, log: log, trouble: seldom{log: log}, reconnected: make(chan struct{}, 1), setting: make(chan struct{}, 1)}
	c.life.begin()
	connected := func(*nats.Conn) {
		c.shut.Store(nil)
		c.trouble.over()
		if c.connections.Add(1) == 1 {
			log.Info("connected to the broker of the fleet", "node", cfg.Node)
		} else {
			log.Info("connected to the broker of the fleet again", "node", cfg.Node)
		}
		select {
		case c.reconnected <- struct{}{}:
		default:
		}
	}
	unreached := func(_ *nats.Conn, err error) {
		if err != nil {
			c.trouble.warn("", "the broker of the fleet cannot be reached; the service works alone", "error", c.unwelcome(err))
		}
	}
	lost := func(nc *nats.Conn, err error) {
		c.refused.forget() // before what was asked ends: else it would end for good
		c.shut.Store(nil)
		c.life.begin() // of the next connection
		unreached(nc, err)
	}
	options = append(options,
		nats.Name("hailo-clip "+cfg.Node), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.NoEcho(),
		nats.CustomReconnectDelay(reconnectDelay), nats.ReconnectBufSize(-1), nats.Timeout(5*time.Second),
		nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(2*time.Second), // what is stuck for so long ends the connection
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected),
		nats.CustomInboxPrefix(c.inbox()), nats.IgnoreAuthErrorAbort(), // a node that was removed may be added again
		nats.DisconnectErrHandler(lost), nats.ReconnectErrHandler(unreached),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			key := subject + err.Error()
			if refused := c.refused.note(err); refused != "" {
				key = "refused " + kind(refused)
			}
			c.trouble.warn(key, "the broker of the fleet reports an error", "subject", subject, "error", c.unwelcome(err))
		}),
	)
	if c.nc, err = nats.Connect(cfg.URL, options...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBroker, err)
	}
	if cfg.Domain == "" {
		c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(askTime))
	} else {
		c.js, err = jetstream.NewWithDomain(c.nc, cfg.Domain, jetstream.WithDefaultTimeout(askTime))
	}
	if err != nil {
		c.nc.Close()
		return nil, err
	}
	return c, nil
}

// Connected says that there is a connection now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Traffic is how many bytes of messages were received and sent so far.
func (c *Conn) Traffic() (in, out uint64) {
	s := c.nc.Stats()
	return s.InBytes, s.OutBytes
}

// inbox is the prefix of the subjects on which the broker and other nodes answer.
func (c *Conn) inbox() string { return members.Inbox(c.Config.Node) }

// kind is what subjects of one kind have in common: they differ in shards and names.
func kind(subject string) string {
	parts := strings.SplitN(subject, ".", 5)
	return strings.Join(parts[:min(len(parts), 4)], ".")
}

// Await blocks until there is a connection. Errors: ErrNoBroker with the cause of ctx, or with a permanent one where the broker has refused
// this node for some seconds.
func (c *Conn) Await(ctx context.Context) error {
	for !c.nc.IsConnected() {
		if why := c.shutOut(refusedFor); why != nil {
			return fmt.Errorf("%w: %w", ErrNoBroker, why)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoBroker, errors.Join(context.Cause(ctx), cmp.Or(c.shutOut(0), c.nc.LastError())))
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// ready blocks until there is a connection, and the broker has all that nodes need. Errors: as Await and Setup have.
func (c *Conn) ready(ctx context.Context) error {
	if err := c.Await(ctx); err != nil {
		return err
	}
	return c.Setup(ctx)
}

// Close sends what waits to be sent, for a second at most, and closes the connection.
func (c *Conn) Close() {
	if c.Connected() {
		_ = c.nc.FlushTimeout(time.Second) // the broker may be gone
	}
	c.nc.Close()
}
