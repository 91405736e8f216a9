#include "textflag.h"

// Instructions that Go's assembler does not know:

// FADD Vd.4S, Vn.4S, Vm.4S
#define FADD4(m, n, d) WORD $(0x4E20D400 | (m)<<16 | (n)<<5 | (d))
// FADDP Vd.4S, Vn.4S, Vm.4S: sums of neighbours, those of Vn first
#define FADDP4(m, n, d) WORD $(0x6E20D400 | (m)<<16 | (n)<<5 | (d))

// func dotNEON(a, b []float32) float32
// Four sums of four lanes hide the latency of FMLA: two loads for each keep it to one a cycle.
TEXT ·dotNEON(SB), NOSPLIT, $0-52
	MOVD a_base+0(FP), R0
	MOVD a_len+8(FP), R2
	MOVD b_base+24(FP), R1
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16       // sum of the last, fewer than four, in its lowest lane
	SUBS $16, R2, R2
	BLT rest

sixteen:
	VLD1.P 64(R0), [V16.S4, V17.S4, V18.S4, V19.S4]
	VLD1.P 64(R1), [V20.S4, V21.S4, V22.S4, V23.S4]
	VFMLA V16.S4, V20.S4, V0.S4
	VFMLA V17.S4, V21.S4, V1.S4
	VFMLA V18.S4, V22.S4, V2.S4
	VFMLA V19.S4, V23.S4, V3.S4
	SUBS $16, R2, R2
	BGE sixteen

rest:
	ADDS $12, R2, R2                  // what is left, less four
	BLT last

four:
	VLD1.P 16(R0), [V16.S4]
	VLD1.P 16(R1), [V20.S4]
	VFMLA V16.S4, V20.S4, V0.S4
	SUBS $4, R2, R2
	BGE four

last:
	ADDS $4, R2, R2
	BEQ sum

one:
	FMOVS.P 4(R0), F16
	FMOVS.P 4(R1), F20
	FMADDS F16, F4, F20, F4
	SUBS $1, R2, R2
	BNE one

sum:
	FADD4(1, 0, 0)
	FADD4(3, 2, 2)
	FADD4(2, 0, 0)
	FADD4(4, 0, 0)
	FADDP4(0, 0, 0)
	FADDP4(0, 0, 0)
	FMOVS F0, ret+48(FP)
	RET
