package sim

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

// script is a host that says what it is given, and then goes away when the chip has been
// silent: it closes when everything was read.
type script struct {
	packets [][]byte
	mu      sync.Mutex
	said    [][]byte
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.packets) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.packets[0])
	s.packets = s.packets[1:]
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, append([]byte(nil), b...))
	return len(b), nil
}

const memoryBytes = 1 << 16

func newChip(packets [][]byte) (*chip, *script) {
	s := &script{packets: packets}
	c := Config{ImageSize: 4, Dimension: 8, ContextLength: 3, Width: 4, Output: "uint8"}
	return &chip{Config: c, faults: newFaults(func() {}), conn: s, memory: func(n uint64) ([]byte, error) {
		if n != memoryBytes {
			return nil, errors.New("no such memory")
		}
		return make([]byte, n), nil
	}}, s
}

var (
	openMessage = &wire.Open{Magic: wire.Magic, Version: wire.Version, Memory: memoryBytes}
	loadImage   = &wire.Load{Model: wire.ImageModel, Batch: 2, Slots: 4, InputStride: 4096, OutputStride: 4096, OutputOffset: 4 * 4096}
	loadText    = &wire.Load{Model: wire.TextModel, Batch: 2, Slots: 2, Threshold: 2, TimeoutMS: 1,
		InputStride: 4096, InputOffset: 8 * 4096, OutputStride: 4096, OutputOffset: 10 * 4096}
)

// Whatever a host says, the chip neither panics nor hangs, writes within its slots (or it
// would panic), and reports no frame twice nor one that was not submitted.
func FuzzHostMessages(f *testing.F) {
	seed := func(packets ...[]byte) {
		var b []byte
		for _, p := range packets {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(p)))
			b = append(b, p...)
		}
		f.Add(b)
	}
	start := [][]byte{wire.Append(nil, openMessage), wire.Append(nil, loadImage), wire.Append(nil, loadText)}
	submit := func(model, slot uint32, sequence uint64) []byte {
		return wire.Append(nil, &wire.Submit{Model: model, Slot: slot, Sequence: sequence, Threshold: 1 + uint32(sequence&1)})
	}
	seed(append(start, submit(0, 0, 1), submit(0, 3, 2), submit(1, 1, 3))...)
	seed(append(start, submit(0, 0, 1), submit(0, 0, 2))...)
	seed(append(start[:1:1], submit(1, 9, 1))...)
	far := *loadImage
	far.InputOffset, far.InputStride = math.MaxUint64-100, math.MaxUint64
	seed(start[0], wire.Append(nil, &far))
	seed(start[1])
	seed(wire.Append(nil, &wire.Open{Magic: wire.Magic, Version: wire.Version + 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var packets [][]byte
		submitted := map[wire.Submit]bool{}
		for len(b) >= 2 && len(packets) < 50 {
			n := min(int(binary.LittleEndian.Uint16(b)), len(b)-2)
			packets = append(packets, b[2:2+n])
			if m, err := wire.Parse(b[2 : 2+n]); err == nil {
				if s, ok := m.(*wire.Submit); ok {
					submitted[wire.Submit{Model: s.Model, Slot: s.Slot, Sequence: s.Sequence}] = true
				}
			}
			b = b[2+n:]
		}
		c, host := newChip(packets)
		_ = c.run() // any error, but it returns
		for _, packet := range host.said {
			if d, ok := assert.Value(wire.Parse(packet)).(*wire.Done); ok {
				key := wire.Submit{Model: d.Model, Slot: d.Slot, Sequence: d.Sequence} // without the rest
				assert.MustTrue(t, submitted[key], "%+v was not submitted", key)
			}
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, line := range []string{"ok", "hang", "crash", "crash=3", "error=63@5", "error=8", "lose=1", "repeat=2", "garbage=9",
		"slow=2.5", "decay=0.001", "heat=5", "refuse=busy", "error=@", "slow=NaN"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		faults := newFaults(func() {})
		if err := faults.command(line); err != nil {
			return
		}
		k := faults.factor()
		assert.True(t, k > 0 && !math.IsInf(k, 0), "%q: runs take %v times as long", line, k)
	})
}
