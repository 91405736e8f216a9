package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"hailoclip/api/access"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// lasting is the connection of a request whose answer has no end: a WebSocket, or a listener to events. It is a net.Conn whose
// reads and writes have time limits of their own. Reads are for one goroutine.
type lasting struct {
	net.Conn // its reads begin with what came along with the head of the request
	server   *Server
	conn     *conn
	id       string // of the request
	caller   fair.Caller
	grant    *access.Grant   // of the request; left when ctx ends
	ctx      context.Context // ends when the connection is closed, or Shutdown loses patience
	cancel   context.CancelCauseFunc

	reads    patience
	deadline time.Time     // of reads; zero: silence after the begin of each
	silence  time.Duration // after which the client counts as dead
	in, out  atomic.Int64  // bytes
}

// patience is how long the reads of a connection wait.
type patience struct {
	conn        *conn
	interrupted atomic.Bool
}

// until sets the deadline of the next read.
func (p *patience) until(t time.Time) {
	_ = p.conn.SetReadDeadline(t) // fails on a closed connection, and so will the read
	if p.interrupted.Load() {     // looked at last: interrupt does it the other way round
		_ = p.conn.SetReadDeadline(past)
	}
}

// interrupt ends the read that goes on, and all that follow.
func (p *patience) interrupt() {
	p.interrupted.Store(true)
	_ = p.conn.SetReadDeadline(past)
}

// mayLast refuses a request whose answer has no end where there is no room for it, or it would have to end soon.
func (r *request) mayLast() error {
	switch s := r.server; {
	case s.stopping.Load():
		return errStopping
	case r.conn.place() != regular: // it may have this one request, but not for long
		return errTooManyConns
	case s.svc.Engine.State() == clip.Unhealthy:
		return fail(errNotReady, "The service is not ready: %s", s.svc.Engine.Health().Reason)
	}
	return nil
}

// lasting makes one of a request whose connection is in phase p from then on. If takeOver does not follow, cancel must. The
// context ends with the connection, whatever happens.
func (r *request) lasting(p phase) *lasting {
	l := &lasting{server: r.server, conn: r.conn, id: r.id, caller: r.whose(), grant: r.grant}
	l.reads.conn = r.conn
	l.ctx, l.cancel = context.WithCancelCause(r.server.base)
	r.inside = false // it is l that is, from now on
	context.AfterFunc(l.ctx, l.grant.Leave)
	l.conn.enter(p, l.cancel)
	return l
}

// takeOver answers with the head of the response as it is now and nothing else, and has serve go on, in a goroutine of its own,
// after which the connection is closed; serve says why it ends. The request itself ends here: serve must not touch it.
func (r *request) takeOver(l *lasting, serve func() error) {
	head := r.ctx.Response.Header.AppendBytes(nil)
	path, lines := string(r.ctx.Path()), &r.watched.lines
	r.ctx.HijackSetNoResponse(true) // else there is no hijack in some cases, such as that of a client with "Connection: close"
	r.ctx.Hijack(func(nc net.Conn) {
		start := time.Now()
		defer l.cancel(nil)
		defer func() {
			if v := recover(); v != nil {
				l.server.svc.Log.Error("a stream has failed", slog.String("request_id", l.id), slog.Any("error", v),
					slog.String("stack", string(debug.Stack())))
			}
		}()
		l.Conn = nc
		if _, err := l.Write(head); err != nil {
			return
		}
		err := serve()
		l.logEnd(lines, path, time.Since(start), err)
	})
}

// logEnd writes the line of a connection that has ended with err, if it is to have one.
func (l *lasting) logEnd(lines *lines, path string, took time.Duration, err error) {
	logged, leftOut := lines.ended(time.Now())
	if !logged {
		l.server.unlogged.Add(1)
		return
	}
	if isGone(err) {
		err = errGone
	}
	log := l.server.svc.Log
	if l.grant.Name != "" {
		log = log.With(slog.String("key", l.grant.Name))
	}
	if leftOut > 0 {
		log = log.With(slog.Uint64("unlogged", leftOut))
	}
	log.Info("stream ended", slog.String("path", path[:min(len(path), maxLoggedPath)]),
		slog.Float64("ms", millis(took)), slog.Int64("bytes_in", l.in.Load()),
		slog.Int64("bytes_out", l.out.Load()), slog.String("request_id", l.id), slog.String("code", outcomeOf(err).code))
}

// isGone says that something ends because the connection has ended.
func isGone(err error) bool { return errors.Is(err, errGone) || errors.Is(err, net.ErrClosed) }

// Read ends with an error when its time is up, or reads are interrupted. That the client has closed its side is one, too: a
// WebSocket ends by other means, and package websocket would take io.EOF for the end of a message that has been cut.
func (l *lasting) Read(b []byte) (int, error) {
	until := l.deadline
	if until.IsZero() {
		until = time.Now().Add(l.silence)
	}
	l.reads.until(until)
	n, err := l.Conn.Read(b)
	l.in.Add(int64(n))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Write has write_timeout.
func (l *lasting) Write(b []byte) (int, error) {
	_ = l.SetWriteDeadline(time.Now().Add(l.server.cfg.WriteTimeout)) // as above
	n, err := l.Conn.Write(b)
	l.out.Add(int64(n))
	return n, err
}

// Close ends the connection and with it the context.
func (l *lasting) Close() error { return l.conn.Close() }
