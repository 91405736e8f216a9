package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"hailoclip/hailo/internal/assert"
)

// layout is that of the package comment, which the worker in C++ is written against: type, name, bytes, offsets.
const layout = `
1 Open 152: 8 Magic, 12 Version, 16 Memory, 24 Device, 88 Group
17 Hello 440: 8 Magic, 12 Version, 16 Status, 20 Simulated, 24 Runtime, 56 Device, 120 Architecture, 152 Firmware, 184 Text
2 Load 1104: 8 Model, 12 Batch, 16 Threshold, 20 TimeoutMS, 24 Priority, 28 InputFormat, 32 OutputFormat, 36 Slots,
	40 InputOffset, 48 InputStride, 56 OutputOffset, 64 OutputStride, 72 Reserved, 80 HEF
18 Loaded 344: 8 Model, 12 Status, 16 QueueDepth, 20 Reserved, 24 Input, 56 Output, 88 Text
3 Submit 32: 8 Model, 12 Slot, 16 Sequence, 24 Threshold, 28 Reserved
19 Done 40: 8 Model, 12 Slot, 16 Sequence, 24 Status, 28 Batch, 32 DeviceNS
20 Stats 64: 8 Frames, 16 Temperature, 24 NNCore, 28 CPU, 32 Memory, 40 Used, 48 Zone, 52 Throttling, 56 Overcurrent, 60 CRCErrors
`

func TestLayout(t *testing.T) {
	got := "\n"
	for _, m := range []Message{&Open{}, &Hello{}, &Load{}, &Loaded{}, &Submit{}, &Done{}, &Stats{}} {
		typ, size := reflect.TypeOf(m).Elem(), headerBytes+binary.Size(m)
		// No padding, so Go's offsets are those of the packet, less the header.
		if size > MaxPacket || size != headerBytes+int(typ.Size()) {
			t.Errorf("%T has %d bytes, in memory %d", m, size, typ.Size())
		}
		var fields []string
		for i := range typ.NumField() {
			fields = append(fields, fmt.Sprint(headerBytes+typ.Field(i).Offset, " ", typ.Field(i).Name))
		}
		got += fmt.Sprintf("%d %s %d: %s\n", m.kind(), typ.Name(), size, strings.Join(fields, ", "))
	}
	assert.Diff(t, strings.ReplaceAll(layout, "\n\t", " "), got)
	if o := unsafe.Offsetof(Stream{}.ZeroPoint); o != 24 || unsafe.Sizeof(Stream{}) != 32 {
		t.Errorf("stream: zero_point at %d, want 24", o)
	}
}

func TestAppendParse(t *testing.T) {
	loaded := &Loaded{Model: TextModel, Status: 93, QueueDepth: 32}
	loaded.Output = Stream{Height: 1, Width: 77, Features: 512, Format: FormatUint8, FrameBytes: 77 * 512, Scale: 0.25, ZeroPoint: 128}
	SetText(loaded.Text[:], "wrong chip")
	for _, m := range []Message{
		&Open{Magic: Magic, Version: Version, Memory: 1 << 20}, &Hello{Version: Version, Status: 73, Simulated: 1},
		&Load{Model: ImageModel, Batch: 8, InputStride: 4096}, loaded, &Submit{Slot: 7, Sequence: math.MaxUint64},
		&Done{Status: -1, Sequence: 5, DeviceNS: 12}, &Stats{Frames: 3, Temperature: [2]float32{40, 41}},
	} {
		packet := Append([]byte("before"), m)
		assert.Diff(t, m, assert.Value(Parse(packet[len("before"):])), "%T", m)
	}
}

// Whichever version the worker speaks, it is understood so far that this can be said.
func TestHelloOfAnotherVersion(t *testing.T) {
	for _, size := range []int{16, 408, 440} {
		packet := make([]byte, size)
		for i, v := range []uint32{17, uint32(size), Magic, 1} {
			binary.LittleEndian.PutUint32(packet[4*i:], v)
		}
		m, err := Parse(packet)
		h, ok := m.(*Hello)
		assert.True(t, err == nil && ok && h.Magic == Magic && h.Version == 1, "%d bytes: %+v, %v", size, m, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := Append(nil, &Submit{Sequence: 1})
	for name, packet := range map[string][]byte{
		"nothing":        {},
		"half a header":  good[:7],
		"cut":            good[:23],
		"too long":       append(bytes.Clone(good), 0),
		"says too much":  append([]byte{3, 0, 0, 0, 25}, good[5:]...),
		"unknown type":   append([]byte{99}, good[1:]...),
		"type 0":         append([]byte{0}, good[1:]...),
		"another's size": append([]byte{19}, good[1:]...),
	} {
		assert.ErrorIs(t, assert.Err(Parse(packet)), ErrProtocol, "%s", name)
	}
}

func TestTextFields(t *testing.T) {
	var f Text32
	for in, want := range map[string]string{
		"":                      "",
		"5.2.0":                 "5.2.0",
		strings.Repeat("x", 99): strings.Repeat("x", 31),
		"a\x00b":                "a",
		"bad \xff byte":         "bad ? byte",
	} {
		SetText(f[:], in)
		assert.Equal(t, f.String(), want, "%q", in)
	}
	for i := range f {
		f[i] = 'y' // no NUL at all
	}
	assert.Equal(t, len(f.String()), len(f))
}

func TestCodeNames(t *testing.T) {
	for code, want := range map[Code]string{
		0: "HAILO_SUCCESS (0)", 5: "HAILO_INSUFFICIENT_BUFFER (5)", 36: "HAILO_DRIVER_OPERATION_FAILED (36)",
		62: "HAILO_COMMUNICATION_CLOSED (62)", 63: "HAILO_STREAM_ABORT (63)", 73: "HAILO_DEVICE_IN_USE (73)",
		74: "HAILO_OUT_OF_PHYSICAL_DEVICES (74)", 76: "HAILO_INVALID_DRIVER_VERSION (76)",
		81: "HAILO_OUT_OF_HOST_CMA_MEMORY (81)", 82: "HAILO_QUEUE_IS_FULL (82)", 89: "HAILO_CONNECTION_REFUSED (89)",
		93: "HAILO_HEF_NOT_COMPATIBLE_WITH_DEVICE (93)", 97: "HAILO_DEVICE_TEMPORARILY_UNAVAILABLE (97)",
		98: "status 98", -1: "status -1",
	} {
		assert.Equal(t, code.String(), want, "%d", int32(code))
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range []Message{&Open{}, &Hello{}, &Load{}, &Loaded{}, &Submit{}, &Done{}, &Stats{}} {
		f.Add(Append(nil, m))
	}
	f.Add([]byte{19, 0, 0, 0, 40})
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := Parse(packet)
		if err != nil {
			assert.MustTrue(t, errors.Is(err, ErrProtocol), "%v", err)
			return
		}
		if h, ok := m.(*Hello); ok && h.Version != Version {
			return // of which only the beginning was read
		}
		once := Append(nil, m) // packet itself, but for the bits that say which NaN
		m2, err := Parse(once)
		if err != nil || len(once) != len(packet) || !bytes.Equal(once, Append(nil, m2)) {
			t.Fatalf("%T: %x became %x (%v)", m, packet, once, err)
		}
	})
}
