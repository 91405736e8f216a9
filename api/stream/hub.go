package stream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/api/stream/event"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Config is the section "streams" of the configuration; NewHub relies on its bounds.
type Config struct {
	MaxStreams   int           `yaml:"max_streams" bounds:"1 to 1000"`   // defined and open ones together
	MaxListeners int           `yaml:"max_listeners" bounds:"1 to 1000"` // to events, of one address
	Linger       time.Duration `yaml:"linger" bounds:"0 to 1h"`          // how long the state of a stream outlives its last feed
}

// Errors of streams, wrapped with what happened. What is wrong with a definition is a sets.Fault.
var (
	ErrNoStream    = errors.New("there is no such stream")
	ErrStreamsFull = errors.New("there are too many streams")
	ErrFed         = errors.New("the stream is fed by somebody else") // another feed, or its source
	ErrStopping    = errors.New("the service is stopping")
	ErrLost        = errors.New("streams cannot be kept") // their file cannot be read or written
)

// Parts is what a hub works with. All belong to the caller, who closes them after the hub.
type Parts struct {
	Engine  *clip.Engine
	Bus     *event.Bus
	Store   *event.Store // of definitions and events; nil: there is none, for the reason Lost
	Lost    error
	Allowed outbound.Allowed // addresses that streams may be pulled from
	Buffers Buffers
	Log     *slog.Logger
}

// Buffers lends memory for frames, and bounds what all callers have of it. Safe for concurrent use; neither blocks.
type Buffers struct {
	Get func(address string, size int) ([]byte, error) // an empty slice with room for size bytes
	Put func(address string, b []byte)
}

// Hub has all streams: those that are defined, and open ones that are not. Safe for concurrent use.
type Hub struct{}

// Info is a stream as GET answers with it.
type Info struct {
	ID string `json:"id"`
	Definition
	State    []RegionState `json:"state,omitempty"`        // with events: what holds now
	Fed      bool          `json:"fed"`                    // a feed is open, or the source delivers
	Trouble  string        `json:"trouble,omitempty"`      // what is wrong with the source, without credentials
	Code     string        `json:"trouble_code,omitempty"` // auth, not_found, codec, timeout, not_allowed, unavailable
	Degraded bool          `json:"degraded"`               // the lag has grown for 10 s
	Stats    Stats         `json:"stats"`
}

// RegionState is what holds in a region, "" for the whole frame.
type RegionState struct {
	Region string    `json:"region,omitempty"`
	State  string    `json:"state"`  // the most likely of the labels that hold; "unknown": none
	Labels []string  `json:"labels"` // that hold
	Score  float64   `json:"score"`
	Since  time.Time `json:"since"`
}

// Stats are the counters of a stream since it began, or of all of them since the start. Every frame is counted in Frames and
// later in exactly one of Answered, Reused, Superseded, Expired, Bad and Rate.
type Stats struct {
	Frames     uint64  `json:"frames"`
	Answered   uint64  `json:"answered"`   // encoded
	Reused     uint64  `json:"reused"`     // near-duplicates
	Superseded uint64  `json:"superseded"` // by a newer frame
	Expired    uint64  `json:"expired"`    // the deadline passed
	Bad        uint64  `json:"bad"`        // not an image that can be used
	Rate       uint64  `json:"rate"`       // beyond fps or interval_ms
	Changes    uint64  `json:"changes"`    // events, without those of frames
	LagMS      float64 `json:"lag_ms"`     // moving average of the time from a frame's last byte to its answer
	LagMaxMS   float64 `json:"lag_max_ms"` // in the last 10 s
}

// Frame is an image of a stream.
type Frame struct {
	Image    []byte
	Raw      decode.Raw
	Seq      uint64 // the sender's number; the hub does not look at it
	Time     int64  // the sender's time in microseconds
	HasTime  bool
	Received time.Time // when its last byte was there

	// Release is called exactly once for every frame given to Push, whatever that returns, when nothing reads Image any more. It
	// must not block. May be nil.
	Release func()
}

