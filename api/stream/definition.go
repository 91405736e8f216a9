// Package stream turns frames of cameras and video into answers and events: it samples them, leaves out those that repeat
// what has been seen, asks the engine, and says what changes. It knows no transport: a transport opens a Feed and pushes
// frames into it, and Package source does that for addresses that the service pulls itself.
package stream

// Definition says what is done with the frames of a stream. It is the body of PUT /v1/streams/{id} and, but for Source, the
// first message of a WebSocket. Parse returns it normalised, with its defaults in place, so that equal ones are written alike.
// It is not changed after that, and may be shared.
type Definition struct {
	PromptSet string   `json:"prompt_set,omitempty"` // either this
	Prompts   []string `json:"prompts,omitempty"`    // or these
	TopK      int      `json:"top_k,omitempty"`      // matches in an answer; 0: all

	Policy      string  `json:"policy"`                  // latest or queue; "": latest
	MaxInFlight int     `json:"max_in_flight,omitempty"` // with queue: frames that are read and not answered, 1 to 64; 0: 8
	FPS         float64 `json:"fps,omitempty"`           // frames a second at most, the others are dropped, 0.001 to 1000; 0: all
	IntervalMS  int     `json:"interval_ms,omitempty"`   // the same as time between two frames, to a day; the slower of both counts

	Regions []Region `json:"regions,omitempty"` // none: the whole frame. At most stages.MaxRegions
	Gate    *Gate    `json:"gate,omitempty"`    // nil: every frame is encoded
	Events  *Events  `json:"events,omitempty"`  // nil: no events

	// Clock is the time that FPS, the gate's heartbeat and Events.HoldMS are measured in: "receive" (the default), when the
	// service got a frame, or "frame", the frame's own, at whatever speed they come. Frame times that do not rise are
	// flagged in the answer and count as no time at all, and a frame without a time of its own comes when it was received.
	Clock string `json:"clock,omitempty"`

	Source string `json:"source,omitempty"` // address that the service pulls frames from, see package source; "": they are pushed
	Format string `json:"format,omitempty"` // of raw frames, as decode.ParseRaw has it; "": frames are compressed

	FrameHeader bool `json:"frame_header,omitempty"` // of a WebSocket: each frame begins with sequence number and time
}

// MaxInFlight is how many frames of a feed may be in work at a time.
const MaxInFlight = 64

// Policies of Definition.Policy.
const (
	Latest = "latest" // two frames wait, a third takes the place of the older one, which is answered as superseded
	Queue  = "queue"  // frames wait, and whoever sends them, too
)

// Values of Definition.Clock and Events.On.
const (
	clockReceive, clockFrame = "receive", "frame"
	onChanges, onFrames      = "changes", "frames"
)

// Region is a part of the frame that is answered for by itself, in parts of its width and height: 0 <= X < X+W <= 1.
type Region struct {
	Name      string  `json:"name"` // as those of streams, unique among the regions
	X         float64 `json:"x"`
	Y         float64 `json:"y"`
	W         float64 `json:"w"`
	H         float64 `json:"h"`
	PromptSet string  `json:"prompt_set,omitempty"` // "": what the stream has
}

// Gate leaves out frames that look like the last one that was encoded: its answer is given again, and says so.
type Gate struct {
	Distance    *int `json:"distance"`               // bits of 64 by which the difference hashes may differ, 0 to 32; nil: 4
	HeartbeatMS int  `json:"heartbeat_ms,omitempty"` // after which a frame is encoded all the same, 1 to 1 h; 0: 5000
}

// Events says when the frames of a stream make events.
type Events struct {
	On string `json:"on"` // changes (the default): enter, exit and state; frames: every answer, too

	// The scores from which a label holds and below which it does not hold any more, where its prompt set has no threshold for it. nil:
	// 0.6 and 0.4 for scores that are probabilities, and 0.27 and 0.25 for cosines (activation none, apply_softmax: false, or a single
	// label), which differ from model to model: there they should be chosen. One alone bounds the default of the other.
	Enter *float64 `json:"enter,omitempty"`
	Exit  *float64 `json:"exit,omitempty"` // at most Enter

	HoldMS     int     `json:"hold_ms,omitempty"`    // for how long it must be so, 0 to 1 h
	MinFrames  int     `json:"min_frames,omitempty"` // in how many encoded frames in a row, 1 to 1000; 0: 3
	Smoothing  float64 `json:"smoothing,omitempty"`  // weight of what was before in the moving average of logits, 0 (none) to 0.99
	RecheckMS  int     `json:"recheck_ms,omitempty"` // between two frames while a change is pending, whatever FPS and the gate say, 1 to 1 h; 0: 500
	Thumbnails bool    `json:"thumbnails,omitempty"` // events have one
	Store      bool    `json:"store,omitempty"`      // events of changes outlive the service's memory of them; Thumbnails imply it
}
