package sink

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"hailoclip/api/bulk"
	"hailoclip/cache/boltfile"
)

// rest is what of a row is kept as JSON.
type rest struct {
	Model   string       `json:"model"`
	Matches []bulk.Match `json:"classifications,omitempty"`
	Error   string       `json:"error,omitempty"`
}

// encode makes bytes of a row but for key and path: the number of the embedding's numbers (uint32), those (float32), and JSON, all
// little-endian.
func encode(r bulk.Row) ([]byte, error) {
	text, err := json.Marshal(rest{r.Model, r.Matches, r.Error})
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 4+4*len(r.Embedding)+len(text))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Embedding)))
	for _, v := range r.Embedding {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return append(b, text...), nil
}

// decode is the reverse of encode for a sealed value, of which it keeps nothing. Error: boltfile.ErrDamaged.
func decode(name, value []byte) (r bulk.Row, err error) {
	key, path, ok := bytes.Cut(name, []byte{0})
	content := boltfile.Unseal(rowsBucket, name, value)
	if !ok || len(content) < 4 {
		return bulk.Row{}, fmt.Errorf("%w: the row of %.300q is not whole", boltfile.ErrDamaged, path)
	}
	n := uint64(binary.LittleEndian.Uint32(content))
	content = content[4:]
	if uint64(len(content)) < 4*n {
		return bulk.Row{}, fmt.Errorf("%w: the vector of %.300q is not whole", boltfile.ErrDamaged, path)
	}
	r = bulk.Row{Key: string(key), Path: string(path)}
	if n > 0 {
		r.Embedding = make([]float32, n)
		for i := range r.Embedding {
			r.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(content[4*i:]))
		}
	}
	var text rest
	if err := json.Unmarshal(content[4*n:], &text); err != nil {
		return bulk.Row{}, fmt.Errorf("%w: the row of %.300q: %w", boltfile.ErrDamaged, path, err)
	}
	r.Model, r.Matches, r.Error = text.Model, text.Matches, text.Error
	return r, nil
}
