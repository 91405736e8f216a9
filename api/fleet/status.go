package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Status is what a node knows of its fleet. GET /v1/fleet answers it; "fleet status", /metrics and the console show the same.
type Status struct {
	Enabled bool           `json:"enabled"` // false: the service is in no fleet, and all that follows is empty
	Node    string         `json:"node,omitempty"`
	Site    string         `json:"site,omitempty"`
	Broker  *BrokerStatus  `json:"broker,omitempty"`
	Nodes   []NodeStatus   `json:"nodes,omitempty"`        // by name, this one, too
	Queues  []QueueStatus  `json:"queues,omitempty"`       // streams of the broker
	Jobs    []JobStatus    `json:"jobs,omitempty"`         // of "index --fleet", the newest first
	Dead    []DeadLetter   `json:"dead_letters,omitempty"` // the last ones, the newest first
	Cameras []CameraStatus `json:"cameras,omitempty"`      // that the fleet places, by name
	Spill   *SpillStatus   `json:"spill,omitempty"`        // of this node since its start; nil: spill is off
	Worker  *WorkerStatus  `json:"worker,omitempty"`       // likewise; nil: bulk is off
	Share   *ShareStatus   `json:"share,omitempty"`        // likewise; nil: share is off
	Faults  []string       `json:"faults,omitempty"`       // what does not work, or could not be found out, and why
}

// BrokerStatus is of the connection to the broker.
type BrokerStatus struct {
	Connected  bool    `json:"connected"`
	URL        string  `json:"url"`                  // that is connected to, or of the configuration
	Server     string  `json:"server,omitempty"`     // its name
	Version    string  `json:"version,omitempty"`    // of nats-server
	TLS        bool    `json:"tls"`                  // the connection is encrypted
	MaxPayload int64   `json:"max_payload_bytes"`    // of a message; 0: not known
	RTTMS      float64 `json:"rtt_ms"`               // a message there and back; 0: not known
	Reconnects uint64  `json:"reconnects"`           // since the start
	InBytes    uint64  `json:"in_bytes"`             // received since the start, without what frames messages
	OutBytes   uint64  `json:"out_bytes"`            // sent
	LastError  string  `json:"last_error,omitempty"` // of the connection; "" while it is connected
}

// NodeStatus is a node as it tells of itself.
type NodeStatus struct {
	Load
	Self      bool    `json:"self,omitempty"`
	Seen      float64 `json:"seen_seconds"`       // since it was heard last
	Alive     bool    `json:"alive"`              // it was heard within the last second
	ClockMS   float64 `json:"clock_ms"`           // its clock less ours, as far as the way of a message allows
	Forwarded int     `json:"forwarded,omitzero"` // images that this node has there now
	Twice     bool    `json:"twice,omitempty"`    // two processes call themselves so
}

// QueueStatus is a stream of the broker, together with its consumers.
type QueueStatus struct {
	Stream     string `json:"stream"`
	Pending    uint64 `json:"pending"`     // messages that no worker has been given
	AckPending uint64 `json:"ack_pending"` // that a worker has
	Messages   uint64 `json:"messages"`    // all that are kept
	Bytes      uint64 `json:"bytes"`
	Limit      int64  `json:"limit_bytes"` // beyond which the stream takes no more; -1: none
	Consumers  int    `json:"consumers"`
	Waiting    int    `json:"waiting"`     // pulls of workers that wait for messages
	Redelivers uint64 `json:"redelivered"` // messages that are given out again now
}

