package clip

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"slices"
	"testing"
	"testing/synctest"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// halved is a raw frame of 16 x 8 pixels, red on the left and blue on the right.
func halved(t testing.TB) Request {
	t.Helper()
	raw, err := decode.ParseRaw("rgb24; 16x8")
	if err != nil {
		t.Fatal(err)
	}
	half := func(colour string) []byte {
		c := colours[colour]
		return bytes.Repeat([]byte{c.R, c.G, c.B}, 8)
	}
	return Request{Image: bytes.Repeat(slices.Concat(half("red"), half("blue")), 8), Raw: raw}
}

// TestRegions has each region answered by its own set, or by what the request is classified by.
func TestRegions(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	first := h.put("first", labels("hot=red", "cold=blue"))
	h.put("second", labels("sky=blue", "grass=green", "!fire=red"))
	left, right := Region{W: 0.5, H: 1}, Region{X: 0.5, W: 0.5, H: 1}
	in := func(r Region, set string) Region { r.PromptSet = set; return r }
	for name, c := range map[string]struct {
		prompts []string
		set     string
		regions []Region
		best    []string // by region
		reasons []stages.Reason
	}{
		"one set":                {nil, "first", []Region{left, right}, []string{"hot", "cold"}, []stages.Reason{"", ""}},
		"a set of its own":       {nil, "first", []Region{in(left, "second"), right, in(right, "second")}, []string{"grass", "cold", "sky"}, []stages.Reason{"negative", "", ""}},
		"prompts":                {[]string{"blue", "red"}, "", []Region{left, in(right, "second")}, []string{"red", "sky"}, []stages.Reason{"", ""}},
		"all sets of their own":  {nil, "", []Region{in(left, "first"), in(right, "second")}, []string{"hot", "sky"}, []stages.Reason{"", ""}},
		"one region":             {nil, "first", []Region{right}, []string{"cold"}, []stages.Reason{""}},
		"and a set for nothing":  {nil, "first", []Region{in(right, "second")}, []string{"sky"}, []stages.Reason{""}},
		"prompts, one of itself": {[]string{"green", "blue"}, "", []Region{right}, []string{"blue"}, []stages.Reason{""}},
	} {
		r := halved(t)
		r.Prompts, r.PromptSet, r.Regions, r.TopK, r.Logits, r.Embedding = c.prompts, c.set, c.regions, 1, true, true
		got, err := h.Classify(t.Context(), &r)
		if err != nil || len(got.Regions) != len(c.regions) || got.Matches != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		for i, a := range got.Regions {
			names, used := c.prompts, got.Labels
			if c.set != "" {
				names = got.Set.Names
			}
			if own := c.regions[i].PromptSet; own != "" {
				names, used = got.Sets[i].Names, &got.Sets[i].Labels
				if got.Sets[i].Name != own {
					t.Errorf("%s: region %d used %s", name, i, got.Sets[i].Name)
				}
			} else if got.Sets != nil && got.Sets[i] != nil {
				t.Errorf("%s: region %d has a set", name, i)
			}
			if len(a.Matches) != 1 || names[a.Matches[0].Label] != c.best[i] || a.Reason != c.reasons[i] || len(a.Logits) != used.N || len(a.Embedding) != paintedDim {
				t.Errorf("%s: region %d: %+v of %q, want %s", name, i, a, names, c.best[i])
			}
		}
	}
	r := halved(t)
	r.Regions = []Region{left, right}
	if got, err := h.EmbedImage(t.Context(), &r); err != nil || !slices.Equal(got.Regions[0].Embedding, []float32{1, 0, 0}) ||
		!slices.Equal(got.Regions[1].Embedding, []float32{0, 0, 1}) {
		t.Errorf("%+v, %v", got, err)
	}
	r.Regions[1].PromptSet = "none"
	_, err := h.Classify(t.Context(), &r)
	is(t, err, ErrNoSet)
	r.PromptSet, r.Regions = first.Name, []Region{left, {X: 0.6, W: 0.5, H: 1}}
	_, err = h.Classify(t.Context(), &r)
	is(t, err, stages.ErrRegion)
}

// TestThumbnailsOfAFrame are of the image or of its regions, and need no encoder.
func TestThumbnailsOfAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &device{hang: make(chan struct{})}
		e := newEngine(t, d)
		busy := make(chan error)
		for range 5 {
			go func() {
				_, err := e.EmbedImage(t.Context(), &Request{Image: imageOf(t, "green")})
				busy <- err
			}()
		}
		synctest.Wait()
		raw := halved(t)
		stream := pipeline.NewLane(fair.Caller{Address: "a"}, pipeline.Latest)
		for name, c := range map[string]struct {
			r       Request
			sizes   []image.Point
			colours []string // of the right edges
		}{
			"raw":        {Request{Image: raw.Image, Raw: raw.Raw}, []image.Point{{16, 8}}, []string{"blue"}},
			"a region":   {Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 0.5, H: 0.5}}}, []image.Point{{8, 4}}, []string{"red"}},
			"compressed": {Request{Image: imageOf(t, "green")}, []image.Point{{8, 8}}, []string{"green"}},
			"several": {Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 0.25, H: 1}, {W: 1, H: 1}, {X: 0.5, W: 0.5, H: 1}}},
				[]image.Point{{4, 8}, {16, 8}, {8, 8}}, []string{"red", "blue", "blue"}},
		} {
			released := 0
			c.r.Release, c.r.Lane = func() { released++ }, stream
			list, err := e.Thumbnails(t.Context(), &c.r)
			if err != nil || released != 1 || len(list) != len(c.sizes) {
				t.Errorf("%s: %d of them, %v, released %d times", name, len(list), err, released)
				continue
			}
			for n, b := range list {
				m, err := jpeg.Decode(bytes.NewReader(b))
				if err != nil || m.Bounds().Size() != c.sizes[n] {
					t.Fatalf("%s %d: %v, %v", name, n, m.Bounds(), err)
				}
				edge := m.At(c.sizes[n].X-1, c.sizes[n].Y-1)
				got, want := color.RGBAModel.Convert(edge).(color.RGBA), colours[c.colours[n]]
				for _, v := range [][2]uint8{{got.R, want.R}, {got.G, want.G}, {got.B, want.B}} {
					if d := int(v[0]) - int(v[1]); d < -20 || d > 20 {
						t.Errorf("%s %d: %v, want %v", name, n, got, want)
					}
				}
			}
		}
		_, err := e.Thumbnails(t.Context(), &Request{Image: []byte("none")})
		is(t, err, decode.ErrNotImage)
		_, err = e.Thumbnails(t.Context(), &Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 2, H: 1}}})
		is(t, err, stages.ErrRegion)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = e.Thumbnails(ended, &Request{Image: raw.Image, Raw: raw.Raw})
		is(t, err, pipeline.ErrDeadline)
		select {
		case err := <-busy:
			t.Errorf("an encoder that hangs has answered: %v", err)
		default:
		}
		close(d.hang)
		for range 5 {
			if err := <-busy; err != nil && !errors.Is(err, pipeline.ErrQueueFull) {
				t.Error(err)
			}
		}
	})
}
