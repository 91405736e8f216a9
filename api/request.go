package api

import (
	"bytes"
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/access"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// request owns everything that one HTTP request needs, from its head to its line in the log. It comes from a pool:
// begin takes it, end gives up the handler's hold on it, whatever has happened. The engine has another hold from
// ask until it calls clip.Request.Release, which may be after the answer. The last one of the two that is given up
// puts back the buffer of the body, forgets everything, and puts the request back.
type request struct {
	server  *Server
	rules   *rules              // that it is served by
	scratch *[scratchBytes]byte // for decodeFast, which reads only what it has written in the same step
	release func()              // unhold, bound once
	seen    func()              // unholdBody, likewise

	ctx   *fasthttp.RequestCtx // the handler's alone
	conn  *conn
	state state

	dialects *dialects     // of its route; nil: it is one of the service's own
	watched  *watched      // of its route; Server.other until that is known
	lasts    bool          // for as long as the client likes
	took     time.Duration // to write the answer; 0: not written

	id    string
	start time.Time
	fault outcome // what went wrong; its err is nil while nothing did

	grant   *access.Grant // what its key grants; nil: it was refused, or its route needs no key
	inside  bool          // it counts as inside, see access.Grant.Enter
	caller  fair.Caller
	body    []byte          // as it came; later the image, over its own text; of Server.bodies. The engine's, once it has the image
	size    int             // bytes of it that have come
	input   input           // lies in body
	address string          // of the image, where it is to be fetched; "": it lies in body
	source  string          // by name, that is asked for the image; "": none
	fetched fetched         // images by address
	texts   []string        // as the client wrote them
	items   *batchItems     // images and texts of a batch or a comparison; nil: there are none
	vectors vectors         // how it wants embeddings
	set     *setAsk         // what is asked of a prompt set; nil: nothing
	stream  *streamAsk      // what is asked of a stream; nil: nothing
	counts  []tokenCount    // of texts, where only that is asked
	compat  *compatAsk      // what is asked in a dialect; nil: nothing
	pushed  *pushed         // frames, and what came of them; nil: none
	ask     clip.Request    // what the engine is asked: its image lies in body, its prompts are texts, see trimmed
	work    context.Context // carries the deadline
	arrived time.Time       // when the body was complete
	read    time.Duration   // that the JSON and the base64 took
	coming  time.Duration   // that the image took to come from its address or source; 0: it was in the body
	timings bool            // the answer is to have "timings"
	flat    bool            // the answer is to be flat, see appendFlat
	result  clip.Result

	holders atomic.Int32
}

// state is how far a request has got.
type state uint8

const (
	headless state = iota // it could not be read so far that method and path are known
	asking                // there is a head with "Expect: 100-continue": the client waits to hear whether the body is wanted
	invited               // it is
	arriving              // there is a head; if there is a body, it is not read, or not to its end
	received              // the body is read to its end
)

const (
	headerRequestID = "X-Request-Id"
	headerTimeout   = "X-Request-Timeout-Ms"
	headerWarning   = "X-Clip-Warning"
	requestKey      = "request"
)

// begin makes a request of what the HTTP server has read. end must be called in the end.
func (s *Server) begin(ctx *fasthttp.RequestCtx, st state) *request {
	r := s.requests.Get().(*request)
	r.holders.Store(1)
	r.rules = s.rules.Load()
	r.ctx, r.conn, r.state, r.start, r.watched = ctx, connOf(ctx), st, time.Now(), s.other
	ctx.SetUserValue(requestKey, r)
	h := &ctx.Response.Header
	if st == headless {
		r.id = newRequestID()
	} else {
		r.id = requestID(&ctx.Request.Header)
		h.Set(fasthttp.HeaderXContentTypeOptions, "nosniff")
	}
	h.Set(headerRequestID, r.id)
	if s.svc.Warning != "" {
		h.Set(headerWarning, s.svc.Warning)
	}
	return r
}

// requestOf is the request that begin has made of ctx.
func requestOf(ctx *fasthttp.RequestCtx) *request { return ctx.UserValue(requestKey).(*request) }

// end counts the request and writes its line in the log, unless another request goes on where this one stops, and gives up the
// handler's hold.
func (r *request) end() {
	defer r.unhold()
	if r.state == invited {
		return
	}
	took := time.Since(r.start)
	r.record(took)
	r.log(took)
}

// unhold gives up one hold on r, which must not be used by its holder afterwards.
func (r *request) unhold() {
	if r.holders.Add(-1) > 0 {
		return
	}
	if poison != nil {
		poison(r.scratch[:])
	}
	s := r.server
	s.bodies.put(r.caller.Address, r.body)
	for _, image := range r.fetched.images {
		s.bodies.put(r.caller.Address, image)
	}
	*r = request{server: s, scratch: r.scratch, release: r.release, seen: r.seen}
	s.requests.Put(r)
}

// unholdBody gives up the engine's hold, and before that the body, in which nothing lies but the image.
func (r *request) unholdBody() {
	r.server.bodies.put(r.caller.Address, r.body)
	r.body = nil
	r.unhold()
}

// handle is what the HTTP server calls for every request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := s.begin(ctx, arriving)
	defer r.end()
	r.answer()
	if ctx.Request.IsBodyStream() && r.state != received || s.Draining() || r.conn.place() != regular {
		ctx.SetConnectionClose()
		r.conn.lingers.Store(true)
	}
}

