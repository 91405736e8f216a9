package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Policies of a stream.
const (
	PolicyLatest = "latest" // two frames wait, a third replaces the older of them
	PolicyQueue  = "queue"  // none is lost: who sends waits
)

// StreamDefinition says what is done with the frames of a stream. Its fields are those of api/stream.Definition, which the
// service reads; a test keeps them equal.
type StreamDefinition struct {
	PromptSet   string        `json:"prompt_set,omitempty"`    // either this
	Prompts     []string      `json:"prompts,omitempty"`       // or these
	TopK        int           `json:"top_k,omitempty"`         // matches in an answer; 0: all
	Policy      string        `json:"policy,omitempty"`        // PolicyLatest or PolicyQueue; "": latest
	MaxInFlight int           `json:"max_in_flight,omitempty"` // with queue: frames that are read and not answered, 1 to 64; 0: 8
	FPS         float64       `json:"fps,omitempty"`           // frames a second at most, the others are dropped; 0: all
	IntervalMS  int           `json:"interval_ms,omitempty"`   // the same as time between two frames; the slower of both counts
	Regions     []Region      `json:"regions,omitempty"`       // none: the whole frame
	Gate        *Gate         `json:"gate,omitempty"`          // nil: every frame is encoded
	Events      *StreamEvents `json:"events,omitempty"`        // nil: no events
	Clock       string        `json:"clock,omitempty"`         // that times are measured by: receive or frame; "": receive
	Source      string        `json:"source,omitempty"`        // address that the service pulls frames from; "": they are sent
	Format      string        `json:"format,omitempty"`        // of pixels, as Frame.String has it; "": frames are compressed
	FrameHeader bool          `json:"frame_header,omitempty"`  // of a Stream, which sets it
}

// Region is a part of the frame, in parts of its width and height, that is answered for by itself.
type Region struct {
	Name      string  `json:"name"`
	X         float64 `json:"x"`
	Y         float64 `json:"y"`
	W         float64 `json:"w"`
	H         float64 `json:"h"`
	PromptSet string  `json:"prompt_set,omitempty"` // "": the stream's
}

// Gate leaves out frames that look like the last one that was encoded: its answer is given again.
type Gate struct {
	Distance    *int `json:"distance"`               // bits of 64 by which the difference hashes may differ, 0 to 32; nil: 4
	HeartbeatMS int  `json:"heartbeat_ms,omitempty"` // after which a frame is encoded all the same; 0: 5000
}

// StreamEvents says when the frames of a stream make events.
type StreamEvents struct {
	On         string   `json:"on,omitempty"`         // changes or frames; "": changes
	Enter      *float64 `json:"enter,omitempty"`      // score from which a label holds that has no threshold of its own; nil: 0.6, of cosines 0.27
	Exit       *float64 `json:"exit,omitempty"`       // score below which it does not hold any more; nil: 0.4, of cosines 0.25
	HoldMS     int      `json:"hold_ms,omitempty"`    // for how long it must be so
	MinFrames  int      `json:"min_frames,omitempty"` // in how many encoded frames in a row; 0: 3
	Smoothing  float64  `json:"smoothing,omitempty"`  // weight of what was before in the moving average of logits, 0 to 0.99
	RecheckMS  int      `json:"recheck_ms,omitempty"` // between two frames while a change is pending; 0: 500
	Thumbnails bool     `json:"thumbnails,omitempty"` // events have one
	Store      bool     `json:"store,omitempty"`      // events are kept by the service
}

// StreamInfo is a stream as the service has it.
type StreamInfo struct {
	ID string `json:"id"`
	StreamDefinition
	State    []RegionState `json:"state,omitempty"`        // with events: what holds now
	Fed      bool          `json:"fed"`                    // frames come
	Trouble  string        `json:"trouble,omitempty"`      // what is wrong with the source
	Code     string        `json:"trouble_code,omitempty"` // auth, not_found, codec, timeout, not_allowed, no_ffmpeg, unavailable
	Degraded bool          `json:"degraded"`               // the lag has grown for 10 s
	Stats    StreamStats   `json:"stats"`
}

// RegionState is what holds in a region, "" for the whole frame.
type RegionState struct {
	Region string    `json:"region,omitempty"`
	State  string    `json:"state"`  // the most likely of the labels that hold; "unknown": none
	Labels []string  `json:"labels"` // that hold
	Score  float64   `json:"score"`
	Since  time.Time `json:"since,omitzero"`
}

// StreamCounts are what became of frames. Each is counted in Frames and later in exactly one of the others.
type StreamCounts struct {
	Frames     uint64 `json:"frames"`
	Answered   uint64 `json:"answered"`   // encoded
	Reused     uint64 `json:"reused"`     // near-duplicates
	Superseded uint64 `json:"superseded"` // by a newer frame
	Expired    uint64 `json:"expired"`    // the deadline passed
	Bad        uint64 `json:"bad"`        // not an image that can be used
	Rate       uint64 `json:"rate"`       // beyond fps or interval_ms
}

// StreamStats are the counters of a stream.
type StreamStats struct {
	StreamCounts
	Changes  uint64  `json:"changes"`    // events, without those of frames
	Unstored uint64  `json:"unstored"`   // of these, that were to be stored and could not be
	LagMS    float64 `json:"lag_ms"`     // moving average of the time from a frame's last byte to its answer
	LagMaxMS float64 `json:"lag_max_ms"` // in the last 10 s
}

