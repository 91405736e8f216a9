package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// hanging is a backend to which nothing is wrong but that its calls take until hang is closed.
type hanging struct {
	hailo.Backend
	hang   chan struct{}
	frames *hailo.Frames
}

func (hanging) Status() hailo.Status    { return hailo.Status{Ready: true} }
func (hanging) Info() hailo.Info        { return hailo.Info{Backend: "cpu", ImageBatch: 1, ImageCalls: 1} }
func (h hanging) Frames() *hailo.Frames { return h.frames }
func (h hanging) EncodeImages(context.Context, []*hailo.Frame) error {
	<-h.hang
	return nil
}

// TestStuckWorkersShow has an encoder hang for ever: health says so, degraded while another stands in and unhealthy when
// none is left, and an engine that closes does not wait for the one that was replaced.
func TestStuckWorkersShow(t *testing.T) {
	var dot bytes.Buffer
	if err := png.Encode(&dot, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	for stuck, status := range []string{api.Healthy, api.Degraded, api.Unhealthy} {
		synctest.Test(t, func(t *testing.T) {
			hang := make(chan struct{})
			device := hanging{hang: hang, frames: hailo.NewHeapFrames(4, 8, 4)}
			line, err := stages.NewLine(stages.Config{Decode: decode.Config{MaxPixels: 1e6, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitSquash}},
				pipeline.Config{WorkerThreads: 1, MaxQueueSize: 1}, device, 8, decode.NewBudget(1<<30, math.MaxInt64, 1, 1))
			if err != nil {
				t.Fatal(err)
			}
			e := &engine{log: slog.New(slog.DiscardHandler), model: &hailo.Model{}, line: line, encoders: &encoders{images: device}}
			for range stuck {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if _, err := line.Do(ctx, &stages.Request{Image: dot.Bytes()}); !errors.Is(err, pipeline.ErrDeadline) {
					t.Error("the image was done:", err)
				}
				cancel()
				time.Sleep(time.Minute)
			}
			if h := e.health(); h.Status != status || strings.Contains(h.Reason, "encode") != (stuck > 0) {
				t.Errorf("%d stuck: %+v", stuck, h)
			}
			if stuck < 2 {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := e.close(ctx); (err == nil) != (stuck == 0) {
					t.Error("closed:", err)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("%d stuck: closing took %v", stuck, waited)
				}
			}
			close(hang)
			synctest.Wait()
			if h := e.health(); h.Status != api.Healthy {
				t.Errorf("%d were stuck: %+v", stuck, h)
			}
			if err := line.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
