// Package event says and keeps what changes in streams. The Bus tells listeners, each at its own speed; the Store keeps events
// and their thumbnails, within bounds, and the definitions of streams.
package event

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"time"
)

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidName says whether a stream or region may have this name.
func ValidName(name string) bool { return nameRule.MatchString(name) }

// Kind is what an event says.
type Kind string

// Kinds of events.
const (
	Enter Kind = "enter" // a label begins to hold
	Exit  Kind = "exit"  // it ceases to
	State Kind = "state" // another label is the most likely of those that hold, or none holds
	Frame Kind = "frame" // an answer; never stored
)

// Event is something that happened in a stream.
type Event struct {
	ID        string          `json:"id,omitempty"` // NewID, or "" with Frame, so that listeners come again after the last change
	Stream    string          `json:"stream"`
	Kind      Kind            `json:"event"`
	Region    string          `json:"region,omitempty"`
	Label     string          `json:"label,omitempty"`    // of enter and exit
	State     string          `json:"state,omitempty"`    // of state: a label, or "unknown"
	Previous  string          `json:"previous,omitempty"` // of state
	Score     float64         `json:"score"`              // smoothed, of Label or State
	Scores    []Score         `json:"scores,omitempty"`   // smoothed, by falling score, at most 20; fewer where labels are long
	Time      time.Time       `json:"time"`               // when the frame was received
	Seq       *uint64         `json:"seq,omitempty"`
	TS        *int64          `json:"ts,omitempty"`        // the sender's, in microseconds
	Model     string          `json:"model,omitempty"`     // digest of the image encoder
	Thumbnail bool            `json:"thumbnail,omitempty"` // there is one
	Unstored  bool            `json:"unstored,omitempty"`  // it was to be stored, and could not be
	Answer    json.RawMessage `json:"answer,omitempty"`    // of frame: what the frame's sender was answered

	// Text is the event as JSON, of kind Frame where a bus has published it: one for all its listeners. Only to be read.
	Text []byte `json:"-"`

	// Only the store has these; listeners get neither.
	Vector []float32 `json:"-"` // embedding of the frame or region, unit length
	JPEG   []byte    `json:"-"` // the thumbnail, longer side 96 pixels
}

// encode sets Text of what is of kind Frame; Answer is a part of it then.
func (e *Event) encode() {
	if e.Kind != Frame {
		return
	}
	text, err := json.Marshal(e)
	if err != nil {
		return // whoever hears it fails likewise
	}
	e.Text = text
	if end := len(text) - len("}"); bytes.HasSuffix(text[:end], e.Answer) {
		e.Answer = text[end-len(e.Answer) : end : end]
	}
}

// size is how many bytes of memory an event has, about. The names of labels count for each event, though many may share them.
func (e *Event) size() int {
	n := 512 + len(e.Stream) + len(e.Region) + len(e.Label) + len(e.State) + len(e.Previous) + len(e.Model) + max(len(e.Text), len(e.Answer))
	for _, s := range e.Scores {
		n += 32 + len(s.Label)
	}
	return n
}

// NewID returns 128 random bits in hex.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Watched is a stream that makes events, and what holds in it, for whoever tells other systems.
type Watched struct {
	ID         string
	Thumbnails bool // its events have them
	Regions    []Region
}

// Region is a part of the frame, or with Name "" all of it.
type Region struct {
	Name   string
	Labels []string // those that can hold; none where the prompt set is not ready

	State string // the most likely of those that hold; "unknown": none
	Score float64
	Holds []string
	Since time.Time
}

// Score is the score of a label.
type Score struct {
	Label string  `json:"label"`
	Score float64 `json:"score"`
}

// Errors, wrapped with what happened.
var (
	ErrNoEvent = errors.New("there is no such event") // or not any more
	ErrLost    = errors.New("events cannot be kept")  // the file cannot be read or written
)
