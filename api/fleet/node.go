package fleet

import (
	"context"
	"log/slog"
	"sync"

	streams "hailoclip/api/stream"
	"hailoclip/stages/clip"
)

// Parts is what a node brings into the fleet.
type Parts struct {
	Engine  *clip.Engine // must outlive the node
	Version string       // of the program
	Streams *streams.Hub // runs the cameras that the fleet places here; must outlive the node; nil: none
	Log     *slog.Logger
}

// Node is a service's place in the fleet. A nil *Node is that of a service without a fleet: its methods do nothing. Safe for
// concurrent use.
type Node struct {
	*Conn
	*membership
	parts   Parts
	last    lastStatus
	faults  taskFaults
	letters knownLetters // guarded by last.mu
	bulk    bulkCounts
	sets    *setStore  // nil: nothing is shared
	texts   *textStore // likewise
	spill   *spill     // nil: fleet.spill is off

	cameras cameras
}

// Join makes a node, which begins to connect. Run does its work. The broker need not be there.
func Join(cfg Config, p Parts) (*Node, error) {
	if !cfg.On() {
		return nil, nil
	}
	conn, err := Dial(cfg, p.Log)
	if err != nil {
		return nil, err
	}
	n := &Node{Conn: conn, membership: newMembership(conn.Config, p.Log), parts: p}
	n.share()
	if cfg.Spill {
		n.spill = newSpill(n)
	}
	return n, nil
}

// Run does the node's part until ctx ends: each of its tasks waits for the broker by itself, and is done again after an error.
func (n *Node) Run(ctx context.Context) {
	if n == nil {
		return
	}
	var running sync.WaitGroup
	for _, task := range n.tasks() {
		running.Go(func() { n.repeat(ctx, task) })
	}
	running.Wait()
	n.Close()
}

// Close closes the connection of a node that does not run.
func (n *Node) Close() {
	if n != nil {
		n.Conn.Close()
	}
}
