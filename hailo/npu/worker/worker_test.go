package worker_test

import (
	"encoding/binary"
	"fmt"
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
	for _, tt := range []struct {
		args        []string
		stdout, err string // err is in what it says to stderr
		status      int
	}{
		{[]string{"--version"}, "hailo-clip-npu protocol 3, HailoRT 5.2.0\n", "", exitDone},
		{[]string{"start"}, "", "usage", exitViolation},
		{nil, "", "descriptor 3", exitViolation}, // by hand
	} {
		var stderr strings.Builder
		cmd := exec.CommandContext(t.Context(), builds[0].program(t), tt.args...)
		cmd.Stderr = &stderr
		out, _ := cmd.Output() // its result is in ProcessState
		assert.Equal(t, string(out), tt.stdout, "%v", tt.args)
		assert.True(t, strings.Contains(stderr.String(), tt.err), "%v: %q", tt.args, stderr.String())
		assert.Equal(t, cmd.ProcessState.ExitCode(), tt.status, "%v: status", tt.args)
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
		assert.True(t, err == nil && strings.HasPrefix(string(out), "hailo-clip-npu protocol"), "with %s: %v: %s", set, err, out)
		assert.True(t, len(assert.Value(os.ReadDir(cmd.Dir))) == 0, "with %s: there are files", set)
	}
}

func TestHandshake(t *testing.T) {
	eachBuild(t, func(t *testing.T, b *build) {
		h := start(t, b, "zone=2,throttling=5,overcurrent=1,crc=1")
		hello := h.open()
		expected := wire.Hello{Magic: wire.Magic, Version: wire.Version}
		wire.SetText(expected.Runtime[:], "5.2.0")
		wire.SetText(expected.Device[:], "0001:01:00.0")
		wire.SetText(expected.Architecture[:], "HAILO10H")
		wire.SetText(expected.Firmware[:], "5.2.0")
		assert.Diff(t, &expected, hello)
		want[*wire.Stats](h)
		s := h.stats
		assert.True(t, s.Temperature == [2]float32{41.5, 42.5} && s.CPU == 12.5 && math.IsNaN(float64(s.NNCore)), "%+v", s)
		assert.True(t, s.Memory == 8<<30 && s.Used == 1<<30, "%+v", s)
		assert.True(t, s.Zone == 2 && s.Throttling == 5 && s.Overcurrent == 1 && s.CRCErrors == 1, "notifications %+v", s)
		image := h.load(h.loadMessage(wire.ImageModel))
		assert.True(t, image.Status == wire.Success && image.QueueDepth == 32 && image.Model == wire.ImageModel, "%+v", image)
		load := h.loadMessage(wire.TextModel)
		load.OutputFormat = wire.FormatUint8
		text := h.load(load)
		assert.True(t, text.Status == wire.Success && text.Model == wire.TextModel, "%v: %v", text.Status, text.Text)
		stream := wire.Stream{Height: 1, Width: 7, Features: 32, Format: wire.FormatUint16, FrameBytes: 7 * 32 * 2, Scale: 1. / 128}
		assert.Equal(t, text.Input, stream, "text input")
		stream.Format, stream.FrameBytes = wire.FormatUint8, 7*32
		assert.Equal(t, text.Output, stream, "text output")
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
	l := h.load(load)
	assert.Equal(t, l.Status, wire.Success)
	assert.True(t, l.Output.Format == wire.FormatFloat32 && l.Output.FrameBytes == 256 && l.Output.Scale == 0, "%+v", l.Output)
	h.submit(wire.ImageModel, 3, 7)
	done := h.doneWell()
	assert.True(t, done.Sequence == 7 && done.Slot == 3, "%+v", done)
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
	assert.MustTrue(t, l.Status == wire.Success, "%v: %v", l.Status, l.Text)
	assert.MustTrue(t, l.Output.Format == wire.FormatFloat32 && l.Output.FrameBytes == 256, "%+v", l.Output)
	assert.True(t, l.Input.Format == wire.FormatUint8 && l.Input.Scale == 1./128, "%+v", l.Input)
	h.submit(wire.ImageModel, 0, 1)
	h.doneWell()
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

// Frames of a group run together on a chip that is free, and those after it as their own threshold says. A chip that refuses a
// threshold runs them all the same.
func TestGroups(t *testing.T) {
	t.Parallel()
	for _, refuses := range []bool{false, true} {
		h := start(t, builds[0], map[bool]string{true: "scale=0,threshold=6", false: "scale=0"}[refuses], imageModel)
		assert.MustTrue(t, h.open().Status == wire.Success, "hello")
		load := h.loadMessage(wire.ImageModel)
		load.TimeoutMS = 60_000 // whoever waits for it is seen
		assert.MustTrue(t, h.load(load).Status == wire.Success, "loaded")
		sequence := uint64(0)
		for _, group := range []uint32{1, 3, 3, 8, 2, 1, 1, 5} {
			for slot := range group {
				sequence++
				copy(h.memory.Input(wire.ImageModel, int(slot)), frame(imageModel, sequence))
				h.submitOf(wire.ImageModel, slot, sequence, group)
			}
			for range group {
				h.doneWell()
			}
		}
		h.finish()
		runs := string(assert.Value(os.ReadFile(h.runs)))
		frames := 0
		for _, n := range runs {
			frames += int(n - '0')
		}
		assert.Equal(t, frames, 24, "frames in runs of %s", runs)
		assert.True(t, refuses || runs == "13382115", "runs of %s frames", runs)
		refusals := strings.Count(h.stderr.String(), "set_scheduler_threshold")
		assert.True(t, refusals == map[bool]int{true: 1, false: 0}[refuses], "the worker said %s", h.stderr)
	}
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
				assert.True(t, h.stats == nil, "there are statistics already: the chip is not slow enough for this test")
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
	told := fmt.Sprint(second.Zone, second.Throttling, second.Overcurrent, second.CRCErrors)
	assert.Equal(t, told, "0 0 0 1", "after the connection")
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
	h.doneWell()
	h.finish()
}
