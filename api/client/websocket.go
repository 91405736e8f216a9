package client

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" // as RFC 6455 wants it; nothing depends on its strength
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	random "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Opcodes of RFC 6455, 5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// CloseError is the end of a stream that the other side has given a code and a reason. For errors.As.
type CloseError struct {
	Code   int    // RFC 6455, 7.4.1: 1000 done, 1001 the service stops, 1008 the definition is refused, 1009 a frame is too large
	Reason string // a sentence; may be ""
}

func (e *CloseError) Error() string {
	text := fmt.Sprintf("the stream was closed with code %d", e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Codes of a close that we begin.
const (
	closeDone     = 1000
	closeProtocol = 1002
	closeNone     = 1005 // the close frame had no code; never sent
	closeUTF8     = 1007
	closeTooLarge = 1009
)

// violation is what the other side does against the protocol.
type violation struct {
	code int // to close with
	what string
}

func (v *violation) Error() string { return ErrAnswer.Error() + ": WebSocket: " + v.what }
func (v *violation) Unwrap() error { return ErrAnswer }

// upgrade asks for a WebSocket at path. Other answers than the connection are in answer.
func (c *Client) upgrade(ctx context.Context, path string) (conn io.ReadWriteCloser, a *answer, err error) {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r := call{method: http.MethodGet, path: path, header: map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key,
	}}
	request, err := c.request(ctx, r, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	response, err := c.long.Do(request)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		a, err := c.read(r, response)
		return nil, a, err
	}
	conn, ok := response.Body.(io.ReadWriteCloser)
	h, accept := response.Header, sha1.Sum([]byte(key+"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	switch {
	case !ok:
		err = fmt.Errorf("%w: the HTTP client cannot keep a connection", ErrAnswer)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket"), h.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]):
		err = fmt.Errorf("%w: not a WebSocket", ErrAnswer)
	case h.Get("Sec-WebSocket-Extensions") != "", h.Get("Sec-WebSocket-Protocol") != "":
		err = fmt.Errorf("%w: a WebSocket with extensions that nobody asked for", ErrAnswer)
	}
	if err != nil {
		response.Body.Close()
		return nil, nil, err
	}
	return conn, nil, nil
}

// maxControl is the payload of a control frame at most.
const maxControl = 125

// appendFrame appends a whole message, or a control frame, of the parts one after the other, masked as a client must. What is
// returned is to be written at once: it costs one system call and one copy of the payload.
func appendFrame(b []byte, opcode byte, parts ...[]byte) []byte {
	const final, masked = 0x80, 0x80
	n := 0
	for _, part := range parts {
		n += len(part)
	}
	b = slices.Grow(b, 14+n)
	b = append(b, final|opcode)
	switch {
	case n <= maxControl:
		b = append(b, masked|byte(n))
	case n <= 0xffff:
		b = append(b, masked|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, masked|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	key := random.Uint32() // of ChaCha8, seeded by the system: nobody can foresee it
	b = binary.LittleEndian.AppendUint32(b, key)
	begin := len(b)
	for _, part := range parts {
		b = append(b, part...)
	}
	mask(b[begin:], key)
	return b
}

// mask XORs b with the key, whose bytes repeat from the lowest on, eight bytes at a time.
func mask(b []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}

// messages reads what a server sends. Not for concurrent use.
type messages struct {
	r       *bufio.Reader
	max     int // bytes of a message
	opcode  byte
	begun   bool   // a message has begun and not ended
	message []byte // what there is of it; used again for the next one
	control [maxControl]byte
}

func newMessages(r io.Reader, most int) *messages { return &messages{r: bufio.NewReader(r), max: most} }

// next returns the next whole message or control frame, which is good until the next call. Memory is taken for what has come,
// not for what is announced. Errors: *violation, io.EOF between frames, those of the reader.
func (m *messages) next() (opcode byte, payload []byte, err error) {
	for {
		final, opcode, size, err := m.head()
		if err != nil {
			return 0, nil, err
		}
		if opcode >= opClose {
			payload = m.control[:size]
			_, err = io.ReadFull(m.r, payload)
			return opcode, payload, unexpected(err)
		}
		if opcode != opContinuation {
			m.opcode, m.begun, m.message = opcode, true, m.message[:0]
		}
		if size > uint64(m.max-len(m.message)) {
			return 0, nil, &violation{closeTooLarge, fmt.Sprintf("a message of more than %d bytes", m.max)}
		}
		if err := m.read(int(size)); err != nil {
			return 0, nil, unexpected(err)
		}
		if !final {
			continue
		}
		if m.begun = false; m.opcode == opText && !utf8.Valid(m.message) {
			return 0, nil, &violation{closeUTF8, "a text that is not UTF-8"}
		}
		return m.opcode, m.message, nil
	}
}

// read appends size bytes to the message.
func (m *messages) read(size int) error {
	const step = 64 << 10
	for size > 0 {
		n := len(m.message)
		m.message = slices.Grow(m.message, min(size, step))[:n+min(size, step)]
		if _, err := io.ReadFull(m.r, m.message[n:]); err != nil {
			return err
		}
		size -= len(m.message) - n
	}
	return nil
}

// head reads and checks the beginning of a frame.
func (m *messages) head() (final bool, opcode byte, size uint64, err error) {
	var b [8]byte
	if _, err = io.ReadFull(m.r, b[:2]); err != nil {
		return false, 0, 0, err
	}
	final, opcode, size = b[0]&0x80 != 0, b[0]&0x0f, uint64(b[1]&0x7f)
	wrong := ""
	switch known := opcode <= opBinary || opcode >= opClose && opcode <= opPong; {
	case b[0]&0x70 != 0:
		wrong = "reserved bits"
	case !known:
		wrong = fmt.Sprintf("opcode %d", opcode)
	case b[1]&0x80 != 0:
		wrong = "a frame that is masked"
	case opcode >= opClose && (!final || size > maxControl):
		wrong = "a control frame that is long, or in parts"
	case (opcode == opContinuation) != m.begun && opcode < opClose:
		wrong = "parts of messages in a wrong order"
	}
	if wrong != "" {
		return false, 0, 0, &violation{closeProtocol, wrong}
	}
	least := uint64(0)
	switch size {
	case 126:
		_, err = io.ReadFull(m.r, b[6:])
		size, least = uint64(binary.BigEndian.Uint16(b[6:])), 126
	case 127:
		_, err = io.ReadFull(m.r, b[:])
		size, least = binary.BigEndian.Uint64(b[:]), 1<<16
	}
	if err == nil && size < least {
		err = &violation{closeProtocol, "a length in more bytes than it needs"}
	}
	return final, opcode, size, unexpected(err)
}

// unexpected is the error of an end within a frame.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // io.ReadFull returns it as it is
		return io.ErrUnexpectedEOF
	}
	return err
}

// closing reads the payload of a close frame.
func closing(payload []byte) error {
	if len(payload) == 0 {
		return &CloseError{Code: closeNone}
	}
	if len(payload) == 1 {
		return &violation{closeProtocol, "half a close code"}
	}
	code, reason := int(binary.BigEndian.Uint16(payload)), payload[2:]
	switch {
	case code < 1000 || code >= 5000 || code >= 1004 && code <= 1006 || code >= 1015 && code < 3000:
		return &violation{closeProtocol, fmt.Sprintf("close code %d", code)}
	case !utf8.Valid(reason):
		return &violation{closeUTF8, "a reason that is not UTF-8"}
	}
	return &CloseError{Code: code, Reason: string(reason)}
}
