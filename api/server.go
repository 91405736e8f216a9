package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"hailoclip/cache"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// Service is what the requests are served with. Everything but Version is needed. The
// functions must be safe for concurrent use.
type Service struct {
	Pipeline *pipeline.Pipeline // decodes, encodes and scores images

	// Prompts returns the vectors of the texts, in their order, which caller asks for. It ends
	// when ctx does. It may keep the strings, which have nothing to do with the body of the
	// request, but not the slice. Besides the errors of package cache it returns
	// pipeline.ErrUnavailable when the encoder is away and pipeline.ErrEncode when it fails.
	Prompts func(ctx context.Context, caller fair.Caller, texts []string) (*cache.Prompts, error)

	// Health says how the service is doing. It is asked before every request with work in it,
	// so it must not block.
	Health func() Health

	// Stats returns what GET /v1/stats answers, as encoding/json takes it. It must not block.
	Stats func() any

	Model          string        // name of the CLIP model
	LogitScale     float64       // factor of the cosines before the softmax, above 0
	Softmax        bool          // score is the probability, not the cosine
	RequestTimeout time.Duration // the deadline of a request, counted from its last byte, above 0
	Version        string        // of the program
	Warning        string        // value of the header X-Clip-Warning of every answer; "": none
	Log            *slog.Logger  // one line for each request
}

func (s Service) validate() error {
	switch {
	case s.Pipeline == nil, s.Prompts == nil, s.Health == nil, s.Stats == nil, s.Log == nil, s.Model == "":
		return errors.New("api: the service is incomplete")
	case !finite(s.LogitScale) || s.LogitScale <= 0:
		return fmt.Errorf("api: logit scale %v is out of bounds: above 0", s.LogitScale)
	case s.RequestTimeout <= 0:
		return fmt.Errorf("api: request timeout %v is out of bounds: above 0", s.RequestTimeout)
	}
	return nil
}

// Server serves the REST interface. Safe for concurrent use.
type Server struct {
	cfg    Config
	svc    Service
	http   *fasthttp.Server
	router *router.Router
	start  time.Time

	proxies []netip.Prefix // trusted ones

	// lastWords is how long the answers of requests that Shutdown gave up have to get out.
	lastWords time.Duration

	works     sync.Pool // of *work
	bodies    bodyMemory
	unpackers chan struct{} // those who unpack a large body now
	stopping  atomic.Bool
	base      context.Context // every request's deadline hangs on it; ends when Shutdown loses patience
	giveUp    context.CancelCauseFunc

	mu        sync.Mutex
	listeners []*listener
}

// New returns a server that is not serving yet.
func New(cfg Config, svc Service) (*Server, error) {
	if err := svc.validate(); err != nil {
		return nil, err
	}
	if err := warmUp(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s := &Server{cfg: cfg, svc: svc, start: time.Now(), lastWords: time.Second}
	s.base, s.giveUp = context.WithCancelCause(context.Background())
	s.unpackers = make(chan struct{}, max(runtime.GOMAXPROCS(0)-1, 1))
	s.works.New = func() any { return newWork(s) }
	s.bodies.free.Store(int64(cfg.MaxBodyMemoryBytes))
	for _, text := range cfg.TrustedProxies {
		p, _ := parseProxy(text) // checked by Check
		s.proxies = append(s.proxies, p)
	}
	s.router = s.routes()
	s.http = &fasthttp.Server{
		Handler:       s.handle,
		ExpectHandler: s.expect,
		ErrorHandler:  s.unreadable,
		Name:          "hailo-clip",
		Logger:        serverLog{svc.Log},

		ReadTimeout:        cfg.ReadTimeout,
		WriteTimeout:       cfg.WriteTimeout,
		IdleTimeout:        cfg.IdleTimeout,
		ConnState:          connState,
		ReadBufferSize:     cfg.MaxHeaderBytes,
		MaxRequestBodySize: cfg.MaxBodyBytes,
		Concurrency:        math.MaxInt32, // our listener bounds them; of those that it has cut some may still be ending

		// The handler reads the body, because read by the server the memory for it is taken
		// when its length is promised, and stays with the connection while that is idle.
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		SecureErrorLogMessage:        true,
	}
	return s, nil
}

func (s *Server) routes() *router.Router {
	r := router.New()
	refuses, never := s.svc.Pipeline.Refuses, func(fair.Caller) error { return nil }
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	r.GET("/health", s.health)
	r.HEAD("/health", s.health)
	r.GET("/v1/stats", s.stats)
	r.GET("/openapi.yaml", s.openAPI)
	r.HEAD("/openapi.yaml", s.openAPI)
	r.POST("/v1/classify", s.working(refuses, s.classify))
	r.POST("/v1/embed/image", s.working(refuses, s.embedImage))
	r.POST("/v1/embed/text", s.working(never, s.embedText))
	r.NotFound = func(ctx *fasthttp.RequestCtx) {
		s.answerError(ctx, fail(errNotFound, "There is no such path, see /openapi.yaml"))
	}
	r.MethodNotAllowed = func(ctx *fasthttp.RequestCtx) {
		s.answerError(ctx, fail(errMethod, "Method not allowed here, see the Allow header"))
	}
	return r
}

// connState keeps the phase of a connection.
func connState(nc net.Conn, state fasthttp.ConnState) {
	c, ok := nc.(*conn)
	switch {
	case !ok:
	case state == fasthttp.StateActive:
		c.enter(serving)
	case state == fasthttp.StateIdle:
		c.enter(waiting)
	}
}

// Serve accepts connections from ln and serves them until Shutdown, then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	l := newListener(ln, s.cfg, s.refusal, s.svc.Log)
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	if s.stopping.Load() {
		_ = l.Close() // it only stops accepting
	}
	s.mu.Unlock()
	defer s.watch(l)()
	if err := s.http.Serve(l); err != nil {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

// watchEvery is how often the clients of requests that are being worked on are looked at.
const watchEvery = 500 * time.Millisecond

// watch cancels the requests of clients that are gone until the function it returns is called,
// and then until no connection is left.
func (s *Server) watch(l *listener) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for ending, done := false, done; !ending || l.count() > 0; {
			select {
			case <-tick.C:
				l.cancelGone()
			case <-done:
				ending, done = true, nil
			}
		}
	}()
	return func() { close(done) }
}

// Shutdown stops accepting, answers new requests on open connections with 503, waits for the
// requests inside and closes the connections. Every connection that a client has opened is
// served to that end, also those that wait to be accepted. When ctx ends first, what is still
// inside is answered with 503, all connections are closed, and the cause of ctx is returned. The
// pipeline must still be running, so close it afterwards.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping.Store(true)
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // it only stops accepting
	}
	for _, l := range listeners {
		l.drain(ctx)
	}
	err := s.http.ShutdownWithContext(ctx)
	s.giveUp(errStopping)
	if ctx.Err() == nil {
		return err
	}
	patience, cancel := context.WithTimeout(context.Background(), s.lastWords)
	defer cancel()
	for _, l := range listeners {
		_ = l.Listener.Close() // it may still have waited for connections that were being opened
		l.waitAnswered(patience)
		l.closeAll()
	}
	return fmt.Errorf("api: requests were cut short: %w", context.Cause(ctx))
}

// serverLog takes what fasthttp has to say; it is about single connections.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Warn("http: " + fmt.Sprintf(format, args...))
}
