package api

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"
)

// refuse answers a connection that there is no room for and closes it. The answer fits the empty
// send buffer of a new connection, and of what the client has sent only that is read which has
// arrived, so it does not wait for the client.
func refuse(nc net.Conn, answer []byte) {
	defer nc.Close()
	_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := nc.Write(answer); err != nil {
		return
	}
	b := make([]byte, 16<<10)
	for range (1 << 20) / len(b) { // left unread, it would make a reset of the end
		if readNow(nc, b) == 0 {
			return
		}
	}
}

// refusal is a whole answer, with status 503, to a connection that gets no further.
func refusal(err error, warning string) []byte {
	o, id := outcomeOf(err), newRequestID()
	body := appendError(nil, o, id)
	if warning != "" {
		warning = headerWarning + ": " + warning + "\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n%s"+
		headerRequestID+": %s\r\nRetry-After: %d\r\nContent-Length: %d\r\n\r\n%s", warning, id, o.retry, len(body), body)
}

// Dismiss closes a listener that nobody will serve, because the service ends before it has begun. Clients
// that have connected meanwhile and sent something are told so with a 503, where closing alone would reset
// their connections. It blocks for some seconds at most, and for a moment where there are none.
func (c Config) Dismiss(ln net.Listener) error {
	l := newListener(ln, c, nil, slog.New(slog.DiscardHandler))
	l.max = math.MaxInt / 2 // they are no more than the kernel lets wait
	err := l.Close()
	var answers sync.WaitGroup
	for {
		nc, end := l.Accept()
		if end != nil {
			break
		}
		answers.Go(func() { dismiss(nc.(*conn)) })
	}
	answers.Wait()
	return err
}

// dismiss answers a connection that has waited with its request, or is about to send one, and closes it.
func dismiss(c *conn) {
	defer func() { _ = c.Close() }()               // it is lost either way
	_ = c.SetDeadline(time.Now().Add(partingTime)) // fails on a closed connection, and so will what follows
	if n, _ := c.Conn.Read(make([]byte, 1)); n == 0 {
		return
	}
	c.linger()
	_, _ = c.Conn.Write(refusal(errStopping, ""))
}
