package worker_test

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

func TestDeviceDoesNotOpen(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fake, device string
		status             wire.Code
		text               string
	}{
		{"no device", "scan=0", "", 74, "no Hailo device found"},
		{"two devices", "scan=2", "", 2, "0001:01:00.0, 0002:01:00.0"},
		{"busy", "create=73", "", 73, "0001:01:00.0"},
		{"driver of another version", "create=76", "", 76, "0001:01:00.0"},
		{"vanished", "create=2", "0009:01:00.0", 2, "0009:01:00.0"},
		{"id too long", "", strings.Repeat("0", 32), 2, "device id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, builds[1], tt.fake)
			open := h.openMessage()
			wire.SetText(open.Device[:], tt.device)
			h.write(wire.Append(nil, open))
			hello := want[*wire.Hello](h)
			assert.True(t, hello.Status == tt.status && strings.Contains(hello.Text.String(), tt.text), "hello %v: %q", hello.Status, hello.Text)
			h.exit(exitFailed, tt.text)
		})
	}
}

func TestGroupAndDevice(t *testing.T) {
	t.Parallel()
	h := start(t, builds[0], "scan=0")
	open := h.openMessage()
	wire.SetText(open.Device[:], "0007:01:00.0")
	wire.SetText(open.Group[:], "SHARED")
	h.write(wire.Append(nil, open))
	hello := want[*wire.Hello](h)
	assert.Equal(t, hello.Status, wire.Success, "%v", hello.Text)
	assert.Equal(t, hello.Device.String(), "0007:01:00.0")
}

func TestModelDoesNotLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fake, hef string
		change          func(*wire.Load)
		status          wire.Code
	}{
		{"no file", "", "", func(l *wire.Load) { wire.SetText(l.HEF[:], filepath.Join(t.TempDir(), "none")) }, 13},
		{"damaged", "", "not numbers", nil, 91},
		{"too new", "hef=92", "", nil, 92},
		{"for another chip", "configure=93", "", nil, 93},
		{"chip out of memory", "configure=71", "", nil, 71},
		{"two inputs", "", "1 1 0 1  1 1 64 1  0 0 1", nil, 6},
		{"two outputs", "", "1 1 3 1  1 1 0 1  0 0 1", nil, 6},
		{"numbers of 3 bytes", "", "1 1 3 3  1 1 64 1  0 0 1", nil, 79},
		{"shape that overflows", "", "65536 65536 65536 65536  1 1 64 1  0 0 1", nil, 79},
		{"frame larger than the slot", "", "64 64 3 1  1 1 64 1  0 0 1", nil, 5},
		{"output larger than the slot", "", "1 1 3 1  1 77 512 1  0 0 1", nil, 5},
		{"two network groups", "groups=2", "", nil, 26},
		{"no network group", "groups=0", "", nil, 26},
		{"columns first", "order=11", "", nil, 79},
		{"transposed", "flags=3", "", nil, 79},
		{"batch 0", "", "", func(l *wire.Load) { l.Batch = 0 }, 2},
		{"batch 64", "", "", func(l *wire.Load) { l.Batch = 64 }, 2},
		{"threshold over the batch", "", "", func(l *wire.Load) { l.Threshold = 9 }, 2},
		{"priority 32", "", "", func(l *wire.Load) { l.Priority = 32 }, 2},
		{"priority 256", "", "", func(l *wire.Load) { l.Priority = 256 }, 2},
		{"input format 4", "", "", func(l *wire.Load) { l.InputFormat = 4 }, 2},
		{"output format 4", "", "", func(l *wire.Load) { l.OutputFormat = 4 }, 2},
		{"no slots", "", "", func(l *wire.Load) { l.Slots = 0 }, 2},
		{"input between pages", "", "", func(l *wire.Load) { l.InputOffset = 8 }, 2},
		{"output stride between pages", "", "", func(l *wire.Load) { l.OutputStride = 4000 }, 2},
		{"stride 0", "", "", func(l *wire.Load) { l.InputStride = 0 }, 2},
		{"slots beyond the memory", "", "", func(l *wire.Load) { l.Slots = 1000 }, 2},
		{"slots that overflow", "", "", func(l *wire.Load) { l.Slots, l.InputStride = 2, 1<<63 }, 2},
		{"offset beyond the memory", "", "", func(l *wire.Load) { l.OutputOffset = 1 << 40 }, 2},
		{"offset that overflows", "", "", func(l *wire.Load) { l.InputOffset = -uint64(page) }, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := imageModel
			if tt.hef != "" {
				m.hef = tt.hef
			}
			h := start(t, builds[1], tt.fake, m)
			h.open()
			load := h.loadMessage(wire.ImageModel)
			if tt.change != nil {
				tt.change(load)
			}
			loaded := h.load(load)
			assert.Equal(t, loaded.Status, tt.status, "%v", loaded.Text)
			assert.True(t, loaded.Text.String() != "", "no reason")
			h.exit(exitFailed, loaded.Text.String())
		})
	}
}

