package wire

import (
	"bytes"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func TestMemory(t *testing.T) {
	m := assert.Value(NewMemory([Models]int{3, 2}, [Models]int{5000, 100}, [Models]int{10, 9000}))
	defer m.File.Close()
	n := 0
	for model, l := range m.Load {
		for _, offset := range []uint64{l.InputOffset, l.InputStride, l.OutputOffset, l.OutputStride} {
			assert.True(t, offset%4096 == 0, "%d is not on a page", offset)
		}
		for slot := range int(l.Slots) {
			for _, part := range [][]byte{m.Input(model, slot), m.Output(model, slot)} {
				i := bytes.IndexFunc(part, func(r rune) bool { return r != 0 })
				assert.MustTrue(t, i < 0, "slot %d of model %d overlaps another at %d", slot, model, i)
				n++
				copy(part, bytes.Repeat([]byte{byte(n)}, len(part)))
			}
		}
		assert.True(t, l.Within(uint64(len(m.Data))), "model %d is not within the memory", model)
	}
	assert.Error(t, m.File.Truncate(10), "the memory can be shrunk")
}
