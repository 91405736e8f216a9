// Package admin is the interface for those who run the service: its counters as GET /v1/stats answers them and as Prometheus
// reads them, and a listener with metrics, profiles and the reload of the configuration.
package admin

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// OtherEndpoint is the path under which the requests are counted that match no route.
const OtherEndpoint = "other"

// buckets are the upper bounds of durations, in seconds: from the decoding of a thumbnail to a request near its deadline.
var buckets = []float64{1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2}

// stageNames are the stages whose times are recorded, by their names in Server-Timing, in the order in which a request passes
// them. "-wait" is the time in the queue before a stage.
var stageNames = []string{
	"read", "text", "queue", "decode", "resize-wait", "resize", "encode-wait", "encode", "elsewhere", "score-wait", "score", "answer",
}

// Reasons for which work is refused or dropped; OtherReason for those that are not in the list.
const (
	QueueFull        = "queue_full"      // the line is full, and the caller has as much waiting as others
	Displaced        = "displaced"       // it was waiting, and made room for a caller who had less waiting
	Superseded       = "superseded"      // by a newer image of the same lane
	BodyMemory       = "body_memory"     // server.max_body_memory_bytes are used up
	DecodeMemory     = "decode_memory"   // there is no memory to decode the image
	TextQueueFull    = "text_queue_full" // text_embedding.max_pending prompts wait
	KeyBusy          = "key_busy"        // as much goes on with the key as may at once
	StreamsFull      = "streams_full"    // or listeners to events
	TooManyConns     = "too_many_connections"
	NotReady         = "not_ready" // starting, or the device is lost and nothing stands in
	Stopping         = "stopping"
	Unavailable      = "unavailable"       // the encoder went away meanwhile, or a file cannot be used
	FleetUnavailable = "fleet_unavailable" // what is the fleet's cannot be changed without its broker
	DeadlineExceeded = "deadline_exceeded"
	ReadTimeout      = "read_timeout" // the request did not arrive in time
	ClientGone       = "client_gone"
	OtherReason      = "other"
)

var reasons = []string{
	QueueFull, Displaced, Superseded, BodyMemory, DecodeMemory, TextQueueFull, KeyBusy, StreamsFull, TooManyConns, NotReady, Stopping,
	Unavailable, FleetUnavailable, DeadlineExceeded, ReadTimeout, ClientGone, OtherReason,
}

// Recorder counts requests and records how long they and their stages took. The number of its series is fixed by the routes:
// nothing that callers send adds one. Safe for concurrent use. A nil Recorder records nothing.
type Recorder struct {
	rejected map[string]*atomic.Uint64 // by reason; the map never changes

	stageSet *metrics.Set
	byStage  map[string]*stageTimes // by stageNames; the map never changes
	line     []lineStage

	mu        sync.Mutex
	endpoints map[string]*Endpoint // by path
}

// lineStage has the times of a stage of the line.
type lineStage struct {
	name       string
	wait, work *stageTimes // wait nil: of an image that was encoded elsewhere, and waited for nothing here
}

// stageTimes are the durations of a stage: the histogram for Prometheus, and their number and sum for /v1/stats.
type stageTimes struct {
	histogram *metrics.PrometheusHistogram
	n, nanos  atomic.Uint64
}

func (s *stageTimes) add(d time.Duration) {
	s.histogram.Update(d.Seconds())
	s.n.Add(1)
	s.nanos.Add(uint64(max(d, 0)))
}

// Endpoint counts the requests of one route. A nil Endpoint counts nothing.
type Endpoint struct {
	codes [statuses]atomic.Uint64 // by status - firstStatus
	set   *metrics.Set
	took  *metrics.PrometheusHistogram
}

const firstStatus, statuses = 100, 500

