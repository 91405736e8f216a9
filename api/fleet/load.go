package fleet

// Load is what a node tells the others of itself, five times a second.
type Load struct {
	Node     string   `json:"node"`
	Site     string   `json:"site,omitempty"`
	Version  string   `json:"version"`
	Model    string   `json:"model"`
	Digests  []string `json:"digests"` // of the image encoders that it may answer with, the first of them the one in use
	Rate     float64  `json:"rate"`    // images a second that it can encode
	Queued   int      `json:"queued"`  // images that wait
	InFlight int      `json:"in_flight"`
	Free     int      `json:"free"`    // images that it would take now
	Health   string   `json:"health"`  // healthy, degraded or unhealthy
	Bulk     bool     `json:"bulk"`    // it encodes bulk work
	UnixMs   int64    `json:"unix_ms"` // of its clock, for doctor; nothing is decided by it
	Sequence uint64   `json:"sequence"`
}
