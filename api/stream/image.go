package stream

import (
	"context"
	"fmt"

	"hailoclip/api/outbound"
	"hailoclip/api/stream/source"
)

// Image asks the source of a name for one image, which lies in memory that b has lent, and is the caller's: a source of the
// configuration, which may be anywhere, else that of the stream of this name, if that has one and Parts.Allowed still has its host. It
// blocks until there is an image, or ctx ends. Errors: ErrNoSource, *source.Error, the cause of ctx.
func (h *Hub) Image(ctx context.Context, name string, b source.Buffers) (source.Frame, error) {
	o := source.Options{Allowed: outbound.Any(), Local: true, Limits: h.parts.Frames, Buffers: &b}
	address := h.settings.Load().Sources[name]
	if s := h.find(name); address == "" && s != nil {
		address, o.Allowed, o.Local = s.plan.Load().Source, h.parts.Allowed, false
	}
	if address == "" {
		return source.Frame{}, fmt.Errorf("%w: %.64q", ErrNoSource, name)
	}
	return source.First(ctx, address, o)
}
