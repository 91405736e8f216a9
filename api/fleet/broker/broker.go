// Package broker is a NATS server with JetStream inside the process: the middle of a fleet.
package broker

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Config says where the broker listens and keeps its files.
type Config struct {
	Host         string        // "": 127.0.0.1
	Port         int           // -1: any free one
	Dir          string        // of the streams
	SyncInterval time.Duration // after which files are synced at the latest; 0: 10 s
	MaxStore     int64         // bytes of files; 0: a third of the free space, as the server has it
	Name, Domain string        // Domain "": hub
}

// Broker is a running server.
type Broker struct{ server *server.Server }

// Start starts a server and waits until it accepts connections.
func Start(c Config) (*Broker, error) {
	if c.SyncInterval == 0 {
		c.SyncInterval = 10 * time.Second
	}
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.Domain == "" {
		c.Domain = "hub"
	}
	s, err := server.NewServer(&server.Options{
		ServerName: c.Name, Host: c.Host, Port: c.Port, JetStream: true, StoreDir: c.Dir, JetStreamDomain: c.Domain,
		JetStreamMaxStore: c.MaxStore, SyncInterval: c.SyncInterval, NoSigs: true, NoLog: true, MaxPayload: 8 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("broker: it does not get ready")
	}
	return &Broker{s}, nil
}

// URL is where clients connect.
func (b *Broker) URL() string { return b.server.ClientURL() }

// Close stops the server and waits until its files are closed.
func (b *Broker) Close() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// Port is where clients connect.
func (b *Broker) Port() int { return b.server.Addr().(*net.TCPAddr).Port }
