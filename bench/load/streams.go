package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hailoclip/api/client"
)

// Kinds of Load.Stream.
const (
	StreamWS   = "ws"   // frames and their answers over a WebSocket
	StreamPush = "push" // frames in an endless request as cameras send them, answers as server-sent events
)

// MaxFPS bounds the frames of a stream in a second.
const MaxFPS = 1000

// Streams say how frames are sent in streams. The zero value is requests instead.
type Streams struct {
	Kind    string   // StreamWS, StreamPush or ""
	FPS     int      // frames a second of each stream, evenly spaced; 0: the next when the last one is answered
	Policy  string   // latest or queue
	Gate    bool     // frames that look like the one before are not encoded
	Trouble []string // one more stream each that does not behave: Stalled, Partial or Garbage
}

// lane is one stream that is measured.
type lane interface {
	send(frame []byte, seq uint64) error // one goroutine
	receive() (client.StreamAnswer, error)
	end() // no more frames come
	close()
}

// measureStreams is measure for load.Clients streams. Every frame that is due counts, with the reason for which it was dropped or the
// stream was lost as its code.
func (t *Target) measureStreams(ctx context.Context, load Load, w Window, r *recording, progress func(done time.Duration)) error {
	n := load.Clients
	lanes := make([]lane, n)
	defer func() {
		for _, l := range lanes {
			if l != nil {
				l.close()
			}
		}
	}()
	for i := range lanes {
		var err error
		if lanes[i], err = t.openLane(ctx, load.Streams, i); err != nil {
			return fmt.Errorf("stream %d of %d: %w", i+1, n, err)
		}
	}
	troubled, calm := context.WithCancel(ctx)
	var others sync.WaitGroup
	for _, kind := range load.Trouble {
		others.Go(func() { t.trouble(troubled, kind, load.Streams) })
	}
	begin := time.Now()
	r.begin(begin.Add(w.Warmup), w.Duration)
	r.beginStreams(n)
	var streams sync.WaitGroup
	for i, l := range lanes {
		f := &feed{lane: l, n: i, target: t, load: load, record: r, begin: begin, ended: make(chan struct{}), answered: make(chan struct{}, 1)}
		if load.FPS > 0 { // not all at the same moment
			f.begin = begin.Add(time.Duration(i) * time.Second / time.Duration(load.FPS*n))
		}
		streams.Go(func() { f.run(ctx) })
	}
	r.watch(ctx, t, progress, begin)
	streams.Wait()
	calm()
	others.Wait()
	return ctx.Err()
}

// feed is a stream under load.
type feed struct {
	lane
	n        int
	target   *Target
	load     Load
	record   *recording
	begin    time.Time
	ended    chan struct{} // no more answers come
	answered chan struct{} // with room for one
	sent     atomic.Uint64 // frames, or about to be
	got      atomic.Uint64 // answers
	mu       sync.Mutex
	dues     []time.Time // of frames that are not answered, without FPS
}

// due is when a frame is to be sent.
func (f *feed) due(seq uint64) time.Time {
	return f.begin.Add(time.Duration(seq * uint64(time.Second) / uint64(f.load.FPS)))
}

// run sends frames until the end of the window, waits for their answers, and counts those that have none.
func (f *feed) run(ctx context.Context) {
	go f.receiving()
	err := f.sending(ctx)
	if err == nil {
		f.end()
		f.wait(ctx)
	}
	f.close()
	<-f.ended
	code := codeTimeout
	if err != nil {
		code = codeClosed
	}
	now := time.Now()
	for seq := f.got.Load(); seq < f.sent.Load(); seq++ {
		f.record.add(f.at(seq), now, code, nil)
	}
	for seq := f.sent.Load(); err != nil && f.load.FPS > 0 && f.due(seq).Before(f.record.end); seq++ {
		f.record.add(f.due(seq), f.due(seq), code, nil) // that could not be sent any more
	}
}

