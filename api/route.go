package api

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// route is all that tells the requests for one path from those for others.
type route struct {
	methods string                  // with a space between them
	path    string                  // as package router has it
	limit   time.Duration           // for the answer; a request may ask for less. 0: it needs none, or has all the time it likes
	reads   []reader                // the kinds of body that are taken; none: a body is not read
	refuses func(fair.Caller) error // says that the full queue refuses a caller, see serve; nil: it needs no queue
	do      func(*request) error    // has the engine do what the reader has found; nil: there is nothing to do
	answers func(*request) error    // writes the answer
}

// reader is a kind of body.
type reader struct {
	media   string                  // what to send, for who has sent something else
	accepts func(media []byte) bool // a media type in lower case without parameters; empty where none was named
	limit   int                     // bytes, or endless
	read    func(*request) error    // makes clip.Request of request.body, which may be changed for that
}

// endless is the limit of a body that is not received: request.do reads it, for as long as it lasts.
const endless = -1

// routes is everything that is served.
func (s *Server) routes(to *rules) []route {
	e, one, many := s.svc.Engine, to.one, to.many
	json := func(read func(*request, *input) error) []reader {
		return []reader{{"application/json", isJSON, s.cfg.MaxBodyBytes, jsonReader(read)}}
	}
	return append([]route{
		{"GET HEAD", "/", 0, nil, nil, nil, s.home},
		{"GET HEAD", consolePath + "{name}", 0, nil, nil, nil, s.consoleFile},
		{"GET HEAD", "/health", 0, nil, nil, nil, s.health},
		{"GET HEAD", "/healthz", 0, nil, nil, nil, s.healthz},
		{"GET HEAD", "/readyz", 0, nil, nil, nil, s.readyz},
		{"GET", "/v1/stats", 0, nil, nil, nil, s.stats},
		{"GET", "/v1/fleet", 0, nil, nil, nil, s.fleet},
		{"GET HEAD", "/openapi.yaml", 0, nil, nil, nil, describe("openapi.yaml")},
		{"GET HEAD", "/openapi.json", 0, nil, nil, nil, describe("openapi.json")},
		{"GET HEAD", "/docs", 0, nil, nil, nil, describe("docs.html")},
		{"POST", "/v1/classify", one, s.imageBodies(readClassify), e.Refuses, image(e.Classify), (*request).answerClassification},
		{"POST", "/v1/embed/image", one, s.imageBodies(readImage), e.Refuses, image(e.EmbedImage), embedding},
		{"POST", "/v1/embed/text", one, json(readText), nil, (*request).embedText, embedding},
		{"POST", "/v1/tokens", one, json(readTokens), nil, (*request).countTokens, result(appendTokens)},
		{"POST", "/v1/classify/batch", many, s.batchBodies(readClassifyBatch), nil, (*request).classifyBatch, (*request).answerClassifyBatch},
		{"POST", "/v1/embed/batch", many, s.batchBodies(readEmbedBatch), nil, (*request).embedBatch, (*request).answerEmbedBatch},
		{"POST", "/v1/compare", many, s.batchBodies(readComparison)[:1], nil, (*request).compare, (*request).answerComparison},
	}, slices.Concat(s.promptSetRoutes(to), s.streamRoutes(to), s.adminRoutes(to))...)
}

