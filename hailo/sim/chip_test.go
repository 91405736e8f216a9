package sim

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"

	"go.uber.org/goleak"

	"hailoclip/hailo/npu/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The vectors are the same on every machine and for ever: other programs compare with them.
func TestVector(t *testing.T) {
	got := Vector([]byte("a picture"), 4)
	want := []float32{0.6710347, 0.5002427, -0.06536901, 0.8400692}
	for i := range want {
		assert.MustTrue(t, got[i] == want[i], "%v, want %v", got, want)
	}
	for i, v := range Vector(nil, 10_000) {
		assert.MustTrue(t, v >= -1 && v < 1, "number %d is %v", i, v)
	}
}

// A token survives its way through the UINT16 input of the text model.
func TestTokenEmbedding(t *testing.T) {
	in := stream(1, 77, 512, wire.FormatUint16)
	row, back := make([]byte, in.RowBytes()), make([]float32, 512)
	for _, token := range []int32{0, 1, 2, 4095, 49407, Vocabulary - 1} {
		in.Encode(row, TokenEmbedding(token, 512))
		in.Decode(back, row)
		assert.Equal(t, tokenOf(back), token)
	}
}

// patience is how long a test waits for what must come: it guards against hanging, however slow the machine.
const patience = 5 * time.Minute

// host is the other end of a chip that runs in this process.
type host struct {
	t    *testing.T
	chip *chip
	conn *os.File
}

func startChip(t *testing.T, change func(*chip)) *host {
	h := &host{t: t}
	h.chip, _ = newChip(nil)
	change(h.chip)
	ours, theirs, err := wire.Pair()
	assert.Must(t, err)
	h.conn, h.chip.conn = ours, theirs
	ended := make(chan error, 1)
	go func() { ended <- h.chip.run() }()
	t.Cleanup(func() {
		ours.Close()
		assert.NoError(t, <-ended)
		theirs.Close()
	})
	h.say(openMessage)
	hello := h.next().(*wire.Hello)
	assert.MustTrue(t, hello.Status == wire.Success && hello.Simulated == 1, "%+v", hello)
	for _, load := range []*wire.Load{loadImage, loadText} {
		h.say(load)
		loaded := h.next().(*wire.Loaded)
		assert.MustTrue(t, loaded.Status == wire.Success && loaded.QueueDepth == 32, "%+v", loaded)
	}
	return h
}

func (h *host) say(m wire.Message) {
	h.t.Helper()
	assert.Must(h.t, assert.Err(h.conn.Write(wire.Append(nil, m))))
}

// next is the next message that is not about statistics.
func (h *host) next() any {
	h.t.Helper()
	_ = h.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := h.conn.Read(buf)
		assert.MustTrue(h.t, err == nil, "the chip says nothing: %v", err)
		m := assert.Value(wire.Parse(buf[:n]))
		if _, ok := m.(*wire.Stats); !ok {
			return m
		}
	}
}

func (h *host) submit(model, slot uint32) { h.submitOf(model, slot, 1) }

// submitOf submits one of a group of so many.
func (h *host) submitOf(model, slot, group uint32) {
	h.say(&wire.Submit{Model: model, Slot: slot, Sequence: uint64(model*100 + slot + 1), Threshold: group})
}

// together has the chip start only when it has all of these frames: pairs of model and slot.
func (h *host) together(frames ...[2]uint32) {
	h.t.Helper()
	h.command("heat=5")
	for _, f := range frames {
		h.submit(f[0], f[1])
	}
	for waiting := 0; waiting < len(frames); time.Sleep(time.Millisecond) {
		h.chip.mu.Lock()
		waiting = len(h.chip.models[0].waiting) + len(h.chip.models[1].waiting)
		h.chip.mu.Unlock()
	}
	h.command("heat=0")
}

func (h *host) command(line string) {
	h.t.Helper()
	assert.Must(h.t, h.chip.faults.command(line))
}

