package npu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/npu/wire"
)

// serve runs the worker until it has ended and everything in flight is answered. It returns why it ended. The end of
// ctx asks the worker to leave.
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
			// Only twice in a row: if this process was suspended, the answers may be waiting to be read.
			err := w.overdue(now, limit)
			if err != nil && suspect {
				w.end(err)
			}
			suspect = err != nil
		case <-w.life.Done():
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

// finish fails what is in flight and has the worker leave. The failed calls do not wait for the worker to end: until
// then it writes only to outputs, which nobody reads any more, and the next worker starts after its end. For a worker
// that is stuck in the kernel finish waits until ctx ends.
func (w *worker) finish(ctx context.Context, reading <-chan struct{}) error {
	w.mu.Lock()
	silent := errors.Is(context.Cause(w.life), errNoAnswer) && time.Since(w.answered) > silentAfter
	w.mu.Unlock()
	if errors.Is(context.Cause(w.life), errSocket) && w.proc.ends(reapLimit) { // its last answers count, and its last line says why
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
	reason := context.Cause(w.life)
	if errors.Is(reason, errSocket) && w.proc.ends(0) {
		reason = fmt.Errorf("the worker ended: %s", w.proc.describe())
	}
	for model := range w.inFlight {
		f := &w.inFlight[model]
		for i := range f.slots {
			if p := &f.slots[i]; p.sequence != 0 {
				p.finish(lost(reason), hailo.Run{})
			}
		}
		f.n = 0
	}
	return reason
}
