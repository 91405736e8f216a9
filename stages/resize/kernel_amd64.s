#include "textflag.h"

// Pixels (0 to 255 in 16-bit lanes) are multiplied with the low and the high parts of the weights apart, two
// taps at a time (VPMADDWD: a*b + c*d in 32 bits, without overflow here), and the two sums are put together
// at the end: high<<15 + low + half, >>22. That is the exact sum: see pack in kernel_amd64.go.

// Bytes of 16 to spread into 16-bit lanes: red of taps 0 and 1, green of both, blue of both, nothing.
DATA taps01<>+0(SB)/8, $0x8004800180038000
DATA taps01<>+8(SB)/8, $0x8080808080058002
GLOBL taps01<>(SB), RODATA|NOPTR, $16

// The same for taps 2 and 3.
DATA taps23<>+0(SB)/8, $0x800A800780098006
DATA taps23<>+8(SB)/8, $0x80808080800B8008
GLOBL taps23<>(SB), RODATA|NOPTR, $16

DATA half<>+0(SB)/4, $0x200000
GLOBL half<>(SB), RODATA|NOPTR, $4

// func avx2Rows(dst0, dst1, src0, src1 *byte, first *int32, pairs *int16, taps, count int)
// The lower half of a register belongs to row 0, the upper one to row 1.
TEXT ·avx2Rows(SB), NOSPLIT, $0-64
	MOVQ dst0+0(FP), DI
	MOVQ dst1+8(FP), SI
	MOVQ src0+16(FP), R8
	MOVQ src1+24(FP), R9
	MOVQ first+32(FP), R10
	MOVQ pairs+40(FP), R11
	MOVQ taps+48(FP), R12
	MOVQ count+56(FP), R13
	SUBQ R8, R9                        // row 1 is at this distance from row 0
	VBROADCASTI128 taps01<>(SB), Y15
	VBROADCASTI128 taps23<>(SB), Y14
	VPBROADCASTD half<>(SB), Y13

output:
	MOVLQSX (R10), AX
	LEAQ (AX)(AX*2), AX
	ADDQ R8, AX                        // first tap in row 0
	VMOVDQA Y13, Y0                    // sum of low parts: r g b - of row 0, of row 1
	VPXOR Y1, Y1, Y1                   // sum of high parts
	MOVQ R12, CX
	SUBQ $4, CX
	JLT  two

four:
	VMOVDQU (AX), X2
	VINSERTI128 $1, (AX)(R9*1), Y2, Y2
	VPSHUFB Y15, Y2, Y3
	VPSHUFB Y14, Y2, Y4
	VPBROADCASTD (R11), Y5
	VPBROADCASTD 4(R11), Y6
	VPBROADCASTD 8(R11), Y7
	VPBROADCASTD 12(R11), Y8
	VPMADDWD Y3, Y5, Y5
	VPMADDWD Y3, Y6, Y6
	VPMADDWD Y4, Y7, Y7
	VPMADDWD Y4, Y8, Y8
	VPADDD Y5, Y7, Y5
	VPADDD Y6, Y8, Y6
	VPADDD Y5, Y0, Y0
	VPADDD Y6, Y1, Y1
	ADDQ $12, AX
	ADDQ $16, R11
	SUBQ $4, CX
	JGE  four

two:
	TESTQ $2, CX
	JZ   store
	VMOVDQU (AX), X2
	VINSERTI128 $1, (AX)(R9*1), Y2, Y2
	VPSHUFB Y15, Y2, Y3
	VPBROADCASTD (R11), Y5
	VPBROADCASTD 4(R11), Y6
	VPMADDWD Y3, Y5, Y5
	VPMADDWD Y3, Y6, Y6
	VPADDD Y5, Y0, Y0
	VPADDD Y6, Y1, Y1
	ADDQ $8, R11

store:
	VPSLLD $15, Y1, Y1
	VPADDD Y1, Y0, Y0
	VPSRAD $22, Y0, Y0
	VPACKSSDW Y0, Y0, Y0
	VPACKUSWB Y0, Y0, Y0
	VMOVD X0, (DI)
	VEXTRACTI128 $1, Y0, X1
	VMOVD X1, (SI)
	ADDQ $3, DI
	ADDQ $3, SI
	ADDQ $4, R10
	DECQ R13
	JNZ  output
	VZEROUPPER
	RET

// func avx2Column(dst, src *byte, stride int, pairs *int16, taps, n int)
// 16 bytes at a time; the last ones may overlap those before.
TEXT ·avx2Column(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), R8
	MOVQ pairs+24(FP), R9
	MOVQ taps+32(FP), R10
	MOVQ n+40(FP), R11
	LEAQ -16(DI)(R11*1), R12           // where the last 16 bytes go
	SUBQ DI, SI                        // source of a byte of dst, as a distance
	VPBROADCASTD half<>(SB), Y13

bytes:
	LEAQ (DI)(SI*1), AX
	MOVQ R9, BX
	MOVQ R10, CX
	VMOVDQA Y13, Y0                    // low parts of bytes 0-3 and 8-11
	VMOVDQA Y13, Y1                    // of bytes 4-7 and 12-15
	VPXOR Y2, Y2, Y2                   // high parts of the same
	VPXOR Y3, Y3, Y3

rows:
	VPMOVZXBW (AX), Y4
	VPMOVZXBW (AX)(R8*1), Y5
	VPUNPCKLWD Y5, Y4, Y6
	VPUNPCKHWD Y5, Y4, Y7
	VPBROADCASTD (BX), Y8
	VPBROADCASTD 4(BX), Y9
	VPMADDWD Y6, Y8, Y10
	VPMADDWD Y7, Y8, Y11
	VPADDD Y10, Y0, Y0
	VPADDD Y11, Y1, Y1
	VPMADDWD Y6, Y9, Y10
	VPMADDWD Y7, Y9, Y11
	VPADDD Y10, Y2, Y2
	VPADDD Y11, Y3, Y3
	LEAQ (AX)(R8*2), AX
	ADDQ $8, BX
	SUBQ $2, CX
	JNZ  rows

	VPSLLD $15, Y2, Y2
	VPSLLD $15, Y3, Y3
	VPADDD Y2, Y0, Y0
	VPADDD Y3, Y1, Y1
	VPSRAD $22, Y0, Y0
	VPSRAD $22, Y1, Y1
	VPACKSSDW Y1, Y0, Y0               // bytes 0-7, 8-15
	VPACKUSWB Y0, Y0, Y0
	VPERMQ $0x08, Y0, Y0
	VMOVDQU X0, (DI)
	CMPQ DI, R12
	JEQ  done
	ADDQ $16, DI
	CMPQ DI, R12
	JLS  bytes
	MOVQ R12, DI
	JMP  bytes

done:
	VZEROUPPER
	RET