// JobStatus is an index that is made through the broker.
type JobStatus struct {
	Job     string    `json:"job"`
	Source  string    `json:"source,omitempty"`
	Model   string    `json:"model,omitempty"`
	State   string    `json:"state"` // running or done; stale: nobody has told of it for a while
	Begun   time.Time `json:"begun,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	Found   int64     `json:"found"`  // images so far; the total once All
	All     bool      `json:"all"`    // everything is found
	Done    int64     `json:"done"`   // stored
	Failed  int64     `json:"failed"` // of Done: rows with an error
	Dead    int64     `json:"dead"`   // tried too often
	Rate    float64   `json:"rate"`   // images a second, lately
	Left    float64   `json:"left_seconds,omitzero"`
}

// CameraStatus is a stream that the fleet places.
type CameraStatus struct {
	Name        string   `json:"name"`
	Owner       string   `json:"owner,omitempty"`          // the node that should have it; "": none can
	Unreachable []string `json:"unreachable_at,omitempty"` // nodes that cannot reach it
}

// SpillStatus are counters of images that are handed to other nodes.
type SpillStatus struct {
	Sent       uint64            `json:"sent"`                  // answered by another node
	Taken      uint64            `json:"taken"`                 // of other nodes, answered
	Refused    uint64            `json:"refused"`               // of other nodes
	Failed     map[string]uint64 `json:"failed,omitempty"`      // tries elsewhere that were for nothing, by reason
	RefusedFor map[string]uint64 `json:"refused_for,omitempty"` // Refused by reason
	InFlight   int               `json:"in_flight"`             // elsewhere now
}

// WorkerStatus are counters of images that this node encodes for the bulk lane.
type WorkerStatus struct {
	Encoded     uint64 `json:"encoded"`
	Bytes       uint64 `json:"bytes"`       // of images that were taken
	Failed      uint64 `json:"failed"`      // bad images
	Returned    uint64 `json:"returned"`    // given back to be tried by others
	Redelivered uint64 `json:"redelivered"` // taken that had been given out before
	Duplicates  uint64 `json:"duplicates"`  // results that were there before
	Dead        uint64 `json:"dead"`        // moved to the dead letters by this node
	InFlight    int    `json:"in_flight"`
}

// ShareStatus are counters of what this node shares.
type ShareStatus struct {
	SetsTaken  uint64 `json:"sets_taken"` // changes of prompt sets by others
	SetsGiven  uint64 `json:"sets_given"`
	Conflicts  uint64 `json:"conflicts"` // changes that came second
	TextHits   uint64 `json:"text_hits"` // vectors of texts that another node has encoded
	TextMisses uint64 `json:"text_misses"`
	TextGiven  uint64 `json:"text_given"`
	Models     uint64 `json:"models_fetched"`
}

// statusAge is how old a status may be that is told again, so that many who ask cost the broker no more than one.
const statusAge = time.Second

// refusalsTold is how many subjects are told of that the broker refuses.
const refusalsTold = 4

// statusTime is the limit for all that the broker is asked.
const statusTime = 2 * time.Second

// reporter adds what a part of the node knows to a status. It may ask the broker; what it cannot find out is its error. Several run
// at once: each writes its own fields.
type reporter struct {
	name string
	add  func(ctx context.Context, s *Status) error
}

// reporters are those of the parts that the configuration wants.
func (n *Node) reporters() []reporter {
	all := []reporter{{"queues", n.reportQueues}, {"nodes", n.reportPeers}, {"jobs", n.reportJobs}, {"dead letters", n.reportDead}}
	if n.Config.Bulk {
		all = append(all, reporter{"worker", n.reportWorker})
	}
	if n.places() {
		all = append(all, reporter{"cameras", n.reportCameras})
	}
	if n.shares() {
		all = append(all, reporter{"shared", n.reportShare})
	}
	if n.spill != nil {
		all = append(all, reporter{"spill", n.reportSpill})
	}
	return all
}

// lastStatus is the status that was made last.
type lastStatus struct {
	mu sync.Mutex
	at time.Time
	of *Status
}

// Status tells what is known now, or was a second ago. It asks the broker for two seconds at most, and returns without what it did not
// learn. The caller must not change it. Of a nil Node: not enabled.
func (n *Node) Status(ctx context.Context) *Status {
	if n == nil {
		return &Status{}
	}
	n.last.mu.Lock() // who comes meanwhile has the same answer
	defer n.last.mu.Unlock()
	if n.last.of == nil || time.Since(n.last.at) >= statusAge {
		n.last.of = n.newStatus(context.WithoutCancel(ctx))
		n.last.at = time.Now()
	}
	return n.last.of
}

func (n *Node) newStatus(ctx context.Context) *Status {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	s := &Status{Enabled: true, Node: n.Config.Node, Site: n.Config.Site, Broker: n.brokerStatus(ctx)}
	if !s.Broker.Connected {
		s.Faults = []string{ErrNoBroker.Error()}
		if why := n.shutOut(0); why != nil {
			s.Faults[0] += ": " + why.Error()
		}
	}
	all := n.reporters()
	faults := make([]error, len(all))
	var asking sync.WaitGroup
	for i, r := range all {
		asking.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					faults[i] = fmt.Errorf("%v", p)
				}
			}()
			faults[i] = r.add(ctx, s)
		})
	}
	asking.Wait()
	s.Faults = append(append(s.Faults, n.faults.list()...), n.refused.list(refusalsTold)...)
	for i, err := range faults {
		if err != nil && s.Broker.Connected {
			s.Faults = append(s.Faults, all[i].name+": "+n.verdict(err).Error())
		}
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.Node, b.Node) })
	slices.SortFunc(s.Cameras, func(a, b CameraStatus) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(s.Jobs, func(a, b JobStatus) int { return b.Changed.Compare(a.Changed) })
	return s
}

// brokerStatus is of the connection as it is. It waits for the broker for two seconds at most.
func (c *Conn) brokerStatus(ctx context.Context) *BrokerStatus {
	b := &BrokerStatus{Connected: c.nc.IsConnected(), URL: c.Config.URL, Reconnects: c.nc.Stats().Reconnects}
	b.InBytes, b.OutBytes = c.Traffic()
	if !b.Connected {
		if err := c.nc.LastError(); err != nil {
			b.LastError = c.unwelcome(err).Error()
		}
		return b
	}
	b.URL, b.Server, b.Version = c.nc.ConnectedUrlRedacted(), c.nc.ConnectedServerName(), c.nc.ConnectedServerVersion()
	b.MaxPayload = c.nc.MaxPayload()
	_, err := c.nc.TLSConnectionState()
	b.TLS = err == nil
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	if begun := time.Now(); c.nc.FlushWithContext(ctx) == nil {
		b.RTTMS = float64(time.Since(begun)) / float64(time.Millisecond)
	}
	return b
}
