package resize

import (
	"fmt"
	"math"
	"sync"
)

// precision is the number of fractional bits of a weight: 32, less 8 for the pixel and 2 for the sign and
// the overshoot of the filter. The same as in Pillow's Resample.c, so that all sums are equal to the bit.
const precision = 32 - 8 - 2

// half is the rounding that every sum of products starts with.
const half = 1 << (precision - 1)

// maxWeights bounds a table (4 bytes a weight, and as many again for the kernels). Only a side of more than
// 260,000 pixels squeezed into 224 comes near it.
const maxWeights = 1 << 20

// span names a table: outputs from to from+count of scaling in samples to out.
type span struct{ in, out, from, count int }

// table holds, for each output sample, which input samples it is made of, and their weights. All outputs
// have the same number of taps, a multiple of tapStep, so that kernels have no odd cases; taps beyond the
// filter's own have weight 0. Immutable, so that workers share it.
type table struct {
	taps  int
	base  int     // the first input sample that any output needs
	need  int     // input samples from base on that the taps reach; up to tapStep-1 more than there are
	first []int32 // per output: the input sample of its first tap, counted from base
	// Per output: taps weights in units of 2^-precision.
	weights []int32
	packed
}

// newTable computes the weights as Pillow's precompute_coeffs and normalize_coeffs_8bpc do. Products are
// converted explicitly, because Go may otherwise fuse them with additions on arm64, with another result.
func newTable(s span) (*table, error) {
	scale := float64(s.in) / float64(s.out)
	stretch := max(scale, 1)
	reach := bicubicReach * stretch
	taps := min(int(math.Ceil(reach))*2+1, s.in) // the window of an output is at most all there is
	taps = (taps + tapStep - 1) / tapStep * tapStep
	if s.count*taps > maxWeights {
		return nil, fmt.Errorf("%w: a side of %d pixels to %d", ErrTooExtreme, s.in, s.out)
	}
	t := &table{taps: taps, first: make([]int32, s.count), weights: make([]int32, s.count*taps)}
	w := make([]float64, taps)
	for i := range s.count {
		center := float64((float64(i+s.from) + 0.5) * scale)
		lo := max(int(center-reach+0.5), 0)
		hi := min(int(center+reach+0.5), s.in)
		sum := 0.0
		for x := range hi - lo {
			w[x] = bicubic(float64((float64(x+lo) - center + 0.5) * (1 / stretch)))
			sum += w[x]
		}
		// Windows at the far end start earlier than they need, so that their unused taps stay inside.
		first := max(min(lo, s.in-taps), 0)
		if i == 0 {
			t.base = first
		}
		t.first[i] = int32(first - t.base)
		out := t.weights[i*taps+lo-first:]
		for x := range hi - lo {
			v := w[x] / sum
			out[x] = int32(math.Copysign(0.5, v) + float64(v*(1<<precision)))
		}
	}
	t.need = int(t.first[s.count-1]) + taps
	t.packed = pack(t)
	return t, nil
}

const bicubicReach = 2 // input samples on either side, at scale 1

// bicubic is Keys' cubic convolution with a = -0.5.
func bicubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
	}
	return 0
}

// tables remembers the tables of sizes seen lately, for all workers.
var tables = tableCache{known: map[span]*table{}}

// maxCached bounds the weights that a cache holds: 16 MiB of memory, about 900 tables of VGA images.
const maxCached = 2 << 20

// tableCache is safe for concurrent use.
type tableCache struct {
	mu      sync.RWMutex
	known   map[span]*table
	weights int // in all known tables
}

// get returns the table of s. A hit allocates nothing.
func (c *tableCache) get(s span) (*table, error) {
	c.mu.RLock()
	t := c.known[s]
	c.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, err := newTable(s) // two workers may compute the same one; that is cheaper than waiting
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.known[s]; first != nil {
		return first, nil
	}
	for old, o := range c.known { // any ones: computing a table again takes well under a millisecond
		if c.weights+len(t.weights) <= maxCached {
			break
		}
		delete(c.known, old)
		c.weights -= len(o.weights)
	}
	c.known[s] = t
	c.weights += len(t.weights)
	return t, nil
}
