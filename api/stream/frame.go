package stream

import (
	"time"

	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Frame is an image of a stream.
type Frame struct {
	Image    []byte
	Raw      decode.Raw // the zero value: as Definition.Format says
	Seq      uint64     // the sender's number; the hub does not look at it
	Time     int64      // the sender's time in microseconds
	HasTime  bool
	Received time.Time // when its last byte was there; the zero value: now

	// Release is called exactly once for every frame given to Push or Drop, whatever that returns, when nothing reads Image any more.
	// It must not block. May be nil.
	Release func()
}

// Dropped says why a frame has no answer.
type Dropped string

// Reasons; "" for a frame that has an answer.
const (
	Superseded Dropped = "superseded" // by a newer frame or, with Answer.Err, by those of others: policy latest only
	Expired    Dropped = "expired"    // its deadline passed, or the service is stopping
	Bad        Dropped = "bad"        // Answer.Err says why: it is no image that can be used, or could not be encoded
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
	Err      error          // why: always with Bad and Expired
	Reused   bool           // it is that of an earlier frame which looks the same
	Regions  []RegionAnswer // one at least unless it was dropped
}

// RegionAnswer is what was found in a region.
type RegionAnswer struct {
	Name   string      // "" for the whole frame
	Result clip.Result // as of a request for the region alone: with Set, if that is what it was compared with, but no Regions
	Names  []string    // of labels, by stages.Match.Label; shared, only to be read
}
