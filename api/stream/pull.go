package stream

import (
	"context"
	"errors"
	"time"

	"hailoclip/api/stream/source"
	"hailoclip/pipeline/fair"
)

// puller feeds a stream from its source. What is below stream is guarded by the stream's lock.
type puller struct {
	stream   *stream
	source   string
	fps      float64 // asked of the source
	caller   fair.Caller
	cancel   context.CancelFunc
	ended    chan struct{}
	delivers bool
	trouble  error
}

// pull has the stream pulled from the source that it is defined with now, if there is one. The caller holds the hub's lock, or is
// alone.
func (s *stream) pull() {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.plan.Load()
	old := s.puller
	if s.ended || old != nil && old.source == p.Source && old.fps == p.askedFPS() {
		return
	}
	var before chan struct{}
	if old != nil {
		old.cancel()
		s.puller, before = nil, old.ended
	}
	if p.Source == "" {
		return
	}
	if s.feed != nil && old == nil {
		s.feed.end(ErrFed)
	}
	n := &puller{
		stream: s, source: p.Source, fps: p.askedFPS(), ended: make(chan struct{}),
		caller: fair.Caller{Address: "stream:" + s.id, Connection: s.hub.callers.Add(1)},
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	s.puller = n
	s.hub.running.Go(func() {
		defer close(n.ended)
		defer cancel()
		if before != nil {
			<-before
		}
		n.end(n.run(ctx))
	})
}

// askedFPS is how many frames a second are asked of a source: those that are wanted while a change is pending, too.
func (p *plan) askedFPS() float64 {
	if p.interval == 0 {
		return 0
	}
	fps := float64(time.Second) / float64(p.interval)
	if p.recheck > 0 {
		fps = max(fps, float64(time.Second)/float64(p.recheck))
	}
	return fps
}

// run feeds the stream until ctx ends, or a file has. A panic is an error.
func (n *puller) run(ctx context.Context) (err error) {
	h, s := n.stream.hub, n.stream
	defer s.caught("source of a stream", "a source has ended", &err)
	f, err := n.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	number := uint64(0)
	next := func() Frame {
		number++
		return Frame{Seq: number - 1, Received: time.Now()}
	}
	memory := source.Buffers{
		Get: func(size int) ([]byte, error) { return h.parts.Buffers.Get(n.caller.Address, size) },
		Put: func(b []byte) { h.parts.Buffers.Put(n.caller.Address, b) },
	}
	return source.Run(ctx, n.source, source.Options{
		FPS: n.fps, Allowed: h.parts.Allowed, Limits: h.parts.Frames, Buffers: &memory, Log: h.log, State: n.state,
		Skipped: func(lost int) {
			for range lost {
				_ = f.Drop(next(), Bad, errSkipped) // the next frame fails with its error
			}
		},
	}, func(image source.Frame) error {
		frame := next()
		frame.Image, frame.Raw, frame.Release = image.Image, image.Raw, func() { memory.Put(image.Image) }
		if image.Time >= 0 {
			frame.Time, frame.HasTime = image.Time.Microseconds(), true
		}
		return f.Push(frame)
	})
}

// errSkipped is of what a source sends and is not given to the stream.
var errSkipped = errors.New("no image, a cut one, one that is too large, or no memory for it")

// open opens the feed of the source, which takes the place of another one.
func (n *puller) open(ctx context.Context) (*Feed, error) {
	s := n.stream
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	if s.feed != nil {
		s.feed.end(ErrFed)
	}
	s.mu.Unlock()
	return s.open(ctx, Opening{Caller: n.caller}, Definition{})
}

// state is told whether frames come.
func (n *puller) state(trouble error) {
	s := n.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puller != n {
		return
	}
	n.trouble, n.delivers = trouble, trouble == nil
	if n.delivers {
		s.fed()
	} else {
		s.unfed()
	}
}

// end says why the source has ended: nil at the end of a file.
func (n *puller) end(err error) {
	s := n.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	n.delivers = false
	if s.puller != n || s.ended {
		return
	}
	if n.trouble = err; err != nil {
		s.hub.log.Warn("a source has ended", "stream", s.id, "source", source.Mask(n.source), "error", err)
	}
	s.unfed()
}