// NewRecorder returns a recorder that has counted nothing.
func NewRecorder() *Recorder {
	r := &Recorder{
		rejected: map[string]*atomic.Uint64{}, stageSet: metrics.NewSet(), byStage: map[string]*stageTimes{},
		endpoints: map[string]*Endpoint{},
	}
	for _, reason := range reasons {
		r.rejected[reason] = new(atomic.Uint64)
	}
	for _, stage := range stageNames {
		r.byStage[stage] = &stageTimes{histogram: r.stageSet.NewPrometheusHistogramExt(series(stageDuration, "stage", stage), buckets)}
	}
	for _, stage := range []string{"decode", "resize", "encode", "score"} {
		r.line = append(r.line, lineStage{stage, r.byStage[stage+"-wait"], r.byStage[stage]})
	}
	r.line[0].wait = r.byStage["queue"]
	r.line = append(r.line, lineStage{clip.StageElsewhere, nil, r.byStage[clip.StageElsewhere]})
	return r
}

// Endpoint returns the counters of a route by its path, such as /v1/streams/{id}; the same ones for the same path. It takes a lock,
// so it is called once for each route and not for each request.
func (r *Recorder) Endpoint(path string) *Endpoint {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.endpoints[path]
	if e == nil {
		e = &Endpoint{set: metrics.NewSet()}
		e.took = e.set.NewPrometheusHistogramExt(series(requestDuration, "endpoint", path), buckets)
		r.endpoints[path] = e
	}
	return e
}

// Count counts an answer by its status.
func (e *Endpoint) Count(status int) {
	if e != nil {
		e.codes[min(max(status-firstStatus, 0), statuses-1)].Add(1)
	}
}

// Took records how long a request took. It is not called for requests that last as long as the client likes.
func (e *Endpoint) Took(d time.Duration) {
	if e != nil {
		e.took.Update(d.Seconds())
	}
}

// Rejected counts work that was refused or dropped for one of the reasons above, or else for OtherReason.
func (r *Recorder) Rejected(reason string) {
	if r == nil {
		return
	}
	n := r.rejected[reason]
	if n == nil {
		n = r.rejected[OtherReason]
	}
	n.Add(1)
}

// Stage records how long a stage outside the line took: read, text or answer.
func (r *Recorder) Stage(name string, d time.Duration) {
	if r != nil {
		r.byStage[name].add(d)
	}
}

// Line records how long the stages of the line took for an image; it is clip.Parts.Observe.
func (r *Recorder) Line(times [4]pipeline.StageTime) {
	if r == nil {
		return
	}
	waits := times[0].Stage != clip.StageElsewhere
	for _, t := range times {
		for _, stage := range r.line {
			if stage.name == t.Stage {
				if waits {
					stage.wait.add(t.Wait)
				}
				stage.work.add(t.Work)
				break
			}
		}
	}
}

// counts returns the number of answers by status, without the statuses that no answer had.
func (e *Endpoint) counts() map[string]uint64 {
	found := map[string]uint64{}
	for i := range e.codes {
		if n := e.codes[i].Load(); n > 0 {
			found[strconv.Itoa(firstStatus+i)] = n
		}
	}
	return found
}

// Requests returns the answers since the start, by path and status; nil of a nil Recorder.
func (r *Recorder) Requests() map[string]map[string]uint64 {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	found := map[string]map[string]uint64{}
	for path, e := range r.endpoints {
		if counts := e.counts(); len(counts) > 0 {
			found[path] = counts
		}
	}
	return found
}

// Stages returns the total times of the stages since the start, in the order of stageNames; nil of a nil Recorder.
func (r *Recorder) Stages() (times []StageTimes) {
	if r == nil {
		return nil
	}
	for _, name := range stageNames {
		s := r.byStage[name]
		times = append(times, StageTimes{name, s.n.Load(), time.Duration(s.nanos.Load()).Seconds()})
	}
	return times
}

// Rejections returns how much was refused or dropped since the start, by reason; nil of a nil Recorder.
func (r *Recorder) Rejections() map[string]uint64 {
	if r == nil {
		return nil
	}
	found := map[string]uint64{}
	for reason, n := range r.rejected {
		found[reason] = n.Load()
	}
	return found
}
