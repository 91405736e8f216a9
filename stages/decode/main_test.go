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
			for i := range b {
				b[i] = poison
			}
		}
	}
	os.Exit(m.Run())
}
