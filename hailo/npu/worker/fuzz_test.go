package worker_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

// FuzzWorker plays a hostile host to the worker under AddressSanitizer: packets of any content in
// any order. The worker must end by itself, orderly, when its socket does.
//
// A script is a row of packets: a byte below 8 names a good packet, followed by a number of
// patches (a 16-bit offset and four bytes each) and how many bytes to cut off; any other byte is
// the length of a packet that follows as it is.
func FuzzWorker(f *testing.F) {
	builds[1].program(f) // now: a run of the fuzzer may take 10 s, the compiler more
	good := func(h *host, which byte) []byte {
		load := *h.loadMessage(uint32(which & 1))
		switch which {
		case 0:
			return wire.Append(nil, h.openMessage())
		case 1, 2:
			return wire.Append(nil, &load)
		case 3:
			return wire.Append(nil, &wire.Hello{})
		default:
			return wire.Append(nil, &wire.Submit{Model: uint32(which & 1), Slot: uint32(which) >> 1, Threshold: 1})
		}
	}
	f.Add([]byte{0, 0, 0, 1, 0, 0, 2, 0, 0, 4, 0, 0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 3, 0, 0})    // all is well
	f.Add([]byte{0, 0, 0, 2, 0, 0, 4, 0, 0, 4, 0, 0})                                        // a slot twice
	f.Add([]byte{0, 0, 0, 2, 1, 40, 0, 1, 0, 0, 0, 0})                                       // an offset within a page
	f.Add([]byte{0, 1, 12, 0, 2, 0, 0, 0, 0})                                                // another version
	f.Add([]byte{0, 0, 0, 2, 2, 36, 0, 255, 255, 255, 255, 52, 0, 0, 0, 0, 128, 0, 4, 0, 0}) // slots and stride overflow
	f.Add([]byte{0, 0, 9, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, script []byte) {
		h := start(t, builds[1], "scale=0")
		next := func() byte {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return b
		}
		for packets := 0; len(script) > 0 && packets < 100; packets++ {
			var packet []byte
			if which := next(); which < 8 {
				packet = good(h, which)
				for range next() % 8 {
					offset := int(next()) | int(next())<<8
					var value [4]byte
					for i := range value {
						value[i] = next()
					}
					if offset+4 <= len(packet) {
						binary.LittleEndian.PutUint32(packet[offset:], binary.LittleEndian.Uint32(value[:]))
					}
				}
				packet = packet[:max(1, len(packet)-int(next()))]
			} else {
				packet = make([]byte, which)
				for i := range packet {
					packet[i] = next()
				}
			}
			if _, err := h.conn.Write(packet); err != nil {
				break // it has ended
			}
		}
		h.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
		select {
		case <-h.ended:
		case <-time.After(patience):
			t.Fatal("the worker does not end")
		}
		status, says := h.cmd.ProcessState.ExitCode(), h.stderr.String()
		assert.True(t, status >= exitDone && status <= exitViolation, "the worker ended with %v; it said:\n%s", h.cmd.ProcessState, says)
		assert.True(t, status == exitDone || strings.HasPrefix(says, "hailo-clip-npu: "), "status %d without a reason: %q", status, says)
	})
}
