package api

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"

	"hailoclip/api/stream/event"
	"hailoclip/pipeline"
)

const mediaEvents = "text/event-stream"

// events answers GET /v1/streams/{id}/events: with events as they come, or with a list of those that were.
func (s *Server) events(r *request) error {
	id, err := r.streamID()
	if err != nil {
		return err
	}
	since := string(r.ctx.QueryArgs().Peek("since"))
	if sent := r.ctx.Request.Header.Peek("Last-Event-ID"); len(sent) > 0 {
		since = string(sent)
	}
	if len(since) > 0 && !event.ValidID(since) {
		return fail(errInvalidRequest, "'since' must be the id of an event")
	}
	if bytes.Contains(bytes.ToLower(r.ctx.Request.Header.Peek(fasthttp.HeaderAccept)), []byte(mediaEvents)) {
		return s.listen(r, id, since)
	}
	return s.listEvents(r, id, since)
}

// listEvents answers with the events that are stored or, of a stream that stores none, those that the service remembers.
func (s *Server) listEvents(r *request, id, since string) error {
	limit := 100
	if sent := r.ctx.QueryArgs().Peek("limit"); len(sent) > 0 {
		var err error
		if limit, err = strconv.Atoi(string(sent)); err != nil || limit < 1 || limit > event.MaxList {
			return fail(errInvalidRequest, "'limit' must be a number from 1 to %d", event.MaxList)
		}
	}
	order := string(r.ctx.QueryArgs().Peek("order"))
	if order != "" && order != "asc" && order != "desc" {
		return fail(errInvalidRequest, "'order' must be asc or desc")
	}
	done, err := s.telling.Take(r.work, r.caller) // a thousand events may be several MB
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	list := []event.Event{}
	if s.svc.Store != nil {
		from := s.svc.Store.List
		if order == "desc" {
			from = s.svc.Store.Newest
		}
		stored, err := from(r.work, id, since, limit)
		if err != nil {
			return err
		}
		list = append(list, stored...)
	}
	info, unknown := s.svc.Hub.Get(id)
	if stores := info.Events != nil && info.Events.Store; len(list) == 0 && !stores {
		remembered, _ := s.svc.Bus.Remembered(id, since)
		if order == "desc" {
			slices.Reverse(remembered)
		}
		for _, e := range remembered[:min(len(remembered), limit)] {
			list = append(list, *e)
		}
	}
	if len(list) == 0 && unknown != nil && since == "" {
		return unknown
	}
	return r.answerPlain(map[string][]event.Event{"events": list})
}

