package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/access"
	"hailoclip/api/admin"
	"hailoclip/api/compat"
	"hailoclip/api/console"
	"hailoclip/api/fleet"
	"hailoclip/api/outbound"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/notify"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Service is what the requests are served with. Everything but Version and Warning is needed.
type Service struct {
	Engine         *clip.Engine  // must outlive the server
	RequestTimeout time.Duration // the deadline of a request, counted from its last byte, above 0
	BatchTimeout   time.Duration // that of one with many images, above 0
	Version        string        // of the program
	Warning        string        // value of the header X-Clip-Warning of every answer; "": none
	Log            *slog.Logger  // lines of requests, see lines
	LogEvery       int           // of the successes of a route one in so many has a line, the first of them; 0: none

	Hub    *stream.Hub // nil: there are no streams, and no routes of them. It must outlive the server, as must what follows
	Bus    *event.Bus  // what the hub tells listeners by; needed with it
	Store  *event.Store
	Lost   error   // why there is no store
	Memory *Memory // for bodies and frames; nil: one of its own

	Compat compat.Config // the dialects of other systems that are spoken
	MadeUp bool          // vectors tell nothing of what they are of, and dialects must not get them into an index

	Access   *access.Keys     // who may ask; its Apply changes that at any time. nil: anybody
	Notifier *notify.Notifier // whose counters are in /v1/stats; nil: there is none
	Allowed  outbound.Allowed // hosts that are asked for images that callers name; zero: none

	Fleet func(context.Context) *fleet.Status // what is known of the fleet; nil: the service is in none

	Samples    []Sample        // that the console offers
	Recorder   *admin.Recorder // of requests and durations; nil: nothing is recorded
	Admin      *admin.Parts    // what /metrics and /admin/* are served with, of which Metrics is not needed; nil: not here
	LogDropped func() uint64   // lines of the log that were dropped so far; nil: not known
}

// Server serves the REST interface. Safe for concurrent use.
type Server struct {
	cfg   Config
	svc   Service
	http  *fasthttp.Server
	start time.Time

	rules       atomic.Pointer[rules]
	certificate *certificate // nil: no TLS

	consoleFiles func() map[string]console.File // by name; the first call makes and compresses them

	// abortTime is how long the answers of requests that Shutdown gave up have to get out.
	abortTime time.Duration

	logEvery  atomic.Int64
	unlogged  atomic.Uint64   // requests without a line
	heads     *decode.Decoder // reads the heads of images
	other     *watched        // the requests that no route takes
	upstream  *http.Client    // see request.forward
	forwards  *shares
	pseudonym string    // of this server in the headers Via of what it forwards
	requests  sync.Pool // of *request
	bodies    *Memory
	lents     sync.Pool // of *lent
	fetcher   *fetcher
	unpacking *fair.Turns     // to read a large body
	telling   *fair.Turns     // to read a prompt set, which may be large, and to make JSON of it
	trials    *fair.Turns     // to evaluate a prompt set: a thousand images by a thousand labels take tens of MB
	matching  *fair.Turns     // to classify a batch with very many matches, which are kept until all are there
	draining  atomic.Bool     // see Draining
	stopping  atomic.Bool     // Shutdown has begun
	live      context.Context // of streams; ends when Shutdown begins
	endLive   context.CancelFunc
	quiet     context.Context // of listeners to events; ends when there are no more frames
	endQuiet  context.CancelFunc
	pingEvery time.Duration   // how often the clients of WebSockets are asked whether they are there
	heartbeat time.Duration   // likewise, for listeners to events
	base      context.Context // every request's deadline hangs on it; ends when Shutdown loses patience
	giveUp    context.CancelCauseFunc

	mu        sync.Mutex
	listeners []*listener
}

// spared is how many processors what takes long may have: all but one, where there are several.
func spared() int { return max(runtime.GOMAXPROCS(0)-1, 1) }

