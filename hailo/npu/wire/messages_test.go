package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// The offsets of the package comment, which the worker in C++ is written against.
func TestLayout(t *testing.T) {
	type field struct {
		name   string
		offset uintptr
	}
	tests := []struct {
		message Message
		kind    kind
		size    int
		fields  []field
	}{
		{&Open{}, 1, 152, []field{{"Magic", 8}, {"Version", 12}, {"Memory", 16}, {"Device", 24}, {"Group", 88}}},
		{&Hello{}, 17, 440, []field{{"Magic", 8}, {"Version", 12}, {"Status", 16}, {"Simulated", 20}, {"Runtime", 24},
			{"Device", 56}, {"Architecture", 120}, {"Firmware", 152}, {"Text", 184}}},
		{&Load{}, 2, 1104, []field{{"Model", 8}, {"Batch", 12}, {"Threshold", 16}, {"TimeoutMS", 20}, {"Priority", 24},
			{"InputFormat", 28}, {"OutputFormat", 32}, {"Slots", 36}, {"InputOffset", 40}, {"InputStride", 48},
			{"OutputOffset", 56}, {"OutputStride", 64}, {"Reserved", 72}, {"HEF", 80}}},
		{&Loaded{}, 18, 344, []field{{"Model", 8}, {"Status", 12}, {"QueueDepth", 16}, {"Reserved", 20},
			{"Input", 24}, {"Output", 56}, {"Text", 88}}},
		{&Submit{}, 3, 24, []field{{"Model", 8}, {"Slot", 12}, {"Sequence", 16}}},
		{&Done{}, 19, 40, []field{{"Model", 8}, {"Slot", 12}, {"Sequence", 16}, {"Status", 24}, {"Batch", 28}, {"DeviceNS", 32}}},
		{&Stats{}, 20, 64, []field{{"Frames", 8}, {"Temperature", 16}, {"NNCore", 24}, {"CPU", 28}, {"Memory", 32}, {"Used", 40},
			{"Zone", 48}, {"Throttling", 52}, {"Overcurrent", 56}, {"CRCErrors", 60}}},
	}
	for _, tt := range tests {
		typ := reflect.TypeOf(tt.message).Elem()
		t.Run(typ.Name(), func(t *testing.T) {
			if tt.message.kind() != tt.kind {
				t.Errorf("type %d, want %d", tt.message.kind(), tt.kind)
			}
			if got := headerBytes + binary.Size(tt.message); got != tt.size || got > MaxPacket {
				t.Errorf("%d bytes, want %d, at most %d", got, tt.size, MaxPacket)
			}
			// No padding, so Go's offsets are those of the packet, less the header.
			if got := headerBytes + int(typ.Size()); got != tt.size {
				t.Errorf("padding: %d bytes in memory", got)
			}
			if typ.NumField() != len(tt.fields) {
				t.Errorf("%d fields, want %d", typ.NumField(), len(tt.fields))
			}
			for _, want := range tt.fields {
				f, ok := typ.FieldByName(want.name)
				if !ok || f.Offset+headerBytes != want.offset {
					t.Errorf("%s at %d, want %d", want.name, f.Offset+headerBytes, want.offset)
				}
			}
		})
	}
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
		got, err := Parse(packet[len("before"):])
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
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
		if h, ok := m.(*Hello); err != nil || !ok || h.Magic != Magic || h.Version != 1 {
			t.Errorf("%d bytes: %+v, %v", size, m, err)
		}
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
		t.Run(name, func(t *testing.T) {
			if m, err := Parse(packet); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, %v", m, err)
			}
		})
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
		if SetText(f[:], in); f.String() != want {
			t.Errorf("%q: got %q, want %q", in, f.String(), want)
		}
	}
	for i := range f {
		f[i] = 'y' // no NUL at all
	}
	if got := f.String(); len(got) != len(f) {
		t.Errorf("got %q", got)
	}
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
		if got := code.String(); got != want {
			t.Errorf("%d: %s, want %s", int32(code), got, want)
		}
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
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
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
