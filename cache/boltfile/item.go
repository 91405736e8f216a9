package boltfile

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
)

// An item is the version (uint8), what it holds, and a checksum (uint64, little-endian): xxh3 of all before it, seeded with the
// xxh3 of its bucket's name and its key.
const (
	itemVersion = 1
	itemSum     = 8
)

// Seal makes an item of what it is to hold under a key of a bucket.
func Seal(bucket string, key, content []byte) []byte {
	b := make([]byte, 0, 1+len(content)+itemSum)
	b = append(append(b, itemVersion), content...)
	return binary.LittleEndian.AppendUint64(b, itemChecksum(bucket, key, b))
}

// Unseal returns what an item holds, which lies in b; nil if the item is not what Seal has made for that key.
func Unseal(bucket string, key, b []byte) []byte {
	n := len(b) - itemSum
	if n < 1 || b[0] != itemVersion || binary.LittleEndian.Uint64(b[n:]) != itemChecksum(bucket, key, b[:n]) {
		return nil
	}
	return b[1:n:n]
}

func itemChecksum(bucket string, key, body []byte) uint64 {
	return xxh3.HashSeed(body, xxh3.Hash(fmt.Appendf(nil, "%s/%s", bucket, key)))
}
