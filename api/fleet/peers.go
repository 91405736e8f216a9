package fleet

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Peer is a node as it was heard last.
type Peer struct {
	Load
	Self  bool          // it is this node
	Age   time.Duration // since it was heard, by the local clock
	Clock time.Duration // its clock less ours when it was heard, as far as the way of a message allows
	Twice bool          // two processes call themselves so
	There int           // images of this node's that are under way there
}

const (
	loadEvery = 200 * time.Millisecond
	aliveFor  = time.Second     // after it was heard last
	knownFor  = 5 * time.Minute // likewise: long enough for the alert of a silent node
	twiceFor  = time.Minute     // after two were heard of one name
	maxPeers  = 1 << 10
)

// Alive says that the node was heard within the last second.
func (p *Peer) Alive() bool { return p.Age < aliveFor }

// peer is what is kept of another node. Guarded by peers.mu.
type peer struct {
	load   Load
	heard  time.Time
	clock  time.Duration
	former string    // instance before that of load
	twice  time.Time // when two instances were heard in turn last

	there   int  // images of this node's that are under way there
	counted int  // of them those under way when load came: it counts them itself, as far as they had arrived
	others  int  // images that others have there, by load
	suspect bool // it has not answered in time since then
}

// peers are the other nodes. Safe for concurrent use.
type peers struct {
	log  *slog.Logger
	own  string // name of this node
	self string // and its instance

	mu      sync.Mutex
	nodes   map[string]*peer
	twiceAt time.Time    // when another node of our name was heard last
	said    time.Time    // when the log was told of two nodes of a name last
	until   atomic.Int64 // unix nanoseconds: until then some node may be alive, for who asks at each request
}

// hear keeps what a node has told.
func (p *peers) hear(now time.Time, l Load) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Node == p.own {
		if l.Instance != p.self {
			p.twiceAt = now
			p.warn(now, l.Node)
		}
		return
	}
	n := p.nodes[l.Node]
	if n == nil {
		p.forget(now)
		if len(p.nodes) >= maxPeers {
			return
		}
		n = &peer{load: l}
		p.nodes[l.Node] = n
	}
	switch {
	case n.load.Instance == l.Instance:
	case n.former == l.Instance && now.Sub(n.heard) < aliveFor: // a process that ends does not come back
		n.twice = now
		p.warn(now, l.Node)
		fallthrough
	default:
		n.former = n.load.Instance
	}
	n.load, n.heard, n.clock = l, now, time.UnixMilli(l.UnixMs).Sub(now)
	n.counted, n.suspect = n.there, false
	n.others = max(l.Queued+l.InFlight-n.there, 0)
	p.until.Store(max(p.until.Load(), now.Add(aliveFor).UnixNano()))
}

// warn tells the log of two nodes of a name, once a minute.
func (p *peers) warn(now time.Time, node string) {
	if now.Sub(p.said) >= time.Minute {
		p.said = now
		p.log.Warn("two nodes of the fleet have the same name: give each its own in fleet.node", "node", node)
	}
}

// forget drops nodes that were not heard for long.
func (p *peers) forget(now time.Time) {
	for node, n := range p.nodes {
		if now.Sub(n.heard) >= knownFor && n.there == 0 {
			delete(p.nodes, node)
		}
	}
}

// list returns the other nodes, by name.
func (p *peers) list(now time.Time) (all []Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if age := now.Sub(n.heard); age < knownFor {
			all = append(all, Peer{
				Load: n.load, Age: age, Clock: n.clock, There: n.there, Twice: !n.twice.IsZero() && now.Sub(n.twice) < twiceFor,
			})
		}
	}
	slices.SortFunc(all, func(a, b Peer) int { return strings.Compare(a.Node, b.Node) })
	return all
}

// double says that another node had our name within the last minute.
func (p *peers) double(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.twiceAt.IsZero() && now.Sub(p.twiceAt) < twiceFor
}

// Peers returns the nodes that were heard within the last five minutes, by name, this one too: see Peer.Alive. It does not block on the
// broker. Of a nil Node: none.
func (n *Node) Peers() []Peer {
	if n == nil {
		return nil
	}
	now := time.Now()
	all := n.peers.list(now)
	self := Peer{Load: n.load(), Self: true, Twice: n.peers.double(now)}
	self.UnixMs, self.Sequence = now.UnixMilli(), n.sequence.Load()
	at, _ := slices.BinarySearchFunc(all, self.Node, func(p Peer, name string) int { return strings.Compare(p.Node, name) })
	return slices.Insert(all, at, self)
}

// reportPeers adds the nodes to a status.
func (n *Node) reportPeers(_ context.Context, s *Status) error {
	for _, p := range n.Peers() {
		s.Nodes = append(s.Nodes, NodeStatus{
			Load: p.Load, Self: p.Self, Seen: p.Age.Seconds(), Alive: p.Alive(), Twice: p.Twice,
			ClockMS: float64(p.Clock) / float64(time.Millisecond), Forwarded: p.There,
		})
	}
	return nil
}
