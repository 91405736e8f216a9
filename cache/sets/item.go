package sets

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hailoclip/cache/boltfile"
)

// The file has a bucket for each set, by its name, and the bucket Shared. A set is kept in items, so that a change writes
// little more than what has changed:
//
//	d                       JSON of head: the definition without labels
//	l + number (uint16)     JSON of a Label, with ids for examples
//	e + id                  JSON of exampleHead, a line feed, the vector, the thumbnail
//	r + Key (32 bytes)      float32, little-endian: derived rows, which may be lost
//	a                       Record.Former, which may be lost
//
// Numbers in keys are big-endian, which keeps them in order. Each item is sealed, see boltfile.Seal. In Shared lies, under d, the
// number of sets (uint32), so that it shows when one is lost.
var (
	headKey  = []byte("d")
	oldKey   = []byte("a")
	labelKey = func(i int) []byte { return binary.BigEndian.AppendUint16([]byte("l"), uint16(i)) }
	rowKey   = func(k Key) []byte { return append([]byte("r"), k[:]...) }

	exampleKey = func(id string) []byte { return append([]byte("e"), id...) }
)

type head struct {
	Definition
	Changed time.Time `json:"changed"`
	Shared  bool      `json:"shared,omitempty"`
	Count   int       `json:"count"` // of labels
}

type exampleHead struct {
	Model         string `json:"model,omitempty"`
	FromThumbnail bool   `json:"from_thumbnail,omitempty"`
	VectorBytes   int    `json:"vector_bytes"`
}

// Each by the name of the set.
var seal, unseal = boltfile.Seal, boltfile.Unseal

// items returns what a record is kept as, by key. It shares nothing with r. Error: r has examples without vectors, images
// that are not examples, or what Validate refuses.
func (r Record) items() (map[string][]byte, error) {
	items := map[string][]byte{}
	var failed error
	if r.Definition.HasImages() {
		failed = errors.New("images of a prompt set are kept as examples only")
	}
	add := func(key []byte, value any, more ...[]byte) {
		text, err := json.Marshal(value)
		failed = errors.Join(failed, err)
		items[string(key)] = seal(r.Name, key, bytes.Join(append([][]byte{text}, more...), nil))
	}
	for _, o := range r.Definition.Owners() {
		for _, e := range *o.Examples {
			if len(e.Vector) == 0 {
				failed = errors.Join(failed, fmt.Errorf("example %s of a prompt set has no vector", e.ID))
			}
			if items[string(exampleKey(e.ID))] != nil && len(e.Thumbnail) == 0 {
				continue // another label has the same one, perhaps with its thumbnail
			}
			add(exampleKey(e.ID), exampleHead{e.Model, e.FromThumbnail, len(e.Vector)}, []byte("\n"), e.Vector, e.Thumbnail)
		}
	}
	d := r.Definition.brief()
	for i, l := range d.Labels {
		add(labelKey(i), l)
	}
	d.Labels = nil
	add(headKey, head{d, r.Changed, r.Shared, len(r.Definition.Labels)})
	if len(r.Former) > 0 {
		items[string(oldKey)] = seal(r.Name, oldKey, r.Former)
	}
	return items, failed
}

// assemble makes a record of the items of a set, with which it shares nothing. The error says what is lost.
func assemble(set string, items map[string][]byte) (r Record, err error) {
	open := func(key []byte, value any, what string) (rest []byte) {
		text, rest, _ := bytes.Cut(unseal(set, key, items[string(key)]), []byte("\n")) // JSON has none
		if json.Unmarshal(text, value) != nil {                                        // also when there is none
			err = fmt.Errorf("prompt set %s: %s is lost", set, what)
		}
		return rest
	}
	examples := func(examples []Example, of string) {
		for i := range examples {
			e := &examples[i]
			var h exampleHead
			rest := open(exampleKey(e.ID), &h, "an example of "+of)
			vector := rest[:min(max(0, h.VectorBytes), len(rest))]
			*e = Example{e.ID, h.Model, bytes.Clone(vector), bytes.Clone(rest[len(vector):]), h.FromThumbnail}
			if len(e.Thumbnail) == 0 {
				e.Thumbnail = nil
			}
		}
	}
	var h head
	open(headKey, &h, "its definition")
	d := h.Definition
	d.Labels = make([]Label, min(max(0, h.Count), MaxLabels))
	for i := range d.Labels {
		name := fmt.Sprintf("label %d", i)
		open(labelKey(i), &d.Labels[i], name)
		examples(d.Labels[i].Examples, name)
	}
	examples(d.Background.Examples, "the background")
	return Record{set, d, h.Changed, h.Shared, bytes.Clone(unseal(set, oldKey, items[string(oldKey)]))}, err
}

// FormatVector returns v as Example.Vector has it: float32, little-endian.
func FormatVector(v []float32) []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, v)
	return b
}

// ParseVector reads what FormatVector has made.
func ParseVector(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	_, _ = binary.Decode(b, binary.LittleEndian, v)
	return v
}