// Kinds of events.
const (
	EventEnter = "enter" // a label begins to hold
	EventExit  = "exit"  // it ceases to
	EventState = "state" // another label is the most likely of those that hold, or none holds
	EventFrame = "frame" // an answer
)

// Event is something that happened in a stream.
type Event struct {
	ID        string          `json:"id,omitempty"` // not of frame
	Stream    string          `json:"stream"`
	Kind      string          `json:"event"`
	Region    string          `json:"region,omitempty"`
	Label     string          `json:"label,omitempty"`    // of enter and exit
	State     string          `json:"state,omitempty"`    // of state: a label, or "unknown"
	Previous  string          `json:"previous,omitempty"` // of state
	Score     float64         `json:"score"`              // smoothed, of Label or State
	Scores    []EventScore    `json:"scores,omitempty"`   // smoothed, by falling score
	Time      time.Time       `json:"time"`               // when the frame was received
	Seq       *uint64         `json:"seq,omitempty"`
	TS        *int64          `json:"ts,omitempty"` // the sender's, in microseconds
	Model     string          `json:"model,omitempty"`
	Thumbnail bool            `json:"thumbnail,omitempty"` // there is one
	Unstored  bool            `json:"unstored,omitempty"`  // it was to be kept, and could not be
	Answer    json.RawMessage `json:"answer,omitempty"`    // of frame: a StreamAnswer
}

// EventScore is the score of a label.
type EventScore struct {
	Label string  `json:"label"`
	Score float64 `json:"score"`
}

func pathOfStream(id string) string { return "/v1/streams/" + url.PathEscape(id) }
func pathOfEvent(id string) string  { return "/v1/events/" + url.PathEscape(id) }

// Streams lists all streams, by id.
func (c *Client) Streams(ctx context.Context) ([]StreamInfo, error) {
	var answer struct{ Streams []StreamInfo }
	err := c.getJSON(ctx, call{method: http.MethodGet, path: "/v1/streams"}, &answer)
	return answer.Streams, err
}

// StreamInfo returns a stream.
func (c *Client) StreamInfo(ctx context.Context, id string) (info StreamInfo, err error) {
	err = c.getJSON(ctx, call{method: http.MethodGet, path: pathOfStream(id)}, &info)
	return info, err
}

// PutStream defines a stream, or changes it while it runs. It is durable then.
func (c *Client) PutStream(ctx context.Context, id string, d StreamDefinition) (info StreamInfo, created bool, err error) {
	r := postJSON(pathOfStream(id), d)
	r.method = http.MethodPut
	a, err := c.do(ctx, r)
	if err == nil {
		err = a.read(&info)
	}
	return info, err == nil && a.status == http.StatusCreated, err
}

// DeleteStream ends a stream. One that is not there is an error with the code "stream_not_found".
func (c *Client) DeleteStream(ctx context.Context, id string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: pathOfStream(id), once: true})
	return err
}

// StoredEvents returns what is kept of the events of a stream after since, which is the id of one, or "" for the oldest: oldest
// first, at most limit (0: as many as the service likes).
func (c *Client) StoredEvents(ctx context.Context, id, since string, limit int) ([]Event, error) {
	return c.storedEvents(ctx, id, since, limit, url.Values{})
}

// NewestEvents is StoredEvents in the opposite order: of more than limit events it has the newest.
func (c *Client) NewestEvents(ctx context.Context, id, since string, limit int) ([]Event, error) {
	return c.storedEvents(ctx, id, since, limit, url.Values{"order": {"desc"}})
}

func (c *Client) storedEvents(ctx context.Context, id, since string, limit int, query url.Values) ([]Event, error) {
	r := call{method: http.MethodGet, path: pathOfStream(id) + "/events", query: query}
	if since != "" {
		r.query.Set("since", since)
	}
	if limit > 0 {
		r.query.Set("limit", strconv.Itoa(limit))
	}
	var answer struct{ Events []Event }
	err := c.getJSON(ctx, r, &answer)
	return answer.Events, err
}

// Event returns an event that is kept.
func (c *Client) Event(ctx context.Context, id string) (e Event, err error) {
	err = c.getJSON(ctx, call{method: http.MethodGet, path: pathOfEvent(id)}, &e)
	return e, err
}

// Thumbnail returns the thumbnail of an event, a JPEG.
func (c *Client) Thumbnail(ctx context.Context, id string) ([]byte, error) {
	a, err := c.do(ctx, call{method: http.MethodGet, path: pathOfEvent(id) + "/thumbnail", header: map[string]string{"Accept": "*/*"}})
	if err != nil {
		return nil, err
	}
	return a.body, nil
}

// DeleteEvent removes an event. One that is not there is an error with the code "event_not_found".
func (c *Client) DeleteEvent(ctx context.Context, id string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: pathOfEvent(id), once: true})
	return err
}

// AddEventExample says what an event that is kept really showed: its vector and thumbnail become an example of a label of a
// set, or of the BackgroundLabel. One that is there already changes nothing.
func (c *Client) AddEventExample(ctx context.Context, name, label, event string, o Condition) (set PromptSet, err error) {
	r := o.change(http.MethodPost, pathOf(name)+"/examples", map[string]string{"label": label, "event": event})
	err = c.getJSON(ctx, r, &set)
	return set, err
}
