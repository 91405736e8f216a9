package main

import (
	"context"
	"errors"
	"path/filepath"

	"hailoclip/api"
	"hailoclip/api/outbound"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/notify"
	"hailoclip/api/stream/source"
)

// rememberedChanges is how many of the newest changes of each stream listeners that come again are told.
const rememberedChanges = 256

// streams is what a service has beside its engine: streams, their events, and who is told of them.
type streams struct {
	memory   *api.Memory // for frames, and for the bodies of requests
	bus      *event.Bus
	store    *event.Store // nil: none, for the reason lost
	lost     error
	hub      *stream.Hub
	notifier *notify.Notifier
	allowed  outbound.Allowed // addresses of sources
}

// newStreams opens the streams of an engine, which begin to run. The caller closes them before the engine.
func (e *engine) newStreams() (*streams, error) {
	cfg := &e.cfg
	s := &streams{memory: cfg.Server.NewMemory(), bus: event.NewBus(rememberedChanges), allowed: outbound.New(cfg.Fetch)}
	parts := stream.Parts{
		Engine: e.Engine, Bus: s.bus, Limits: stream.Limits{Prompts: cfg.Server.MaxPrompts, PromptBytes: cfg.Server.MaxPromptBytes},
		Timeout: cfg.Performance.RequestTimeout, Allowed: s.allowed, Buffers: s.memory.Buffers(),
		Frames: source.Limits{FrameBytes: cfg.Server.MaxBodyBytes}, Encode: api.AppendAnswer, Log: e.log,
		Changed: func() { s.notifier.Refresh() },
	}
	var err error
	s.notifier, err = notify.New(cfg.Notify, notify.Parts{
		Bus: s.bus, Thumbnail: s.thumbnail, Streams: func() []event.Watched { return s.hub.Watched() }, Version: programVersion(), Log: e.log,
	})
	if err != nil {
		return nil, err
	}
	if s.store, s.lost = event.OpenStore(filepath.Join(e.state, event.FileName), cfg.Events); s.lost == nil {
		parts.Store = s.store
	}
	if s.hub, err = stream.NewHub(cfg.Streams, parts); err != nil {
		s.lost = errors.Join(err, s.store.Close())
		s.store, parts.Store = nil, nil
	}
	if s.lost != nil { // the service starts all the same; its health says why
		e.log.Error("streams and events cannot be kept; their file stays as it is", "error", s.lost)
		parts.Lost = s.lost
		s.hub, err = stream.NewHub(cfg.Streams, parts)
	}
	return s, err
}

func (s *streams) thumbnail(ctx context.Context, id string) ([]byte, error) {
	if s.store == nil {
		return nil, s.lost
	}
	e, err := s.store.Get(ctx, id)
	return e.JPEG, err
}

// close ends the streams, and then closes their file. It gives up waiting when ctx ends.
func (s *streams) close(ctx context.Context) error {
	err := s.hub.Close(ctx)
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}
