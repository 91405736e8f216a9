package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"hailoclip/hailo/npu/wire"
)

const (
	models = wire.Models
	// queueDepth is that of both encoders at batches up to 16; the runtime computes it.
	queueDepth = 32
	statsEvery = time.Second
)

// Encoders compute real vectors, of any length. They get what the host put into the slots: the pixels, or the
// tokens of TokenEmbedding with the padding. Without them, both nil, Vector does.
type Encoders struct {
	Image func(pixels []byte) ([]float32, error)
	Text  func(tokens []int32) ([]float32, error)
}

// chip is the simulated device and what is loaded on it.
type chip struct {
	Config
	encoders Encoders
	faults   *faults
	conn     io.ReadWriter                     // one end of the socket: one Read or Write is one packet
	memory   func(size uint64) ([]byte, error) // maps the frames
	data     []byte
	opened   bool

	writing sync.Mutex

	mu      sync.Mutex
	changed *sync.Cond
	models  [models]model
	turn    int // the model that ran last
	done    uint64
}

// model is a loaded model.
type model struct {
	load    *wire.Load
	loaded  *wire.Loaded
	waiting []job
	busy    []bool // by slot: submitted and not reported
	n       int    // busy slots
}

type job struct {
	slot     uint32
	sequence uint64
	arrived  time.Time
	status   wire.Code // when it has run
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
	ctx, cancel := context.WithCancel(context.Background())
	defer func() { cancel(); c.wake() }()
	buf := make([]byte, wire.MaxPacket+1)
	for {
		n, err := c.conn.Read(buf)
		if n == 0 || err != nil {
			return nil
		}
		m, err := wire.Parse(buf[:n])
		if err != nil {
			return fmt.Errorf("%w: %w", errViolation, err)
		}
		switch m := m.(type) {
		case *wire.Open:
			if err = c.open(m); err == nil {
				device.Go(func() { c.work(ctx) })
				device.Go(func() { c.sendStats(ctx) })
			}
		case *wire.Load:
			err = c.load(m)
		case *wire.Submit:
			err = c.submit(m)
		default:
			err = fmt.Errorf("%w: unexpected %T", errViolation, m)
		}
		if err != nil {
			return err
		}
	}
}

// wake has the device look again at what it may run.
func (c *chip) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

func (c *chip) send(packet []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.conn.Write(packet) // the reader notices when the host has gone
}

func (c *chip) open(m *wire.Open) error {
	if c.opened {
		return fmt.Errorf("%w: open again", errViolation)
	}
	c.opened = true
	_, _, refuse := c.faults.state()
	h := &wire.Hello{Magic: wire.Magic, Version: wire.Version, Simulated: 1, Status: refusals[refuse]}
	wire.SetText(h.Runtime[:], "simulated")
	wire.SetText(h.Device[:], "0000:00:00.0")
	wire.SetText(h.Architecture[:], "HAILO10H")
	switch {
	case refuse == "silent":
		return nil
	case refuse == "magic":
		h.Magic++
	case h.Status != wire.Success:
		wire.SetText(h.Text[:], "simulated fault: "+refuse)
	case m.Magic != wire.Magic || m.Version != wire.Version:
		refuse = "protocol version"
	default:
		var err error
		if c.data, err = c.memory(m.Memory); err != nil {
			return err
		}
	}
	c.send(wire.Append(nil, h))
	if refuse != "" {
		return fmt.Errorf("%w: %s", errRefused, refuse)
	}
	return nil
}

// load answers a load with what the model of the configuration looks like.
func (c *chip) load(m *wire.Load) error {
	if !c.opened || m.Model >= models || c.models[m.Model].load != nil || m.Batch < 1 {
		return fmt.Errorf("%w: load of model %d, batch %d", errViolation, m.Model, m.Batch)
	}
	l := &wire.Loaded{Model: m.Model, QueueDepth: queueDepth}
	output := uint32(slices.Index(formats, c.Output))
	size, rows, width := uint32(c.ImageSize), uint32(c.ContextLength), uint32(c.Width)
	if m.Model == wire.ImageModel {
		l.Input = stream(size, size, 3, wire.FormatUint8)
		l.Output = stream(1, 1, uint32(c.Dimension), output)
	} else {
		l.Input = stream(1, rows, width, wire.FormatUint16)
		l.Output = stream(1, rows, width, output)
	}
	switch {
	case uint64(l.Input.FrameBytes) > m.InputStride || uint64(l.Output.FrameBytes) > m.OutputStride:
		l.Status = wire.CodeInsufficientBuffer
		wire.SetText(l.Text[:], "the frames are larger than the slots")
	case !m.Within(uint64(len(c.data))):
		return fmt.Errorf("%w: slots outside of the memory", errViolation)
	}
	c.send(wire.Append(nil, l))
	if l.Status != wire.Success {
		return fmt.Errorf("load: %v", l.Status)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.models[m.Model] = model{load: m, loaded: l, busy: make([]bool, m.Slots)}
	return nil
}

// stream is how the frames of a model look. Quantised numbers cover -1 to 1.
func stream(h, w, f, format uint32) wire.Stream {
	s := wire.Stream{Height: h, Width: w, Features: f, Format: format}
	switch format {
	case wire.FormatUint8:
		s.Scale, s.ZeroPoint = 1./127, 128
	case wire.FormatUint16:
		s.Scale, s.ZeroPoint = 1./32767, 32768
	}
	s.FrameBytes = h * w * uint32(s.RowBytes())
	return s
}

func (c *chip) submit(m *wire.Submit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Model >= models || c.models[m.Model].load == nil {
		return fmt.Errorf("%w: submit for model %d", errViolation, m.Model)
	}
	x := &c.models[m.Model]
	if m.Slot >= x.load.Slots || x.busy[m.Slot] {
		return fmt.Errorf("%w: submit of slot %d, which does not exist or is busy", errViolation, m.Slot)
	}
	if m.Threshold < 1 || m.Threshold > x.load.Batch {
		return fmt.Errorf("%w: submit with threshold %d, batch %d", errViolation, m.Threshold, x.load.Batch)
	}
	x.load.Threshold = m.Threshold
	if x.n >= queueDepth { // what the runtime says when nobody asked it for room
		c.send(wire.Append(nil, &wire.Done{Model: m.Model, Slot: m.Slot, Sequence: m.Sequence, Status: wire.CodeQueueFull}))
		return nil
	}
	x.busy[m.Slot] = true
	x.n++
	x.waiting = append(x.waiting, job{slot: m.Slot, sequence: m.Sequence, arrived: time.Now()})
	c.changed.Broadcast()
	return nil
}

// sendStats sends the statistics until the chip stops.
func (c *chip) sendStats(ctx context.Context) {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		hang, heat, _ := c.faults.state()
		s := &wire.Stats{Throttling: heat, Zone: min(heat/2, 2)}
		s.Temperature = [2]float32{45 + 10*float32(heat), 46 + 10*float32(heat)}
		s.NNCore, s.CPU = float32(math.NaN()), float32(math.NaN())
		c.mu.Lock()
		s.Frames = c.done
		c.mu.Unlock()
		c.wake() // the heat may let the device go on
		if !hang {
			c.send(wire.Append(nil, s))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.faults.heated:
		}
	}
}
