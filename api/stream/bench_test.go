package stream

import (
	"testing"

	"hailoclip/pipeline/fair"
)

// BenchmarkFeed pushes raw frames into a feed with policy queue and 8 in flight: what a frame costs in the hub and, of raw frames of
// 4 x 4 pixels, in the engine.
func BenchmarkFeed(b *testing.B) {
	for name, fields := range map[string]string{
		"plain":  `"top_k": 1`,
		"gate":   `"gate": {}`,
		"events": `"events": {}`,
		"rate":   `"interval_ms": 86400000`,
	} {
		b.Run(name, func(b *testing.B) {
			y := newYard(b, nil)
			f, err := y.Open(b.Context(), Opening{
				Definition: []byte(with(`"policy": "queue", "max_in_flight": 8, ` + fields)), Caller: fair.Caller{Address: "test"}, Answer: func(*Answer) {},
			})
			if err != nil {
				b.Fatal(err)
			}
			image := paint("red", "blue")
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Push(Frame{Image: image}); err != nil {
					b.Fatal(err)
				}
			}
			f.Close()
			if st := f.Counts(); st.Frames != st.Answered+st.Reused+st.Rate {
				b.Errorf("%+v", st)
			}
		})
	}
}
