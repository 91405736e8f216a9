package clip

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hailoclip/cache/sets"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/decode"
)

// TestAnotherModel makes all sets anew: of their prompts, and of the thumbnails of their examples. What has no thumbnail does
// not count until the first model comes back, which finds everything as it was.
func TestAnotherModel(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	d := labels("red=red", "green=green")
	d.Labels[0].Images = []string{shade(t, 255, 0, 0)}
	before := h.put("s", d)
	info, err := h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{0, 3, 0}}, Condition{})
	if err != nil || info.ScoreSource != "prototype" || len(info.Labels[1].Examples) != 1 || len(info.Warnings) != 0 || info.ETag == before.ETag {
		t.Fatalf("%+v: %v", info, err)
	}
	was, _ := h.sets.Ready("s")

	another := &painter{name: "another"}
	h.painter = another
	h.reopen()
	now := h.settled("s")
	if now.State != SetReady || now.ETag == info.ETag || another.count() != 2 || another.images.Load() != 1 ||
		!now.Labels[0].Examples[0].FromThumbnail || now.Labels[1].Examples[0].FromThumbnail || len(now.Warnings) != 2 {
		t.Errorf("%d images: %+v", another.images.Load(), now)
	}
	if got := h.best("s", "red") + h.best("s", "green"); got != "redgreen" {
		t.Errorf("answers %s", got)
	}
	h.reopen()
	if _, err := h.sets.Ready("s"); err != nil || another.count() != 0 || another.images.Load() != 3 {
		t.Errorf("a restart encodes again: %d images, %v", another.images.Load(), err)
	}
	p.count()
	h.painter = p
	h.reopen()
	again, err := h.sets.Ready("s")
	if err != nil || again.ETag != info.ETag || !slices.Equal(again.Labels.Rows, was.Labels.Rows) || p.count() != 0 {
		t.Errorf("the first model again: %+v: %v", again, err)
	}
}

// TestChangeUnderAnotherModel: what GET answers can be sent back, and in full it is what the first model made.
func TestChangeUnderAnotherModel(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("red=red", "green=green")
	d.Labels[0].Images = []string{shade(t, 255, 0, 0)}
	h.put("s", d)
	h.painter = &painter{name: "another"}
	h.reopen()
	now := h.settled("s")
	d = now.Definition
	if !d.Labels[0].Examples[0].FromThumbnail {
		t.Errorf("%s", mustJSON(t, now))
	}
	d.Temperature = 2
	if changed := h.put("s", d); changed.State != SetReady || changed.Temperature != 2 || !changed.Labels[0].Examples[0].FromThumbnail {
		t.Errorf("%s", mustJSON(t, changed))
	}
	d.Temperature = 1
	if same := h.put("s", d); same.ETag != now.ETag {
		t.Errorf("changed and changed back: %s", mustJSON(t, same))
	}
	full, err := h.sets.Info(t.Context(), "s", true)
	if e := full.Labels[0].Examples[0]; err != nil || e.FromThumbnail || e.Model != "images of one" {
		t.Errorf("in full: %+v, %v", e, err)
	}
	if copied := h.put("copy", full.Definition); copied.ETag != now.ETag {
		t.Errorf("an export: %s", mustJSON(t, copied))
	}
}

