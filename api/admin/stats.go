package admin

import (
	"hailoclip/api/fleet"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/notify"
	"hailoclip/stages/clip"
)

// Stats is what GET /v1/stats answers, and what /metrics is made of: what is now, and counters since the start.
type Stats struct {
	clip.Stats
	Streams *stream.HubStats `json:"streams,omitempty"`
	Events  *event.Stats     `json:"events,omitempty"` // that are kept
	Notify  *notify.Stats    `json:"notify,omitempty"`
	Server  ServerStats      `json:"server"`
}

// ServerStats are of the REST interface.
type ServerStats struct {
	Connections ConnectionStats `json:"connections"`
	BodyMemory  MemoryStats     `json:"body_memory"`
	Log         LogStats        `json:"log"`

	Requests map[string]map[string]uint64 `json:"requests,omitempty"` // answers, by the path of the route and status
	Rejected map[string]uint64            `json:"rejected,omitempty"` // by reason
	Stages   []StageTimes                 `json:"stages,omitempty"`   // where the time of requests went
}

// StageTimes are the durations of a stage, by its name in Server-Timing.
type StageTimes struct {
	Stage   string  `json:"stage"`
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"` // of all together
}

// ConnectionStats are of all listeners of the interface together.
type ConnectionStats struct {
	Open     int    `json:"open"`
	Limit    int    `json:"limit"`    // server.max_connections, or what the limit of open files allows
	Accepted uint64 `json:"accepted"` // refused ones, too
	Refused  uint64 `json:"refused"`  // at once, because there was no room even for an error
	Evicted  uint64 `json:"evicted"`  // idle or slow ones that made room for others
}

// MemoryStats are of the memory that bodies and frames are received into.
type MemoryStats struct {
	Bytes int64 `json:"bytes"` // in use
	Limit int64 `json:"limit_bytes"`
}

// LogStats are of lines that are not in the log.
type LogStats struct {
	Dropped  uint64 `json:"lines_dropped"`     // nobody read the log, or it could not be written
	Unlogged uint64 `json:"requests_unlogged"` // left out by sampling (logging.requests), or because very many failed alike
}

// Snapshot is all that /metrics is made of, at one moment.
type Snapshot struct {
	Stats
	Health  clip.Health   // as GET /health has it
	Version string        // of the program
	Fleet   *fleet.Status // not enabled, or nil: there is none
}
