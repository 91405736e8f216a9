package worker_test

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	b := builds[0]
	if out, _, status := run(b, t, "--version"); out != "hailo-clip-npu protocol 2, HailoRT 5.2.0\n" || status != exitDone {
		t.Errorf("--version: %q, status %d", out, status)
	}
	if _, err, status := run(b, t, "start"); !strings.Contains(err, "usage") || status != exitViolation {
		t.Errorf("an argument: %q, status %d", err, status)
	}
	if _, err, status := run(b, t); !strings.Contains(err, "descriptor 3") || status != exitViolation {
		t.Errorf("by hand: %q, status %d", err, status)
	}
}

// The vendor's library makes its log files when it is loaded. Here one that would is loaded with the
// worker, which is started by hand, without the environment that the service gives it.
func TestNoLogFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	library := filepath.Join(folder, "liblog.so")
	source := filepath.Join(folder, "log.cpp")
	if err := os.WriteFile(source, []byte(`#include <cstdio>
#include <cstdlib>
#include <cstring>
static const int made = [] {
    const char *path = std::getenv("HAILORT_LOGGER_PATH");
    return path != nullptr && std::strcmp(path, "NONE") == 0 ? 0 : std::fputs("", std::fopen("hailort.log", "w"));
}();
int log_file() { return made; }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	program := builds[0].program(t)
	assert.Must(t, compile("-shared", "-fPIC", source, "-o", library))
	for _, set := range []string{"A=1", "HAILORT_LOGGER_PATH=/somewhere"} {
		cmd := exec.Command(program, "--version")
		cmd.Dir, cmd.Env = t.TempDir(), []string{set, "LD_PRELOAD=" + library}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "hailo-clip-npu protocol") {
			t.Errorf("with %s: %v: %s", set, err, out)
		}
		if files, err := os.ReadDir(cmd.Dir); err != nil || len(files) > 0 {
			t.Errorf("with %s: files %v, error %v", set, files, err)
		}
	}
}

func TestHandshake(t *testing.T) {
	eachBuild(t, func(t *testing.T, b *build) {
		h := start(t, b, "zone=2,throttling=5,overcurrent=1,crc=1")
		hello := h.open()
		if hello.Status != wire.Success || hello.Magic != wire.Magic || hello.Version != wire.Version || hello.Simulated != 0 {
			t.Errorf("hello %+v", hello)
		}
		if hello.Runtime.String() != "5.2.0" || hello.Device.String() != "0001:01:00.0" || hello.Architecture.String() != "HAILO10H" || hello.Firmware.String() != "5.2.0" {
			t.Errorf("hello: runtime %v, device %v, architecture %v, firmware %v", hello.Runtime, hello.Device, hello.Architecture, hello.Firmware)
		}
		want[*wire.Stats](h)
		s := h.stats
		if s.Temperature != [2]float32{41.5, 42.5} || s.CPU != 12.5 || !math.IsNaN(float64(s.NNCore)) || s.Memory != 8<<30 || s.Used != 1<<30 {
			t.Errorf("statistics %+v", s)
		}
		if s.Zone != 2 || s.Throttling != 5 || s.Overcurrent != 1 || s.CRCErrors != 1 {
			t.Errorf("notifications %+v", s)
		}
		image := h.load(h.loadMessage(wire.ImageModel))
		if image.Status != wire.Success || image.QueueDepth != 32 || image.Model != wire.ImageModel {
			t.Errorf("image: %v, queue depth %d", image.Status, image.QueueDepth)
		}
		load := h.loadMessage(wire.TextModel)
		load.OutputFormat = wire.FormatUint8
		text := h.load(load)
		if text.Status != wire.Success || text.Model != wire.TextModel {
			t.Errorf("text: %v: %v", text.Status, text.Text)
		}
		if in := text.Input; in.Height != 1 || in.Width != 7 || in.Features != 32 || in.Format != wire.FormatUint16 || in.FrameBytes != 7*32*2 || in.Scale != 1./128 {
			t.Errorf("text input %+v", in)
		}
		if out := text.Output; out.Format != wire.FormatUint8 || out.FrameBytes != 7*32 || out.Scale != 1./128 {
			t.Errorf("text output: format %d, %d bytes, scale %v", out.Format, out.FrameBytes, out.Scale)
		}
		h.finish()
	})
}

// A stream of FLOAT32 has no quantisation, and frames four times as large.
func TestFloatOutput(t *testing.T) {
	t.Parallel()
	h := start(t, builds[1], "scale=0")
	h.open()
	load := h.loadMessage(wire.ImageModel)
	load.OutputFormat = wire.FormatFloat32
	if l := h.load(load); l.Status != wire.Success || l.Output.Format != wire.FormatFloat32 || l.Output.FrameBytes != 256 || l.Output.Scale != 0 {
		t.Errorf("loaded %v, format %d, %d bytes, scale %v", l.Status, l.Output.Format, l.Output.FrameBytes, l.Output.Scale)
	}
	h.submit(wire.ImageModel, 3, 7)
	if done := want[*wire.Done](h); done.Status != wire.Success || done.Sequence != 7 || done.Slot != 3 {
		t.Errorf("done %+v", done)
	}
}

// Where each feature has its own scale, which the library does not tell, it converts to FLOAT32; a stream
// with one is left as it is, whatever the other end is.
func TestScalePerFeature(t *testing.T) {
	t.Parallel()
	m := imageModel
	m.hef, m.out = "17 16 3 1  1 1 64 1  0.2 0.02 64", 256
	h := start(t, builds[1], "scale=0", m)
	h.open()
	l := h.load(h.loadMessage(wire.ImageModel))
	if l.Status != wire.Success || l.Output.Format != wire.FormatFloat32 || l.Output.FrameBytes != 256 {
		t.Fatalf("loaded %v: %v, format %d, %d bytes", l.Status, l.Text, l.Output.Format, l.Output.FrameBytes)
	}
	if l.Input.Format != wire.FormatUint8 || l.Input.Scale != 1./128 {
		t.Errorf("input format %d, scale %v", l.Input.Format, l.Input.Scale)
	}
	h.submit(wire.ImageModel, 0, 1)
	if done := want[*wire.Done](h); done.Status != wire.Success {
		t.Errorf("done %+v", done)
	}
	bytes := encode(model{out: 64}, frame(m, 1))
	for i, q := range bytes {
		got := math.Float32frombits(binary.LittleEndian.Uint32(h.output(0, 0)[4*i:]))
		assert.MustTrue(t, got == float32(q)/255, "number %d is %v, want %v", i, got, float32(q)/255)
	}
	h.finish()
}

// Thousands of frames of both models, as many in flight as the queue takes, in all slots.
func TestFrames(t *testing.T) {
	eachWorker(t, "scale=0.1", func(h *host, book *book) {
		left := [2]int{4000, 1000}
		inFlight := [2]int{}
		for left[0]+left[1]+len(book.inFlight) > 0 {
			for id := range left {
				for ; left[id] > 0 && inFlight[id] < 32; left[id]-- {
					book.submit(uint32(id))
					inFlight[id]++
				}
			}
			done := book.done()
			assert.MustTrue(h.t, done.Status == wire.Success, "done %+v", done)
			inFlight[done.Model]--
		}
		for h.stats == nil || h.stats.Frames != 5000 {
			want[*wire.Stats](h)
		}
		h.finish()
	})
}

// The frames of the real models, one of them without an output of its own length of pages.
func TestRealSizes(t *testing.T) {
	t.Parallel()
	h := start(t, builds[0], "scale=0",
		model{hef: "224 224 3 1 1 1 512 1 12.5 1.42 1", in: 224 * 224 * 3, out: 512, slots: 4},
		model{hef: "1 77 512 2 1 77 512 1 11.5 8.7 1", in: 77 * 512 * 2, out: 77 * 512, slots: 4})
	book := h.ready()
	book.fill(4, wire.ImageModel, wire.TextModel)
	book.takeGood(8)
	h.finish()
}

// Whoever asks for the state of the chip must not hold up the frames, whatever the chip answers.
func TestStatisticsFail(t *testing.T) {
	t.Parallel()
	for _, fake := range []string{"rpc_ms=800", "rpc=62", "rpc=4", "device=89"} {
		t.Run(fake, func(t *testing.T) {
			t.Parallel()
			h := start(t, builds[2], "scale=0.1,"+fake)
			book := h.ready()
			book.fill(32, wire.ImageModel)
			book.takeGood(32)
			if fake == "rpc_ms=800" {
				if h.stats != nil {
					t.Error("there are statistics already: the chip is not slow enough for this test")
				}
			} else if want[*wire.Stats](h); !math.IsNaN(float64(h.stats.Temperature[0])) || h.stats.Memory != 0 {
				t.Errorf("statistics %+v", h.stats)
			}
			h.finish()
		})
	}
}

// What was told over a connection that has ended holds no more, for its end may not be told.
func TestStatisticsForgetTheirConnection(t *testing.T) {
	t.Parallel()
	h := start(t, builds[2], "zone=2,throttling=5,overcurrent=1,crc=1,rpc=62")
	h.open()
	first, second := *want[*wire.Stats](h), *want[*wire.Stats](h)
	assert.True(t, first.Zone == 2 && first.Throttling == 5 && first.Overcurrent == 1, "at first %+v", first)
	if second.Zone != 0 || second.Throttling != 0 || second.Overcurrent != 0 || second.CRCErrors != 1 {
		t.Errorf("after the connection %+v", second)
	}
	h.finish()
}

// A terminal and systemd signal the worker too; it stays until its host is done.
func TestSignals(t *testing.T) {
	t.Parallel()
	h := start(t, builds[0], "scale=0")
	h.ready()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		assert.Must(t, h.cmd.Process.Signal(s))
	}
	h.submit(wire.ImageModel, 0, 1)
	if done := want[*wire.Done](h); done.Status != wire.Success {
		t.Errorf("done %+v", done)
	}
	h.finish()
}