// newRouter finds the routes by method and path: all of them, or those of the dialect own on its own listener.
func (s *Server) newRouter(by *rules, own string) *router.Router {
	r := router.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	paths := map[string]*watched{}
	var others *dialects // who tells errors of other paths; nil: the service itself
	add := func(to *route, d *dialects) fasthttp.RequestHandler {
		if paths[to.path] == nil {
			paths[to.path] = s.watch(to.path)
		}
		handle := to.handle(paths[to.path], d)
		for _, method := range strings.Fields(to.methods) {
			r.Handle(method, to.path, handle)
		}
		return handle
	}
	if own == "" {
		for _, to := range s.routes(by) {
			add(&to, nil)
		}
	}
	forgiving := map[string]fasthttp.RequestHandler{} // by method and path
	for _, d := range s.compatRoutes(by, own) {
		handle := add(&d.route, d)
		if own != "" {
			others = d
			continue
		}
		for _, method := range strings.Fields(d.methods) {
			forgiving[method+d.path] = handle
		}
	}
	refuse := func(err error) fasthttp.RequestHandler {
		return (&route{answers: func(*request) error { return err }}).handle(s.other, others)
	}
	none := refuse(fail(errNotFound, "There is no such path, see /docs"))
	twice := refuse(fail(errNotFound, "There is no such path, see /docs: the client adds /v1 itself, leave it out of the address"))
	r.NotFound = func(ctx *fasthttp.RequestCtx) {
		path := string(ctx.URI().PathOriginal()) // which the router goes by
		if handle := forgiving[string(ctx.Method())+"/"+strings.Trim(path, "/")]; handle != nil {
			handle(ctx) // its user has given the client an address that ends with a slash
		} else if strings.HasPrefix(path, "/v1/v1/") || strings.HasPrefix(path, "/v1/v2/") || strings.HasPrefix(path, "/v1/api/") {
			twice(ctx)
		} else {
			none(ctx)
		}
	}
	r.MethodNotAllowed = refuse(fail(errMethod, "Method not allowed here, see the Allow header"))
	return r
}

// handle serves requests by a route; d is nil for those of the service's own.
func (to *route) handle(w *watched, d *dialects) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		r := requestOf(ctx)
		r.dialects, r.watched = d, w
		r.lasts = len(to.reads) > 0 && to.reads[0].limit == endless
		err := r.enter(to)
		if err == nil {
			defer r.leave()
			err = r.serve(to)
		}
		if err != nil {
			r.answerError(err)
		}
	}
}

// serve answers a request by its route. What can be refused is refused as early as that helps: what the head is enough
// for before the body is read, and what the full queue would refuse as soon as the connection can be used for the next
// request, before time is spent on the JSON and the base64.
func (r *request) serve(to *route) error {
	s := r.server
	if to.reads == nil {
		if to.limit > 0 {
			limit, err := timeout(&r.ctx.Request.Header, to.limit)
			if err != nil {
				return err
			}
			var stop context.CancelFunc
			r.work, stop = context.WithTimeout(s.base, limit)
			defer stop()
			r.caller = r.whose()
		}
		return to.answers(r)
	}
	body, limit, err := r.admit(to)
	if err != nil {
		return err
	}
	r.caller = r.whose()
	if r.state != asking && body.limit != endless {
		if err := r.receive(body.limit); err != nil {
			return err
		}
	}
	if to.refuses != nil && r.lane().Policy() != pipeline.Bulk {
		if err := to.refuses(r.caller); err != nil {
			return err
		}
	}
	if r.state == asking {
		r.state = invited
		return nil
	}
	r.arrived = time.Now()
	cancelable, cancel := context.WithCancelCause(s.base)
	defer cancel(nil)
	if body.limit == endless {
		r.conn.stream(cancel)
		r.work = cancelable
	} else {
		deadline, stop := context.WithTimeout(cancelable, limit)
		defer stop()
		r.conn.work(cancel)
		r.work = deadline
	}
	if err := r.unpack(body.read); err != nil {
		return err
	}
	if err := to.do(r); err != nil {
		return err
	}
	return to.answers(r)
}

// admit turns away what the head of the request is enough for. It returns the kind of body that the request has, and
// the time for its answer.
func (r *request) admit(to *route) (body *reader, limit time.Duration, err error) {
	s, h := r.server, &r.ctx.Request.Header
	if s.refuses(r.conn) {
		return nil, 0, errStopping
	}
	if body, err = to.reader(h); err != nil {
		return nil, 0, err
	}
	if body.limit != endless {
		if h.ContentLength() > body.limit {
			return nil, 0, tooLarge(body.limit)
		}
		if limit, err = timeout(h, to.limit); err != nil {
			return nil, 0, err
		}
	}
	if (r.dialects == nil || !r.dialects.always) && s.svc.Engine.State() == clip.Unhealthy {
		return nil, 0, s.notReady()
	}
	return body, limit, nil
}

