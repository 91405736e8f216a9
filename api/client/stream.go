package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// StreamOptions say how a stream is opened.
type StreamOptions struct {
	StreamDefinition // what is done with the frames; FrameHeader is set in any case

	// ID feeds the stream of that name, whose state outlives this connection. Where it is defined, only what is set here
	// changes. "": a stream that ends with the connection.
	ID string

	MaxMessage int // bytes of an answer, of which more ends the stream; 0: 4 MiB
}

// Stream is an open connection, over WebSocket, to which frames are sent, and which answers each of them, in their order.
//
// Send, Change and Close are safe for concurrent use, beside one goroutine that calls Receive again and again: in it pings are
// answered, and a service that cannot get rid of its answers takes no frames. Whoever sends no more than a few frames before
// their answers are there is never behind. A stream that has ended stays so; the caller opens another one, with the same ID to
// go on where it was.
type Stream struct {
	conn      io.ReadWriteCloser
	ctx       context.Context
	forget    func() bool // that ctx closes conn
	reading   sync.Mutex  // of in
	in        *messages
	sending   sync.Mutex // of out and writes to conn
	out       []byte
	ping      atomic.Pointer[[]byte] // to be answered
	closed    atomic.Bool            // our close frame is sent, or about to be
	closeOnce sync.Once
}

// Message is what the service says in a stream: exactly one of Answer, Event, Missed and Err.
type Message struct {
	Answer *StreamAnswer // what became of a frame
	Event  *Event        // that the frame answered before it has made
	Missed *Missed       // events were lost
	Err    *Error        // a Change was refused, and the stream goes on as it was

	Text []byte // the same in JSON, as the service wrote it; good until the next call of Receive
}

// StreamAnswer is what became of a frame: it is classified, in Regions where the stream has some, or it was Dropped.
type StreamAnswer struct {
	Seq      uint64  `json:"seq"`
	TS       *int64  `json:"ts,omitempty"`
	LagMS    float64 `json:"lag_ms"`             // from the last byte of the frame to its answer
	Dropped  string  `json:"dropped,omitempty"`  // superseded, expired, bad or rate; "": it is answered
	Reused   bool    `json:"reused,omitempty"`   // the answer is that of an earlier frame which looks the same
	Backward bool    `json:"backward,omitempty"` // TS is not after that of the frame before
	Error    string  `json:"error,omitempty"`    // why it was dropped
	Code     string  `json:"code,omitempty"`     // of Error

	RegionAnswer                // of the whole frame, with the name ""
	Regions      []RegionAnswer `json:"regions,omitempty"`
}

// RegionAnswer is what was found in a region. Of the fields those from PromptSet on are those of a prompt set.
type RegionAnswer struct {
	Name        string  `json:"name,omitempty"`
	Matches     []Match `json:"classifications"`
	PromptSet   string  `json:"prompt_set,omitempty"`
	ETag        string  `json:"etag,omitempty"`
	Matched     bool    `json:"matched"` // a label fits; true unless the service says that none does
	Reason      string  `json:"reason,omitempty"`
	ScoreSource string  `json:"score_source,omitempty"`
}

// UnmarshalJSON reads what the service says of a region.
func (r *RegionAnswer) UnmarshalJSON(b []byte) error {
	type plain RegionAnswer
	p := plain{Matched: true}
	err := json.Unmarshal(b, &p)
	*r = RegionAnswer(p)
	return err
}

// UnmarshalJSON reads an answer of the service.
func (a *StreamAnswer) UnmarshalJSON(b []byte) error {
	type region RegionAnswer
	type rest struct { // as StreamAnswer, but without the method that it has from RegionAnswer
		Seq      uint64
		TS       *int64
		LagMS    float64 `json:"lag_ms"`
		Dropped  string
		Reused   bool
		Backward bool
		Error    string
		Code     string
		region
		Regions []RegionAnswer
	}
	r := rest{region: region{Matched: true}}
	err := json.Unmarshal(b, &r)
	*a = StreamAnswer{r.Seq, r.TS, r.LagMS, r.Dropped, r.Reused, r.Backward, r.Error, r.Code, RegionAnswer(r.region), r.Regions}
	return err
}

// Stream opens a stream, which ends with ctx. What is wrong with the definition is told by Receive, as a *CloseError with code
// 1008. The caller closes the stream.
func (c *Client) Stream(ctx context.Context, o StreamOptions) (*Stream, error) {
	o.FrameHeader = true
	first, err := json.Marshal(struct {
		ID string `json:"id,omitempty"`
		StreamDefinition
	}{o.ID, o.StreamDefinition})
	if err != nil {
		return nil, err
	}
	s := &Stream{ctx: ctx}
	_, err = c.again(ctx, call{method: "GET", path: "/v1/stream"}, func() (a *answer, err error) {
		s.conn, a, err = c.upgrade(ctx, "/v1/stream")
		if err == nil && a != nil && a.status/100 == 2 {
			err = fmt.Errorf("%w: not a WebSocket", ErrAnswer)
		}
		return a, err
	})
	if err != nil {
		return nil, err
	}
	s.in = newMessages(s.conn, cmp.Or(o.MaxMessage, 4<<20))
	s.forget = context.AfterFunc(ctx, func() { s.conn.Close() })
	if err := s.write(opText, first); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// Send sends a frame: a compressed image, or pixels as the definition's Format has them. seq and ts, in microseconds of the
// sender's clock, come back with its answer. It blocks while the service does not take frames, as it does with policy queue. The
// frame is the caller's again when it returns. An error says that the stream has ended: Receive tells why.
func (s *Stream) Send(frame []byte, seq uint64, ts int64) error {
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:], seq)
	binary.LittleEndian.PutUint64(head[8:], uint64(ts))
	return s.write(opBinary, head[:], frame)
}

