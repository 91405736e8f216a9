package stages

import (
	"math/rand/v2"
	"testing"
)

// scene is an image of w x h pixels with a bright door in a grey wall, whose left edge is at a part of the width, and noise.
func scene(w, h int, door, noise float64, seed uint64) Pixels {
	random := rand.New(rand.NewPCG(seed, 1))
	p := Pixels{Pix: make([]byte, (3*w+5)*h), Width: w, Height: h, Stride: 3*w + 5}
	for y := range h {
		for x := range w {
			level := 90 + 40*float64(y)/float64(h)
			if at := float64(x) / float64(w); at > door && at < door+0.3 && y > h/4 {
				level = 200
			}
			for c := range 3 {
				p.Pix[y*p.Stride+3*x+c] = byte(min(max(level+noise*random.NormFloat64(), 0), 255))
			}
		}
	}
	return p
}

// TestDifferenceHash: what looks the same has the same hash, but for few bits, in another size and with noise, too; what has
// changed has another one.
func TestDifferenceHash(t *testing.T) {
	still := DifferenceHash(scene(640, 480, 0.2, 0, 1), Region{})
	for name, c := range map[string]struct {
		p           Pixels
		least, most int
	}{
		"noise":       {scene(640, 480, 0.2, 8, 2), 0, 2},
		"other noise": {scene(640, 480, 0.2, 8, 3), 0, 2},
		"small":       {scene(160, 120, 0.2, 0, 1), 0, 2},
		"large":       {scene(1920, 1080, 0.2, 4, 4), 0, 2},
		"moved":       {scene(640, 480, 0.5, 8, 2), 8, 64},
		"gone":        {scene(640, 480, 2, 8, 2), 5, 64},
	} {
		if d := Distance(still, DifferenceHash(c.p, Region{})); d < c.least || d > c.most {
			t.Errorf("%s: %d bits, want %d to %d", name, d, c.least, c.most)
		}
	}
}

// TestDifferenceHashBits has a ramp, for each direction, and single steps where they are known.
func TestDifferenceHashBits(t *testing.T) {
	ramp := func(w, h int, level func(x, y int) int) Pixels {
		p := Pixels{Pix: make([]byte, 3*w*h), Width: w, Height: h, Stride: 3 * w}
		for i := range p.Pix {
			p.Pix[i] = byte(level(i/3%w, i/3/w))
		}
		return p
	}
	for name, c := range map[string]struct {
		p    Pixels
		r    Region
		want uint64
	}{
		"rising":         {ramp(90, 80, func(x, _ int) int { return 2 * x }), Region{}, ^uint64(0)},
		"falling":        {ramp(90, 80, func(x, _ int) int { return 250 - 2*x }), Region{}, 0},
		"even":           {ramp(90, 80, func(x, y int) int { return y }), Region{}, 0},
		"less than two":  {ramp(90, 80, func(x, _ int) int { return x / 10 }), Region{}, 0},
		"one step":       {ramp(9, 8, func(x, y int) int { return min(max(x-3, 0), 1) * min(max(y-1, 0), 1) * 255 }), Region{}, 0x0808_0808_0808_0000},
		"rising part":    {ramp(90, 80, func(x, _ int) int { return max(0, 3*(x-45)) }), Region{X: 0.5, W: 0.5, H: 1}, ^uint64(0)},
		"a pixel":        {ramp(1, 1, func(int, int) int { return 77 }), Region{}, 0},
		"two pixels":     {ramp(2, 1, func(x, _ int) int { return 255 * x }), Region{}, 0x1010_1010_1010_1010},
		"a part of none": {ramp(2, 1, func(x, _ int) int { return 255 * x }), Region{X: 0.9, W: 0.05, H: 1}, 0},
		"nothing":        {Pixels{}, Region{}, 0},
	} {
		if got := DifferenceHash(c.p, c.r); got != c.want {
			t.Errorf("%s: %016x, want %016x", name, got, c.want)
		}
	}
	for w := 1; w < 40; w++ { // never beside the image
		for h := 1; h < 40; h++ {
			p := ramp(w, h, func(x, y int) int { return x ^ y })
			DifferenceHash(p, Region{})
			DifferenceHash(p, Region{X: 0.3, Y: 0.95, W: 0.7, H: 0.05})
		}
	}
	p := scene(640, 480, 0.2, 0, 1)
	if n := testing.AllocsPerRun(10, func() { DifferenceHash(p, Region{X: 0.1, Y: 0.1, W: 0.8, H: 0.8}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDifferenceHash(b *testing.B) {
	for name, p := range map[string]Pixels{"640x480": scene(640, 480, 0.2, 8, 1), "1920x1080": scene(1920, 1080, 0.2, 8, 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				DifferenceHash(p, Region{})
			}
		})
	}
}
