package sim

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"hailoclip/hailo/npu"
)

const (
	models = 2
	// queueDepth is that of both encoders at batches up to 16; the runtime computes it.
	queueDepth = 32
	statsEvery = time.Second
)

// Cost is the time that a run of n frames takes: Run + n * Frame.
type Cost struct{ Run, Frame time.Duration }

// Config is what the simulated chip is.
type Config struct {
	Cost          [models]Cost // of the image and of the text model
	ImageSize     int          // pixels on a side
	Dimension     int          // of the image output
	ContextLength int          // rows of the text input and output
	Width         int          // numbers in such a row
	Output        uint32       // format of both outputs; the text input is UINT16, as in the HEF
	Vectors       string       // hash, or model: Encoders compute them
	Encoders      Encoders
	Faults        *Faults

	format, control string // of the flags: Output, and where faults are taken
}

// Encoders compute real vectors, of any length; nil: Vector does. They get what the host put
// into the slots: the pixels, or the tokens of npu.SyntheticText with the padding.
type Encoders struct {
	Image func(pixels []byte) ([]float32, error)
	Text  func(tokens []int32) ([]float32, error)
}

// conn is one end of the socket: one Read or Write is one packet.
type conn interface{ io.ReadWriter }

// chip is the simulated device and what is loaded on it.
type chip struct {
	Config
	conn   conn
	memory func(size uint64) ([]byte, error) // maps the frames
	data   []byte

	writing sync.Mutex

	mu      sync.Mutex
	changed *sync.Cond
	models  [models]model
	turn    int // the model that ran last
	stop    bool
	done    uint64
}

// model is a loaded model.
type model struct {
	load    *npu.Load
	loaded  *npu.Loaded
	waiting []job
	busy    []bool // by slot: submitted and not reported
	n       int    // busy slots
}

type job struct {
	slot     uint32
	sequence uint64
	arrived  time.Time
}

var (
	errViolation = errors.New("the host broke the protocol")
	errRefused   = errors.New("refused to start")
)

// run is the whole life of the chip. It returns nil when the host has closed its side.
func (c *chip) run() error {
	c.changed = sync.NewCond(&c.mu)
	var device sync.WaitGroup
	defer device.Wait()
	stopped := make(chan struct{})
	defer func() {
		c.mu.Lock()
		c.stop = true
		c.changed.Broadcast()
		c.mu.Unlock()
		close(stopped)
	}()
	buf := make([]byte, npu.MaxPacket+1)
	for opened := false; ; {
		n, err := c.conn.Read(buf)
		if n == 0 || err != nil {
			return nil
		}
		m, err := npu.Parse(buf[:n])
		if err != nil {
			return fmt.Errorf("%w: %w", errViolation, err)
		}
		switch m := m.(type) {
		case *npu.Open:
			if opened {
				return fmt.Errorf("%w: open again", errViolation)
			}
			if err := c.open(m); err != nil {
				return err
			}
			opened = true
			device.Go(c.work)
			device.Go(func() { c.tell(stopped) })
		case *npu.Load:
			if err := c.load(m, opened); err != nil {
				return err
			}
		case *npu.Submit:
			if err := c.submit(m); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: unexpected %T", errViolation, m)
		}
	}
}

func (c *chip) send(packet []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.conn.Write(packet) // the reader notices when the host has gone
}

func (c *chip) open(m *npu.Open) error {
	h := &npu.Hello{Magic: npu.Magic, Version: npu.Version, Simulated: 1}
	npu.SetText(h.Runtime[:], "simulated")
	npu.SetText(h.Device[:], "0000:00:00.0")
	npu.SetText(h.Architecture[:], "HAILO10H")
	_, _, refuse := c.Faults.state()
	switch refuse {
	case "busy":
		h.Status = npu.CodeDeviceInUse
	case "nodevice":
		h.Status = npu.CodeNoDevice
	case "version":
		h.Status = npu.CodeDriverVersion
	case "magic":
		h.Magic++
	case "silent":
		return nil
	}
	if refuse == "" && (m.Magic != npu.Magic || m.Version != npu.Version) {
		refuse = "protocol version"
	}
	var err error
	if refuse == "" {
		c.data, err = c.memory(m.Memory)
	}
	if h.Status != npu.Success {
		npu.SetText(h.Text[:], "simulated fault: "+refuse)
	}
	if err == nil {
		c.send(npu.Append(nil, h))
	}
	if err == nil && refuse != "" {
		err = fmt.Errorf("%w: %s", errRefused, refuse)
	}
	return err
}

