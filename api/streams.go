package api

import (
	"encoding/json"
	"errors"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/pipeline"
)

// streamRoutes are the routes of streams and events.
func (s *Server) streamRoutes(by *rules) []route {
	if s.svc.Hub == nil {
		return nil
	}
	const all, one, event = "/v1/streams", "/v1/streams/{id}", "/v1/events/{id}"
	brief := s.svc.RequestTimeout
	return []route{
		{"GET", "/v1/classify", by.one, []reader{{"no body", anyMedia, 0, readSource}}, s.svc.Engine.Refuses, (*request).classifySource, (*request).answerClassification},
		{"GET", "/v1/stream", 0, nil, nil, nil, s.upgrade},
		{"GET", all, brief, nil, nil, nil, (*request).listStreams},
		{"GET", one, brief, nil, nil, nil, (*request).getStream},
		{"DELETE", one, brief, nil, nil, nil, (*request).deleteStream},
		{"PUT", one, brief, []reader{{"application/json", isJSON, maxDefinitionBytes, readStream}}, nil, (*request).putStream, (*request).answerStream},
		{"POST", one + "/frames", 0, []reader{
			{"frames: multipart/x-mixed-replace, image/jpeg or application/octet-stream", isFrames, endless, readFrames},
		}, nil, (*request).pushFrames, (*request).answerFrames},
		{"GET", one + "/events", brief, nil, nil, nil, s.events},
		{"GET", event, brief, nil, nil, nil, (*request).getEvent},
		{"DELETE", event, brief, nil, nil, nil, (*request).deleteEvent},
		{"GET", event + "/thumbnail", brief, nil, nil, nil, (*request).thumbnail},
	}
}

// streamAsk is what a request for a stream asks, and what came of it.
type streamAsk struct {
	id         string
	definition []byte // PUT: lies in the body
	info       stream.Info
	created    bool
}

func (r *request) streamID() (string, error) { return r.pathName("id", "a stream", event.ValidName) }

// listStreams is one of few at a time: the list has all definitions.
func (r *request) listStreams() error {
	done, err := r.server.telling.Take(r.work, r.caller)
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	return r.answerPlain(map[string][]stream.Info{"streams": r.server.svc.Hub.List()})
}

func (r *request) getStream() error {
	id, err := r.streamID()
	if err != nil {
		return err
	}
	info, err := r.server.svc.Hub.Get(id)
	if err != nil {
		return err
	}
	return r.answerPlain(info)
}

func (r *request) deleteStream() error {
	if r.server.stopping.Load() {
		return errStopping
	}
	id, err := r.streamID()
	if err != nil {
		return err
	}
	if err := r.server.svc.Hub.Delete(r.work, id); err != nil {
		return err
	}
	r.ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}

// readStream reads the name of a stream that is to be defined, and has the body for its definition.
func readStream(r *request) error {
	id, err := r.streamID()
	if err != nil {
		return err
	}
	definition, err := rawjson.UTF8(r.body)
	r.stream = &streamAsk{id: id, definition: definition}
	return err
}

func (r *request) putStream() (err error) {
	a := r.stream
	a.info, a.created, err = r.server.svc.Hub.Put(r.work, a.id, a.definition)
	return definitionFailure(err, "body", a.definition)
}

// definitionFailure says what is wrong with the text of a definition as a whole.
func definitionFailure(err error, what string, text []byte) error {
	var fault sets.Fault
	switch {
	case !errors.As(err, &fault) || fault.Field != "":
		return err
	case !json.Valid(text):
		return fail(errInvalidJSON, "The %s %s", what, fault.Problem)
	}
	return fail(errInvalidRequest, "The %s %s", what, fault.Problem)
}

func (r *request) answerStream() error {
	if r.stream.created {
		r.ctx.SetStatusCode(fasthttp.StatusCreated)
		r.ctx.Response.Header.Set(fasthttp.HeaderLocation, "/v1/streams/"+r.stream.id)
	}
	return r.answerPlain(r.stream.info)
}
