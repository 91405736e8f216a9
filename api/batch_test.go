package api

import "testing"

// TestBatchBody: the limit for the bodies of batches gives way to the memory that there is, and is never below that for others.
func TestBatchBody(t *testing.T) {
	for _, c := range []struct{ batch, memory, body, want int }{
		{64 << 20, 256 << 20, 16 << 20, 64 << 20},
		{64 << 20, 64 << 20, 16 << 20, 32 << 20}, // resource_limits.memory_max: 512M
		{64 << 20, 32 << 20, 16 << 20, 16 << 20},
		{1 << 20, 256 << 20, 16 << 20, 16 << 20},
	} {
		cfg := Config{MaxBatchBodyBytes: c.batch, MaxBodyMemoryBytes: c.memory, MaxBodyBytes: c.body}
		if got := cfg.batchBody(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
