package api

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"
)

// makeRoom frees a descriptor for one connection, and ends another one that is idle. It
// returns false when there is none to free.
func (l *listener) makeRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retireLongest(time.Now())
	if len(l.spare) == 0 {
		return false
	}
	last := len(l.spare) - 1
	l.spare[last].Close()
	l.spare = l.spare[:last]
	return true
}

// giveAway takes a regular place from a connection, for a new one. The caller holds mu.
func (l *listener) giveAway(c *conn, now place) {
	if c.place() != regular {
		return
	}
	c.holds.Store(int32(now))
	l.regular--
	if l.networks[c.network]--; l.networks[c.network] == 0 {
		delete(l.networks, c.network)
	}
}

// oldest returns the connection with the earliest time, of those for which there is one; nil where there is none. The
// caller holds mu.
func (l *listener) oldest(at func(*conn) (time.Time, bool)) (found *conn) {
	var first time.Time
	for c := range l.open {
		if t, ok := at(c); ok && (found == nil || t.Before(first)) {
			found, first = c, t
		}
	}
	return found
}

// retireLongest ends the connection that has been idle longest, if that is longer than idleTime. The caller holds mu.
func (l *listener) retireLongest(now time.Time) {
	c := l.oldest(func(c *conn) (time.Time, bool) {
		p, since, _ := c.doing()
		return since, p == idle && now.Sub(since) >= l.idleTime
	})
	if c != nil && c.makeWay(false) {
		l.evicted.Add(1)
	}
}

// evictFor gives a place of the network with most connections to another one that has fewer: it ends the one that
// was opened first of those that are idle or whose request is still coming. Slow senders hold no place that others
// need, however many they are. The caller holds mu.
func (l *listener) evictFor(network netip.Prefix) {
	most, greedy := l.networks[network]+1, netip.Prefix{}
	for n, count := range l.networks {
		if count > most {
			most, greedy = count, n
		}
	}
	if most == l.networks[network]+1 {
		return
	}
	for { // until what was found still does what it did
		c := l.oldest(func(c *conn) (time.Time, bool) {
			p, _, _ := c.doing()
			return c.opened, c.network == greedy && c.place() == regular && p != working && p != streaming && p != leaving
		})
		if c == nil {
			return
		}
		if c.makeWay(true) {
			l.evicted.Add(1)
			return
		}
	}
}

// cut ends at once the connection that was opened first of those that can be spared, and says whether there was one:
// those over the limit whose client has had the time for a request, if it is for another one over the limit; otherwise
// all that have no regular place. The caller holds mu.
func (l *listener) cut(now time.Time, forOverLimit bool) bool {
	c := l.oldest(func(c *conn) (time.Time, bool) {
		if forOverLimit {
			return c.opened, c.place() == overLimit && now.Sub(c.opened) >= l.overLimitTime
		}
		return c.opened, c.place() != regular
	})
	if c == nil {
		return false
	}
	c.wire.Close()
	delete(l.open, c)
	l.evicted.Add(1)
	return true
}

// refuse answers a connection that there is no room for and closes it. The answer fits the empty send buffer of a new
// connection, and of what the client has sent only that is read which has arrived, so it does not wait for the client.
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

// refusal is a whole answer to a connection that gets no further.
func refusal(err error, warning string) []byte {
	o, id := outcomeOf(err), newRequestID()
	body, more := appendError(nil, o, id), ""
	if warning != "" {
		more = headerWarning + ": " + warning + "\r\n"
	}
	if o.retry > 0 {
		more += fmt.Sprintf("Retry-After: %d\r\n", o.retry)
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n%s"+
		headerRequestID+": %s\r\nContent-Length: %d\r\n\r\n%s", o.status, fasthttp.StatusMessage(o.status), more, id, len(body), body)
}
