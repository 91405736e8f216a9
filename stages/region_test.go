package stages

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// TestCrop: edges go to the nearest place between two pixels, regions that touch share none, and each has one at least.
func TestCrop(t *testing.T) {
	for _, c := range []struct {
		r          Region
		w, h       int
		x, y, n, m int
	}{
		{Region{0, 0, 1, 1, nil, Scoring{}}, 7, 5, 0, 0, 7, 5},
		{Region{0, 0, 0.5, 0.5, nil, Scoring{}}, 7, 5, 0, 0, 4, 3},
		{Region{0.5, 0.5, 0.5, 0.5, nil, Scoring{}}, 7, 5, 4, 3, 3, 2},
		{Region{0.1, 0.2, 0.3, 0.4, nil, Scoring{}}, 100, 200, 10, 40, 30, 80},
		{Region{0.999, 0.001, 0.001, 0.0001, nil, Scoring{}}, 10, 10, 9, 0, 1, 1},
		{Region{0.5, 0, 1e-9, 1, nil, Scoring{}}, 1, 1, 0, 0, 1, 1},
	} {
		p := Pixels{Pix: make([]byte, (3*c.w+1)*c.h), Width: c.w, Height: c.h, Stride: 3*c.w + 1}
		for i := range p.Pix {
			p.Pix[i] = byte(i % 251)
		}
		got := p.Crop(c.r)
		if at := c.y*p.Stride + 3*c.x; got.Width != c.n || got.Height != c.m || &got.Pix[0] != &p.Pix[at] || len(got.Pix) != (c.m-1)*p.Stride+3*c.n {
			t.Errorf("%+v of %d x %d: %d x %d, %d bytes", c.r, c.w, c.h, got.Width, got.Height, len(got.Pix))
		}
	}
	for range 1000 { // four that meet in a point
		w, h, x, y := 1+rand.IntN(30), 1+rand.IntN(30), rand.Float64(), rand.Float64()
		p := Pixels{Pix: make([]byte, 3*w*h), Width: w, Height: h, Stride: 3 * w}
		pixels := 0
		for _, r := range []Region{{X: 0, Y: 0, W: x, H: y}, {X: x, Y: 0, W: 1 - x, H: y}, {X: 0, Y: y, W: x, H: 1 - y}, {X: x, Y: y, W: 1 - x, H: 1 - y}} {
			if r.Check() != nil {
				continue
			}
			c := p.Crop(r)
			pixels += c.Width * c.Height
		}
		if whole := math.Round(x*float64(w)) > 0 && math.Round(x*float64(w)) < float64(w) && math.Round(y*float64(h)) > 0 &&
			math.Round(y*float64(h)) < float64(h); whole && pixels != w*h {
			t.Errorf("four regions of %d x %d that meet at %v, %v have %d pixels", w, h, x, y, pixels)
		}
	}
}

// keeping is a backend that keeps the pixels of the frames that it has encoded, in the order of its calls.
func keeping(batch int) (*fakeBackend, func() [][]byte) {
	var mu sync.Mutex
	var kept [][]byte
	b := &fakeBackend{batch: batch, frames: hailo.NewHeapFrames(MaxRegions, 32, 3), fail: func(_ int, frames []*hailo.Frame) error {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range frames {
			kept = append(kept, bytes.Clone(f.Pixels))
		}
		return nil
	}}
	return b, func() (all [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		all, kept = kept, nil
		return all
	}
}

// noisy is an image whose pixels differ.
func noisy(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	random := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	for i := range m.Pix {
		if m.Pix[i] = byte(random.IntN(256)); i%4 == 3 {
			m.Pix[i] = 255
		}
	}
	return m
}

// packed are the RGB bytes of a part of m.
func packed(m image.Image, part image.Rectangle) (pix []byte) {
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			r, g, b, _ := m.At(x, y).RGBA()
			pix = append(pix, byte(r>>8), byte(g>>8), byte(b>>8))
		}
	}
	return pix
}

