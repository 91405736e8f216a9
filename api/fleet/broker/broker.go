// Package broker is a NATS server with JetStream inside the process: the middle of a fleet.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"hailoclip/api/fleet/members"
	"hailoclip/hailo/safefile"
)

// Main is the JetStream domain of a fleet's main broker.
const Main = "hub"

// DefaultSync is after how long files are synced.
const DefaultSync = 10 * time.Second

// Config says where the broker listens, whom it serves, and where its files are.
type Config struct {
	Host         string        // "": 127.0.0.1
	Port         int           // -1: any free one
	Dir          string        // of streams and of the fleet's members; one broker has it at a time
	SyncInterval time.Duration // after which files are synced at the latest; 0: DefaultSync; below 0: with every message
	MaxStore     int64         // bytes of files; 0: three quarters of the free space, as the server has it
	Name, Domain string        // Domain "": Main; that of a leaf must be another

	// Secure asks for TLS, and of nodes for keys. Without it Host must be a loopback address.
	Secure    bool
	Advertise []string // more names and addresses of this host; the first of all is how nodes are told to reach it

	LeavesHost string // where brokers that are leaves connect
	LeavesPort int    // 0: there are none; -1: any free port
	LeafOf     string // tls:// or nats:// address of the main broker; "": this is the main broker
	Leaf       *members.Credentials

	ClusterHost string
	ClusterPort int      // of this broker for the others of a cluster; 0: it stands alone
	Routes      []string // host:port of all brokers of the cluster, three at least, this one too

	Log *slog.Logger // nil: none
}

// Broker is a running server.
type Broker struct {
	server   *server.Server
	config   Config
	leaves   int // port for leaves in use
	options  func() (*server.Options, error)
	unlock   func()
	stop     context.CancelFunc
	watching sync.WaitGroup
}

// ErrInUse says that another broker has the folder.
var ErrInUse = errors.New("another broker works in this folder")

// Start starts a server and waits until it accepts connections.
func Start(c Config) (b *Broker, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := safefile.MakeFolder(c.Dir); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b = &Broker{config: c}
	b.unlock, err = safefile.Lock(filepath.Join(c.Dir, "broker.lock"))
	if errors.Is(err, safefile.ErrLocked) {
		return nil, fmt.Errorf("broker: %s: %w", c.Dir, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := b.start(); err != nil {
		b.unlock()
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

func (b *Broker) start() (err error) {
	if b.options, err = b.prepare(); err != nil {
		return err
	}
	version := members.Dir(b.config.Dir).Version()
	options, err := b.options()
	if err != nil {
		return err
	}
	if b.server, err = server.NewServer(options); err != nil {
		return err
	}
	b.server.SetLoggerV2(logger{b.config.Log}, false, false, false)
	b.server.Start()
	if !b.server.ReadyForConnections(10 * time.Second) {
		b.server.Shutdown()
		b.server.WaitForShutdown()
		return errors.New("it does not get ready: its log says why")
	}
	b.leaves = options.LeafNode.Port // the server has put the one in use there
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	if b.config.Secure {
		if err := b.remember(); err != nil {
			b.Close()
			return err
		}
		b.watching.Go(func() { b.watch(ctx, version) })
	}
	return nil
}

// URL is where clients connect.
func (b *Broker) URL() string {
	if b.config.Secure {
		return "tls://" + net.JoinHostPort(b.name(), fmt.Sprint(b.Port()))
	}
	return b.server.ClientURL()
}

// Port is where clients connect.
func (b *Broker) Port() int { return b.server.Addr().(*net.TCPAddr).Port }

// LeavesURL is where brokers that are leaves connect; "": nowhere.
func (b *Broker) LeavesURL() string {
	if b.config.LeavesPort == 0 {
		return ""
	}
	scheme := "nats"
	if b.config.Secure {
		scheme = "tls"
	}
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(b.name(), fmt.Sprint(b.leaves)))
}

// Close stops the server and waits until its files are closed.
func (b *Broker) Close() {
	b.stop()
	b.watching.Wait()
	b.server.Shutdown()
	b.server.WaitForShutdown()
	b.unlock()
}