// expect runs before handle for a request with "Expect: 100-continue". What the head of the
// request is enough for, such as most refusals, is answered here, so that the body is never
// sent. Otherwise it returns 100 and leaves the request to handle. The server closes the
// connection after any other status, because the client may have sent the body all the same.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	r := s.begin(ctx, asking)
	defer r.end()
	if r.answer(); r.state == invited {
		return fasthttp.StatusContinue
	}
	r.conn.lingers.Store(true)
	return ctx.Response.StatusCode()
}

// unreadable answers a request that could not be read far enough to get to handle. The server
// closes the connection after it.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	ctx.Response.Reset()
	r := s.begin(ctx, headless)
	defer r.end()
	r.answerError(r.conn.readError(err))
	r.conn.lingers.Store(true)
}

// answer makes the answer, whatever is wrong with the request, and contains the panics of its handler.
func (r *request) answer() {
	defer func() {
		if v := recover(); v != nil {
			r.answerError(&pipeline.PanicError{Stage: "api", Value: v, Stack: debug.Stack()})
		}
	}()
	if ambiguous(&r.ctx.Request.Header) {
		r.answerError(fail(errMalformed, "The request has both Content-Length and Transfer-Encoding"))
		return
	}
	if r.conn.place() == overLimit && !isProbe(string(r.ctx.Path())) {
		r.answerError(errTooManyConns)
		return
	}
	if answered, err := r.screen(); err != nil {
		r.answerError(err)
	} else if !answered {
		r.rules.routerOf(r.conn).Handler(r.ctx) // finds the route and calls serve
	}
}

// answerError makes the answer that says what went wrong.
func (r *request) answerError(err error) {
	r.fault = outcomeOf(err)
	writeError(r.ctx, r.fault, func(b []byte) ([]byte, int) {
		if r.dialects != nil {
			return r.failCompat(b, r.fault)
		}
		return appendError(b, r.fault, r.id), r.fault.status
	})
}

// ambiguous says that the request has two lengths. A server before this one may have taken the
// other, so that what follows would be read as a request of somebody else.
func ambiguous(h *fasthttp.RequestHeader) bool {
	if h.ContentLength() != -1 { // not chunked
		return false
	}
	lower, length := bytes.ToLower(h.RawHeaders()), []byte("content-length")
	return bytes.HasPrefix(lower, length) || bytes.Contains(lower, append([]byte("\n"), length...))
}
