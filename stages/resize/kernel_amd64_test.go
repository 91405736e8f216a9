package resize

import "testing"

// TestPack covers both ends of what weights can be.
func TestPack(t *testing.T) {
	for _, w := range []int32{0, 1, -1, 1<<14 - 1, 1 << 14, -1 << 14, -1<<14 - 1, 1 << 22, -1 << 22, 3<<22 + 12345, -3<<22 - 54321} {
		p := pack(&table{weights: []int32{w, -w}}).pairs
		for i, want := range []int32{w, -w} {
			if got := int32(p[2+i])<<lowBits + int32(p[i]); got != want {
				t.Errorf("%d became %d", want, got)
			}
		}
	}
}
