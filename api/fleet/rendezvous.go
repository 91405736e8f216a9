package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// candidate is a node that may have a camera.
type candidate struct {
	node   string
	weight float64 // above 0: it gets cameras in this proportion
}

// owner is the candidate that has a camera by weighted rendezvous hashing (Schindelhauer and Schomaker): that with the largest
// -weight / ln(h), where h is a hash over camera and node as a number between 0 and 1. Who comes or goes moves only what it gets or had.
// "": there are no candidates.
func owner(camera string, all []candidate) (node string) {
	best := math.Inf(-1)
	for _, c := range all {
		sum := sha256.Sum256([]byte(camera + "\n" + c.node))
		h := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
		if score := -c.weight / math.Log(h); score > best || score == best && c.node < node {
			best, node = score, c.node
		}
	}
	return node
}

// weightOf is what a rate in images per second counts: a power of the square root of two, so that cameras stay where they are while
// measured rates differ a little from time to time. A rate that is not known counts as one.
func weightOf(rate float64) float64 {
	return math.Exp2(math.Round(2*math.Log2(max(rate, 1))) / 2)
}