// A frame that the chip refuses is answered with its status, and the others go on.
func TestFrameFails(t *testing.T) {
	eachWorker(t, "scale=0,error_at=7,error=8", func(h *host, book *book) {
		book.fill(20, wire.ImageModel)
		for range 20 {
			done := book.done()
			assert.True(h.t, (done.Sequence == 7) == (done.Status == 8), "done %+v", done)
		}
		h.finish()
	})
}

// Faults that the worker cannot go on after, with 32 frames of both models in flight: it ends by
// itself with 1, and every submit it has taken is answered exactly once.
func TestWorkerEnds(t *testing.T) {
	for _, fake := range []string{
		"close_at=40",                              // the chip's server dies
		"close_at=1",                               //
		"close_at=64",                              // and nothing is submitted after it
		"run_error_at=40,run_error=8",              // run_async fails: the library has shut the model down
		"run_error_at=1,run_error=62",              //
		"run_error_at=20,run_error=62,close_at=40", //
	} {
		t.Run(fake, func(t *testing.T) {
			eachBuild(t, func(t *testing.T, b *build) {
				h := start(t, b, "scale=20,"+fake) // the first run takes longer than the submits
				book := h.ready()
				book.fill(32, wire.ImageModel, wire.TextModel)
				got := book.rest()
				h.exit(exitFailed, "hailo-clip-npu: ")
				assert.True(t, got[62] != 0 || got[8] != 0, "answers by status: %v", got)
				// The worker takes packets in their order, so what it did not take is the end.
				first := book.last + 1 - uint64(len(book.inFlight))
				for sequence := range book.inFlight {
					assert.True(t, sequence >= first, "sequence %d is not answered, but one after it; by status: %v", sequence, got)
				}
			})
		})
	}
}

// A frame that run_async refuses is answered at once, but the library calls back for it when the model is
// shut down, and not before: also where nothing else is in flight.
func TestSubmitFailsAlone(t *testing.T) {
	for _, fake := range []string{"run_error_at=1,run_error=8", "run_error_at=5,run_error=8"} {
		t.Run(fake, func(t *testing.T) {
			eachWorker(t, "scale=0,"+fake, func(h *host, book *book) {
				for status := wire.Success; status == wire.Success; {
					book.submit(wire.ImageModel)
					status = book.done().Status
				}
				h.exit(exitFailed, "submit a frame: status (8)")
			})
		})
	}
}

// A completion that never comes although the chip answers: the model must not be destroyed under it, so
// the worker leaves all as it is.
func TestCompletionLost(t *testing.T) {
	eachWorker(t, "scale=0,lost_at=3", func(h *host, book *book) {
		book.fill(20, wire.ImageModel)
		book.takeGood(19)
		h.shutdown()
		assert.Diff(h.t, map[wire.Code]int{}, book.rest(), "answers after shutdown by status")
		h.exit(exitStuck, "is not told that we leave")
	})
}

// Shutdown and the end of the socket with full queues.
func TestStopUnderLoad(t *testing.T) {
	eachBuild(t, func(t *testing.T, b *build) {
		for _, how := range []string{"shutdown", "end of the socket"} {
			h := start(t, b, "scale=20,late_ms=5")
			book := h.ready()
			book.fill(32, wire.ImageModel, wire.TextModel)
			if how == "shutdown" {
				h.shutdown()
				book.rest()
				assert.True(t, len(book.inFlight) == 0, "%d submits are not answered", len(book.inFlight))
			} else {
				h.conn.Close()
			}
			h.exit(exitDone, "")
		}
	})
}

func TestHostGone(t *testing.T) {
	eachBuild(t, func(t *testing.T, b *build) {
		for name, prepare := range map[string]func(*host){
			"before open": func(*host) {},
			"after hello": func(h *host) { h.open() },
			"when ready":  func(h *host) { h.ready() },
		} {
			h := start(t, b, "")
			prepare(h)
			h.conn.Close()
			h.exit(exitDone, "")
			assert.MustTrue(t, !t.Failed(), "%v", name)
		}
	})
}

// A chip that does not answer any more is not waited for, whoever ends the worker.
func TestSilentChip(t *testing.T) {
	eachWorker(t, "scale=0,hang_at=5", func(h *host, book *book) {
		book.fill(32, wire.ImageModel)
		h.taken()
		h.conn.Close()
		h.exit(exitStuck, "is not told that we leave")
	})
}

// A session that is lost while nothing is in flight ends the worker without a request; a connection for
// statistics that is lost alone does not.
func TestLostWhileIdle(t *testing.T) {
	eachWorker(t, "die_at=2", func(h *host, _ *book) {
		h.exit(exitFailed, "identify: HAILO_COMMUNICATION_CLOSED (62)")
	})
}

