package api

import (
	"errors"
	"io"
	"time"

	"hailoclip/api/admin"
	"hailoclip/api/stream"
	"hailoclip/cache"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
)

// watched is what is known of the requests for a path: their numbers, and which of them have a line in the log.
type watched struct {
	endpoint *admin.Endpoint
	lines    lines
}

func (s *Server) watch(path string) *watched {
	return &watched{endpoint: s.svc.Recorder.Endpoint(path)}
}

// record counts a request that is answered, and how long that took.
func (r *request) record(took time.Duration) {
	to := r.server.svc.Recorder
	if to == nil {
		return
	}
	r.watched.endpoint.Count(r.ctx.Response.StatusCode())
	if !r.lasts && !r.ctx.Hijacked() {
		r.watched.endpoint.Took(took)
	}
	if r.result.TextTime > 0 {
		to.Stage("text", r.result.TextTime)
	}
	if r.took > 0 {
		to.Stage("answer", r.took)
	}
	if reason := rejection(r.fault); reason != "" {
		to.Rejected(reason)
	}
}

// rejection says why a request was refused or given up, as metrics have it; "" where it was answered, or was no good itself.
func rejection(o outcome) string {
	if o.err == nil {
		return ""
	}
	is := func(err error) bool { return errors.Is(o.err, err) }
	switch {
	case o.status == 429 && is(pipeline.ErrDisplaced):
		return admin.Displaced
	case o.status == 429 && is(pipeline.ErrSuperseded):
		return admin.Superseded
	case o.status == 429 && is(errBodyMemory):
		return admin.BodyMemory
	case o.status == 429 && is(errKeyBusy):
		return admin.KeyBusy
	case o.status == 429 && is(decode.ErrBusy):
		return admin.DecodeMemory
	case o.status == 429 && is(cache.ErrBusy):
		return admin.TextQueueFull
	case o.status == 429 && (is(stream.ErrStreamsFull) || is(stream.ErrListenersFull)):
		return admin.StreamsFull
	case o.status == 408, o.status == 429, o.status == 499, o.status == 503, o.status == 504:
		return o.code
	}
	return ""
}

// Stats returns what GET /v1/stats answers.
func (s *Server) Stats() admin.Stats {
	st := admin.Stats{Stats: s.svc.Engine.Stats(), Server: s.serverStats()}
	if s.svc.Store != nil {
		st.Events = new(s.svc.Store.Stats())
	}
	if s.svc.Notifier != nil {
		st.Notify = new(s.svc.Notifier.Stats())
	}
	if s.svc.Hub != nil {
		st.Streams = new(s.svc.Hub.Stats())
	}
	return st
}

func (s *Server) serverStats() admin.ServerStats {
	st := admin.ServerStats{
		BodyMemory: s.bodies.stats(), Requests: s.svc.Recorder.Requests(), Rejected: s.svc.Recorder.Rejections(), Stages: s.svc.Recorder.Stages(),
		Log: admin.LogStats{Unlogged: s.unlogged.Load()},
	}
	if s.svc.LogDropped != nil {
		st.Log.Dropped = s.svc.LogDropped()
	}
	st.Connections.Limit = s.cfg.MaxConnections
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		st.Connections.Open += l.count()
		st.Connections.Accepted += l.admitted.Load()
		st.Connections.Refused += l.refused.Load()
		st.Connections.Evicted += l.evicted.Load()
	}
	return st
}

// stats says how much is lent.
func (m *Memory) stats() admin.MemoryStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return admin.MemoryStats{Bytes: m.all - m.free, Limit: m.all}
}

// WriteMetrics writes the metrics of the service as Prometheus reads them.
func (s *Server) WriteMetrics(w io.Writer) {
	s.svc.Recorder.WriteMetrics(w, admin.Snapshot{Stats: s.Stats(), Health: s.healthNow(), Version: s.svc.Version, Fleet: s.fleetStatus()})
}

// adminRoutes are those for operators, where they are on the service's own port.
func (s *Server) adminRoutes(by *rules) []route {
	if s.svc.Admin == nil {
		return nil
	}
	list := []route{{"GET", "/metrics", 0, nil, nil, nil, s.metrics}}
	if s.svc.Admin.Reload != nil {
		list = append(list, route{"POST", "/admin/reload", by.one, nil, nil, nil, s.reload})
	}
	return list
}

func (s *Server) metrics(r *request) error {
	r.ctx.Response.Header.SetContentType(admin.MediaMetrics)
	r.ctx.Response.Header.Set("Cache-Control", "no-store")
	s.WriteMetrics(r.ctx)
	return nil
}

// reload has the configuration loaded again.
func (s *Server) reload(r *request) error {
	report, err := s.svc.Admin.Reload(r.work)
	if err != nil {
		return fail(errConfiguration, "%v", err)
	}
	return r.answerPlain(report)
}
