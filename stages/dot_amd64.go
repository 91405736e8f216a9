package stages

import "golang.org/x/sys/cpu"

// dot is chosen once, by what the processor has.
var dot = func() func(a, b []float32) float32 {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		return dotAVX2
	}
	return dotGo
}()

// dotAVX2 is dot. It reads len(a) values of both and checks nothing.
//
//go:noescape
func dotAVX2(a, b []float32) float32
