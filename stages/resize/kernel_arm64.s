#include "textflag.h"

// Four taps of a channel are four neighbouring bytes of a register, and SDOT multiplies them with four digits
// of weights: one for each of the three places. The sums are put together at the end:
// (highest<<16 + middle<<8 + lowest + bias) >> 22. See pack in kernel_arm64.go.
//
// Instructions that Go's assembler does not know:

// SDOT Vd.4S, Vn.16B, Vm.4B[2*h+l]
#define SDOT(m, h, l, n, d) WORD $(0x4F80E000 | (l)<<21 | (m)<<16 | (h)<<11 | (n)<<5 | (d))
// SQSHRUN Vd.4H, Vn.4S, #16 and SQSHRUN2 Vd.8H, Vn.4S, #16: signed to unsigned, saturated
#define SQSHRUN16(n, d) WORD $(0x2F108400 | (n)<<5 | (d))
#define SQSHRUN16UPPER(n, d) WORD $(0x6F108400 | (n)<<5 | (d))
// UQSHRN Vd.8B, Vn.8H, #6 and UQSHRN2 Vd.16B, Vn.8H, #6: saturated
#define UQSHRN6(n, d) WORD $(0x2F0A9400 | (n)<<5 | (d))
#define UQSHRN6UPPER(n, d) WORD $(0x6F0A9400 | (n)<<5 | (d))

// Bytes of 16 to gather: red of four taps, green, blue, nothing.
DATA taps<>+0(SB)/8, $0x0A07040109060300
DATA taps<>+8(SB)/8, $0xFFFFFFFF0B080502
GLOBL taps<>(SB), RODATA|NOPTR, $16

// func neonRows(dst0, dst1, src0, src1 *byte, first *int32, digits *int8, bias *int32, taps, count int)
TEXT ·neonRows(SB), NOSPLIT, $0-72
	MOVD dst0+0(FP), R0
	MOVD dst1+8(FP), R1
	MOVD src0+16(FP), R2
	MOVD src1+24(FP), R3
	MOVD first+32(FP), R4
	MOVD digits+40(FP), R5
	MOVD bias+48(FP), R6
	MOVD taps+56(FP), R7
	MOVD count+64(FP), R8
	MOVD $taps<>(SB), R9
	VLD1 (R9), [V30.B16]
	VMOVI $0x80, V31.B16
	MOVD $12, R10

output:
	MOVW.P 4(R4), R11
	ADD R11<<1, R11, R11
	ADD R2, R11, R12                  // first tap in row 0
	ADD R3, R11, R13                  // in row 1
	VLD1R.P 4(R6), [V16.S4]           // lowest digits: r g b - of row 0
	VEOR V17.B16, V17.B16, V17.B16    // middle ones
	VEOR V18.B16, V18.B16, V18.B16    // highest ones
	VMOV V16.B16, V20.B16             // the same of row 1
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	MOVD R7, R14

four:
	VLD1.P 16(R5), [V2.B16]
	VLD1.P (R12)(R10), [V0.B16]
	VLD1.P (R13)(R10), [V1.B16]
	VEOR V31.B16, V0.B16, V0.B16
	VEOR V31.B16, V1.B16, V1.B16
	VTBL V30.B16, [V0.B16], V0.B16
	VTBL V30.B16, [V1.B16], V1.B16
	SDOT(2, 0, 0, 0, 16)
	SDOT(2, 0, 1, 0, 17)
	SDOT(2, 1, 0, 0, 18)
	SDOT(2, 0, 0, 1, 20)
	SDOT(2, 0, 1, 1, 21)
	SDOT(2, 1, 0, 1, 22)
	SUBS $4, R14, R14
	BNE four

	VSHL $8, V17.S4, V17.S4
	VSHL $16, V18.S4, V18.S4
	VSHL $8, V21.S4, V21.S4
	VSHL $16, V22.S4, V22.S4
	VADD V17.S4, V16.S4, V16.S4
	VADD V21.S4, V20.S4, V20.S4
	VADD V18.S4, V16.S4, V16.S4
	VADD V22.S4, V20.S4, V20.S4
	SQSHRUN16(16, 16)
	SQSHRUN16UPPER(20, 16)
	UQSHRN6(16, 16)
	VST1 V16.S[0], (R0)
	VST1 V16.S[1], (R1)
	ADD $3, R0, R0
	ADD $3, R1, R1
	SUBS $1, R8, R8
	BNE output
	RET

