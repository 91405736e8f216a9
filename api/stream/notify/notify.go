// Package notify tells other systems of events: webhooks and an MQTT broker, with discovery for Home Assistant. Each target
// has a bounded queue and a goroutine of its own: none holds up a frame or another target.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"hailoclip/api/stream/event"
)

const (
	queueLength = 256         // events that wait for a target
	refresh     = time.Minute // between two looks at Parts.Streams without a change
	farewell    = time.Second // at a stop, for what is being sent
	lookUp      = 5 * time.Second
)

// Parts is what it works with.
type Parts struct {
	Bus *event.Bus

	// Thumbnail returns the JPEG of a stored event that does not bring it along. May be nil.
	Thumbnail func(ctx context.Context, id string) ([]byte, error)

	// Streams returns the streams that are defined and what holds in them now; those that end with their feed are left out. It is
	// called when the broker is connected, after each event, after Refresh and once a minute, never by two goroutines at once, and
	// must not block. An event is to be published when Streams already knows of its change. What the broker remembers of other streams is cleared;
	// nil, as long as the streams are not known, clears nothing. May be nil without MQTT.
	Streams func() []event.Watched

	Version string
	Log     *slog.Logger
}

// Stats are the counters since the start, for GET /v1/stats.
type Stats struct {
	Webhooks []WebhookStats `json:"webhooks,omitempty"`
	MQTT     *MQTTStats     `json:"mqtt,omitempty"`
}

// Counts of a target. An event that it is to hear is counted once, as delivered, failed or dropped.
type Counts struct {
	Delivered uint64 `json:"delivered"`
	Failed    uint64 `json:"failed"`  // refused, or not taken by the last attempt
	Dropped   uint64 `json:"dropped"` // because the queue was full, or by a stop
	Queued    int    `json:"queued"`  // now
}

// WebhookStats are the counters of a webhook.
type WebhookStats struct {
	URL      string `json:"url"` // without credentials
	Cooldown uint64 `json:"cooldown"`
	Counts
}

// MQTTStats are the counters of the broker. Messages are those that the broker keeps: states, thumbnails, discovery.
type MQTTStats struct {
	Connected   bool   `json:"connected"`
	Connections uint64 `json:"connections"` // made so far
	Messages    uint64 `json:"messages"`
	Counts
}

// Notifier tells of events. Safe for concurrent use.
type Notifier struct {
	parts Parts
	hooks []*webhook
	mqtt  *broker // nil: none
}

// New reads the files that cfg names, whose values Config.Check has found in order. It starts nothing: without Parts it checks the
// files. Without targets the Notifier does nothing.
func New(cfg Config, p Parts) (*Notifier, error) {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{parts: p}
	var faults []error
	for i, c := range cfg.Webhooks {
		w, err := newWebhook(i, c, p)
		if err != nil {
			faults = append(faults, fmt.Errorf("notify.webhooks[%d]: %w", i, err))
		}
		n.hooks = append(n.hooks, w)
	}
	if cfg.MQTT.URL != "" {
		var err error
		if n.mqtt, err = newBroker(cfg.MQTT, p); err != nil {
			faults = append(faults, fmt.Errorf("notify.mqtt: %w", err))
		}
	}
	return n, errors.Join(faults...)
}

// Run tells of events until ctx ends, then says goodbye (availability offline) for about a second at most, two where a broker does
// not read. Nothing of it is left then. It is called once.
func (n *Notifier) Run(ctx context.Context) {
	if len(n.hooks) == 0 && n.mqtt == nil {
		return
	}
	listener := n.parts.Bus.Listen(event.Filter{}, "")
	defer listener.Close()
	n.run(ctx, listener.Next)
}

// run is Run with the events that next returns until it fails.
func (n *Notifier) run(ctx context.Context, next func(context.Context) (*event.Event, int, error)) {
	var targets sync.WaitGroup
	defer targets.Wait()
	for _, w := range n.hooks {
		targets.Go(func() { w.run(ctx) })
	}
	if n.mqtt != nil {
		targets.Go(func() { n.mqtt.run(ctx) })
	}
	for {
		e, missed, err := next(ctx)
		if err != nil {
			return
		}
		n.tell(e, missed)
	}
}

// tell gives an event to all targets, and says how many have been missed before it; but those of a stream without a name are for its
// sender alone. It does not block.
func (n *Notifier) tell(e *event.Event, missed int) {
	named := event.ValidName(e.Stream)
	for _, w := range n.hooks {
		w.missed(missed)
		if named {
			w.offer(e)
		}
	}
	if n.mqtt != nil {
		n.mqtt.missed(missed)
		if named {
			n.mqtt.offer(e)
		}
	}
}

// Refresh says that a stream was defined, changed or deleted, or that the labels of one have changed. It does not block.
func (n *Notifier) Refresh() {
	if n.mqtt != nil {
		n.mqtt.refresh()
	}
}

// Stats returns the counters.
func (n *Notifier) Stats() Stats {
	var s Stats
	for _, w := range n.hooks {
		s.Webhooks = append(s.Webhooks, w.stats())
	}
	if n.mqtt != nil {
		s.MQTT = new(n.mqtt.stats())
	}
	return s
}

// thumbnail returns the JPEG of an event; nil where there is none, or none that can be read in time.
func (p Parts) thumbnail(ctx context.Context, e *event.Event) []byte {
	if len(e.JPEG) > 0 || !e.Thumbnail || p.Thumbnail == nil {
		return e.JPEG
	}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	jpeg, err := p.Thumbnail(ctx, e.ID)
	if err != nil {
		p.Log.Debug("thumbnail of an event", "event", e.ID, "error", err)
	}
	return jpeg
}

// guard calls f and keeps its panic from ending the process.
func guard(log *slog.Logger, f func()) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("panic in a notification", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// sometimes lets one of many equal lines through: the first, and then one a minute with the number of those between. Safe for
// concurrent use.
type sometimes struct {
	mu    sync.Mutex
	last  time.Time
	since int
}

func (s *sometimes) log(log *slog.Logger, message string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && time.Since(s.last) < time.Minute {
		s.since++
		return
	}
	if s.since > 0 {
		args = append(args, "unlogged", s.since)
	}
	s.last, s.since = time.Now(), 0
	log.Warn(message, args...)
}

// reset has the next line logged whenever it comes.
func (s *sometimes) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.since = time.Time{}, 0
}