// Change has the frames from now on treated otherwise. change becomes a JSON object with fields of StreamDefinition; those that
// it does not have stay as they are. A service that refuses it says so in a Message with Err.
func (s *Stream) Change(change any) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return s.write(opText, text)
}

// End says that no more frames come. The service answers those that it has, tells their events, and closes the stream, which
// Receive tells as a *CloseError with code 1000.
func (s *Stream) End() error { return s.write(opText) }

// Receive blocks until there is a message. The end of the stream is a *CloseError where the service has given a code, io.EOF or
// another error of the connection where not, or the cause of the context's end.
func (s *Stream) Receive() (m Message, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	text, err := s.next()
	if err == nil {
		err = m.read(text)
	}
	if err != nil {
		err = s.broken(err)
	}
	return m, err
}

// next returns the next text.
func (s *Stream) next() ([]byte, error) {
	for {
		opcode, payload, err := s.in.next()
		switch {
		case err != nil:
			return nil, err
		case opcode == opText:
			return payload, nil
		case opcode == opBinary:
			return nil, &violation{closeProtocol, "a message that is no text"}
		case opcode == opClose:
			return nil, closing(payload)
		case opcode == opPing:
			answer := bytes.Clone(payload)
			s.ping.Store(&answer)
			s.pong()
		}
	}
}

// read reads a text of the service.
func (m *Message) read(text []byte) error {
	var kind struct {
		Event  string
		Seq    *uint64
		Missed json.RawMessage
		Error  string
		Code   string
	}
	err := json.Unmarshal(text, &kind)
	m.Text = text
	switch {
	case err != nil:
	case kind.Event != "":
		m.Event = new(Event)
		err = json.Unmarshal(text, m.Event)
	case kind.Seq == nil && kind.Missed != nil:
		m.Missed, err = readMissed(text)
	case kind.Seq == nil && kind.Error != "":
		m.Err = &Error{Code: kind.Code, Message: kind.Error}
	case kind.Seq == nil:
		return fmt.Errorf("%w: %.100q", ErrAnswer, text)
	default:
		m.Answer = new(StreamAnswer)
		err = json.Unmarshal(text, m.Answer)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return nil
}

// broken ends the stream after an error of its reader, and says why it ended.
func (s *Stream) broken(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	var said *CloseError
	var wrong *violation
	switch {
	case errors.As(err, &said): // an answer to it is due, unless it is one
		s.sayClose(said.Code, "")
	case errors.As(err, &wrong):
		s.sayClose(wrong.code, wrong.what)
	}
	s.end()
	return err
}

// closeWait is how long the other side has to answer when a stream is closed.
const closeWait = time.Second

// Close tells the service that the stream ends and closes the connection. What has not been received is lost. It blocks for a
// second at most. It may be called more than once.
func (s *Stream) Close() {
	s.closeOnce.Do(func() {
		late := time.AfterFunc(closeWait, func() { s.conn.Close() })
		defer late.Stop()
		s.sayClose(closeDone, "")
		s.reading.Lock()
		defer s.reading.Unlock()
		for err := error(nil); err == nil; { // until the service has closed, too
			_, err = s.next()
		}
		s.end()
	})
}

// sayClose sends a close frame unless one was sent.
func (s *Stream) sayClose(code int, reason string) {
	if s.closed.Swap(true) {
		return
	}
	var payload []byte
	if code != closeNone {
		payload = append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason[:min(len(reason), maxControl-2)]...)
	}
	late := time.AfterFunc(closeWait, func() { s.conn.Close() })
	defer late.Stop()
	s.sending.Lock()
	defer s.sending.Unlock()
	_, _ = s.conn.Write(appendFrame(nil, opClose, payload))
}

// end closes the connection.
func (s *Stream) end() {
	s.forget()
	s.conn.Close()
}

// errClosed is that of a stream that Close has ended.
var errClosed = errors.New("the stream is closed")

// write sends a message in one write.
func (s *Stream) write(opcode byte, parts ...[]byte) error {
	s.sending.Lock()
	err := errClosed
	if !s.closed.Load() {
		s.out = appendFrame(s.out[:0], opcode, parts...)
		_, err = s.conn.Write(s.out)
	}
	s.sending.Unlock()
	s.pong()
	switch cause := context.Cause(s.ctx); {
	case err == nil:
		return nil
	case cause != nil:
		return cause
	}
	return fmt.Errorf("the stream has ended: %w", err)
}

// pong answers the last ping, unless a write is under way: then that does it in the end. So who reads need not wait for who
// sends, who may be waiting for answers to be read.
func (s *Stream) pong() {
	for s.ping.Load() != nil && s.sending.TryLock() {
		if payload := s.ping.Swap(nil); payload != nil && !s.closed.Load() {
			_, _ = s.conn.Write(appendFrame(nil, opPong, *payload)) // an error will meet the reader too
		}
		s.sending.Unlock()
	}
}