// Dropped says why a frame has no answer.
type Dropped string

// Reasons; "" for a frame that has an answer.
const (
	Superseded Dropped = "superseded" // by a newer frame, with policy latest
	Expired    Dropped = "expired"    // its deadline passed, or the service is stopping
	Bad        Dropped = "bad"        // Answer.Err says why
	Rate       Dropped = "rate"       // beyond fps or interval_ms
)

// Answer is what became of a frame. It is the hub's, and good until Opening.Answer returns.
type Answer struct {
	Seq      uint64
	Time     int64
	HasTime  bool
	Backward bool          // its time is not after that of the frame before
	Lag      time.Duration // from Frame.Received to now
	Dropped  Dropped
	Err      error          // with Bad and Expired
	Reused   bool           // it is that of an earlier frame which looks the same
	Regions  []RegionAnswer // one at least unless it was dropped
	Changes  []event.Event  // that this frame has made
}

// RegionAnswer is what was found in a region.
type RegionAnswer struct {
	Name   string // "" for the whole frame
	Result clip.Result
	Names  []string // of labels, by stages.Match.Label
}

// Opening says how a feed is opened.
type Opening struct {
	ID         string      // of the stream; "": one of its own that ends with the feed
	Definition *Definition // of a stream that is not defined, which ends linger after its last feed; nil: the one that is
	Caller     fair.Caller // of this feed alone

	// Answer is called with what became of each frame, in the order of Push, one at a time, from a goroutine of the hub. While it
	// blocks, further answers wait (and with policy latest are superseded); it must return once ctx of Open has ended. May be nil.
	Answer func(*Answer)
}

// Feed is who pushes frames into a stream.
type Feed struct{}

// NewHub begins with the streams that are kept, and pulls their sources. The caller closes it.
func NewHub(cfg Config, p Parts) (*Hub, error) { panic("to be built") }

// Put defines a stream, or changes it while it runs, durably.
func (h *Hub) Put(ctx context.Context, id string, d Definition) (info Info, created bool, err error) {
	panic("to be built")
}

// Get returns a stream; List all, by id.
func (h *Hub) Get(id string) (Info, error) { panic("to be built") }
func (h *Hub) List() []Info                { panic("to be built") }

// Delete ends a stream and forgets its definition. Its events stay.
func (h *Hub) Delete(ctx context.Context, id string) error { panic("to be built") }

// Open opens a feed, which ends with ctx or Close. Errors: ErrNoStream, ErrFed, ErrStreamsFull, ErrStopping, a sets.Fault.
func (h *Hub) Open(ctx context.Context, o Opening) (*Feed, error) { panic("to be built") }

// Push gives a frame to the stream. With policy latest it does not block; with queue it blocks while MaxInFlight frames are not
// answered, or until ctx of Open ends. An error says that the feed has ended: the stream was deleted or the hub closes. Not for
// concurrent use.
func (f *Feed) Push(frame Frame) error { panic("to be built") }

// Change has the frames from now on treated by another definition; a feed of a defined stream changes that, not durably.
func (f *Feed) Change(d Definition) error { panic("to be built") }

// Close ends the feed and blocks until all its frames are answered.
func (f *Feed) Close() { panic("to be built") }

// Done is closed when the feed ends for another reason than Close: Err says which.
func (f *Feed) Done() <-chan struct{} { panic("to be built") }
func (f *Feed) Err() error            { panic("to be built") }

// Stats returns the counters of all streams since the start.
func (h *Hub) Stats() HubStats { panic("to be built") }

// HubStats is what GET /v1/stats says of streams.
type HubStats struct {
	Streams   int `json:"streams"`
	Fed       int `json:"fed"`
	Degraded  int `json:"degraded"`
	Listeners int `json:"listeners"`
	Stats
}

// End refuses new feeds and frames, answers those that are inside and ends feeds and sources. Close does that and waits for it,
// at most until ctx ends. The engine must still be running.
func (h *Hub) End()                            { panic("to be built") }
func (h *Hub) Close(ctx context.Context) error { panic("to be built") }