// How frames are gathered into runs, and in which order: what ran together has the same batch.
func TestScheduling(t *testing.T) {
	type run struct{ model, batch uint32 }
	tests := []struct {
		name     string
		textPrio uint32
		want     []run
	}{
		{"equal priority takes turns", 0, []run{{1, 1}, {0, 2}, {1, 1}, {0, 1}}},
		{"higher priority first", 1, []run{{1, 1}, {1, 1}, {0, 2}, {0, 1}}},
		{"lower priority last", 2, []run{{0, 2}, {0, 1}, {1, 1}, {1, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			image, text := *loadImage, *loadText
			defer func() { *loadImage, *loadText = image, text }()
			loadText.Batch, loadText.Threshold = 1, 1 // two runs, so that taking turns shows
			loadText.Priority, loadImage.Priority = tt.textPrio, 0
			if tt.textPrio == 2 {
				loadText.Priority, loadImage.Priority = 0, 1
			}
			h := startChip(t, func(c *chip) { c.Cost[0] = Cost{Run: 2 * time.Millisecond, Frame: time.Millisecond} })
			h.together([2]uint32{0, 1}, [2]uint32{0, 2}, [2]uint32{0, 3}, [2]uint32{1, 0}, [2]uint32{1, 1})
			for _, want := range tt.want {
				took := map[uint32]uint64{0: 2e6 + 1e6*uint64(want.batch)}[want.model]
				for range want.batch {
					d := h.next().(*wire.Done)
					assert.True(t, d.Model == want.model && d.Batch == want.batch && d.DeviceNS == took, "%+v, want %+v", d, want)
				}
			}
		})
	}
}

// A threshold holds frames back until there are enough, or the timeout has passed.
func TestThreshold(t *testing.T) {
	h := startChip(t, func(*chip) {})
	for range 2 { // the chip is free: without a threshold the first one would run alone
		h.submitOf(1, 0, 2)
		h.submitOf(1, 1, 2)
		for range 2 {
			assert.Equal(t, h.next().(*wire.Done).Batch, 2, "two texts")
		}
	}
	h.submitOf(1, 0, 2)
	assert.Equal(t, h.next().(*wire.Done).Batch, 1, "one text, after the timeout")
	h.submitOf(1, 0, 1)
	assert.Equal(t, h.next().(*wire.Done).Batch, 1, "one text")
}

func TestViolations(t *testing.T) {
	busy := wire.Append(nil, &wire.Submit{Slot: 1, Sequence: 1, Threshold: 1})
	loaded := [][]byte{wire.Append(nil, openMessage), wire.Append(nil, loadImage)}
	after := func(m wire.Message) [][]byte { return append(loaded[:2:2], wire.Append(nil, m)) }
	outside := *loadImage
	outside.Slots = 100
	for name, packets := range map[string][][]byte{
		"garbage":            {{1, 2, 3}},
		"worker's message":   {wire.Append(nil, &wire.Done{})},
		"load before open":   {wire.Append(nil, loadImage)},
		"open twice":         {wire.Append(nil, openMessage), wire.Append(nil, openMessage)},
		"submit before load": {wire.Append(nil, openMessage), busy},
		"load twice":         {wire.Append(nil, openMessage), wire.Append(nil, loadImage), wire.Append(nil, loadImage)},
		"slots outside":      {wire.Append(nil, openMessage), wire.Append(nil, &outside)},
		"no such slot":       after(&wire.Submit{Slot: 4, Threshold: 1}),
		"no threshold":       after(&wire.Submit{}),
		"threshold > batch":  after(&wire.Submit{Threshold: 3}),
		"no such model":      {wire.Append(nil, openMessage), wire.Append(nil, &wire.Load{Model: 2, Batch: 1})},
	} {
		c, _ := newChip(packets)
		assert.Error(t, c.run(), "%s: accepted", name)
	}
}

// The real encoders get what the host means, and their vectors come back in the direction.
func TestRealEncoders(t *testing.T) {
	var tokens []int32
	h := startChip(t, func(c *chip) {
		c.Width, c.ContextLength = 16, 3
		c.encoders = Encoders{
			Image: func(pixels []byte) ([]float32, error) { return []float32{3, -4}, nil },
			Text:  func(ids []int32) ([]float32, error) { tokens = ids; return []float32{0, 5}, nil },
		}
	})
	h.submit(0, 0)
	h.submit(1, 0)
	h.next()
	h.next()
	assert.True(t, len(tokens) == 3, "%v", tokens)
	dst := make([]float32, 4)
	spread(dst, []float32{3, -4})
	assert.True(t, dst[0] == 0.75 && dst[1] == -1 && dst[2] == 0, "%v", dst)
	spread(dst, make([]float32, 4))
	assert.True(t, dst[1] == 0, "nothing becomes something: %v", dst)
}

func TestCommands(t *testing.T) {
	died := false
	f := newFaults(func() { died = true })
	for _, bad := range []string{"", "nonsense", "lose", "lose=0", "lose=-1", "lose=x", "error", "error=0", "error=x@1", "error=5@0",
		"slow=0", "slow=-1", "slow=NaN", "slow=1e9", "decay=-1", "heat=7", "heat=x", "refuse=", "refuse=me"} {
		assert.True(t, f.command(bad) != nil, "%q was accepted", bad)
	}
	for _, good := range []string{"error=63@2", "lose=3", "repeat=4", "garbage=5", "crash=6", "slow=2", "decay=0.5", "heat=4"} {
		assert.NoError(t, f.command(good))
	}
	for i, want := range []string{"", "63", "lose", "repeat", "garbage", "crash", ""} {
		got, code := f.next()
		if code != wire.Success {
			got += fmt.Sprint(int32(code))
		}
		assert.Equal(t, got, want, "frame %d", i+1)
	}
	assert.True(t, math.Abs(f.factor()-2*(1+0.5*7)) <= 1e-9, "factor %v", f.factor())
	assert.NoError(t, f.command("lose=1")) // counted from here on
	got, _ := f.next()
	assert.Equal(t, got, "lose", "the next frame")
	assert.NoError(t, f.command("crash"))
	assert.True(t, died, "no crash")
	assert.NoError(t, f.command("ok"))
	assert.Equal(t, f.factor(), 1, "factor")
}

// TestFaultsHelp holds the help to what is there: each line's word is known.
func TestFaultsHelp(t *testing.T) {
	_, table, _ := strings.Cut(faultsHelp, "\n\n")
	values := strings.NewReplacer("=N", "=1", "=C", "=5", "@N", "@1", "=F", "=1", "=S", "=1", "=W", "=busy")
	for line := range strings.Lines(table) {
		word := strings.Fields(line)[0]
		assert.Equal(t, newFaults(func() {}).command(values.Replace(word)), nil, "%s", word)
	}
}

// TestConfig has flags become a Config, and that the same flags again.
func TestConfig(t *testing.T) {
	c := Default()
	err := c.Parse([]string{"--control", "/tmp/x", "--output", "float32", "--image-run", "1ms", "--fault", "slow=2", "-fault=crash=7"})
	assert.NoError(t, err)
	assert.True(t, c.Control == "/tmp/x" && c.Cost[0].Run == time.Millisecond && c.Width == 512, "%+v", c)
	assert.Equal(t, c.Cost[1].Frame, 8700*time.Microsecond)
	want := []string{"--control=/tmp/x", "--image-run=1ms", "--output=float32", "--fault=slow=2", "--fault=crash=7"}
	assert.Diff(t, want, c.Args())
	again := Default()
	assert.NoError(t, again.Parse(c.Args()))
	assert.True(t, reflect.DeepEqual(again, c), "%+v became %+v", c, again)
	usual := Default()
	assert.True(t, len(usual.Args()) == 0, "%q", usual.Args())
	assert.Equal(t, usual.Digest("demo")+", "+c.Digest("demo"), "sim/demo/hash, sim/demo/hash/float32")
	for want, args := range map[string][]string{
		"output \"int4\"":   {"--output", "int4"},
		"output \"\"":       {"--output", ""},
		"vectors \"x\"":     {"--vectors", "x"},
		"width 0":           {"--width", "0"},
		"no time":           {"--image-run", "-1ms"},
		"unknown":           {"--fault", "x"},
		"flag provided but": {"--nonsense"},
	} {
		c := Default()
		assert.ErrorSays(t, c.Parse(args), nil, want, "%v", args)
	}
	c.Vectors = "model"
	assert.ErrorSays(t, serve(c, nil), nil, "no real encoders")
}

// What a cost is fitted to is what it gives, for the vendor's figures and at both ends of what a manifest may say.
func TestCostOf(t *testing.T) {
	for _, r := range [][2]float64{{71.8, 335}, {127, 495}, {383, 1109}, {6.45, 9.63}, {10, 80}, {10, 10}} {
		c := CostOf(r[0], r[1])
		one, eight := time.Second.Seconds()/(c.Run+c.Frame).Seconds(), 8/(c.Run+8*c.Frame).Seconds()
		assert.True(t, math.Abs(one/r[0]-1) < 1e-6 && math.Abs(eight/r[1]-1) < 1e-6, "%v: %v gives %v and %v", r, c, one, eight)
	}
	for i, c := range Default().Cost {
		rates := [][2]float64{{71.8, 335}, {49.5, 99}}[i]
		want := CostOf(rates[0], rates[1])
		assert.True(t, math.Abs(c.Run.Seconds()/want.Run.Seconds()-1) < 0.01 && math.Abs(c.Frame.Seconds()/want.Frame.Seconds()-1) < 0.01,
			"the default %v is not the vendor's %v", c, want)
	}
}

// A decay begins with its command, however long the chip has worked before.
func TestDecayBeginsWhenCommanded(t *testing.T) {
	f := newFaults(nil)
	for range 100 {
		f.next()
	}
	assert.Must(t, f.command("decay=0.5"))
	assert.Equal(t, f.factor(), 1, "times as long")
	f.next()
	assert.Equal(t, f.factor(), 1.5, "times as long")
}

// A host that does not count is told that the queue is full.
func TestQueueFull(t *testing.T) {
	image := *loadImage
	defer func() { *loadImage = image }()
	loadImage.Slots, loadImage.InputStride, loadImage.OutputStride, loadImage.OutputOffset = queueDepth+1, 64, 64, 4096
	h := startChip(t, func(c *chip) { _ = c.faults.command("hang") })
	for slot := range uint32(queueDepth + 1) {
		h.submit(0, slot)
	}
	d := h.next().(*wire.Done)
	assert.True(t, d.Slot == queueDepth && d.Status == wire.CodeQueueFull, "%+v", d)
}