// notReady says why nothing can be encoded.
func (s *Server) notReady() error {
	return fail(errNotReady, "The service is not ready: %s", s.svc.Engine.Health().Reason)
}

// timeout is how long the client is ready to wait, at most limit.
func timeout(h *fasthttp.RequestHeader, limit time.Duration) (time.Duration, error) {
	sent := h.Peek(headerTimeout)
	if len(sent) == 0 {
		return limit, nil
	}
	ms, err := strconv.ParseInt(string(sent), 10, 64)
	if errors.Is(err, strconv.ErrRange) && ms > 0 {
		return limit, nil
	}
	if err != nil || ms < 1 {
		return 0, fail(errInvalidRequest, headerTimeout+" must be a number of milliseconds, an integer of at least 1")
	}
	return min(limit, time.Duration(min(ms, limit.Milliseconds()+1))*time.Millisecond), nil
}

// mediaOf is the media type that a request names, as reader.accepts has it.
func mediaOf(h *fasthttp.RequestHeader) []byte {
	media, _, _ := bytes.Cut(h.ContentType(), []byte(";"))
	return bytes.ToLower(bytes.TrimSpace(media))
}

// reader returns the one for the media type that the request names.
func (to *route) reader(h *fasthttp.RequestHeader) (*reader, error) {
	media := mediaOf(h)
	at := slices.IndexFunc(to.reads, func(b reader) bool { return b.accepts(media) })
	if at < 0 {
		var wanted []string
		for _, b := range to.reads {
			wanted = append(wanted, b.media)
		}
		return nil, fail(errMediaType, "Unsupported Content-Type: send %s", strings.Join(wanted, " or "))
	}
	if coding := h.ContentEncoding(); len(coding) > 0 && !bytes.EqualFold(coding, []byte("identity")) {
		return nil, fail(errMediaType, "Unsupported Content-Encoding: send the body as it is")
	}
	return &to.reads[at], nil
}

// unpack has a reader read the body.
func (r *request) unpack(read func(*request) error) error {
	err := read(r)
	r.read = time.Since(r.arrived)
	r.server.svc.Recorder.Stage("read", r.read)
	return err
}

// largeBody is the size from which JSON is read in turn: it and its base64 take milliseconds.
const largeBody = 1 << 20

// inTurn has large bodies wait, until the deadline, for their caller's turn to be read, so that they do not take every processor at
// a time: who has a small one, or asks for /health, is answered meanwhile, and who has one that takes seconds comes after others.
func inTurn(read func(*request) error) func(*request) error {
	return func(r *request) error {
		if len(r.body) >= largeBody {
			done, err := r.server.unpacking.Take(r.work, r.caller)
			if err != nil {
				return pipeline.Late(r.work)
			}
			defer done()
		}
		return read(r)
	}
}

// image has the engine do something with the image of a request, which it fetches first if need be. After an error the engine may
// still be reading the image.
func image(do func(context.Context, *clip.Request) (clip.Result, error)) func(*request) error {
	return func(r *request) (err error) {
		if r.address != "" {
			if r.ask.Image, err = r.fetch(r.address); err != nil {
				return err
			}
			r.hasCome()
		}
		r.holders.Add(1)
		r.ask.Release, r.ask.Lane = r.seen, r.lane()
		r.result, err = do(r.work, &r.ask)
		return err
	}
}

// hasCome says that the image has come from elsewhere: what follows takes as long as if it had been in the body.
func (r *request) hasCome() {
	now := time.Now()
	r.coming, r.arrived = now.Sub(r.arrived)-r.read, now
}

// embedText has the engine embed the text of a request.
func (r *request) embedText() error {
	start := time.Now()
	found, err := r.server.svc.Engine.EmbedTexts(r.work, r.caller, r.ask.Prompts)
	if err != nil {
		return err
	}
	r.result.Embedding, r.result.Prompts, r.result.TextTime = found.Rows[0].Embedding, found, time.Since(start)
	return nil
}
