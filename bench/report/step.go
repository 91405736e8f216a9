package report

import "strings"

// Step is the outcome of one load on one service. Latencies and times are milliseconds.
type Step struct {
	Target  string  `json:"target,omitempty"` // "A" or "B" where two services are measured
	Load    string  `json:"load"`             // "16 clients", "300/s"
	Clients int     `json:"clients,omitempty"`
	Offered int     `json:"offered_rate,omitempty"` // open loop: requests/s
	Started float64 `json:"started_seconds"`        // from the start of the run to the start of the window
	Seconds float64 `json:"seconds"`                // length of the measured window

	Requests int64            `json:"requests"` // due in the window; of clients also those under way at its start
	Errors   map[string]int64 `json:"errors"`   // of these, by status or by what happened: timeout, closed, ...
	Rate     float64          `json:"rate"`     // good answers/s

	Latency      Latency      `json:"latency_ms"`
	Distribution [][2]float64 `json:"distribution"` // latency and the share of good answers up to it, 0..1
	Timeline     []Moment     `json:"timeline"`

	Stages  []StageLatency `json:"stages,omitempty"`  // of sampled answers, in the order of the service
	Outside float64        `json:"outside,omitempty"` // mean latency less all stages: HTTP, network, this client

	Service *ServiceUse `json:"service,omitempty"` // nil: the service does not tell

	Streams *StreamUse `json:"streams,omitempty"` // nil: there were requests instead

	ClientCPU float64   `json:"client_cpu_ms"`        // of the load generator, for each request
	Lag       float64   `json:"lag_p99_ms,omitempty"` // open loop: how late the generator itself was
	Met       *bool     `json:"met,omitempty"`        // the goal, where there is one
	Turns     []float64 `json:"turns,omitempty"`      // the rate of each turn, where two services had turns
}

// Latency sums up a distribution; all 0 where there was no good answer.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Moment is a part of the window, by the time of the answers.
type Moment struct {
	At   float64 `json:"at"` // seconds from the start of the run to the middle of this part
	Rate float64 `json:"rate"`
	Bad  float64 `json:"bad"` // answers/s that were no good ones
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// StageLatency is the time that requests spent in a stage.
type StageLatency struct {
	Stage string  `json:"stage"` // with "-wait" and for "queue" the time before a stage
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
}

// ServiceUse is what the service, with the worker process of a real device, needed for a request that it
// answered well, and its state at the end.
type ServiceUse struct {
	CPU       float64  `json:"cpu_ms"` // for each good answer, user and system
	Cores     float64  `json:"cores"`  // busy on average
	GC        float64  `json:"gc"`     // share of the CPU time, 0..1
	RSS       float64  `json:"rss_bytes"`
	Heap      float64  `json:"heap_bytes"`
	Allocated float64  `json:"allocated_bytes"` // for each good answer
	Mallocs   float64  `json:"mallocs"`         // for each good answer
	Batches   []uint64 `json:"batches"`         // Batches[n]: runs of the device (or calls of the encoder) with n images
	Batch     float64  `json:"batch"`           // mean images of a run; 0: not known
	Device    float64  `json:"device_ms"`       // mean time of a run, where the device tells; 0: not known
	CacheHits *float64 `json:"cache_hits"`      // share of prompts that needed no encoder; nil: not known
}

// StreamUse is what is known of streams of frames. Requests of the step are frames, and its errors also those that were dropped.
type StreamUse struct {
	Kind     string       `json:"kind"` // ws or push
	FPS      int          `json:"fps"`  // of each; 0: the next when the last one is answered
	Policy   string       `json:"policy"`
	Lag      Latency      `json:"lag_ms"`    // as the service says in its answers
	ShareMin float64      `json:"share_min"` // answers of the stream that had the fewest, to the mean of all
	ShareMax float64      `json:"share_max"`
	Reused   float64      `json:"reused"` // share of answers that needed no encoder, 0..1
	Memory   [][2]float64 `json:"memory"` // seconds from the start of the window, and bytes of the service's process
}

// growth is how much the memory has grown from the second quarter of the window to the last, 0..1 of it; false: not known.
func (u *StreamUse) growth() (float64, bool) {
	n := len(u.Memory) / 4
	if n == 0 {
		return 0, false
	}
	before, after := 0.0, 0.0
	for i := range n {
		before += u.Memory[n+i][1]
		after += u.Memory[len(u.Memory)-1-i][1]
	}
	return after/before - 1, true
}

// Failed is the number of requests without a good answer.
func (s *Step) Failed() (n int64) {
	for _, count := range s.Errors {
		n += count
	}
	return n
}

// Name is the load, with the service where there are two.
func (s *Step) Name() string { return strings.TrimSpace(s.Target + " " + s.Load) }

func (s *Step) met() bool { return s.Met != nil && *s.Met }
