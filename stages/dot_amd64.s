#include "textflag.h"

// func dotAVX2(a, b []float32) float32
// Four sums of eight lanes hide the latency of FMA: two loads for each keep it to one a cycle.
TEXT ·dotAVX2(SB), NOSPLIT, $0-52
	MOVQ a_base+0(FP), SI
	MOVQ a_len+8(FP), CX
	MOVQ b_base+24(FP), DI
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	VXORPS Y4, Y4, Y4                  // sum of the last, fewer than eight, in its lowest lane
	SUBQ $32, CX
	JLT  rest

thirtytwo:
	VMOVUPS (SI), Y5
	VMOVUPS 32(SI), Y6
	VMOVUPS 64(SI), Y7
	VMOVUPS 96(SI), Y8
	VFMADD231PS (DI), Y5, Y0
	VFMADD231PS 32(DI), Y6, Y1
	VFMADD231PS 64(DI), Y7, Y2
	VFMADD231PS 96(DI), Y8, Y3
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JGE  thirtytwo

rest:
	ADDQ $24, CX                       // what is left, less eight
	JLT  last

eight:
	VMOVUPS (SI), Y5
	VFMADD231PS (DI), Y5, Y0
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JGE  eight

last:
	ADDQ $8, CX
	JZ   sum

one:
	VMOVSS (SI), X5
	VFMADD231SS (DI), X5, X4
	ADDQ $4, SI
	ADDQ $4, DI
	DECQ CX
	JNZ  one

sum:
	VADDPS Y1, Y0, Y0
	VADDPS Y3, Y2, Y2
	VADDPS Y2, Y0, Y0
	VADDPS Y4, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS X1, X0, X0
	VHADDPS X0, X0, X0
	VHADDPS X0, X0, X0
	VMOVSS X0, ret+48(FP)
	VZEROUPPER
	RET