// listen answers with events as they come, until the client leaves, the stream is deleted, or the service stops.
func (s *Server) listen(r *request, id, since string) error {
	if err := r.mayLast(); err != nil {
		return err
	}
	if _, err := s.svc.Hub.Get(id); err != nil {
		return err
	}
	frames, err := r.flag("frames")
	if err != nil {
		return err
	}
	kept := s.keepsMore(r, id, since)
	l, filter := r.lasting(working), event.Filter{Stream: id, Frames: frames}
	from, done, err := s.svc.Hub.Listen(l.caller.Address, filter, since)
	if err != nil {
		l.cancel(nil)
		return err
	}
	context.AfterFunc(l.ctx, done) // also where there is no time for serve
	h := &r.ctx.Response.Header
	h.SetContentType(mediaEvents)
	h.Set(fasthttp.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // of nginx
	h.SetConnectionClose()
	r.takeOver(l, func() error {
		if _, err := l.Write([]byte(": hailo-clip\n\n")); err != nil { // so that the client sees the answer begin
			return errGone
		}
		if kept {
			more, err := s.tellKept(l, filter, since)
			if err != nil {
				return err
			}
			defer more.Close()
			from = more
		}
		return s.tell(l, id, from, kept)
	})
	return nil
}

// keepsMore says that who was last told of the event since is to hear of stored events: the bus does not remember that one, as after
// a restart, and the store has it.
func (s *Server) keepsMore(r *request, id, since string) bool {
	if since == "" || s.svc.Store == nil {
		return false
	}
	if _, whole := s.svc.Bus.Remembered(id, since); whole {
		return false
	}
	e, err := s.svc.Store.Get(r.work, since)
	return err == nil && e.Stream == id
}

// tellKept writes the stored events after since, and begins to listen behind them. Events are stored before they are published, and in
// the same order: if the bus does not remember the last one, which is older than all that it does, none of those has been written.
func (s *Server) tellKept(l *lasting, filter event.Filter, since string) (from *event.Listener, err error) {
	for {
		events, err := s.svc.Store.List(l.ctx, filter.Stream, since, event.MaxList)
		if err != nil {
			return nil, err
		}
		for i := range events {
			e := &events[i]
			if since = e.ID; l.ctx.Err() != nil {
				return nil, errGone
			}
			if data, err := json.Marshal(e); err == nil { // always, as all scores are finite
				if _, err := l.Write(appendMessage(nil, e.ID, string(e.Kind), data)); err != nil {
					return nil, errGone
				}
			}
		}
		if len(events) < event.MaxList {
			return s.svc.Bus.Listen(filter, since), nil
		}
	}
}

// flag is an option of the query that is true or false, which is also what it is without.
func (r *request) flag(name string) (bool, error) {
	sent := string(r.ctx.QueryArgs().Peek(name))
	if sent == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(sent)
	if err != nil {
		return false, fail(errInvalidRequest, "'%s' must be true or false", name)
	}
	return on, nil
}

// tell writes what a listener hears, one write for each event that is not very large. While the client does not read, events are
// missed, which it is told; with resumed not what the listener says before the first event, that it does not know what was missed.
func (s *Server) tell(l *lasting, id string, from *event.Listener, resumed bool) error {
	ctx, end := context.WithCancelCause(l.ctx)
	defer end(nil)
	stop := context.AfterFunc(s.quiet, func() { end(errStopping) })
	defer stop()
	keep := context.AfterFunc(l.grant.Revoked(), func() { end(errRevoked) })
	defer keep()
	var b []byte
	for {
		within, cancel := context.WithTimeout(ctx, s.heartbeat)
		e, missed, err := from.Next(within)
		cancel()
		switch b = b[:0]; {
		case l.ctx.Err() != nil && isGone(context.Cause(l.ctx)):
			return errGone
		case err == nil:
			if missed > 0 || missed < 0 && !resumed {
				b = appendMessage(b, "", "missed", appendMissed(nil, missed))
			}
			if resumed = false; e == nil {
				break
			}
			data := e.Text
			if data == nil {
				data, _ = json.Marshal(e) // it does not fail, as all scores are finite
			}
			if len(data) <= largeAnswer {
				b = appendMessage(b, e.ID, string(e.Kind), data)
				break
			}
			b = appendMessage(b, e.ID, string(e.Kind), nil) // not with the data, which many listeners have in common
			for _, part := range [...][]byte{b[:len(b)-len(lineEnd)], data} {
				if _, err := l.Write(part); err != nil {
					return errGone
				}
			}
			b = append(b[:0], lineEnd...)
		case ctx.Err() != nil:
			why := context.Cause(ctx)
			_, _ = l.Write(appendMessage(b, "", "end", appendError(nil, outcomeOf(why), l.id))) // it is over either way
			return why
		default:
			b = append(b, ":\n\n"...)
			if _, err := s.svc.Hub.Get(id); err != nil {
				end(err)
			}
		}
		if _, err := l.Write(b); err != nil {
			return errGone
		}
	}
}

// lineEnd ends a message.
const lineEnd = "\n\n"

// appendMessage appends a message of text/event-stream; data has no line's end.
func appendMessage(b []byte, id, kind string, data []byte) []byte {
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	b = append(append(append(b, "event: "...), kind...), "\ndata: "...)
	return append(append(b, data...), lineEnd...)
}

// appendMissed appends how many events were lost; below 0: nobody knows.
func appendMissed(b []byte, n int) []byte {
	if n < 0 {
		return append(b, `{"missed":null}`...)
	}
	return append(strconv.AppendInt(append(b, `{"missed":`...), int64(n), 10), '}')
}

// storedEvent returns the event that the path names.
func (r *request) storedEvent() (event.Event, error) {
	id, err := r.eventID()
	if err != nil {
		return event.Event{}, err
	}
	return r.server.svc.Store.Get(r.work, id)
}

// eventID is the id in the path, where there is a store for it.
func (r *request) eventID() (string, error) {
	id, _ := r.ctx.UserValue("id").(string)
	if !event.ValidID(id) {
		return "", event.ErrNoEvent
	}
	if r.server.svc.Store == nil {
		return "", r.server.svc.Lost
	}
	return string(append([]byte(nil), id...)), nil
}

// getEvent answers with an event and its vector.
func (r *request) getEvent() error {
	as, err := vectorsOf(r.ctx)
	if err != nil {
		return err
	}
	e, err := r.storedEvent()
	if err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(e.Vector) > 0 && as != vectorsBinary {
		text = append(appendVector(append(text[:len(text)-1], ','), e.Vector, as), '}')
	}
	return r.answerJSON(json.RawMessage(text))
}

func (r *request) deleteEvent() error {
	if r.server.stopping.Load() {
		return errStopping
	}
	id, err := r.eventID()
	if err == nil {
		err = r.server.svc.Store.Delete(r.work, id)
	}
	if err == nil {
		r.ctx.SetStatusCode(fasthttp.StatusNoContent)
	}
	return err
}

// thumbnail answers with the small image of an event, which never changes.
func (r *request) thumbnail() error {
	e, err := r.storedEvent()
	if err != nil {
		return err
	}
	if len(e.JPEG) == 0 {
		return fail(errNotFound, "The event has no thumbnail")
	}
	h := &r.ctx.Response.Header
	h.SetContentType("image/jpeg")
	h.Set(fasthttp.HeaderCacheControl, "private, max-age=86400, immutable")
	r.ctx.Response.SetBodyRaw(e.JPEG)
	return nil
}
