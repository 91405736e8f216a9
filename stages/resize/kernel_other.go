//go:build !amd64 && !arm64

package resize

var fastest = portable

// tapStep is 1: the portable kernels take any number of taps.
const tapStep = 1

// packed is for kernels in assembly.
type packed struct{}

func pack(*table) packed { return packed{} }
