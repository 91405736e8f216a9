package clip

import (
	"bytes"
	"context"
	"errors"
	"image"
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

// TestThumbnailOfAFrame is of the image or of a region, and needs no encoder.
func TestThumbnailOfAFrame(t *testing.T) {
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
			r      Request
			w, h   int
			colour string // of the right edge
		}{
			"raw":        {Request{Image: raw.Image, Raw: raw.Raw}, 16, 8, "blue"},
			"a region":   {Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 0.5, H: 0.5}}}, 8, 4, "red"},
			"of several": {Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 0.25, H: 1}, {X: 0.5, W: 0.5, H: 1}}}, 4, 8, "red"},
			"compressed": {Request{Image: imageOf(t, "green")}, 8, 8, "green"},
		} {
			released := 0
			c.r.Release, c.r.Lane = func() { released++ }, stream
			b, err := e.Thumbnail(t.Context(), &c.r)
			if err != nil || released != 1 {
				t.Errorf("%s: %v, released %d times", name, err, released)
				continue
			}
			m, err := jpeg.Decode(bytes.NewReader(b))
			if err != nil || m.Bounds() != image.Rect(0, 0, c.w, c.h) {
				t.Errorf("%s: %v, %v", name, m.Bounds(), err)
				continue
			}
			r, g, b8, _ := m.At(c.w-1, c.h-1).RGBA()
			for i, v := range []uint32{r, g, b8} {
				want := []uint8{colours[c.colour].R, colours[c.colour].G, colours[c.colour].B}[i]
				if d := int(v>>8) - int(want); d < -20 || d > 20 {
					t.Errorf("%s: %v", name, m.At(c.w-1, c.h-1))
				}
			}
		}
		_, err := e.Thumbnail(t.Context(), &Request{Image: []byte("none")})
		is(t, err, decode.ErrNotImage)
		_, err = e.Thumbnail(t.Context(), &Request{Image: raw.Image, Raw: raw.Raw, Regions: []Region{{W: 2, H: 1}}})
		is(t, err, stages.ErrRegion)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = e.Thumbnail(ended, &Request{Image: raw.Image, Raw: raw.Raw})
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