func encoded(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rawOf describes packed rgb24 of w x h pixels.
func rawOf(t testing.TB, w, h int) decode.Raw {
	t.Helper()
	raw, err := decode.ParseRaw(fmt.Sprintf("rgb24; %dx%d", w, h))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRegionsAreCrops: the pixels that the backend gets of a region, and what comes of them, are those of an image that was cut out
// outside, for compressed images and raw frames, with every fit, at the edges too.
func TestRegionsAreCrops(t *testing.T) {
	regions := []Region{
		{X: 0.1, Y: 0.2, W: 0.5, H: 0.6}, {X: 0, Y: 0, W: 1, H: 1}, {X: 0.75, Y: 0.75, W: 0.25, H: 0.25},
		{X: 0, Y: 0.5, W: 1, H: 0.5}, {X: 0.5, Y: 0, W: 0.5, H: 1}, {X: 0.99, Y: 0.99, W: 0.01, H: 0.01},
	}
	for _, fit := range []string{resize.FitCrop, resize.FitSquash, resize.FitPad} {
		for _, size := range []image.Point{{64, 48}, {64, 64}, {101, 77}, {32, 32}, {7, 90}} {
			m := noisy(size.X, size.Y)
			b, kept := keeping(3)
			config := testConfig
			config.Resize.Fit = fit
			l, err := NewLine(config, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}, b, 32, testBudget())
			if err != nil {
				t.Fatal(err)
			}
			labels := plain([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1}, 3)
			scoring := Scoring{LogitScale: 100, TopK: 2}
			own := &Labels{N: 1, Rows: []float32{0, 1, 0}}
			asked := slices.Clone(regions)
			asked[1].Labels, asked[1].Scoring = own, Scoring{Activation: None, LogitScale: 3, TopK: 1}
			all := packed(m, m.Bounds())
			for name, r := range map[string]Request{
				"compressed": {Image: encoded(t, m)},
				"raw":        {Image: all, Raw: rawOf(t, size.X, size.Y)},
			} {
				r.Labels, r.Scoring, r.Regions, r.Embedding, r.Logits, r.Thumbnail = labels, scoring, asked, true, true, true
				got, err := l.Do(t.Context(), &r)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Regions) != len(regions) || got.Matches != nil || got.Embedding != nil || got.Logits != nil || got.Thumbnail == nil {
					t.Fatalf("%+v", got)
				}
				frames := kept() // groups end in any order
				for i, a := range regions {
					part := image.Rect(int(math.Round(a.X*float64(size.X))), int(math.Round(a.Y*float64(size.Y))),
						int(math.Round((a.X+a.W)*float64(size.X))), int(math.Round((a.Y+a.H)*float64(size.Y))))
					if part.Dx() == 0 {
						part.Min.X--
					}
					if part.Dy() == 0 {
						part.Min.Y--
					}
					alone := Request{Image: packed(m, part), Raw: rawOf(t, part.Dx(), part.Dy()), Labels: labels, Scoring: scoring, Logits: true, Embedding: true}
					if asked[i].Labels != nil {
						alone.Labels, alone.Scoring = asked[i].Labels, asked[i].Scoring
					}
					want, err := l.Do(t.Context(), &alone)
					if err != nil {
						t.Fatal(err)
					}
					one := kept()
					at := slices.IndexFunc(frames, func(f []byte) bool { return bytes.Equal(f, one[0]) })
					if len(one) != 1 || at < 0 {
						t.Errorf("%s %v %s, region %d: other pixels", name, size, fit, i)
						continue
					}
					frames = slices.Delete(frames, at, at+1)
					if g := got.Regions[i]; !slices.Equal(g.Matches, want.Matches) || !slices.Equal(g.Embedding, want.Embedding) ||
						!slices.Equal(g.Logits, want.Logits) || g.Reason != want.Reason || len(g.Matches) == 0 {
						t.Errorf("%s %v %s, region %d: %+v, want %+v", name, size, fit, i, g, want)
					}
				}
			}
			if err := l.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRegionsThatCannotBe are refused before anything is decoded, and the request is released.
func TestRegionsThatCannotBe(t *testing.T) {
	b := &fakeBackend{batch: 1}
	l := start(t, b)
	whole := Region{W: 1, H: 1}
	for name, regions := range map[string][]Region{
		"left":      {{X: -0.1, W: 0.5, H: 1}},
		"above":     {{Y: -0.1, W: 1, H: 0.5}},
		"right":     {{X: 0.6, W: 0.5, H: 1}},
		"below":     {{Y: 0.6, W: 1, H: 0.5}},
		"no width":  {{H: 1}},
		"no height": {{W: 1}},
		"negative":  {{X: 0.5, W: -0.2, H: 1}},
		"too small": {{X: 0.5, W: 1e-300, H: 1}},
		"NaN":       {{X: math.NaN(), W: 1, H: 1}},
		"NaN wide":  {{W: math.NaN(), H: 1}},
		"infinite":  {{W: math.Inf(1), H: 1}},
		"the third": {whole, whole, {}},
		"too many":  slices.Repeat([]Region{whole}, MaxRegions+1),
		"frames":    slices.Repeat([]Region{whole}, b.frames.Len()+1),
	} {
		released := 0
		_, err := l.Do(t.Context(), &Request{Image: []byte("no image"), Regions: regions, Release: func() { released++ }})
		if !errors.Is(err, ErrRegion) || released != 1 {
			t.Errorf("%s: %v, released %d times", name, err, released)
		}
	}
}

// TestRegionsTakeTurns has many requests take more frames than there are: two for each that is free. All are answered, and those of
// one region among them.
func TestRegionsTakeTurns(t *testing.T) {
	for _, batch := range []int{1, 4} {
		b := &fakeBackend{batch: batch, frames: hailo.NewHeapFrames(MaxRegions, 32, 3)}
		l, err := NewLine(testConfig, pipeline.Config{WorkerThreads: 4, MaxQueueSize: 1000}, b, 32, testBudget())
		if err != nil {
			t.Fatal(err)
		}
		image, raw := pngImage(t, 40, 40, red), rawOf(t, 32, 32)
		frame := bytes.Repeat([]byte{255, 0, 0}, 32*32)
		var wg sync.WaitGroup
		var released atomic.Int32
		for i := range 400 {
			wg.Go(func() {
				r := Request{Image: image, Embedding: true, Release: func() { released.Add(1) }}
				if i%3 == 0 {
					r.Image, r.Raw = frame, raw
				}
				n := i % (MaxRegions + 1)
				r.Regions = slices.Repeat([]Region{{X: 0.5, Y: 0.25, W: 0.5, H: 0.5}}, n)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%7 == 0 {
					time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
				}
				got, err := l.Do(ctx, &r)
				switch {
				case i%7 == 0 && errors.Is(err, pipeline.ErrDeadline):
				case err != nil || len(got.Regions) != n:
					t.Errorf("%d: %d regions, %v", i, len(got.Regions), err)
				}
			})
		}
		wg.Wait()
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if b.frames.Free() != b.frames.Len() || released.Load() != 400 {
			t.Errorf("%d of %d frames came back, %d requests are released", b.frames.Free(), b.frames.Len(), released.Load())
		}
	}
}

// TestRegionsGiveUp has a request wait for frames of which some are taken: when its context ends it holds none.
func TestRegionsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := &fakeBackend{batch: 1, fail: func(int, []*hailo.Frame) error { <-gate; return nil }}
		l := start(t, b) // 4 frames
		image := pngImage(t, 40, 40, red)
		go func() {
			if err := do(t.Context(), l, image); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		several := &Request{Image: image, Regions: slices.Repeat([]Region{{W: 1, H: 1}}, 4)}
		for range 2 { // one gathers, the other waits for its turn
			go func() {
				if _, err := l.Do(ctx, several); !errors.Is(err, pipeline.ErrDeadline) {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		if n := b.frames.Free(); n != 0 {
			t.Errorf("%d frames are free", n)
		}
		time.Sleep(2 * time.Second)
		if n := b.frames.Free(); n != 3 {
			t.Errorf("%d frames are free, want all but that in the device", n)
		}
		close(gate)
		if got, err := l.Do(t.Context(), several); err != nil || len(got.Regions) != 4 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestRegionsDecideTheScale: a JPEG that is decoded at a smaller scale has the pixels that its smallest region needs, upright.
func TestRegionsDecideTheScale(t *testing.T) {
	var b bytes.Buffer
	m := image.NewYCbCr(image.Rect(0, 0, 1600, 1200), image.YCbCrSubsampleRatio420)
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	turned := []byte("\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00")
	if int(binary.BigEndian.Uint16(turned[2:]))+2 != len(turned) {
		t.Fatal(len(turned))
	}
	images := map[string][]byte{"upright": b.Bytes(), "turned": slices.Concat(b.Bytes()[:2], turned, b.Bytes()[2:])}
	config := testConfig
	config.Decode.JPEGScale, config.Decode.MaxPixels = decode.ScaleFast, 10_000_000
	backend := &fakeBackend{batch: 1, frames: hailo.NewHeapFrames(4, 32, 3)}
	l, err := NewLine(config, pipeline.Config{WorkerThreads: 2, MaxQueueSize: 100}, backend, 32, testBudget())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	probe := 0
	_, err = l.Do(t.Context(), &Request{Image: images["upright"], Seen: func(p Pixels) bool { probe = p.Width; return true }})
	if err != nil || probe == 1600 {
		t.Skip("no libturbojpeg, which scales: ", err)
	}
	for _, c := range []struct {
		image   string
		regions []Region
		w, h    int // 77 pixels of the target are enough
	}{
		{"upright", nil, 200, 150},
		{"upright", []Region{{W: 1, H: 1}}, 200, 150},
		{"upright", []Region{{W: 0.5, H: 1}}, 200, 150},
		{"upright", []Region{{W: 0.5, H: 0.5}}, 400, 300},
		{"upright", []Region{{W: 1, H: 1}, {W: 0.3, H: 0.2}, {W: 1, H: 0.5}}, 800, 600},
		{"upright", []Region{{W: 0.05, H: 0.05}}, 1600, 1200},
		{"turned", nil, 150, 200},
		{"turned", []Region{{W: 0.4, H: 1}}, 300, 400},
		{"turned", []Region{{W: 1, H: 0.4}}, 150, 200},
	} {
		var got image.Point
		_, err := l.Do(t.Context(), &Request{Image: images[c.image], Regions: c.regions, Seen: func(p Pixels) bool {
			got = image.Pt(p.Width, p.Height)
			return false
		}})
		if err != nil || got != image.Pt(c.w, c.h) {
			t.Errorf("%s, %+v: decoded at %v, want %d x %d, %v", c.image, c.regions, got, c.w, c.h, err)
		}
	}
}
