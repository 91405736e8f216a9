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
