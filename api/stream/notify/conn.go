package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync"

	"github.com/eclipse/paho.golang/autopaho"
)

// dial connects to the broker.
func (b *broker) dial(ctx context.Context, cfg autopaho.ClientConfig, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	open := new(net.Dialer).DialContext
	if u.Scheme == "mqtts" {
		open = (&tls.Dialer{Config: cfg.TlsCfg}).DialContext
	}
	conn, err := open(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = conn
	return &packetConn{Conn: conn}, nil
}

// hangUp ends the connection, if there is one. What waits for a broker that does not read ends with it.
func (b *broker) hangUp() {
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// packetConn is a connection whose packets of MQTT are at most maxReceived bytes long: paho makes memory for as much as the
// first bytes of a packet announce. It is a sync.Locker, by which paho writes one packet at a time.
type packetConn struct {
	net.Conn
	sync.Mutex

	inHead bool // the type has been read, the length not whole
	length int  // as far as it has been read
	shift  int
	left   int // bytes of the packet that follow
}

var errLongPacket = errors.New("the broker sends a packet that is too long")

func (c *packetConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for i := 0; i < n; {
		if c.left > 0 {
			k := min(c.left, n-i)
			c.left, i = c.left-k, i+k
			continue
		}
		b := p[i]
		i++
		if !c.inHead {
			c.inHead, c.length, c.shift = true, 0, 0
			continue
		}
		c.length |= int(b&0x7f) << c.shift
		c.shift += 7
		if c.length > maxReceived || c.shift > 28 {
			return 0, errLongPacket
		}
		if c.inHead = b&0x80 != 0; !c.inHead {
			c.left = c.length
		}
	}
	return n, err
}