// func neonColumn(dst, src *byte, stride int, digits *int8, bias int32, taps, n int)
// 16 bytes at a time; the last ones may overlap those before.
TEXT ·neonColumn(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD stride+16(FP), R2
	MOVD digits+24(FP), R3
	MOVWU bias+32(FP), R4
	MOVD taps+40(FP), R5
	MOVD n+48(FP), R6
	ADD R0, R6, R6
	SUB $16, R6, R6                   // where the last 16 bytes go
	SUB R0, R1, R1                    // source of a byte of dst, as a distance
	VMOVI $0x80, V31.B16
	VDUP R4, V30.S4

bytes:
	ADD R0, R1, R7
	MOVD R3, R8
	MOVD R5, R9
	VMOV V30.B16, V16.B16             // lowest digits of bytes 0-3
	VMOV V30.B16, V17.B16             // 4-7
	VMOV V30.B16, V18.B16             // 8-11
	VMOV V30.B16, V19.B16             // 12-15
	VEOR V20.B16, V20.B16, V20.B16    // middle ones
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	VEOR V24.B16, V24.B16, V24.B16    // highest ones
	VEOR V25.B16, V25.B16, V25.B16
	VEOR V26.B16, V26.B16, V26.B16
	VEOR V27.B16, V27.B16, V27.B16

rows:
	VLD1.P 16(R8), [V12.B16]
	VLD1.P (R7)(R2), [V0.B16]
	VLD1.P (R7)(R2), [V1.B16]
	VLD1.P (R7)(R2), [V2.B16]
	VLD1.P (R7)(R2), [V3.B16]
	VEOR V31.B16, V0.B16, V0.B16
	VEOR V31.B16, V1.B16, V1.B16
	VEOR V31.B16, V2.B16, V2.B16
	VEOR V31.B16, V3.B16, V3.B16
	VZIP1 V2.B16, V0.B16, V4.B16      // rows 0 and 2 of bytes 0-7
	VZIP2 V2.B16, V0.B16, V5.B16      // of bytes 8-15
	VZIP1 V3.B16, V1.B16, V6.B16      // rows 1 and 3
	VZIP2 V3.B16, V1.B16, V7.B16
	VZIP1 V6.B16, V4.B16, V8.B16      // rows 0 1 2 3 of bytes 0-3
	VZIP2 V6.B16, V4.B16, V9.B16
	VZIP1 V7.B16, V5.B16, V10.B16
	VZIP2 V7.B16, V5.B16, V11.B16
	SDOT(12, 0, 0, 8, 16)
	SDOT(12, 0, 0, 9, 17)
	SDOT(12, 0, 0, 10, 18)
	SDOT(12, 0, 0, 11, 19)
	SDOT(12, 0, 1, 8, 20)
	SDOT(12, 0, 1, 9, 21)
	SDOT(12, 0, 1, 10, 22)
	SDOT(12, 0, 1, 11, 23)
	SDOT(12, 1, 0, 8, 24)
	SDOT(12, 1, 0, 9, 25)
	SDOT(12, 1, 0, 10, 26)
	SDOT(12, 1, 0, 11, 27)
	SUBS $4, R9, R9
	BNE rows

	VSHL $8, V20.S4, V20.S4
	VSHL $8, V21.S4, V21.S4
	VSHL $8, V22.S4, V22.S4
	VSHL $8, V23.S4, V23.S4
	VSHL $16, V24.S4, V24.S4
	VSHL $16, V25.S4, V25.S4
	VSHL $16, V26.S4, V26.S4
	VSHL $16, V27.S4, V27.S4
	VADD V20.S4, V16.S4, V16.S4
	VADD V21.S4, V17.S4, V17.S4
	VADD V22.S4, V18.S4, V18.S4
	VADD V23.S4, V19.S4, V19.S4
	VADD V24.S4, V16.S4, V16.S4
	VADD V25.S4, V17.S4, V17.S4
	VADD V26.S4, V18.S4, V18.S4
	VADD V27.S4, V19.S4, V19.S4
	SQSHRUN16(16, 16)
	SQSHRUN16UPPER(17, 16)
	SQSHRUN16(18, 18)
	SQSHRUN16UPPER(19, 18)
	UQSHRN6(16, 16)
	UQSHRN6UPPER(18, 16)
	VST1 [V16.B16], (R0)
	CMP R6, R0
	BEQ done
	ADD $16, R0, R0
	CMP R6, R0
	BLS bytes
	MOVD R6, R0
	B bytes

done:
	RET
