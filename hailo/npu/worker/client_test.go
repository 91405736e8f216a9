package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/npu/wire"
	"hailoclip/hailo/sim"
)

// The service's own client in front of the worker.

const (
	imageSize = 24
	dimension = 64
	context9  = 9
	endToken  = 60
)

// clientOptions are those of the service's backend with this worker on a chip with these options. The device has an IP address, so
// that the driver of the machine that the test runs on does not matter.
func clientOptions(t *testing.T, b *build, fake string) (npu.Options, objects) {
	t.Helper()
	folder := t.TempDir()
	chip := objects(filepath.Join(folder, "objects"))
	hef := func(name, line string) string {
		path := filepath.Join(folder, name)
		assert.Must(t, os.WriteFile(path, []byte("\x01HEF "+line), 0o600))
		return path
	}
	text := &npu.Text{ContextLength: context9, Width: dimension, Vocabulary: 64, EndToken: endToken, Row: tokenRow}
	text.HEF = hef("text.hef", fmt.Sprintf("1 %d %d 2 1 %d %d 1 11.5 8.7 1", context9, dimension, context9, dimension))
	return npu.Options{
		Command:  []string{"env", "HAILO_FAKE=" + fake, "HAILO_FAKE_DEVICES=" + string(chip), b.program(t)},
		Config:   npu.Config{Device: "127.0.0.1", InFlight: 24, TextBatch: 4, StartTimeout: 10 * time.Minute},
		ImageHEF: hef("image.hef", fmt.Sprintf("%d %d 3 1 1 1 %d 1 12.5 1.42 1", imageSize, imageSize, dimension)), ImageSize: imageSize,
		Dimension: dimension, BatchSize: 8, DeviceTimeout: patience, Text: text, TextDigest: "synthetic", ImageDigest: "synthetic",
		Log: slog.New(slog.DiscardHandler),
	}, chip
}

func tokenRow(token int32) []float32 { return sim.TokenEmbedding(token, dimension) }

// startClient starts the backend on a chip with these options.
func startClient(t *testing.T, b *build, fake string, timeout time.Duration) *npu.Backend {
	t.Helper()
	o, _ := clientOptions(t, b, fake)
	o.DeviceTimeout = timeout
	backend := assert.Value(npu.New(o))
	t.Cleanup(func() { assert.NoError(t, backend.Close()) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	assert.Must(t, backend.Await(ctx))
	return backend
}

// expect checks an embedding against what the chip makes of an input: its row, dequantised with
// the fake's scale of 1/128 and made unit length.
func expect(got []float32, input []byte, rows, row int) error {
	out := encode(model{out: rows * dimension}, input)[row*dimension:][:dimension]
	sum := 0.0
	for _, q := range out {
		sum += float64(q) * float64(q)
	}
	for i, q := range out {
		if want := float64(q) / math.Sqrt(sum); i >= len(got) || math.Abs(float64(got[i])-want) > 1e-6 {
			return fmt.Errorf("number %d of %v is not %v", i, got, want)
		}
	}
	return nil
}

// encodeImage encodes a random image and checks its embedding.
func encodeImage(backend *npu.Backend) error {
	var pixels []byte
	got, err := backendtest.Encode(context.Background(), backend, func(p []byte) {
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		pixels = slices.Clone(p)
	})
	if err != nil {
		return err
	}
	return expect(got, pixels, 1, 0)
}

func encodeText(backend *npu.Backend) error {
	tokens := make([]int32, 2+rand.IntN(context9-2))
	for i := range tokens {
		tokens[i] = rand.Int32N(endToken)
	}
	tokens[len(tokens)-1] = endToken
	got, err := backend.EncodeTexts(context.Background(), [][]int32{tokens})
	if err != nil {
		return err
	}
	stream := wire.Stream{Format: wire.FormatUint16, Features: dimension, Scale: 1.0 / 128}
	input := make([]byte, context9*dimension*2)
	for i := range context9 {
		token := int32(0) // padding
		if i < len(tokens) {
			token = tokens[i]
		}
		stream.Encode(input[i*dimension*2:(i+1)*dimension*2], tokenRow(token))
	}
	return expect(got[0], input, context9, len(tokens)-1)
}

// The client and the worker, whatever the chip does: every call returns, with the right vector or
// with ErrDeviceLost, and a worker that was lost is replaced.
func TestServiceClient(t *testing.T) {
	tests := []struct {
		name, fake string
		images     int // to encode in the end
		losses     bool
		timeout    time.Duration // short where the fault shows by nothing happening
	}{
		{"all is well", "scale=0.02", 1500, false, patience},
		{"one frame fails", "scale=0.02,error_at=100,error=8", 300, true, patience}, // ErrEncode, see below
		{"the chip's server dies again and again", "scale=0.02,close_at=300", 700, true, patience},
		{"the chip hangs again and again", "scale=0.02,hang_at=300", 700, true, time.Second},
		{"a completion is lost again and again", "scale=0.02,lost_at=300", 700, true, time.Second},
	}
	t.Parallel()
	for _, tt := range tests {
		for _, b := range builds[1:] {
			t.Run(tt.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				backend := startClient(t, b, tt.fake, tt.timeout)
				var images, texts, lost atomic.Int64
				var wait sync.WaitGroup
				for i := range 20 {
					wait.Go(func() {
						work, done := encodeImage, &images
						if i%5 == 0 {
							work, done = encodeText, &texts
						}
						for images.Load() < int64(tt.images) && !t.Failed() {
							switch err := work(backend); {
							case err == nil:
								done.Add(1)
							case !tt.losses || !errors.Is(err, hailo.ErrDeviceLost) && !errors.Is(err, hailo.ErrEncode):
								t.Error(err)
							default:
								lost.Add(1)
								assert.NoError(t, backend.Await(t.Context()))
							}
						}
					})
				}
				wait.Wait()
				assert.True(t, texts.Load() > 0 && tt.losses == (lost.Load() > 0), "%d texts, %d calls failed", texts.Load(), lost.Load())
			})
		}
	}
}

// A frame that the chip calls done without having written its output fails; it does not get the vector
// that was in its slot before.
func TestOutputNotWritten(t *testing.T) {
	t.Parallel()
	images, texts := startClient(t, builds[0], "scale=0,blank_at=2", patience), startClient(t, builds[0], "scale=0,blank_at=2", patience)
	f := assert.Value(images.Frames().Get(t.Context()))
	defer f.Release()
	for i, want := range []error{nil, hailo.ErrEncode, nil} {
		f.Pixels[0] = byte(i) // of one slot
		assert.ErrorIs(t, images.EncodeImages(t.Context(), []*hailo.Frame{f}), want, "image %d", i)
		// A text alone is always in slot 0.
		assert.ErrorIs(t, assert.Err(texts.EncodeTexts(t.Context(), [][]int32{{int32(i), endToken}})), want, "text %d", i)
	}
}
