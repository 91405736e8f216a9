package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"time"
)

// Missed says that events were lost, because this listener was too slow or away for too long. It does not end Events.
type Missed struct {
	N int // -1: nobody knows how many
}

func (m *Missed) Error() string {
	if m.N < 0 {
		return "some events were missed"
	}
	return fmt.Sprintf("%d events were missed", m.N)
}

// readMissed reads {"missed": n}, where n may be null.
func readMissed(text []byte) (*Missed, error) {
	var said struct{ Missed *int }
	err := json.Unmarshal(text, &said)
	if said.Missed == nil {
		return &Missed{N: -1}, err
	}
	return &Missed{N: *said.Missed}, err
}

// EventsOptions say which events are heard.
type EventsOptions struct {
	LastID string // begin after this one; "": from now on
	Frames bool   // also those of kind EventFrame, where the stream makes them

	// Begun is called when the service has begun to listen for this listener, also after each time that the connection was lost. May
	// be nil.
	Begun func()
}

// Times of Events.
const (
	eventsSilence  = time.Minute // without a sign of life, of which the service gives one every 15 s
	eventsMaxPause = 30 * time.Second
)

// Events listens to the events of a stream until ctx ends. When the connection is lost it goes on where it was as soon as the
// service is there again. An error is told with an empty Event: a *Missed is no end, any other one is, such as an *Error, or that of
// the first connection.
func (c *Client) Events(ctx context.Context, id string, o EventsOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		l := listening{c: c, id: id, EventsOptions: o, yield: yield}
		for try := 0; ; try++ {
			heard, err := l.once(ctx)
			if l.left {
				return
			}
			if cause := context.Cause(ctx); cause != nil {
				yield(Event{}, cause)
				return
			}
			if heard {
				try = 0
			}
			pause := min(firstPause<<min(try, 16), eventsMaxPause)
			var said *Error
			switch {
			case errors.As(err, &said) && said.again(false):
				pause = min(max(pause, said.RetryAfter), max(eventsMaxPause, pause))
			case said != nil, errors.Is(err, ErrAnswer), !l.connected:
				yield(Event{}, err)
				return
			}
			_ = sleep(ctx, pause+time.Duration(rand.Float64()*float64(pause)/4)) // once fails when ctx has ended, and that is told above
		}
	}
}

// listening is what is known over all connections.
type listening struct {
	EventsOptions // LastID is that of the last event
	c             *Client
	id            string // of the stream
	yield         func(Event, error) bool
	connected     bool // at least once
	left          bool // nobody wants more
}

// once listens over one connection, until it breaks.
func (l *listening) once(ctx context.Context) (heard bool, err error) {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	r := call{method: http.MethodGet, path: pathOfStream(l.id) + "/events", header: map[string]string{"Accept": "text/event-stream"}}
	if l.LastID != "" {
		r.header["Last-Event-ID"] = l.LastID
	}
	if l.Frames {
		r.query = url.Values{"frames": {"true"}}
	}
	request, err := l.c.request(ctx, r, http.NoBody)
	if err != nil {
		return false, err
	}
	silent := time.AfterFunc(eventsSilence, hangUp)
	defer silent.Stop()
	response, err := l.c.long.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode != http.StatusOK:
		a, err := l.c.read(r, response)
		if err == nil {
			err = a.fault()
		}
		return false, err
	case media != "text/event-stream":
		return false, fmt.Errorf("%w: %q where events were expected", ErrAnswer, media)
	}
	l.connected = true
	if l.Begun != nil {
		l.Begun()
	}
	limit := int(min(l.c.options.MaxAnswer, 16<<20))
	return true, readEvents(response.Body, limit, func() { silent.Reset(eventsSilence) }, l.hear)
}

// hear tells an event. false: no more.
func (l *listening) hear(kind, id string, data []byte) (bool, error) {
	switch kind {
	case "missed":
		missed, err := readMissed(data)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		l.left = !l.yield(Event{}, missed)
		return !l.left, nil
	case "end": // the service stops, or the stream is deleted
		why := (&answer{status: http.StatusServiceUnavailable, body: data}).fault()
		if why.Code == "stream_not_found" {
			why.Status = http.StatusNotFound
		}
		return false, why
	}
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return false, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if id != "" {
		l.LastID = id
	}
	l.left = !l.yield(e, nil)
	return !l.left, nil
}

// readEvents reads a text/event-stream (HTML, 9.2.6), and calls hear with each event that has data until that says false. alive
// is called for every line, comments included. An event has at most limit bytes. The error is never nil but after a false.
func readEvents(r io.Reader, limit int, alive func(), hear func(kind, id string, data []byte) (bool, error)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, max(limit, 1))
	var kind, id string
	var data []byte
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) == 0 {
			if len(data) > 0 {
				if more, err := hear(kind, id, bytes.TrimSuffix(data, []byte("\n"))); err != nil || !more {
					return err
				}
			}
			kind, id, data = "", "", data[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":")) // a comment has no name
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			kind = string(value)
		case "id":
			id = string(value)
		case "data":
			if len(data)+len(value) >= limit {
				return fmt.Errorf("%w: an event of more than %d bytes", ErrAnswer, limit)
			}
			data = append(append(data, value...), '\n')
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: a line of more than %d bytes", ErrAnswer, limit)
	case err != nil:
		return err
	}
	return io.ErrUnexpectedEOF
}