// wait blocks until all frames are answered, or there is no hope.
func (f *feed) wait(ctx context.Context) {
	patience := time.NewTimer(f.target.timeout)
	defer patience.Stop()
	for f.got.Load() < f.sent.Load() {
		select {
		case <-f.answered:
		case <-f.ended:
			return
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// at is when a frame that was sent and is not answered was due.
func (f *feed) at(seq uint64) time.Time {
	if f.load.FPS > 0 {
		return f.due(seq)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dues[seq-f.got.Load()]
}

var errEnded = errors.New("the stream has ended")

// sending sends frames until the end of the window. An error is one of the stream.
func (f *feed) sending(ctx context.Context) error {
	images := f.target.bodies.list
	for seq := uint64(0); ctx.Err() == nil; seq++ {
		at := time.Now()
		if f.load.FPS > 0 {
			at = f.due(seq)
		} else if seq > 0 {
			if f.wait(ctx); f.got.Load() < seq && ctx.Err() == nil {
				return errEnded // or it does not answer
			}
			at = time.Now()
		}
		if !at.Before(f.record.end) {
			return nil
		}
		if f.load.FPS == 0 {
			f.mu.Lock()
			f.dues = append(f.dues, at)
			f.mu.Unlock()
		} else if sleepUntil(ctx, at) {
			f.record.addLag(at, time.Since(at))
		}
		f.sent.Store(seq + 1)
		if err := f.send(images[(seq+uint64(f.n))%uint64(len(images))].bytes, seq); err != nil {
			return err
		}
	}
	return nil
}

// codeMissed is that of frames whose answer was not told, because the listener was too slow.
const codeMissed = "missed"

// receiving counts answers until the stream ends.
func (f *feed) receiving() {
	defer close(f.ended)
	for {
		a, err := f.receive()
		if err != nil || a.Seq < f.got.Load() || a.Seq >= f.sent.Load() { // it answers what was not asked
			return
		}
		now := time.Now()
		for seq := f.got.Load(); seq <= a.Seq; seq++ {
			code := codeMissed
			if seq == a.Seq {
				code = a.Dropped
			}
			f.record.add(f.at(seq), now, code, nil)
			f.mu.Lock()
			if f.load.FPS == 0 {
				f.dues = f.dues[1:]
			}
			f.got.Store(seq + 1)
			f.mu.Unlock()
		}
		f.record.addStream(f.n, now, &a)
		select {
		case f.answered <- struct{}{}:
		default:
		}
	}
}

// definition is that of the streams.
func (t *Target) definition(s Streams) client.StreamDefinition {
	ask := t.bodies.ask
	d := client.StreamDefinition{Policy: s.Policy, TopK: 3, Format: t.bodies.list[0].frame}
	if d.PromptSet = ask.Set; ask.Set == "" {
		for i := range ask.Prompts {
			d.Prompts = append(d.Prompts, Prompt(i))
		}
	}
	if s.Gate {
		d.Gate = &client.Gate{}
	}
	return d
}

func (t *Target) openLane(ctx context.Context, s Streams, n int) (lane, error) {
	if s.Kind == StreamWS {
		stream, err := t.service.Stream(ctx, client.StreamOptions{StreamDefinition: t.definition(s)})
		if err != nil {
			return nil, err
		}
		return &wsLane{stream}, nil
	}
	return t.openPush(ctx, s, n)
}

// wsLane is a WebSocket.
type wsLane struct{ *client.Stream }

func (l *wsLane) send(frame []byte, seq uint64) error {
	return l.Send(frame, seq, time.Now().UnixMicro())
}
func (l *wsLane) end()   { _ = l.End() }
func (l *wsLane) close() { l.Close() }

func (l *wsLane) receive() (client.StreamAnswer, error) {
	for {
		m, err := l.Receive()
		switch {
		case err != nil:
			return client.StreamAnswer{}, err
		case m.Answer != nil:
			return *m.Answer, nil
		}
	}
}

// pushLane is a push, and a listener to its answers.
type pushLane struct {
	push    *client.Push
	service *client.Client
	id      string
	answers chan client.StreamAnswer
	hangUp  context.CancelFunc
	heard   sync.WaitGroup
	once    sync.Once
}

// openPush defines a stream for the time of the measurement, listens to it and begins to push.
func (t *Target) openPush(ctx context.Context, s Streams, n int) (lane, error) {
	l := &pushLane{service: t.service, id: fmt.Sprintf("bench-%d-%d", time.Now().UnixNano(), n), answers: make(chan client.StreamAnswer, 1024)}
	d := t.definition(s)
	d.Events = &client.StreamEvents{On: "frames"}
	if _, _, err := t.service.PutStream(ctx, l.id, d); err != nil {
		return nil, err
	}
	listening, hangUp := context.WithCancel(ctx)
	l.hangUp = hangUp
	ready := make(chan error, 1)
	l.heard.Go(func() {
		defer close(l.answers)
		for e, err := range t.service.Events(listening, l.id, client.EventsOptions{Frames: true, Begun: func() { ready <- nil }}) {
			var missed *client.Missed
			switch {
			case errors.As(err, &missed):
				continue // the next answer shows which
			case err != nil:
				select {
				case ready <- err:
				default:
				}
				return
			case e.Kind != client.EventFrame:
				continue
			}
			var a client.StreamAnswer
			if json.Unmarshal(e.Answer, &a) != nil {
				return
			}
			select {
			case l.answers <- a:
			case <-listening.Done():
				return
			}
		}
	})
	if err := <-ready; err != nil {
		l.close()
		return nil, err
	}
	l.push = t.service.Push(ctx, l.id, client.PushOptions{})
	return l, nil
}

func (l *pushLane) send(frame []byte, _ uint64) error { return l.push.Send(frame) }

func (l *pushLane) receive() (client.StreamAnswer, error) {
	a, ok := <-l.answers
	if !ok {
		return a, errEnded
	}
	return a, nil
}

// end ends the push. Answers may still be on their way.
func (l *pushLane) end() { _, _ = l.push.Close() }

func (l *pushLane) close() {
	l.once.Do(func() {
		l.hangUp()
		l.heard.Wait()
		if l.push != nil {
			_, _ = l.push.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = l.service.DeleteStream(ctx, l.id) // it may be gone
	})
}
