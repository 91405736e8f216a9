package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/valyala/fasthttp"

	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
)

const (
	// maxDefinitionBytes is how long the definition of a stream may be: a thousand prompts of a line each.
	maxDefinitionBytes = 256 << 10
	// closeTime is how long a client has to answer that it has heard of the end.
	closeTime = 2 * time.Second
	// prefixBytes come before each frame of a stream with frame_header.
	prefixBytes = 16
)

// webSocket is a client that pushes frames and hears what becomes of them.
type webSocket struct {
	*lasting
	ws *websocket.Conn

	feed    *stream.Feed
	message message
	prefix  bool   // frames begin with their number and time
	next    uint64 // number of the next frame that does not
	size    int    // of the last frame
	head    [prefixBytes]byte
	text    []byte // the answer that is being written; of the goroutine that calls answer
}

// upgrade answers GET /v1/stream.
func (s *Server) upgrade(r *request) error {
	if err := r.mayLast(); err != nil {
		return err
	}
	if h := &r.ctx.Request.Header; h.ContentLength() > 0 || h.ContentLength() == -1 {
		return fail(errInvalidRequest, "A WebSocket begins without a body")
	}
	w := &webSocket{lasting: r.lasting(receiving)}
	w.silence = 3 * s.pingEvery
	head := &handshake{header: http.Header{}, nc: w.lasting}
	ws, err := websocket.Accept(head, upgradeRequest(&r.ctx.Request.Header), &websocket.AcceptOptions{
		InsecureSkipVerify: true, // of the origin: screen has looked at it
		Subprotocols:       []string{subprotocol},
	})
	to := &r.ctx.Response.Header
	for _, name := range [...]string{"Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"} {
		if value := head.header.Get(name); value != "" {
			to.Set(name, value)
		}
	}
	if err != nil {
		w.cancel(nil)
		kind := errInvalidRequest
		if head.status == http.StatusUpgradeRequired {
			kind = errUpgrade
			to.Set("Upgrade", "websocket")
		}
		return fail(kind, "%s", strings.TrimPrefix(err.Error(), "failed to accept WebSocket connection: "))
	}
	w.ws = ws
	r.ctx.SetStatusCode(head.status)
	r.takeOver(w.lasting, w.serve)
	return nil
}

// upgradeRequest is what a request says of the upgrade.
func upgradeRequest(h *fasthttp.RequestHeader) *http.Request {
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.0", ProtoMajor: 1, Header: http.Header{}}
	if h.IsHTTP11() {
		r.Proto, r.ProtoMinor = "HTTP/1.1", 1
	}
	for _, name := range [...]string{"Connection", "Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version", headerSubprotocols} {
		for _, value := range h.PeekAll(name) {
			r.Header.Add(name, string(value))
		}
	}
	return r
}

// handshake takes the answer of package websocket to an upgrade, which fasthttp writes, and gives it the connection.
type handshake struct {
	header http.Header
	status int
	nc     net.Conn
}

func (h *handshake) Header() http.Header         { return h.header }
func (h *handshake) WriteHeader(status int)      { h.status = status }
func (h *handshake) Write(b []byte) (int, error) { return len(b), nil } // a refusal, which is the error, too
func (h *handshake) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	const size = 4 << 10 // larger reads and writes pass it by
	return h.nc, bufio.NewReadWriter(bufio.NewReaderSize(h.nc, size), bufio.NewWriterSize(h.nc, size)), nil
}

// serve has the WebSocket from its first message to its end.
func (w *webSocket) serve() error {
	if err := w.open(); err != nil {
		if !isGone(err) {
			w.sendError(err)
		}
		w.close(err)
		return err
	}
	w.conn.stream(w.cancel)
	reading, end := context.WithCancelCause(w.ctx) // its cause is why no more frames are read
	var reads, tells sync.WaitGroup
	reads.Go(func() { w.attend(reading, end) })
	telling, told := context.WithCancel(context.Background())
	l := w.server.svc.Bus.Listen(event.Filter{Stream: w.feed.ID()}, "") // before the first frame
	tells.Go(func() { w.tellEvents(telling, l) })
	err := w.read()
	if reading.Err() != nil {
		err = context.Cause(reading)
	}
	end(nil)
	if isGone(err) {
		w.close(err) // and so ends the feed
	}
	reads.Wait()
	w.feed.Close()
	told()
	tells.Wait()
	w.close(err)
	return err
}