// New returns a server that is not serving yet.
func New(cfg Config, svc Service) (*Server, error) {
	if svc.Engine == nil || svc.Log == nil || svc.RequestTimeout <= 0 || svc.BatchTimeout <= 0 {
		return nil, errors.New("api: the service needs an engine, a log, and time limits above 0")
	}
	if err := warmUp(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s := &Server{cfg: cfg, svc: svc, start: time.Now(), abortTime: time.Second}
	if cfg.TLS.On() {
		var err error
		if s.certificate, err = cfg.TLS.certificate(svc.Log); err != nil {
			return nil, err
		}
	}
	s.base, s.giveUp = context.WithCancelCause(context.Background())
	s.live, s.endLive = context.WithCancel(s.base)
	s.quiet, s.endQuiet = context.WithCancel(s.base)
	s.pingEvery, s.heartbeat = 20*time.Second, 15*time.Second
	s.unpacking, s.telling = fair.NewTurns(spared()), fair.NewTurns(spared())
	s.trials, s.matching = fair.NewTurns(trialsAtOnce), fair.NewTurns(matchingAtOnce)
	s.fetcher = newFetcher(svc.Allowed)
	s.requests.New = func() any {
		r := &request{server: s, scratch: new([scratchBytes]byte)}
		r.release, r.seen = r.unhold, r.unholdBody
		return r
	}
	s.lents.New = func() any {
		l := &lent{server: s}
		l.release = l.giveBack
		return l
	}
	if s.svc.Access == nil {
		s.svc.Access = access.New(access.Config{})
	}
	if s.bodies = svc.Memory; s.bodies == nil {
		s.bodies = cfg.NewMemory()
	}
	s.SetLogEvery(svc.LogEvery)
	s.other = s.watch(admin.OtherEndpoint)
	s.consoleFiles = sync.OnceValue(s.newConsoleFiles)
	s.heads = newHeads()
	s.upstream, s.forwards, s.pseudonym = newUpstreamClient(), newShares(ForwardsAtOnce, forwardsOfOne), "hailo-clip-"+newRequestID()
	s.Apply(cfg, svc.Compat, svc.RequestTimeout, svc.BatchTimeout)
	s.http = &fasthttp.Server{
		Handler:       s.handle,
		ExpectHandler: s.expect,
		ErrorHandler:  s.unreadable,
		Name:          "hailo-clip",
		Logger:        &serverLog{log: svc.Log},

		ReadTimeout:        cfg.ReadTimeout,
		WriteTimeout:       cfg.WriteTimeout,
		IdleTimeout:        cfg.IdleTimeout,
		ConnState:          connState,
		ReadBufferSize:     cfg.MaxHeaderBytes,
		MaxRequestBodySize: cfg.batchBody(),
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

// Serve accepts connections from ln and serves them until Shutdown, then returns nil. It closes ln. Where there is a certificate they
// speak TLS, unless ln is a Unix socket or Immich's.
func (s *Server) Serve(ln net.Listener) error {
	l := newListener(ln, s.cfg, s.refusal, s.svc.Log)
	if s.cfg.speaksTLS(ln) {
		l.tls = s.certificate.config()
	}
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	if s.stopping.Load() {
		_ = l.Close() // it only stops accepting
	}
	s.mu.Unlock()
	go l.watch(s.base.Done())
	if err := s.http.Serve(l); err != nil {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

// refusal is the whole answer to a connection that there is no room for.
func (s *Server) refusal() []byte { return refusal(errTooManyConns, s.svc.Warning) }

// LameDuck begins a stop that nobody notices: for Config.LameDuck, or until ctx ends, everything is served as before, but each answer
// ends its connection, and /readyz says that nobody should send more. It blocks for so long; Shutdown follows.
func (s *Server) LameDuck(ctx context.Context) {
	s.draining.Store(true)
	over, stop := context.WithTimeout(ctx, s.rules.Load().LameDuck)
	defer stop()
	<-over.Done()
}

// Draining says that the service is about to stop, or stops: nobody should send it more.
func (s *Server) Draining() bool { return s.draining.Load() || s.stopping.Load() }

// refuses says that a request which has come on c is too late. On a connection that was accepted from a socket which is
// handed to the next process none is: its client was not told before.
func (s *Server) refuses(c *conn) bool {
	return s.stopping.Load() && (c.listener == nil || !c.listener.handed)
}

// Shutdown stops accepting, answers new requests on open connections with 503, waits for the requests inside and closes
// the connections. Every connection that a client has opened is served to that end, also those that wait to be
// accepted; for sockets that others accept from see Handed. Streams end when the frames that they have sent are answered.
// When ctx ends first, what is still inside is answered with 503, all connections are closed, and the cause of ctx is
// returned. The engine must still be running, so close it afterwards.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping.Store(true)
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // it only stops accepting
	}
	var streams sync.WaitGroup
	streams.Go(func() { s.endStreams(ctx) })
	for _, l := range listeners {
		l.drain(ctx)
	}
	streams.Wait()
	err := s.http.ShutdownWithContext(ctx)
	s.giveUp(errStopping)
	if ctx.Err() == nil {
		return err
	}
	patience, cancel := context.WithTimeout(context.Background(), s.abortTime)
	defer cancel()
	for _, l := range listeners {
		_ = l.Listener.Close() // it may still have waited for connections that were being opened
		wait(patience, func() bool { return len(l.busy()) == 0 })
		l.closeAll()
	}
	return fmt.Errorf("api: requests were cut short: %w", context.Cause(ctx))
}

// endStreams has all feeds end once their frames are answered and what these have changed is told, and then the listeners.
func (s *Server) endStreams(ctx context.Context) {
	s.endLive()
	if hub := s.svc.Hub; hub != nil {
		_ = hub.Close(ctx) // which cuts short what is inside when ctx ends, as Shutdown does
	}
	s.endQuiet()
}
