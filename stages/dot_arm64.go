package stages

// dot needs no choice: every processor that Go's arm64 runs on has NEON.
var dot = dotNEON

// dotNEON is dot. It reads len(a) values of both and checks nothing.
//
//go:noescape
func dotNEON(a, b []float32) float32
