package clip

import (
	"bytes"
	"context"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// still is a painter that encodes images without a look at them: what is measured beside it is the engine.
type still struct{ *painter }

func (s still) Info() hailo.Info {
	return hailo.Info{Backend: "cpu", ImageBatch: 4, ImageCalls: 1, TextBatch: paintedBatch}
}

func (s still) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		copy(f.Embedding, []float32{1, 0, 0})
	}
	return nil
}

// frameOf is what a stream asks of a frame of 224 x 224 pixels.
func frameOf(t testing.TB) Request {
	t.Helper()
	raw, err := decode.ParseRaw("rgb24; 224x224")
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		Image: bytes.Repeat([]byte{255, 0, 0}, 224*224), Raw: raw, PromptSet: "door", Logits: true,
		Lane: pipeline.NewLane(fair.Caller{Address: "192.0.2.1", Connection: 1}, pipeline.Latest), Release: func() {},
		Seen: func(p stages.Pixels) bool { stages.DifferenceHash(p, stages.Region{}); return false },
	}
}

// TestFrameAllocates: what the engine allocates for a frame of a stream is its result, and nothing where the memory for that is lent.
func TestFrameAllocates(t *testing.T) {
	h := newHouse(t, &painter{name: "one"})
	h.encoder = still{h.painter}
	h.open().put("door", labels("open=red", "closed=blue", "!else=green"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	r := frameOf(t)
	var last stages.Result
	classify := func() {
		got, err := h.Classify(ctx, &r)
		if err != nil || len(got.Logits) != 3 || len(got.Matches) != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		last = got.Result
	}
	for name, c := range map[string]struct {
		into *stages.Result
		most float64
	}{"new memory": {nil, 2}, "lent memory": {&last, 0}} {
		r.Into = c.into
		if n := testing.AllocsPerRun(200, classify); n > c.most && !raceEnabled() { // which has pools forget
			t.Errorf("%s: %v allocations, want %v at most", name, n, c.most)
		}
	}
}

// BenchmarkFrame classifies a raw frame by a prompt set, as a stream does, with an encoder that takes no time.
func BenchmarkFrame(b *testing.B) {
	h := newHouse(b, &painter{name: "one"})
	h.encoder = still{h.painter}
	h.open().put("door", labels("open=red", "closed=blue", "!else=green"))
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	var into stages.Result
	for _, c := range []struct {
		name    string
		regions int
		into    *stages.Result
	}{{"new memory", 0, nil}, {"lent memory", 0, &into}, {"4 regions", 4, nil}, {"4 regions, lent memory", 4, &into}} {
		b.Run(c.name, func(b *testing.B) {
			r := frameOf(b)
			for i := range c.regions {
				r.Regions = append(r.Regions, Region{X: float64(i) / 4, W: 0.25, H: 1})
			}
			r.Into = c.into
			b.ReportAllocs()
			for b.Loop() {
				got, err := h.Classify(ctx, &r)
				if err != nil {
					b.Fatal(err)
				}
				into = got.Result
			}
		})
	}
}

// raceEnabled says whether the tests run under the race detector.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
