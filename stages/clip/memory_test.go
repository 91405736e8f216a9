package clip

import (
	"math"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPlanMemory divides memory among a program that takes 100 MB, 30 of them Go's and 20 alive. All in MB.
func TestPlanMemory(t *testing.T) {
	const none = math.MaxInt64 >> 20
	for _, c := range []struct{ limit, total, body, runtime, bodies, images int64 }{
		{64, 8192, 16, 52, 32, 0},                          // less than the program takes
		{256, 8192, 16, 170, 32, 68},                       // 256 - 70 - 16; (170 - 20 - 32 - 32) * 4/5
		{512, 8192, 16, 410, 64, 235},                      // 512 - 70 - 32; (410 - 20 - 64 - 32) * 4/5
		{3072, 8192, 16, 2810, 256, 2001},                  // max_body_memory_bytes is less than an eighth
		{3072, 2048, 16, 1850, 256, 1233},                  // a machine of 2 GB
		{3072, 0, 16, 2810, 256, 2001},                     // one that does not tell
		{512, 8192, 512, 410, 1024, 0},                     // two bodies are more than there is
		{none, 8192, 16, none, 256, 4096},                  // no limit
		{1 << 30, 1 << 31, 16, 1006632890, 256, 805306065}, // the most that can be written
	} {
		l := MemoryLimits{Max: c.limit << 20, Bodies: 256 << 20, Body: int(c.body) << 20, Lists: 32 << 20, Workers: 2}
		if c.limit == none {
			l.Max = math.MaxInt64
		}
		m := l.plan(c.total<<20, 100<<20, 30<<20, 20<<20)
		if m.Runtime>>20 != c.runtime || int64(m.Bodies)>>20 != c.bodies || m.Images>>20 != c.images {
			t.Errorf("%+v: %+v", c, m)
		}
	}
}

// TestAddressesLeft gives this process a limit that is far away, for a moment.
func TestAddressesLeft(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &before); err != nil {
		t.Fatal(err)
	}
	const far = 1 << 44
	if before.Max < far {
		t.Skip("the addresses of this process are limited already")
	}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: far, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	left, limited := addressesLeft()
	if err := unix.Setrlimit(unix.RLIMIT_AS, &before); err != nil {
		t.Fatal(err)
	}
	if used := int64(far) - left; !limited || used < processOf(os.Getpid()).resident || used > far/2 {
		t.Errorf("%d of %d are used, limited: %v", used, int64(far), limited)
	}
	if _, limited := addressesLeft(); limited != (before.Cur != unix.RLIM_INFINITY) {
		t.Error("no limit is a limit")
	}
}