// When the chip does not let go, the worker ends all the same, soon after its host.
func TestExitLimit(t *testing.T) {
	t.Parallel()
	full := func(h *host) {
		h.ready().fill(32, wire.ImageModel)
		h.taken()
	}
	hangUp := func(h *host) { h.conn.Close() }
	var hosts []*host
	for _, b := range builds {
		for _, tt := range []struct {
			fake    string
			prepare func(*host)
			end     func(*host)
		}{
			{"teardown_ms=60000", full, (*host).shutdown},
			// The worker is inside a call of the library when its host goes.
			{"configure_ms=60000", func(h *host) {
				h.open()
				h.write(wire.Append(nil, h.loadMessage(0)))
				h.taken()
			}, hangUp},
		} {
			h := start(t, b, "scale=0,"+tt.fake)
			tt.prepare(h)
			tt.end(h)
			hosts = append(hosts, h)
		}
	}
	for _, h := range hosts {
		h.exit(exitStuck, "did not let go in time")
	}
}

// packet is a message with other bytes at an offset.
func packet(whole []byte, offset int, words ...uint32) []byte {
	for i, w := range words {
		binary.LittleEndian.PutUint32(whole[offset+4*i:], w)
	}
	return whole
}

func TestProtocolViolations(t *testing.T) {
	t.Parallel()
	open := func(h *host) []byte { return wire.Append(nil, h.openMessage()) }
	submit := func(model, slot uint32) []byte {
		return wire.Append(nil, &wire.Submit{Model: model, Slot: slot, Sequence: 1, Threshold: 1})
	}
	nothing, opened, ready := func(*host) {}, func(h *host) { h.open() }, func(h *host) { h.ready() }
	tests := []struct {
		name   string
		before func(h *host)
		packet func(h *host) []byte
		words  string
	}{
		{"one byte", nothing, func(*host) []byte { return []byte{1} }, "not open"},
		{"wrong magic", nothing, func(h *host) []byte { return packet(open(h), 8, 1) }, "not open"},
		{"submit first", nothing, func(*host) []byte { return submit(0, 0) }, "not open"},
		{"open cut", nothing, func(h *host) []byte { return open(h)[:100] }, "100 bytes"},
		{"open too long", nothing, func(h *host) []byte { return append(open(h), 0) }, "153 bytes"},
		{"open lies about its size", nothing, func(h *host) []byte { return packet(open(h), 4, 151) }, "says 151"},
		{"device without a NUL", nothing, func(h *host) []byte { return packet(open(h), 84, 0x41414141) }, "without its NUL"},
		{"no memory", nothing, func(h *host) []byte { return packet(open(h), 16, 0, 0) }, "descriptor 4"},
		{"more memory than there is", nothing, func(h *host) []byte { return packet(open(h), 16, 0, 1) }, "descriptor 4"},
		{"longer than any message", nothing, func(*host) []byte { return make([]byte, 20000) }, "20000 bytes"},

		{"open again", ready, open, "type 1"},
		{"unknown type", ready, func(*host) []byte { return packet(make([]byte, 8), 0, 99, 8) }, "type 99"},
		{"a message of the worker", ready, func(*host) []byte { return wire.Append(nil, &wire.Done{}) }, "type 19"},
		{"half a header", ready, func(*host) []byte { return make([]byte, 4) }, "4 bytes"},
		{"submit too long", ready, func(*host) []byte { return append(submit(0, 0), 0) }, "33 bytes"},
		{"submit cut", ready, func(*host) []byte { return submit(0, 0)[:23] }, "23 bytes"},
		{"longest", ready, func(*host) []byte { return make([]byte, wire.MaxPacket) }, "type 0"},
		{"load again", ready, func(h *host) []byte { return wire.Append(nil, h.loadMessage(0)) }, "loaded already"},
		{"load of an unknown model", ready, func(h *host) []byte { return packet(wire.Append(nil, h.loadMessage(0)), 8, 2) }, "model 2"},
		{"submit to an unknown model", ready, func(*host) []byte { return submit(math.MaxUint32, 0) }, "not loaded"},
		{"submit without a threshold", ready, func(*host) []byte { return packet(submit(0, 0), 24, 0) }, "threshold of 0"},
		{"submit of a group over the batch", ready, func(*host) []byte { return packet(submit(0, 0), 24, 9) }, "threshold of 9"},
		{"submit of an unknown slot", ready, func(*host) []byte { return submit(0, 40) }, "slot 40"},

		{"submit before load", opened, func(*host) []byte { return submit(0, 0) }, "not loaded"},
		{"hef without a NUL", opened, func(h *host) []byte { return packet(wire.Append(nil, h.loadMessage(0)), 1100, 0x41414141) }, "without its NUL"},
		{"slot twice", func(h *host) { h.ready(); h.submit(0, 1, 1) }, func(*host) []byte { return submit(0, 1) }, "slot 1"},
		{"more than the queue takes", func(h *host) { h.ready().fill(32, 0) }, func(*host) []byte { return submit(0, 32) }, "queue"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, builds[1], "scale=1000")
			tt.before(h)
			h.write(tt.packet(h))
			h.exit(exitViolation, tt.words)
		})
	}
}

// Another version of the service learns which one the worker speaks.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	h := start(t, builds[1], "")
	h.write(packet(make([]byte, 64), 0, 1, 64, wire.Magic, wire.Version+1))
	hello := want[*wire.Hello](h)
	assert.Equal(t, hello.Version, wire.Version)
	assert.True(t, hello.Status != wire.Success, "%v", hello.Text)
	h.exit(exitFailed, "the service 4")
}
