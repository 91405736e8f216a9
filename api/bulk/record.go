package bulk

import (
	"encoding/binary"
	"fmt"

	"hailoclip/cache/boltfile"
)

// hash is what the journal keeps of a key.
type hash [16]byte

// state is how it stands with a path.
type state byte

const (
	waiting    state = iota + 1 // no row yet
	stored                      // a row with an embedding or classifications
	failed                      // a row with an error: the image cannot be used
	unreadable                  // a row with an error, and zero as its hash: it could not be read or encoded, which is tried again in each run
	states
)

// record is what is known of a path.
type record struct {
	id       uint64 // from 1, in the order in which paths were found
	size     int64
	modified int64 // nanoseconds since 1970; 0: not known
	state    state
	hash     hash // zero when unreadable
}

const recordSize = 8 + 8 + 8 + 1 + 16

func (r *record) bytes() []byte {
	b := make([]byte, 0, recordSize)
	b = binary.LittleEndian.AppendUint64(b, r.id)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.modified))
	return append(append(b, byte(r.state)), r.hash[:]...)
}

func (r *record) read(b []byte) error {
	if len(b) != recordSize || b[24] == 0 || state(b[24]) >= states {
		return fmt.Errorf("%w: a record of a path is not one", boltfile.ErrDamaged)
	}
	r.id = binary.LittleEndian.Uint64(b)
	r.size = int64(binary.LittleEndian.Uint64(b[8:]))
	r.modified = int64(binary.LittleEndian.Uint64(b[16:]))
	r.state = state(b[24])
	copy(r.hash[:], b[25:])
	return nil
}

// outcome is what came of an image that has a row.
type outcome struct {
	place int64  // of one of its rows, -1: not known
	error string // why it cannot be used; "": it can
}

func (o *outcome) bytes() []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(o.place)), o.error...)
}

func (o *outcome) read(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("%w: an outcome of an image is not one", boltfile.ErrDamaged)
	}
	o.place, o.error = int64(binary.LittleEndian.Uint64(b)), string(b[8:])
	return nil
}
