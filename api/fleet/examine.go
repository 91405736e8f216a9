package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Examination is what a fleet looks like from a process that is none of its nodes: for doctor.
type Examination struct {
	Broker BrokerStatus
	Clock  time.Duration // the broker's clock less ours; meaningful with ClockKnown
	// ClockKnown is false where the broker has no streams yet, so that it tells no time.
	ClockKnown bool
	Queues     []QueueStatus
	Heard      []Heard // loads of about a second, one a process, by node
}

// Heard is a node that was heard.
type Heard struct {
	Load
	Clock time.Duration // its clock less ours, at least by the way of a message too small
}

// heardTime is how long an examination listens: five loads of each node.
const heardTime = 1100 * time.Millisecond

// mostHeard bounds what is kept of a broker that tells of nodes without end.
const mostHeard = 4096

// Examine connects to the broker, listens for a second, and leaves. Errors: ErrNoBroker.
func Examine(ctx context.Context, cfg Config) (*Examination, error) {
	cfg.Node = cmp.Or(cfg.Node, "doctor")
	c, err := Dial(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer c.nc.Close()
	if err := c.Await(ctx); err != nil {
		return nil, err
	}
	e := &Examination{Broker: *c.brokerStatus(ctx)}
	n := &Node{Conn: c}
	var s Status
	if err := n.reportQueues(ctx, &s); err != nil {
		return e, err
	}
	if e.Queues = s.Queues; len(e.Queues) > 0 {
		asking, end := c.ask(ctx, 0)
		begun := time.Now()
		stream, err := c.js.Stream(asking, e.Queues[0].Stream)
		if end(&err); err == nil && !stream.CachedInfo().TimeStamp.IsZero() {
			took := time.Since(begun)
			e.Clock, e.ClockKnown = stream.CachedInfo().TimeStamp.Sub(begun.Add(took/2)), true
		}
	}
	e.Heard, err = c.listen(ctx)
	return e, err
}

// listen hears the nodes for heardTime.
func (c *Conn) listen(ctx context.Context) ([]Heard, error) {
	heard := map[string]Heard{} // by node and process
	messages := make(chan *nats.Msg, 256)
	sub, err := c.nc.ChanSubscribe(loadSubject+"*", messages)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	end := time.NewTimer(heardTime)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case m := <-messages:
			l, err := parseLoad(strings.TrimPrefix(m.Subject, loadSubject), m.Data)
			if err != nil {
				continue
			}
			key := l.Node + " " + l.Instance
			if _, known := heard[key]; known || len(heard) < mostHeard {
				heard[key] = Heard{l, time.Until(time.UnixMilli(l.UnixMs))}
			}
		case <-end.C:
			all := make([]Heard, 0, len(heard))
			for _, h := range heard {
				all = append(all, h)
			}
			slices.SortFunc(all, func(a, b Heard) int {
				return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Instance, b.Instance))
			})
			return all, nil
		}
	}
}

// CheckCredentials says what is wrong with the file of the credentials; nil where there is none. Others that may read it have the node's key.
func (c Config) CheckCredentials() error {
	if c.Credentials == "" {
		return nil
	}
	info, err := os.Stat(c.Credentials)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil // it is hidden from this user, as it should be
	case err != nil:
		return fmt.Errorf("fleet.credentials: %w", err)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("fleet.credentials: %s may be read by others (%s)", c.Credentials, info.Mode().Perm())
	}
	return nil
}
