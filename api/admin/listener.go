package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/net/netutil"

	"hailoclip/api/access"
)

const (
	maxConns    = 16              // a Prometheus or two, and people
	headTime    = 5 * time.Second // for the head of a request
	idleTime    = 2 * time.Minute // between two scrapes
	answerTime  = 5 * time.Minute // a profile may take minutes
	maxHead     = 16 << 10        // bytes
	goodbyeTime = time.Second     // of what is being answered at a stop
)

// MediaMetrics is the media type of /metrics.
const MediaMetrics = "text/plain; version=0.0.4; charset=utf-8"

// Parts is what the listener works with.
type Parts struct {
	Metrics func(io.Writer) // writes /metrics

	// Reload loads the configuration again; its report is what POST /admin/reload answers, as JSON. An error is answered with
	// 400. nil: there is no such path.
	Reload func(context.Context) (report any, err error)

	// Hosts returns names, with or without a port, under which the listener may be asked beside its addresses, localhost and the
	// name of the machine; nil: there are none.
	Hosts func() []string

	Listener net.Listener // to be served instead of one at Config.Listen; nil: none

	Log *slog.Logger
}

// Server is the listener for operators. It asks for no key: who can reach it may use it.
type Server struct {
	parts Parts
	ln    net.Listener
	http  *http.Server
	names []string // of its own
}

// Listen opens cfg.Listen, or if that is taken any free port of that address. It returns nil where there is to be no listener, and
// also where none can be opened, which is logged: nothing of the service depends on it.
func Listen(cfg Config, p Parts) *Server {
	ln, err := p.Listener, error(nil)
	if ln == nil {
		if cfg.Listen == "" || cfg.Listen == OnMain {
			return nil
		}
		ln, err = listen(cfg.Listen, p.Log)
	}
	if err != nil {
		p.Log.Error("there are no metrics and no profiles: their listener cannot be opened", "admin.listen", cfg.Listen, "error", err)
		return nil
	}
	s := &Server{parts: p, ln: ln, names: ownNames(cfg.Listen)}
	s.http = &http.Server{
		Handler: s.screen(s.routes()), ReadHeaderTimeout: headTime, ReadTimeout: 2 * headTime, WriteTimeout: answerTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHead, ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	return s
}

func listen(address string, log *slog.Logger) (net.Listener, error) {
	host, _, bad := net.SplitHostPort(address)
	network := "tcp"
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		network = "tcp4" // with "tcp" 0.0.0.0 is all of IPv6, too
	}
	ln, err := net.Listen(network, address)
	if err == nil {
		return ln, nil
	}
	if bad != nil {
		return nil, err
	}
	free, again := net.Listen(network, net.JoinHostPort(host, "0"))
	if again != nil {
		return nil, errors.Join(err, again)
	}
	log.Warn("the port of admin.listen cannot be had, metrics are elsewhere", "listening", free.Addr().String(), "error", err)
	return free, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx ends, and a moment longer what is being answered. It is called once.
func (s *Server) Run(ctx context.Context) {
	s.parts.Log.Info("metrics and profiles", "url", "http://"+s.ln.Addr().String()+"/metrics")
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		patience, cancel := context.WithTimeout(context.Background(), goodbyeTime)
		defer cancel()
		if s.http.Shutdown(patience) != nil {
			_ = s.http.Close() // profiles end early
		}
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	if err := s.http.Serve(netutil.LimitListener(s.ln, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		s.parts.Log.Error("the listener for metrics has failed", "error", err)
	}
}

// Close closes the listener that Run was not called for.
func (s *Server) Close() error { return s.ln.Close() }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer // a slow reader holds no lock of a counter
		s.parts.Metrics(&b)
		w.Header().Set("Content-Type", MediaMetrics)
		_, _ = w.Write(b.Bytes())
	})
	if s.parts.Reload != nil {
		mux.HandleFunc("POST /admin/reload", func(w http.ResponseWriter, r *http.Request) {
			report, err := s.parts.Reload(r.Context())
			if err != nil {
				refuse(w, http.StatusBadRequest, "invalid_configuration", err.Error())
				return
			}
			answer(w, http.StatusOK, report)
		})
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hailo-clip, for operators: /metrics, /debug/pprof/, POST /admin/reload\n")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "There is no such path: see /metrics and /debug/pprof/")
	})
	return mux
}

// screen refuses what the page of another site has a browser send, under whatever name. There are no allowed origins here.
func (s *Server) screen(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		names := s.names
		if s.parts.Hosts != nil {
			names = slices.Concat(names, s.parts.Hosts())
		}
		switch origin, site := r.Header["Origin"], r.Header.Get("Sec-Fetch-Site"); {
		case !access.HostIn(r.Host, names):
			refuse(w, http.StatusForbidden, "host_not_allowed", fmt.Sprintf("The host %.100q is not one of this listener's: ask it by address, "+
				"or list the name in server.allowed_hosts", r.Host))
		case site == "cross-site", site == "same-site", len(origin) > 1, len(origin) == 1 && !access.SameOrigin(origin[0], r.Host, "http"):
			refuse(w, http.StatusForbidden, "origin_not_allowed", "Requests from pages of other origins are refused")
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxHead)
			next.ServeHTTP(w, r)
		}
	})
}

// ownNames are the name of the machine, also as mDNS has it, and that in address.
func ownNames(address string) (names []string) {
	if machine, err := os.Hostname(); err == nil && machine != "" {
		names = append(names, machine, machine+".local")
	}
	if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
		names = append(names, host)
	}
	return names
}

func refuse(w http.ResponseWriter, status int, code, text string) {
	answer(w, status, map[string]string{"error": text, "code": code})
}

func answer(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"The answer cannot be written","code":"internal_error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