// read has the feed take frames until there are no more, and says why.
func (w *webSocket) read() error {
	for {
		w.deadline = time.Time{}
		w.ws.SetReadLimit(int64(w.server.cfg.MaxBodyBytes + prefixBytes))
		kind, message, err := w.ws.Reader(context.Background())
		if err != nil {
			return readFailure(err)
		}
		w.deadline = time.Now().Add(w.server.cfg.ReadTimeout)
		w.message.Reader = message
		if kind == websocket.MessageText {
			err = w.change()
		} else {
			err = w.frame()
		}
		if err != nil {
			return err
		}
	}
}

// message is the one that is being read.
type message struct{ io.Reader }

// Read fails with the errors of readFailure.
func (m *message) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readFailure(err)
	}
	return n, err
}

// readFailure says why there is no more to read: errReadTimeout, or errGone, which is also of clients that break the protocol and
// have been told so.
func readFailure(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", errReadTimeout, err)
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// frame gives the feed a frame. Where there is no memory for it, it goes by and the stream goes on.
func (w *webSocket) frame() error {
	f := stream.Frame{Seq: w.next}
	w.next++
	if w.prefix {
		switch _, err := io.ReadFull(&w.message, w.head[:]); {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return fail(errInvalidRequest, "A frame must begin with its number and its time, %d bytes", prefixBytes)
		case err != nil:
			return err
		}
		f.Seq, f.Time = parsePrefix(&w.head)
		f.HasTime = true
	}
	memory := w.server.lend(w.caller.Address, w.size)
	f.Release = memory.release
	noRoom, err := memory.receive(&w.message, w.server.cfg.MaxBodyBytes)
	if err != nil {
		f.Release()
		return err
	}
	f.Image, f.Received = slices.Clip(memory.b), time.Now()
	w.size = len(f.Image)
	if noRoom != nil {
		return w.feed.Drop(f, stream.Bad, noRoom)
	}
	return w.feed.Push(f)
}

// parsePrefix reads what comes before a frame: its number and its time in microseconds.
func parsePrefix(b *[prefixBytes]byte) (seq uint64, ts int64) {
	return binary.LittleEndian.Uint64(b[:8]), int64(binary.LittleEndian.Uint64(b[8:]))
}

// open reads the first message and opens the feed that it asks for.
func (w *webSocket) open() error {
	w.deadline = time.Now().Add(w.server.cfg.ReadTimeout)
	w.ws.SetReadLimit(maxDefinitionBytes)
	kind, message, err := w.ws.Reader(context.Background())
	if err != nil {
		return readFailure(err)
	}
	if kind != websocket.MessageText {
		return fail(errInvalidRequest, "The first message must be text: the definition of the stream, in JSON")
	}
	w.message.Reader = message
	return w.define(func(text []byte) (err error) {
		w.feed, err = w.server.svc.Hub.Open(w.ctx, stream.Opening{Definition: text, Caller: w.caller, Answer: w.answer})
		return err
	})
}

// errDone says that the client has no more frames, and waits for what becomes of those that it has sent.
var errDone = errors.New("there are no more frames")

// change has the frames from now on treated as a message says. What is wrong with it is told, and the stream goes on. An empty message
// is errDone.
func (w *webSocket) change() error {
	err := w.define(w.feed.Change)
	select {
	case <-w.feed.Done():
		return w.feed.Err()
	default:
	}
	if err == nil || errors.Is(err, errDone) || isGone(err) || errors.Is(err, errReadTimeout) || errors.Is(err, errBodyTooLarge) || errors.Is(err, errNotUTF8) {
		return err
	}
	w.sendError(err)
	return nil
}

// define reads a message and has it done by do, which must not keep it.
func (w *webSocket) define(do func(text []byte) error) error {
	memory := w.server.lend(w.caller.Address, 0)
	defer memory.release()
	noRoom, err := memory.receive(&w.message, maxDefinitionBytes)
	switch {
	case err != nil:
		return err
	case noRoom != nil:
		return noRoom
	case w.feed != nil && len(memory.b) == 0:
		return errDone
	case !utf8.Valid(memory.b):
		return fail(errNotUTF8, "A message of text is not valid UTF-8")
	}
	if err := do(memory.b); err != nil {
		return definitionFailure(err, "message", memory.b)
	}
	w.prefix = w.feed.Definition().FrameHeader
	return nil
}

// answer tells the client what became of a frame. It blocks for write_timeout at most.
func (w *webSocket) answer(a *stream.Answer) {
	w.text = AppendAnswer(w.text[:0], a)
	w.send(w.text)
}

// send ends the connection where that is what has happened to it.
func (w *webSocket) send(text []byte) {
	if w.ws.Write(context.Background(), websocket.MessageText, text) != nil {
		_ = w.lasting.Close()
	}
}

func (w *webSocket) sendError(err error) {
	w.send(appendError(nil, outcomeOf(err), w.id))
}

// tellEvents sends the events of the stream until ctx ends, and then those that are there.
func (w *webSocket) tellEvents(ctx context.Context, l *event.Listener) {
	defer l.Close()
	for {
		e, missed, err := l.Next(ctx)
		if err != nil {
			return
		}
		if missed != 0 {
			w.send(appendMissed(nil, missed))
		}
		if text, err := json.Marshal(e); err == nil { // always, as all scores are finite
			w.send(text)
		}
	}
}

// attend pings the client and interrupts the reading of frames when ctx ends: because the service stops, the feed ends, or the
// connection does.
func (w *webSocket) attend(ctx context.Context, end context.CancelCauseFunc) {
	var pings sync.WaitGroup
	defer pings.Wait()
	stop := context.AfterFunc(w.server.live, func() { end(errStopping) })
	defer stop()
	keep := context.AfterFunc(w.grant.Revoked(), func() { end(errRevoked) })
	defer keep()
	tick := time.NewTicker(w.server.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.reads.interrupt()
			return
		case <-w.feed.Done():
			end(w.feed.Err())
		case <-tick.C:
			pings.Go(func() { // what comes back is bytes, and lasting.Read waits for nothing else
				within, cancel := context.WithTimeout(ctx, w.server.cfg.WriteTimeout)
				defer cancel()
				_ = w.ws.Ping(within)
			})
		}
	}
}

// close tells the client why there is no more, waits for a moment until it has heard, and closes the connection.
func (w *webSocket) close(err error) {
	w.conn.lingers.Store(true)
	if isGone(err) {
		_ = w.ws.CloseNow()
		return
	}
	w.reads.interrupted.Store(false)
	w.deadline = time.Now().Add(closeTime)
	if errors.Is(err, errDone) {
		_ = w.ws.Close(websocket.StatusNormalClosure, "")
		return
	}
	o := outcomeOf(err)
	code := websocket.StatusPolicyViolation
	switch {
	case o.kind == errStopping:
		code = websocket.StatusGoingAway
	case o.kind == errBodyTooLarge:
		code = websocket.StatusMessageTooBig
	case o.kind == errNotUTF8:
		code = websocket.StatusInvalidFramePayloadData
	case o.status == http.StatusInternalServerError:
		code = websocket.StatusInternalError
	}
	_ = w.ws.Close(code, closeReason(o)) // it is lost either way
}

// closeReason fits a frame of control.
func closeReason(o outcome) string {
	const longest = 123 // bytes of UTF-8
	reason := o.code + ": " + o.text
	if len(reason) > longest {
		reason = strings.ToValidUTF8(reason[:longest], "")
	}
	return reason
}