// TestExamples: which rows they make, what the set says of them, and that a change keeps those that it names.
func TestExamples(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	two := func(r, g, b uint8) []string { return []string{shade(t, r, g, b), shade(t, r-20, g|16, b|4)} }
	for name, c := range map[string]struct {
		mode   string
		red    []string
		green  []string
		back   []string
		source string
		warns  string
	}{
		"none":            {"auto", nil, nil, nil, "text", ""},
		"gda of none":     {"gda", nil, nil, nil, "text", "has 0: texts alone count"},
		"one":             {"auto", two(255, 0, 0)[:1], nil, nil, "prototype", ""},
		"one each":        {"auto", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", ""},
		"two each":        {"auto", two(255, 0, 0), two(20, 255, 0), nil, "gda", ""},
		"and background":  {"auto", two(255, 0, 0), two(20, 255, 0), two(20, 0, 255), "gda", ""},
		"background only": {"auto", nil, nil, two(20, 0, 255), "prototype", ""},
		"off":             {"off", two(255, 0, 0), two(20, 255, 0), nil, "text", ""},
		"prototype":       {"prototype", two(255, 0, 0), two(20, 255, 0), nil, "prototype", ""},
		"gda":             {"gda", two(255, 0, 0), two(20, 255, 0), nil, "gda", ""},
		"gda of too few":  {"gda", two(255, 0, 0), two(20, 255, 0)[:1], nil, "prototype", `label "green" has 1`},
		"gda of one each": {"gda", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", "two examples of every label"},
		"gda of the same": {"gda", two(255, 0, 0)[:1], two(20, 255, 0)[:1], nil, "prototype", ""},
	} {
		d := labels("red=red", "green=green")
		d.FewShot.Mode = c.mode
		d.Labels[0].Images, d.Labels[1].Images, d.Background.Images = c.red, c.green, c.back
		info := h.put("s", d)
		if info.State != SetReady || info.ScoreSource != c.source || (info.Alpha > 0) != (c.source == "gda") ||
			(len(info.Warnings) > 0) != (c.warns != "" || name == "gda of the same") || !strings.Contains(strings.Join(info.Warnings, "\n"), c.warns) {
			t.Errorf("%s: %s", name, mustJSON(t, info))
		}
		s, err := h.sets.Ready("s")
		if err != nil || (s.Labels.Logits != nil) != (c.source == "gda") || s.Labels.Of != nil || h.best("s", "red") != "red" {
			t.Errorf("%s: %+v: %v", name, s, err)
		}
		if slices.Contains(s.Names, "background") != (c.back != nil) {
			t.Errorf("%s: %q", name, s.Names)
		}
	}
	d := labels("red=red", "green")
	d.Labels[1].Images = two(20, 255, 0)
	info := h.put("s", d)
	if p.count(); info.Total != 1 || len(info.Labels[1].Examples) != 2 || info.Labels[1].Examples[0].Vector != nil || info.Labels[1].Images != nil {
		t.Errorf("a label of images alone: %s", mustJSON(t, info))
	}
	full, err := h.sets.Info(t.Context(), "s", true)
	if e := full.Labels[1].Examples[0]; err != nil || len(e.Vector) != 4*paintedDim || e.Model != "images of one" || !bytes.HasPrefix(e.Thumbnail, []byte{0xff, 0xd8}) {
		t.Errorf("%+v: %v", e, err)
	}
	p.images.Store(0)
	d = info.Definition // with ids
	d.Labels[0].Examples, d.Labels[1].Examples = d.Labels[1].Examples[:1], nil
	moved := h.put("s", d)
	if len(moved.Labels[0].Examples) != 1 || len(moved.Labels[1].Examples) != 0 || p.images.Load() != 0 || moved.Total != 1+7 {
		t.Errorf("an example of another label: %s", mustJSON(t, moved))
	}
	d = info.Definition
	d.Labels[0].Examples = []sets.Example{{ID: strings.Repeat("0", 32)}}
	_, _, err = h.sets.Put(t.Context(), "s", d, Condition{})
	isFault(t, err, "labels[0].examples[0]")
	h.put("copy", full.Definition) // as it was exported
	if a, b := h.settled("copy"), p.images.Load(); b != 0 || len(a.Labels[1].Examples) != 2 || a.ScoreSource != "prototype" {
		t.Errorf("%d images: %s", b, mustJSON(t, a))
	}
}

// TestImagesThatCannotBeUsed name themselves, and change nothing.
func TestImagesThatCannotBeUsed(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	before := h.put("s", labels("red=red"))
	good := shade(t, 255, 0, 0)
	for name, c := range map[string]struct {
		images []string
		want   error
		says   string
	}{
		"no image":  {[]string{good, base64.StdEncoding.EncodeToString([]byte("text"))}, decode.ErrNotImage, "labels[1].images[1]: "},
		"no base64": {[]string{"!"}, nil, "labels[1].images[0] is"},
		"cut":       {[]string{good[:60]}, decode.ErrTruncated, "labels[1].images[0]: "},
		"too many":  {slices.Repeat([]string{good}, 17), nil, "more than 16"},
	} {
		d := labels("red=red", "green=green")
		d.Labels[1].Images = c.images
		_, _, err := h.sets.Put(t.Context(), "s", d, Condition{})
		var fault sets.Fault
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &fault) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := h.sets.Put(t.Context(), "..", labels("red"), Condition{})
	isFault(t, err, "name")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	d := labels("red=red", "green=green")
	d.Labels[1].Images = []string{good}
	_, _, err = h.sets.Put(ended, "s", d, Condition{})
	is(t, err, pipeline.ErrDeadline)
	if now := h.settled("s"); now.ETag != before.ETag {
		t.Errorf("%+v", now)
	}
}

func TestAddExample(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	add := func(name, label string, e Example, c Condition) (SetInfo, error) {
		return h.sets.AddExample(t.Context(), name, label, e, c)
	}
	_, err := add("s", "red", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrNoSet)
	first := h.put("s", labels("red=red", "green=green"))
	info, err := add("s", "red", Example{Image: imageOf(t, "red")}, Condition{IfMatch: first.ETag})
	if err != nil || info.ScoreSource != "prototype" || len(info.Labels[0].Examples) != 1 {
		t.Errorf("%+v: %v", info, err)
	}
	_, err = add("s", "red", Example{Vector: []float32{1, 2, 0}}, Condition{IfMatch: first.ETag})
	is(t, err, ErrPrecondition)
	again, err := add("s", "red", Example{Image: imageOf(t, "red")}, Condition{})
	if err != nil || again.ETag != info.ETag {
		t.Errorf("the same again: %+v: %v", again, err)
	}
	if _, err = add("s", Background, Example{Vector: []float32{0, 1, 5}}, Condition{}); err != nil {
		t.Error(err)
	}
	info, err = add("s", "", Example{Vector: []float32{0, 0, 5}}, Condition{})
	if err != nil || len(info.Background.Examples) != 2 || info.Background.Examples[0].FromThumbnail {
		t.Errorf("%+v: %v", info, err)
	}
	for _, e := range []Example{{Vector: []float32{1}}, {Vector: make([]float32, 3)}, {}} { // another dimension, no direction, nothing
		_, err := add("s", "red", e, Condition{})
		isFault(t, err, "vector")
	}
	_, err = add("s", "mauve", Example{Vector: []float32{1, 0, 0}}, Condition{})
	isFault(t, err, "label")
	_, err = add("s", "red", Example{Image: []byte("text")}, Condition{})
	is(t, err, decode.ErrNotImage)
	for i := range 16 {
		info, err = add("s", "green", Example{Vector: []float32{float32(i), 50, 0}}, Condition{})
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = add("s", "green", Example{Vector: []float32{17, 50, 0}}, Condition{})
	if isFault(t, err, "labels[1].images"); len(info.Labels[1].Examples) != 16 {
		t.Errorf("the 17th: %v", err)
	}
	if _, err = add("s", "red", Example{Vector: []float32{50, 3, 0}}, Condition{}); err != nil {
		t.Fatal(err)
	}
	if info := h.settled("s"); info.ScoreSource != "gda" { // of two labels with two
		t.Errorf("%s", mustJSON(t, info))
	}
}

// TestWarnings: of negatives that stand too close to a label, and of texts that the model reads in part only.
func TestWarnings(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("stop=red", "long=green "+strings.Repeat("x", 100), "!other=red too", "!far=blue")
	d.Background.Prompts = []string{"green"}
	info := h.put("s", d)
	said := strings.Join(info.Warnings, "\n")
	if len(info.Warnings) != 3 || !strings.Contains(said, `the negative "other" is close to label "stop"`) ||
		!strings.Contains(said, `the negative "green" is close to label "long"`) || !strings.Contains(said, `label "long": 1 texts are longer`) {
		t.Errorf("%q", info.Warnings)
	}
	s, _ := h.sets.Ready("s")
	if !slices.Equal(s.Truncated, []bool{false, true, false, false, false}) || !slices.Equal(s.Names, []string{"stop", "long", "other", "far", "green"}) {
		t.Errorf("%+v", s)
	}
	var list []string
	for i := range 40 {
		list = append(list, fmt.Sprintf("!%d=red %d", i, i))
	}
	if info := h.put("s", labels(append(list, "stop=red")...)); len(info.Warnings) != maxWarnings+1 {
		t.Errorf("%d warnings", len(info.Warnings))
	}
}

// TestAddExampleThatWasMade: a vector that an image encoder has made is kept as it is, and is the example that the image would be;
// one of another encoder needs its thumbnail.
func TestAddExampleThatWasMade(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red", "green=green"))
	image := imageOf(t, "red")
	result, err := h.run(t.Context(), &Request{Image: image}, stages.Request{Embedding: true, Thumbnail: true})
	if err != nil {
		t.Fatal(err)
	}
	made := Example{Vector: result.Embedding, Model: "images of one", Thumbnail: result.Thumbnail}
	before := p.images.Load()
	info, err := h.sets.AddExample(t.Context(), "s", "red", made, Condition{})
	if err != nil || len(info.Labels[0].Examples) != 1 || info.Labels[0].Examples[0].FromThumbnail || p.images.Load() != before {
		t.Errorf("%d images: %+v: %v", p.images.Load(), info, err)
	}
	again, err := h.sets.AddExample(t.Context(), "s", "red", Example{Image: image}, Condition{})
	if err != nil || again.ETag != info.ETag {
		t.Errorf("the image itself: %+v: %v", again, err)
	}
	clear(made.Thumbnail) // the caller's
	full, err := h.sets.Info(t.Context(), "s", true)
	if err != nil || !bytes.HasPrefix(full.Labels[0].Examples[0].Thumbnail, []byte{0xff, 0xd8}) {
		t.Errorf("%+v: %v", full, err)
	}

	foreign := Example{Vector: []float32{0, 1}, Model: "another", Thumbnail: imageOf(t, "green")}
	_, err = h.sets.AddExample(t.Context(), "s", "green", Example{Vector: foreign.Vector, Model: "another"}, Condition{})
	isFault(t, err, "vector")
	_, err = h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{1}, Model: "images of one"}, Condition{})
	isFault(t, err, "vector")
	_, err = h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{2, 2, 2}, Model: "images of one"}, Condition{})
	isFault(t, err, "labels[1].examples[0].vector")
	foreign.Thumbnail = full.Labels[0].Examples[0].Thumbnail
	if info, err = h.sets.AddExample(t.Context(), "s", "green", foreign, Condition{}); err != nil || !info.Labels[1].Examples[0].FromThumbnail {
		t.Errorf("of another encoder: %+v: %v", info, err)
	}
}
