package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/zeebo/xxh3"
)

// The file has a bucket for each namespace. In it lie values under their diskKey, little-endian:
//
//	version   uint8     valueVersion
//	flags     uint8     bit 0: truncated; the others are 0
//	reserved  uint16    0
//	tokens    uint32
//	embedding float32 x dimension
//	checksum  uint64    xxh3 of all before it, seeded with the xxh3 of the key
const (
	valueVersion   = 1
	valueHead      = 8
	valueSum       = 8
	valueTruncated = 1
)

// diskKey is the SHA-256 over the namespace's length (uint32), the namespace and the prompt.
type diskKey [sha256.Size]byte

func keyOf(namespace, prompt string) diskKey {
	b := make([]byte, 4, 4+len(namespace)+len(prompt))
	binary.LittleEndian.PutUint32(b, uint32(len(namespace)))
	return sha256.Sum256(append(append(b, namespace...), prompt...))
}

// formatValue is v as it is kept under key.
func formatValue(key diskKey, v Vector) []byte {
	b := make([]byte, valueHead+4*len(v.Embedding), valueHead+4*len(v.Embedding)+valueSum)
	b[0] = valueVersion
	if v.Truncated {
		b[1] = valueTruncated
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(v.Tokens))
	for i, x := range v.Embedding {
		binary.LittleEndian.PutUint32(b[valueHead+4*i:], math.Float32bits(x))
	}
	return binary.LittleEndian.AppendUint64(b, checksum(key, b))
}

// soundValue says whether b is what formatValue made for key: values of other versions and other keys are not.
func soundValue(key diskKey, b []byte) bool {
	n := len(b) - valueHead - valueSum
	if n <= 0 || n%4 != 0 || b[0] != valueVersion || b[1]&^valueTruncated != 0 || b[2]|b[3] != 0 {
		return false
	}
	body, sum := b[:valueHead+n], b[valueHead+n:]
	return binary.LittleEndian.Uint32(b[4:]) <= math.MaxInt32 && binary.LittleEndian.Uint64(sum) == checksum(key, body)
}

// parseValue reads a sound value. The result does not refer to b.
func parseValue(key diskKey, b []byte) (v Vector, ok bool) {
	if !soundValue(key, b) {
		return Vector{}, false
	}
	numbers := b[valueHead : len(b)-valueSum]
	v = Vector{make([]float32, len(numbers)/4), int(binary.LittleEndian.Uint32(b[4:])), b[1] == valueTruncated}
	for i := range v.Embedding {
		v.Embedding[i] = math.Float32frombits(binary.LittleEndian.Uint32(numbers[4*i:]))
	}
	return v, true
}

func checksum(key diskKey, body []byte) uint64 { return xxh3.HashSeed(body, xxh3.Hash(key[:])) }
