package npu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hailoclip/hailo/npu/wire"
)

// serve runs the worker until it has ended and everything in flight is answered. It returns why.
// When ctx ends the worker is asked to end.
func (w *worker) serve(ctx context.Context) error {
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		w.end(w.read())
	}()
	limit := w.b.opt.DeviceTimeout
	tick := time.NewTicker(max(limit/8, time.Millisecond))
	defer tick.Stop()
	suspect := false
	for {
		select {
		case now := <-tick.C:
			// Twice in a row: if it was us who did not get to run, the answers may be waiting.
			err := w.overdue(now, limit)
			if err != nil && suspect {
				w.end(err)
			}
			suspect = err != nil
		case <-ctx.Done():
			w.end(context.Cause(ctx))
		case <-w.dead:
			return w.finish(ctx, reading)
		}
	}
}

// read handles what the worker says, until it breaks off or breaks the rules.
func (w *worker) read() error {
	for {
		m, err := w.proc.receive()
		switch m := m.(type) {
		case nil:
		case *wire.Done:
			err = w.complete(m)
		case *wire.Stats:
			err = w.setStats(m)
		default:
			err = fmt.Errorf("%w: unexpected %T", wire.ErrProtocol, m)
		}
		if err != nil {
			return err
		}
	}
}

// end makes the worker dead: serve has it leave. The first reason counts.
func (w *worker) end(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reason == nil {
		w.reason = reason
		close(w.dead)
		w.changed.Broadcast()
	}
}

// finish answers what is in flight and has the worker leave. Nobody waits for the device to be let
// go of: until then the worker writes to outputs only, which nobody reads any more, and the next
// one starts after its end. A worker that is stuck in the kernel is waited for until ctx ends.
func (w *worker) finish(ctx context.Context, reading <-chan struct{}) error {
	w.mu.Lock()
	ended := errors.Is(w.reason, errSocket)
	silent := errors.Is(w.reason, errNoAnswer) && time.Since(w.answered) > silentAfter
	w.mu.Unlock()
	if ended && w.proc.ends(reapLimit) { // its last answers count, and its last line says why
		_ = w.proc.conn.SetReadDeadline(time.Now().Add(lastMessages))
		<-reading
	}
	reason := w.answer()
	w.proc.stop(ctx, silent, func() {})
	w.proc.conn.Close()
	<-reading
	return reason
}

// answer tells everyone whose frame is in flight that the worker has ended, and returns why.
func (w *worker) answer() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.reason, errSocket) && w.proc.ends(0) {
		w.reason = fmt.Errorf("the worker ended: %s", w.proc.describe())
	}
	for model := range w.inFlight {
		f := &w.inFlight[model]
		for i := range f.slots {
			if p := &f.slots[i]; p.sequence != 0 {
				p.sequence = 0
				p.result <- lost(w.reason)
			}
		}
		f.n = 0
	}
	return w.reason
}
