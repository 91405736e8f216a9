package npu_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"

	"go.uber.org/goleak"

	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/sim"
)

// The test program is also the worker: started with npu-sim it is the simulated chip. With
// "args FILE" it reads the rest of its arguments from a file, so that a test can change what
// the next worker does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "npu-sim" {
		args := os.Args[2:]
		if len(args) == 2 && args[0] == "args" {
			b, err := os.ReadFile(args[1])
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			args = strings.Fields(string(b))
		}
		os.Exit(sim.Main(args, nil))
	}
	goleak.VerifyTestMain(m)
}

const (
	imageSize = 224
	dimension = 512
	context77 = 77
	endToken  = 9
)

// patience is how long a test waits for what must come: it guards against hanging, however slow the machine.
const patience = 5 * time.Minute

// fast makes the simulated chip take no time, unless a test is about time.
var fast = []string{"--image-run", "0", "--image-frame", "0", "--text-run", "0", "--text-frame", "0"}

// options are those of a backend on the simulated chip.
func options(t testing.TB, args ...string) npu.Options {
	t.Helper()
	self := assert.Value(os.Executable())
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return npu.Options{
		Command:   append([]string{self, "npu-sim"}, args...),
		Simulated: true,
		Config:    npu.Config{InFlight: 32, TextBatch: 4, StartTimeout: 10 * time.Minute},
		ImageHEF:  "image.hef", ImageSize: imageSize, Dimension: dimension, BatchSize: 8,
		DeviceTimeout: patience,
		Text: &npu.Text{
			HEF: "text.hef", ContextLength: context77, Width: dimension, Vocabulary: 64, EndToken: endToken,
			Row: func(token int32) []float32 { return sim.TokenEmbedding(token, dimension) },
		},
		TextDigest: "synthetic", ImageDigest: "synthetic",
		Log: slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: level})),
	}
}

// logTo shows the log of a failed test only.
type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// open starts a backend; it is ready when open returns, and closed at the end of the test.
func open(t testing.TB, o npu.Options) *npu.Backend {
	t.Helper()
	b := start(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	assert.Must(t, b.Await(ctx))
	return b
}

func start(t testing.TB, o npu.Options) *npu.Backend {
	t.Helper()
	b := assert.Value(npu.New(o))
	t.Cleanup(func() {
		assert.NoError(t, b.Close())
	})
	return b
}

// control commands the simulated chip that listens on path. It returns false when no chip does.
func control(t testing.TB, path, command string) bool {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer conn.Close()
	fmt.Fprintln(conn, command)
	// No answer: the fault has ended the process already. A refused command is answered.
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	assert.True(t, answer == "ok\n" || answer == "", "%s: %s", command, answer)
	return true
}

func socket(t testing.TB) string {
	dir, err := os.MkdirTemp("", "npu") // t.TempDir may be too long for a socket
	assert.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// paint makes an image of its own for every seed.
func paint(pixels []byte, seed uint64) {
	for i := range 8 {
		pixels[i*1000] = byte(seed >> (8 * i))
	}
}

// encodeOne encodes the image of a seed and checks that it got its own vector.
func encodeOne(ctx context.Context, b *npu.Backend, seed uint64) error {
	var want []float32
	got, err := backendtest.Encode(ctx, b, func(pixels []byte) {
		paint(pixels, seed)
		want = sim.Vector(pixels, dimension)
	})
	if c := backendtest.Cosine(got, want); err == nil && !(c > 0.999) {
		err = fmt.Errorf("image %d got another's vector: cosine %v", seed, c)
	}
	return err
}

// encodeGroup is encodeOne for several images in one call: each gets its own vector, or the call fails.
func encodeGroup(ctx context.Context, b *npu.Backend, seed uint64, n int) error {
	frames, err := b.Frames().GetSeveral(ctx, nil, n)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range frames {
			f.Release()
		}
	}()
	for i, f := range frames {
		paint(f.Pixels, seed<<8+uint64(i))
	}
	if err = b.EncodeImages(ctx, frames); err != nil {
		return err
	}
	for i, f := range frames {
		if c := backendtest.Cosine(f.Embedding, sim.Vector(f.Pixels, dimension)); !(c > 0.999) {
			return fmt.Errorf("image %d of group %d got another's vector: cosine %v", i, seed, c)
		}
		if f.Run.Frames < 1 {
			return fmt.Errorf("image %d of group %d: run %+v", i, seed, f.Run)
		}
	}
	return nil
}
