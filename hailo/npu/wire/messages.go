package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Magic and Version open the conversation: "HCN1" and the protocol described above.
const (
	Magic   = 0x314e4348
	Version = 3
)

// ErrProtocol says that a packet is not a message of the protocol, or not one that may come now.
var ErrProtocol = errors.New("protocol violation")

// Models that a worker can have loaded.
const (
	ImageModel = 0
	TextModel  = 1
	Models     = 2
)

// Formats of the numbers in a stream.
const (
	FormatNative  = 0 // only in Load: as the HEF has it
	FormatUint8   = 1
	FormatUint16  = 2
	FormatFloat32 = 3
)

// MaxFeatures bounds the numbers in a row of a stream.
const MaxFeatures = 1024

// Text fields, by their size in the message.
type (
	Text32   [32]byte
	Text64   [64]byte
	Text256  [256]byte
	Text1024 [1024]byte
)

func (t Text32) String() string   { return textOf(t[:]) }
func (t Text64) String() string   { return textOf(t[:]) }
func (t Text256) String() string  { return textOf(t[:]) }
func (t Text1024) String() string { return textOf(t[:]) }

// textOf is the text before the first NUL, made safe to show.
func textOf(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(bytes.ToValidUTF8(b, []byte("?")))
}

// SetText puts s into a text field; it is cut where it does not fit.
func SetText(field []byte, s string) {
	clear(field)
	copy(field[:len(field)-1], s)
}

// The messages; the fields are those of the package comment, in their order.
type (
	// Open is the first message: who is there, and which device to take.
	Open struct {
		Magic, Version uint32
		Memory         uint64
		Device, Group  Text64
	}
	// Hello answers Open.
	Hello struct {
		Magic, Version uint32
		Status         Code
		Simulated      uint32
		Runtime        Text32
		Device         Text64
		Architecture   Text32
		Firmware       Text32
		Text           Text256
	}
	// Load asks for a model.
	Load struct {
		Model, Batch, Threshold, TimeoutMS, Priority uint32
		InputFormat, OutputFormat                    uint32
		Slots                                        uint32
		InputOffset, InputStride                     uint64
		OutputOffset, OutputStride                   uint64
		Reserved                                     uint64
		HEF                                          Text1024
	}
	// Stream describes the frames at one end of a model.
	Stream struct {
		Height, Width, Features uint32
		Format                  uint32
		FrameBytes              uint32
		Scale, ZeroPoint        float32
		Reserved                uint32
	}
	// Loaded answers Load.
	Loaded struct {
		Model         uint32
		Status        Code
		QueueDepth    uint32
		Reserved      uint32
		Input, Output Stream
		Text          Text256
	}
	// Submit gives the frame in a slot to the device.
	Submit struct {
		Model, Slot uint32
		Sequence    uint64
		Threshold   uint32
		Reserved    uint32
	}
	// Done answers Submit.
	Done struct {
		Model, Slot uint32
		Sequence    uint64
		Status      Code
		Batch       uint32
		DeviceNS    uint64
	}
	// Stats is how the device is.
	Stats struct {
		Frames       uint64
		Temperature  [2]float32
		NNCore, CPU  float32
		Memory, Used uint64
		Zone         uint32
		Throttling   uint32
		Overcurrent  uint32
		CRCErrors    uint32
	}
)

// Message is a pointer to one of the types above.
type Message interface {
	kind() uint32 // in its header
}

func (*Open) kind() uint32   { return 1 }
func (*Load) kind() uint32   { return 2 }
func (*Submit) kind() uint32 { return 3 }
func (*Hello) kind() uint32  { return 17 }
func (*Loaded) kind() uint32 { return 18 }
func (*Done) kind() uint32   { return 19 }
func (*Stats) kind() uint32  { return 20 }

var newMessage = map[uint32]func() Message{
	1:  func() Message { return new(Open) },
	2:  func() Message { return new(Load) },
	3:  func() Message { return new(Submit) },
	17: func() Message { return new(Hello) },
	18: func() Message { return new(Loaded) },
	19: func() Message { return new(Done) },
	20: func() Message { return new(Stats) },
}

const headerBytes = 8

// MaxPacket is the size of the largest message.
const MaxPacket = 1104

// Append puts the packet of m behind b.
func Append(b []byte, m Message) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, m.kind())
	b = binary.LittleEndian.AppendUint32(b, 0)
	b, err := binary.Append(b, binary.LittleEndian, m)
	if err != nil {
		panic(err) // only fixed-size structs are messages
	}
	binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start))
	return b
}

// Parse reads a packet; its errors are ErrProtocol. Of the hello of
// another version it reads what is the same in all of them, up to the version.
func Parse(packet []byte) (Message, error) {
	if len(packet) < headerBytes {
		return nil, fmt.Errorf("%w: a packet of %d bytes", ErrProtocol, len(packet))
	}
	k := binary.LittleEndian.Uint32(packet)
	if newMessage[k] == nil {
		return nil, fmt.Errorf("%w: type %d is unknown", ErrProtocol, k)
	}
	m := newMessage[k]()
	const stable = headerBytes + 8
	if h, ok := m.(*Hello); ok && len(packet) >= stable {
		if v := binary.LittleEndian.Uint32(packet[stable-4:]); v != Version {
			h.Magic, h.Version = binary.LittleEndian.Uint32(packet[headerBytes:]), v
			return h, nil
		}
	}
	size := headerBytes + binary.Size(m)
	if said := binary.LittleEndian.Uint32(packet[4:]); len(packet) != size || said != uint32(size) {
		return nil, fmt.Errorf("%w: a message of type %d has %d bytes and says %d, want %d",
			ErrProtocol, k, len(packet), said, size)
	}
	if _, err := binary.Decode(packet[headerBytes:], binary.LittleEndian, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, nil
}

// Within reports whether all slots of the model lie in a memory of size bytes.
func (m *Load) Within(size uint64) bool {
	within := func(offset, stride uint64) bool { // without overflowing
		return stride > 0 && offset <= size && stride <= size && uint64(m.Slots) <= (size-offset)/stride
	}
	return within(m.InputOffset, m.InputStride) && within(m.OutputOffset, m.OutputStride)
}

// Input returns the input of a slot, InputStride bytes of the shared memory.
func (m *Load) Input(memory []byte, slot int) []byte {
	return part(memory, m.InputOffset, m.InputStride, slot)
}

// Output returns the output of a slot, OutputStride bytes of the shared memory.
func (m *Load) Output(memory []byte, slot int) []byte {
	return part(memory, m.OutputOffset, m.OutputStride, slot)
}

func part(memory []byte, offset, stride uint64, slot int) []byte {
	start := offset + uint64(slot)*stride
	return memory[start : start+stride : start+stride]
}
