package event

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"hailoclip/cache/boltfile"
)

// The file has these buckets, whose numbers are big-endian, which keeps them in order:
//
//	definitions  stream                          what PutStream was given, sealed
//	events       moment (uint64)                 an event, sealed
//	ids          id (16 bytes)                   moment
//	streams      stream, 0 (uint8), moment       nothing
//
// A moment is when an event was stored, in nanoseconds since 1970, but always after the moment before, so that it names the event
// and orders them as they came, whatever the clock does. An event is the JSON of head, a line feed, the vector (float32,
// little-endian), the thumbnail. One that was deleted keeps its moment for who has read up to it: "-" and the id are left.
var buckets = struct{ definitions, events, ids, streams string }{"definitions", "events", "ids", "streams"}

const (
	momentSize = 8
	idSize     = 16
	deleted    = '-'

	maxRecord  = 1 << 20 // bytes of an event
	overhead   = 256     // bytes that an event takes beside its record, about
	maxNameLen = 255     // of a stream, for the key in streams
)

type head struct {
	Event
	VectorBytes int `json:"vector_bytes,omitempty"`
}

// ValidID says whether an event may have this id.
func ValidID(id string) bool { return parseID(id) != nil }

// parseID returns the bytes of an id, nil if it is none.
func parseID(id string) []byte {
	if b, err := hex.DecodeString(id); err == nil && len(b) == idSize && hex.EncodeToString(b) == id {
		return b
	}
	return nil
}

// format returns what an event is kept as.
func format(e *Event) ([]byte, error) {
	h := head{*e, 4 * len(e.Vector)}
	h.Thumbnail, h.Time = len(e.JPEG) > 0, h.Time.UTC()
	text, err := json.Marshal(h)
	switch {
	case parseID(e.ID) == nil || len(e.Stream) == 0 || len(e.Stream) > maxNameLen || bytes.IndexByte([]byte(e.Stream), 0) >= 0:
		return nil, fmt.Errorf("an event %.64q of a stream %.64q cannot be kept", e.ID, e.Stream)
	case e.Kind == Frame:
		return nil, errors.New("events of frames are not kept")
	case err != nil:
		return nil, fmt.Errorf("an event cannot be kept: %w", err)
	}
	b, _ := binary.Append(append(text, '\n'), binary.LittleEndian, e.Vector)
	if b = append(b, e.JPEG...); len(b) > maxRecord {
		return nil, fmt.Errorf("an event of %d bytes cannot be kept: more than %d", len(b), maxRecord)
	}
	return b, nil
}

// parse reads what format has made, from which the event is independent. ok is false where it is not that.
func parse(b []byte, withBytes bool) (e Event, ok bool) {
	text, rest, cut := bytes.Cut(b, []byte("\n")) // JSON has none
	var h head
	if !cut || json.Unmarshal(text, &h) != nil || h.VectorBytes < 0 || h.VectorBytes > len(rest) || h.VectorBytes%4 != 0 {
		return e, false
	}
	e = h.Event
	if e.Thumbnail != (len(rest) > h.VectorBytes) || parseID(e.ID) == nil || e.Stream == "" {
		return Event{}, false
	}
	if withBytes && h.VectorBytes > 0 {
		e.Vector = make([]float32, h.VectorBytes/4)
		_, _ = binary.Decode(rest[:h.VectorBytes], binary.LittleEndian, e.Vector)
	}
	if withBytes && e.Thumbnail {
		e.JPEG = bytes.Clone(rest[h.VectorBytes:])
	}
	return e, true
}

// isDeleted says whether a record is what is left of an event, and returns the id.
func isDeleted(b []byte) (id []byte, yes bool) {
	if len(b) == 1+idSize && b[0] == deleted {
		return b[1:], true
	}
	return nil, false
}

func streamKey(stream string, moment []byte) []byte {
	return append(append([]byte(stream), 0), moment...)
}

// check counts what is in a file, and says what is lost that must not be: definitions. It panics where the file itself is
// damaged: run it in boltfile.Scan.
func check(data []byte, t *totals) (damaged error) {
	in := ""
	boltfile.Walk(data, true, func(name []byte) {
		in = string(name)
		boltfile.Want(in == buckets.definitions || in == buckets.events || in == buckets.ids || in == buckets.streams, "it is not one of ours")
	}, func(key, value []byte) {
		switch in {
		case buckets.definitions:
			if boltfile.Unseal(in, key, value) == nil {
				damaged = errors.Join(damaged, fmt.Errorf("the definition of stream %.64q is lost", key))
			}
		case buckets.events:
			boltfile.Want(len(key) == momentSize, "it is not one of ours")
			t.add(binary.BigEndian.Uint64(key), value)
		case buckets.ids:
			boltfile.Want(len(key) == idSize && len(value) == momentSize, "it is not one of ours")
		}
	})
	return damaged
}

// totals is what is known of all events.
type totals struct {
	records, events int    // what is left of deleted events is a record, too
	bytes           int64  // of all records
	first, last     uint64 // moments of the oldest record, and of the newest there ever was
}

func (t *totals) add(moment uint64, record []byte) {
	if t.last = max(t.last, moment); t.records == 0 {
		t.first = moment
	}
	t.count(record, 1)
}

func (t *totals) count(record []byte, n int) {
	t.records, t.bytes = t.records+n, t.bytes+int64(n)*int64(len(record)+overhead)
	if len(record) < 2 || record[1] != deleted { // after the version
		t.events += n
	}
}
