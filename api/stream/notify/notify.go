// Package notify tells other systems of events: webhooks and an MQTT broker, with discovery for Home Assistant. Both hear the bus
// at their own speed and never hold up a frame.
package notify

import (
	"context"
	"log/slog"

	"hailoclip/api/stream/event"
)

// Config is the section "notify" of the configuration.
type Config struct{}

// Parts is what it works with.
type Parts struct {
	Bus       *event.Bus
	Thumbnail func(ctx context.Context, id string) ([]byte, error) // of a stored event
	Streams   func() []Stream                                      // those that are defined
	Version   string
	URL       string // of the service, for people; may be ""
	Log       *slog.Logger
}

// Stream is what Home Assistant is told of a stream.
type Stream struct {
	ID      string
	Regions []string            // "" for the whole frame
	Labels  map[string][]string // by region: those that can hold
}

// Run tells until ctx ends, then says goodbye (availability offline) for a second at most.
func Run(ctx context.Context, cfg Config, p Parts) error { panic("to be built") }
