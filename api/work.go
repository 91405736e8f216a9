package api

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// work is what a request with work in it needs memory for. It comes from a pool and goes back
// when the handler and, if the request was given to it, the engine are both done with it.
//
// Nothing of a former request shows through: release clears every field but scratch, of which
// decodeFast reads only what it has written in the same step. The answer is built in the response's
// own buffer, from its start, while the handler still holds w.
type work struct {
	body    []byte       // the body as it came; later the image, over its own text; of server.bodies
	in      input        // points into body
	request clip.Request // likewise: its image
	scratch [scratchBytes]byte

	caller fair.Caller
	ctx    context.Context // carries the deadline
	began  time.Time       // when the body had arrived
	read   time.Duration   // reading of the JSON and the base64
	result clip.Result

	holders atomic.Int32
	left    func() // release, bound once
	server  *Server
}

func newWork(s *Server) *work {
	w := &work{server: s}
	w.left = w.release
	return w
}

// release gives up one hold on w; the last one puts it back, and the buffer of the body.
func (w *work) release() {
	if w.holders.Add(-1) == 0 {
		w.in, w.request, w.result, w.ctx, w.read = input{}, clip.Request{}, clip.Result{}, nil, 0
		if poison != nil {
			poison(w.scratch[:])
		}
		w.server.bodies.put(w.caller.Address, w.body)
		w.body, w.caller = nil, fair.Caller{}
		w.server.works.Put(w)
	}
}

// working makes a handler of a function that answers one request, whose body has been read and
// parsed. The function must not use w after it has returned. refuses says why a caller would be refused
// by the full queue: such a request is refused as soon as the connection can be used for the
// next one, before time is spent on its JSON and base64.
func (s *Server) working(refuses func(fair.Caller) error, answer func(*fasthttp.RequestCtx, *exchange, *work) error) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		x := exchangeOf(ctx)
		limit, err := s.admit(&ctx.Request.Header)
		if err != nil {
			s.answerError(ctx, err)
			return
		}
		if x.asking {
			err := refuses(s.caller(ctx))
			if x.wanted = err == nil; !x.wanted {
				s.answerError(ctx, err)
			}
			return
		}
		w := s.works.Get().(*work)
		w.holders.Store(1)
		defer w.release()
		w.caller = s.caller(ctx)

		w.body, err = s.bodies.read(ctx, w.caller.Address, s.cfg.MaxBodyBytes)
		x.received, x.whole = len(w.body), err == nil
		if err != nil {
			s.answerError(ctx, err)
			return
		}
		if err := refuses(w.caller); err != nil {
			s.answerError(ctx, err)
			return
		}
		w.began = time.Now()
		cancelable, cancel := context.WithCancelCause(s.base)
		defer cancel(nil)
		deadline, stop := context.WithTimeout(cancelable, limit)
		defer stop()
		if c := connOf(ctx); c != nil {
			c.cancel.Store(&cancel)
		}
		w.ctx = deadline
		if err = w.unpacking(func() error { return w.in.parse(w.body) }); err == nil {
			err = answer(ctx, x, w)
		}
		if err != nil {
			s.answerError(ctx, err)
		}
	}
}

// admit turns away at the door what would be turned away later, before its body is read. It
// returns the time that the request has.
func (s *Server) admit(h *fasthttp.RequestHeader) (time.Duration, error) {
	if s.stopping.Load() {
		return 0, errStopping
	}
	if err := checkMediaType(h); err != nil {
		return 0, err
	}
	if h.ContentLength() > s.cfg.MaxBodyBytes {
		return 0, tooLarge(s.cfg.MaxBodyBytes)
	}
	limit, err := timeout(h, s.svc.RequestTimeout)
	if err != nil {
		return 0, err
	}
	if s.svc.Engine.State() == clip.Unhealthy {
		return 0, fail(errNotReady, "The service is not ready: %s", s.svc.Engine.Health().Reason)
	}
	return limit, nil
}

// largeBody is the size from which a body is unpacked in turn: its JSON and base64 take milliseconds.
const largeBody = 1 << 20

// unpacking does a step that reads the whole body. Large bodies do not take every processor at a time: who has a
// small one, or asks for /health, is answered meanwhile. It waits for its turn until the deadline.
func (w *work) unpacking(step func() error) error {
	if len(w.body) < largeBody {
		return step()
	}
	select {
	case w.server.unpackers <- struct{}{}:
	case <-w.ctx.Done():
		return fmt.Errorf("%w: %w", pipeline.ErrDeadline, context.Cause(w.ctx))
	}
	defer func() { <-w.server.unpackers }()
	return step()
}

// decodeImage takes the image out of the body into the request. The input is used up by it.
func (w *work) decodeImage() error {
	err := w.unpacking(func() error {
		image, err := w.in.decodeImage(w.body, &w.scratch)
		w.request.Image = slices.Clip(image) // behind it lies what is left of the text, and of older bodies
		return err
	})
	w.read = time.Since(w.began)
	return err
}

// ask has the engine do it with the image. After an error only the engine may touch the request.
func (w *work) ask(do func(context.Context, *clip.Request) (clip.Result, error)) (err error) {
	w.holders.Add(1)
	w.request.Release, w.request.Lane = w.left, pipeline.Lane{Caller: w.caller}
	w.result, err = do(w.ctx, &w.request)
	return err
}
