package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// membership is what a node needs to know the others, and to be known. Its methods are Node's.
type membership struct {
	instance string // random
	peers    peers
	changed  chan struct{} // has something when others are to know at once; room for one
	leaving  atomic.Bool
	sequence atomic.Uint64
	badLoads atomic.Uint64 // that could not be read

	maxPayload atomic.Int64 // bytes of a message, by the broker; 0: not known
}

func newMembership(cfg Config, log *slog.Logger) *membership {
	m := &membership{instance: rand.Text()[:16], changed: make(chan struct{}, 1)}
	m.peers = peers{log: log, own: cfg.Node, self: m.instance, nodes: map[string]*peer{}}
	return m
}

// beMember tells the other nodes of this one, five times a second, and hears what they tell, until ctx ends.
func (n *Node) beMember(ctx context.Context) error {
	heard, err := n.nc.Subscribe(loadSubject+"*", n.hear)
	if err != nil {
		return err
	}
	defer func() { _ = heard.Unsubscribe() }() // fails when the connection is closed
	_ = heard.SetPendingLimits(4*maxPeers, 4*maxPeers*maxLoadBytes)
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		n.tell()
		select {
		case <-ctx.Done():
			n.leaving.Store(true)
			n.tell()
			return nil
		case <-n.changed: // others are to know at once
		case <-tick.C:
		}
	}
}

// tell publishes the load of this node. What is told while there is no connection is not for later.
func (n *Node) tell() {
	l := n.load()
	l.UnixMs, l.Sequence = time.Now().UnixMilli(), n.sequence.Add(1)
	b, err := json.Marshal(l)
	if err == nil && n.nc.IsConnected() {
		n.maxPayload.Store(n.nc.MaxPayload())
		_ = n.nc.Publish(loadSubject+l.Node, b) // fails without a connection only, which is told elsewhere
	}
}

// hear reads what a node tells.
func (n *Node) hear(m *nats.Msg) {
	l, err := parseLoad(strings.TrimPrefix(m.Subject, loadSubject), m.Data)
	if err != nil {
		if n.badLoads.Add(1) == 1 { // the rest is in the counter
			n.log.Warn("a node of the fleet tells of itself what cannot be read", "subject", m.Subject, "error", err)
		}
		return
	}
	n.peers.hear(time.Now(), l)
}

// Leave tells the other nodes that this one is stopping: they send no more images, and what they have sent is answered. Run goes on.
// Of a nil Node: nothing.
func (n *Node) Leave() {
	if n == nil || n.leaving.Swap(true) {
		return
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
}