// load answers a load with what the model of the configuration looks like.
func (c *chip) load(m *npu.Load, opened bool) error {
	if !opened || m.Model >= models || c.models[m.Model].load != nil || m.Batch < 1 {
		return fmt.Errorf("%w: load of model %d, batch %d", errViolation, m.Model, m.Batch)
	}
	l := &npu.Loaded{Model: m.Model, QueueDepth: queueDepth}
	size, rows, width := uint32(c.ImageSize), uint32(c.ContextLength), uint32(c.Width)
	if m.Model == npu.ImageModel {
		l.Input = stream(size, size, 3, npu.FormatUint8)
		l.Output = stream(1, 1, uint32(c.Dimension), c.Output)
	} else {
		l.Input = stream(1, rows, width, npu.FormatUint16)
		l.Output = stream(1, rows, width, c.Output)
	}
	switch {
	case uint64(l.Input.FrameBytes) > m.InputStride || uint64(l.Output.FrameBytes) > m.OutputStride:
		l.Status = npu.CodeInsufficientBuffer
		npu.SetText(l.Text[:], "the frames are larger than the slots")
	case !c.within(m.InputOffset, m.InputStride, m.Slots) || !c.within(m.OutputOffset, m.OutputStride, m.Slots):
		return fmt.Errorf("%w: slots outside of the memory", errViolation)
	}
	c.send(npu.Append(nil, l))
	if l.Status != npu.Success {
		return fmt.Errorf("load: %v", l.Status)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.models[m.Model] = model{load: m, loaded: l, busy: make([]bool, m.Slots)}
	return nil
}

// within says whether slots lie in the memory, without overflowing.
func (c *chip) within(offset, stride uint64, slots uint32) bool {
	size := uint64(len(c.data))
	return stride > 0 && offset <= size && stride <= size && uint64(slots) <= (size-offset)/stride
}

// stream is how the frames of a model look. Quantised numbers cover -1 to 1.
func stream(h, w, f, format uint32) npu.Stream {
	s := npu.Stream{Height: h, Width: w, Features: f, Format: format, FrameBytes: h * w * f}
	switch format {
	case npu.FormatUint8:
		s.Scale, s.ZeroPoint = 1./127, 128
	case npu.FormatUint16:
		s.FrameBytes *= 2
		s.Scale, s.ZeroPoint = 1./32767, 32768
	case npu.FormatFloat32:
		s.FrameBytes *= 4
	}
	return s
}

func (c *chip) submit(m *npu.Submit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Model >= models || c.models[m.Model].load == nil {
		return fmt.Errorf("%w: submit for model %d", errViolation, m.Model)
	}
	x := &c.models[m.Model]
	if m.Slot >= x.load.Slots || x.busy[m.Slot] {
		return fmt.Errorf("%w: submit of slot %d, which does not exist or is busy", errViolation, m.Slot)
	}
	if x.n >= queueDepth { // what the runtime says when nobody asked it for room
		c.send(npu.Append(nil, &npu.Done{Model: m.Model, Slot: m.Slot, Sequence: m.Sequence, Status: npu.CodeQueueFull}))
		return nil
	}
	x.busy[m.Slot] = true
	x.n++
	x.waiting = append(x.waiting, job{m.Slot, m.Sequence, time.Now()})
	c.changed.Broadcast()
	return nil
}

// tell sends the statistics until the chip stops.
func (c *chip) tell(stopped chan struct{}) {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		hang, heat, _ := c.Faults.state()
		s := &npu.Stats{Throttling: heat, Zone: min(heat/2, 2)}
		s.Temperature = [2]float32{45 + 10*float32(heat), 46 + 10*float32(heat)}
		s.NNCore, s.CPU = float32(math.NaN()), float32(math.NaN())
		c.mu.Lock()
		s.Frames = c.done
		c.changed.Broadcast() // the heat may let the device go on
		c.mu.Unlock()
		if !hang {
			c.send(npu.Append(nil, s))
		}
		select {
		case <-stopped:
			return
		case <-tick.C:
		case <-c.Faults.heated:
		}
	}
}
