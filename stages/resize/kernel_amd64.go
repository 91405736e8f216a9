package resize

import "golang.org/x/sys/cpu"

// fastest is chosen once, by what the processor has.
var fastest = func() kernels {
	if cpu.X86.HasAVX2 {
		return kernels{"avx2", horizontalAVX2, verticalAVX2}
	}
	return portable
}()

// tapStep: VPMADDWD multiplies two taps at a time.
const tapStep = 2

// packed are the weights for 16-bit multipliers: for each two taps the low parts of both weights, then the
// high parts.
type packed struct{ pairs []int16 }

// pack cuts each weight into signed parts of 16 bits, weight = high<<lowBits + low. Products of the parts
// with pixels are exact, and so is (sum of high)<<lowBits + sum of low: both sums may wrap around 32 bits,
// their total wraps back.
func pack(t *table) packed {
	pairs := make([]int16, 2*len(t.weights))
	for i := 0; i < len(t.weights); i += 2 {
		for j, w := range t.weights[i : i+2] {
			low := w << (32 - lowBits) >> (32 - lowBits)
			pairs[2*i+j] = int16(low)
			pairs[2*i+2+j] = int16((w - low) >> lowBits)
		}
	}
	return packed{pairs}
}

const lowBits = 15

func horizontalAVX2(dst0, dst1, src0, src1 []byte, t *table) {
	// The assembly checks nothing: these indexes stand for its furthest accesses.
	n, reach := 3*len(t.first), 3*t.need+slack-1
	_, _, _, _ = dst0[n], dst1[n], src0[reach], src1[reach]
	avx2Rows(&dst0[0], &dst1[0], &src0[0], &src1[0], &t.first[0], &t.pairs[0], t.taps, len(t.first))
}

func verticalAVX2(dst, src []byte, stride int, t *table, y int) {
	if len(dst) < 16 {
		verticalGo(dst, src, stride, t, y)
		return
	}
	_ = src[(t.taps-1)*stride+len(dst)-1]
	avx2Column(&dst[0], &src[0], stride, &t.pairs[2*y*t.taps], t.taps, len(dst))
}

// avx2Rows writes count pixels to dst0 and dst1, 3 bytes apart, and one byte after the last. Output i is made
// of the taps pixels at src0 and src1 from pixel first[i] on. It reads up to 10 bytes beyond the last tap.
//
//go:noescape
func avx2Rows(dst0, dst1, src0, src1 *byte, first *int32, pairs *int16, taps, count int)

// avx2Column writes n >= 16 bytes to dst, each made of taps bytes that are stride apart from src on.
//
//go:noescape
func avx2Column(dst, src *byte, stride int, pairs *int16, taps, n int)
