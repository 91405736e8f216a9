package resize

import "golang.org/x/sys/cpu"

// fastest is chosen once, by what the processor has: SDOT is in all since the Cortex-A76 of the Raspberry Pi 5.
var fastest = func() kernels {
	if cpu.ARM64.HasASIMDDP {
		return kernels{"neon", horizontalNEON, verticalNEON}
	}
	return portable
}()

// tapStep: SDOT multiplies four taps at a time.
const tapStep = 4

// packed are the weights for 8-bit multipliers.
type packed struct {
	// For each four taps: the lowest digits of the four weights, the middle ones, the highest ones, four zeros;
	// weight = highest<<16 + middle<<8 + lowest, each from -128 to 127.
	digits []int8
	// What each sum starts with: half, and what makes up for pixels being multiplied less 128, as signed bytes.
	bias []int32
}

// pack cuts each weight into three signed digits. Normalised weights are below 1.2, so the highest digit is
// below 80. Sums of products of digits with pixels are exact, and so is their total: it may wrap around 32 bits
// on the way and wraps back.
func pack(t *table) packed {
	p := packed{make([]int8, 4*len(t.weights)), make([]int32, len(t.first))}
	for i, w := range t.weights {
		p.bias[i/t.taps] += 128 * w
		at := p.digits[i/4*16+i%4:]
		for digit := 0; digit < 3; digit++ {
			at[4*digit] = int8(w)
			w = (w - int32(int8(w))) >> 8
		}
	}
	for i := range p.bias {
		p.bias[i] += half
	}
	return p
}

func horizontalNEON(dst0, dst1, src0, src1 []byte, t *table) {
	// The assembly checks nothing: these indexes stand for its furthest accesses.
	n, reach := 3*len(t.first), 3*t.need+slack-1
	_, _, _, _ = dst0[n], dst1[n], src0[reach], src1[reach]
	neonRows(&dst0[0], &dst1[0], &src0[0], &src1[0], &t.first[0], &t.digits[0], &t.bias[0], t.taps, len(t.first))
}

func verticalNEON(dst, src []byte, stride int, t *table, y int) {
	if len(dst) < 16 {
		verticalGo(dst, src, stride, t, y)
		return
	}
	_ = src[(t.taps-1)*stride+len(dst)-1]
	neonColumn(&dst[0], &src[0], stride, &t.digits[4*y*t.taps], t.bias[y], t.taps, len(dst))
}

// neonRows writes count pixels to dst0 and dst1, 3 bytes apart, and one byte after the last. Output i is made
// of the taps pixels at src0 and src1 from pixel first[i] on. It reads up to 4 bytes beyond the last tap.
//
//go:noescape
func neonRows(dst0, dst1, src0, src1 *byte, first *int32, digits *int8, bias *int32, taps, count int)

// neonColumn writes n >= 16 bytes to dst, each made of taps bytes that are stride apart from src on.
//
//go:noescape
func neonColumn(dst, src *byte, stride int, digits *int8, bias int32, taps, n int)
