package device

// The tests that need a machine are in package doctor, which has made one.

import (
	"context"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"
)

func TestVersions(t *testing.T) {
	for in, want := range map[string][3]int{
		"5.1.1": {5, 1, 1}, "5.1.1-2": {5, 1, 1}, "6.18.50+rpt-rpi-2712": {6, 18, 50}, "5.2": {5, 2, 0},
		"": {}, "v5": {}, "5": {}, "99999999999999999999.1.1": {},
	} {
		assert.Equal(t, numbers(in), want, "numbers(%q)", in)
	}
	assert.True(t, Newer("5.10.0", "5.9.9") && !Newer("5.1.1", "5.1.1") && !Newer("5.1.1", "5.2.0"), "newer")
	for in, want := range map[string]string{"libhailort.so.5.1.1": "5.1.1", "libhailort.so": "", "libhailort.so.5": "", "libhailort.so.5.1.1.bak": ""} {
		assert.Equal(t, VersionAtEnd(in), want, "VersionAtEnd(%q)", in)
	}
}

func TestCommand(t *testing.T) {
	out, err := Command(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero")
	assert.True(t, err == nil && len(out) == maxRead, "%d bytes, %v", len(out), err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	assert.Error(t, assert.Err(Command(ctx, "sleep", "600")), "a program that takes too long is no error")
	assert.Error(t, assert.Err(Command(t.Context(), "hailo-clip-no-such-program")), "a missing program is no error")
}
