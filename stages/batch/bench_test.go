package batch

import (
	"context"
	"testing"

	"hailoclip/hailo"
	"hailoclip/pipeline/fair"
)

// instant is a device that takes no time.
type instant struct{ chip }

func (*instant) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		f.Run = hailo.Run{Frames: len(frames)}
	}
	return nil
}

// BenchmarkEncode is what the batcher adds to a frame.
func BenchmarkEncode(b *testing.B) {
	batcher := New(&instant{chip{load: load{cap: 8}, pool: hailo.NewHeapFrames(8, 1, 1)}}, 0)
	defer batcher.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	f := &hailo.Frame{}
	b.ReportAllocs()
	for b.Loop() {
		if err := batcher.Encode(ctx, fair.Caller{Address: "a", Connection: 1}, f); err != nil {
			b.Fatal(err)
		}
	}
}
