package decode

import (
	"flag"
	"os"
	"testing"
)

// poison is what released buffers hold in tests.
var poison byte = 0xA5

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		released = func(b []byte) {
			b = b[:cap(b)]
			b[0] = poison
			for n := 1; n < len(b); n *= 2 { // faster than byte by byte, under the race detector too
				copy(b[n:], b[:n])
			}
		}
	}
	os.Exit(m.Run())
}
