package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"hailoclip/api"
	"hailoclip/api/outbound"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
)

// remembered is how many events of a stream listeners that come again can still hear.
const remembered = 256

// streams are the hub and what it works with.
type streams struct {
	hub    *stream.Hub
	bus    *event.Bus
	store  *event.Store // nil: there is none, for the reason lost
	lost   error
	memory *api.Memory
}

// newStreams begins with the streams that are kept. Without their file the service starts all the same. The caller closes it before the
// engine.
func (e *engine) newStreams(log *slog.Logger) (s *streams, err error) {
	cfg := &e.cfg
	s = &streams{bus: event.NewBus(remembered), memory: cfg.Server.NewMemory()}
	parts := stream.Parts{
		Engine: e.Engine, Bus: s.bus, Timeout: cfg.Performance.RequestTimeout,
		Limits:  stream.Limits{Prompts: cfg.Server.MaxPrompts, PromptBytes: cfg.Server.MaxPromptBytes},
		Allowed: outbound.New(cfg.Fetch), Frames: source.Limits{FrameBytes: cfg.Server.MaxBodyBytes}, Buffers: s.memory.Buffers(),
		Log: log, Encode: api.AppendAnswer,
	}
	if s.store, s.lost = event.OpenStore(filepath.Join(e.state, event.FileName), cfg.Events); s.lost != nil {
		s.store = nil
		log.Error("streams and events cannot be kept; their file stays as it is", "error", s.lost)
	} else {
		parts.Store = s.store
	}
	parts.Lost = s.lost
	if s.hub, err = stream.NewHub(cfg.Streams, parts); err != nil {
		return nil, errors.Join(err, s.closeStore())
	}
	return s, nil
}

func (s *streams) closeStore() error {
	if s.store == nil {
		return nil
	}
	return s.store.Close()
}

// close ends all streams, at most until ctx ends.
func (s *streams) close(ctx context.Context) error {
	return errors.Join(s.hub.Close(ctx), s.closeStore())
}
