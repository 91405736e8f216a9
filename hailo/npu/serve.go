package npu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hailoclip/hailo/npu/wire"
)

// read handles what the worker says, until it breaks off or breaks the rules.
func (s *session) read() error {
	buf := make([]byte, wire.MaxPacket+1)
	for {
		m, err := s.proc.receive(buf)
		if err != nil {
			if !errors.Is(err, wire.ErrProtocol) {
				err = fmt.Errorf("%w: %w", errSocket, err)
			}
			return err
		}
		switch m := m.(type) {
		case *wire.Done:
			err = s.complete(m)
		case *wire.Stats:
			err = s.note(m)
		default:
			err = fmt.Errorf("%w: unexpected %T", wire.ErrProtocol, m)
		}
		if err != nil {
			return err
		}
	}
}

// end makes the session dead: serve has the worker leave. The first reason counts.
func (s *session) end(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		s.reason = reason
		close(s.dead)
		s.changed.Broadcast()
		s.b.texts.fail(lost(reason))
	}
}

// alive says whether nothing has ended the session yet.
func (s *session) alive() bool {
	select {
	case <-s.dead:
		return false
	default:
		return true
	}
}

// serve runs the session until its worker has ended and everything in flight is answered. It
// returns why. When ctx ends the worker is asked to end.
func (s *session) serve(ctx context.Context) error {
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.end(s.read())
	}()
	limit := s.b.opt.DeviceTimeout
	tick := time.NewTicker(max(limit/8, time.Millisecond))
	defer tick.Stop()
	suspect := false
	for {
		select {
		case now := <-tick.C:
			// Twice in a row: if it was us who did not get to run, the answers may be waiting.
			err := s.overdue(now, limit)
			if err != nil && suspect {
				s.end(err)
			}
			suspect = err != nil
		case <-ctx.Done():
			s.end(context.Cause(ctx))
		case <-s.dead:
			return s.finish(ctx, reading)
		}
	}
}

// finish answers what is in flight and has the worker leave. Nobody waits for the device to be let
// go of: until then the worker writes to outputs only, which nobody reads any more, and the next
// one starts after its end. A worker that is stuck in the kernel is waited for until ctx ends.
func (s *session) finish(ctx context.Context, reading <-chan struct{}) error {
	s.mu.Lock()
	ended := errors.Is(s.reason, errSocket)
	silent := errors.Is(s.reason, errNoAnswer) && time.Since(s.answered) > silentAfter
	s.mu.Unlock()
	if ended && s.proc.ends(reapLimit) { // it has: its last answers count, and its last words say why
		_ = s.proc.conn.SetReadDeadline(time.Now().Add(lastMessages))
		<-reading
	}
	reason := s.answer()
	if !s.part(silent) {
		s.proc.reap(ctx)
	}
	s.proc.conn.Close()
	<-reading
	return reason
}

// part ends the worker, and logs when it does not end.
func (s *session) part(silent bool) bool {
	reaped := s.proc.part(silent)
	if !reaped {
		s.b.log.Error("npu: the worker was killed and does not end, it may be stuck in the driver", "pid", s.proc.cmd.Process.Pid)
	}
	return reaped
}

// answer tells everyone whose frame is in flight that the session has ended, and returns why.
func (s *session) answer() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.reason, errSocket) && s.proc.ends(0) {
		s.reason = fmt.Errorf("the worker ended: %s", s.proc.describe())
	}
	for model := range s.lines {
		l := &s.lines[model]
		for i := range l.flights {
			if f := &l.flights[i]; f.sequence != 0 {
				f.sequence = 0
				f.result <- result{err: lost(s.reason)}
			}
		}
		l.n = 0
	}
	return s.reason
}
