package fleet

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// TestTextsOnce makes a set on one node: the three of them encode its texts once, and all have the same vectors, to the bit.
func TestTextsOnce(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	all := three(t, b.URL())
	var d sets.Definition
	for i := range 200 {
		d.Labels = append(d.Labels, sets.Label{Name: fmt.Sprint("label ", i)}) // its name in seven templates
	}
	info := all[0].mustPut("s", d)
	if info.Total != 1400 {
		t.Fatalf("%+v", info)
	}
	encoded, rows := int64(0), [][]float32(nil)
	for _, m := range all {
		m.has("s", info.ETag)
		s, err := m.sets.Ready("s")
		if err != nil {
			t.Fatal(err)
		}
		rows, encoded = append(rows, s.Labels.Rows), encoded+m.chip.texts.Load()
	}
	if encoded != 1400 || !slices.Equal(rows[0], rows[1]) || !slices.Equal(rows[0], rows[2]) {
		t.Errorf("%d texts were encoded of 1400; rows are the same: %v, %v", encoded, slices.Equal(rows[0], rows[1]), slices.Equal(rows[0], rows[2]))
	}

	first, err := all[1].engine.EmbedText(t.Context(), fair.Caller{}, "a text that nobody has seen")
	if err != nil {
		t.Fatal(err)
	}
	all[1].until("given", func() error {
		if n := all[1].node.texts.given.Load(); n == 0 || len(all[1].node.texts.queue) > 0 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	before := all[2].chip.texts.Load()
	second, err := all[2].engine.EmbedText(t.Context(), fair.Caller{}, "a text that nobody has seen")
	if err != nil || !slices.Equal(first.Embedding, second.Embedding) || first.Tokens != second.Tokens || all[2].chip.texts.Load() != before {
		t.Errorf("%+v, %+v, %v", first, second, err)
	}
}

// TestTextsHostile has somebody write what are no vectors: they are encoded.
func TestTextsHostile(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	m := newShareNode(t, b.URL(), "a", nil)
	m.mustPut("s", labelled("x")) // it is connected
	nan, long, short := hashVector([]byte("x")), append(hashVector([]byte("x")), 0), []float32{1}
	nan[3] = float32(math.NaN())
	tokens := func(text string) (tokens []int32) {
		for _, b := range []byte(text) {
			tokens = append(tokens, int32(b))
		}
		return tokens
	}
	for i, data := range [][]byte{nil, {9}, {textVector}, formatText(nan), formatText(long), formatText(short), []byte("\x01abcdefgh"), {textClaim, 'a'}} {
		text := fmt.Sprint("text ", i)
		if _, err := m.node.js.Publish(t.Context(), textSubject("0123456789abcdef", tokens(text)), data); err != nil {
			t.Fatal(err)
		}
		before := m.chip.texts.Load()
		v, err := m.engine.EmbedText(t.Context(), fair.Caller{}, text)
		want, _ := m.chip.EncodeTexts(t.Context(), [][]int32{tokens(text)})
		if err != nil || !slices.Equal(v.Embedding, want[0]) || m.chip.texts.Load() != before+2 {
			t.Errorf("%q: %v, %v", data, v, err)
		}
	}
}

// TestTextsWithoutBroker encodes while the broker is away, and after that, too.
func TestTextsWithoutBroker(t *testing.T) {
	dir := t.TempDir()
	b := brokerIn(t, dir)
	way := newWay(t, b)
	m := newShareNode(t, way.url(), "a", nil)
	m.mustPut("s", labelled("x"))
	way.close(b)
	for i := range 20 {
		if _, err := m.engine.EmbedText(t.Context(), fair.Caller{}, fmt.Sprint("away ", i)); err != nil {
			t.Fatal(err)
		}
	}
	way.lead(brokerIn(t, dir))
	m.mustPut("s", labelled("y"))
	m.node.texts.off.Store(0)
	given := m.node.texts.given.Load()
	if _, err := m.engine.EmbedText(t.Context(), fair.Caller{}, "back"); err != nil {
		t.Fatal(err)
	}
	m.until("given", func() error {
		if n := m.node.texts.given.Load(); n == given {
			return fmt.Errorf("still %d", n)
		}
		return nil
	})
}

// TestTextsClaimed has another node claim a text and never encode it: the wait for it ends, and is not repeated for a while.
func TestTextsClaimed(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	m := newShareNode(t, b.URL(), "a", nil)
	m.mustPut("s", labelled("x"))
	was := textWait
	textWait = 2 * textLook
	defer func() { textWait = was }()
	texts := [][]int32{{1, 2, 3}, {4}}
	if _, err := m.node.js.Publish(t.Context(), textSubject("d", texts[0]), append([]byte{textClaim}, "ghost"...)); err != nil {
		t.Fatal(err)
	}
	if found := m.node.texts.Get(t.Context(), "d", texts); found[0] != nil || found[1] != nil || m.node.texts.impatient.Load() == 0 {
		t.Errorf("%v", found)
	}
	m.node.texts.Put("d", texts, [][]float32{hashVector([]byte("1")), hashVector([]byte("2"))})
	m.until("given", func() error {
		if found := m.node.texts.Get(t.Context(), "d", texts); found[0] == nil || found[1] == nil {
			return fmt.Errorf("%v", found)
		}
		return nil
	})
}

// TestHalfPrecision is why vectors are shared as float32: by those in float16, scores are others.
func TestHalfPrecision(t *testing.T) {
	largest, probability := 0.0, 0.0
	for i := range 200 {
		v, image := wide(fmt.Sprint("text ", i)), wide(fmt.Sprint("image ", i))
		exact, half := 0.0, 0.0
		for k := range v {
			exact += float64(v[k]) * float64(image[k])
			half += toHalf(v[k]) * float64(image[k])
		}
		largest = max(largest, math.Abs(exact-half))
		probability = max(probability, math.Abs(1/(1+math.Exp(100*exact))-1/(1+math.Exp(100*half)))) // against a label with cosine 0
		if got := parseText(formatText(v)); !slices.Equal(got, v) {
			t.Fatal("float32 is not exact")
		}
	}
	t.Logf("float16 changes a cosine of 512 numbers by up to %.1e, and a probability by up to %.1e", largest, probability)
	if largest == 0 {
		t.Error("float16 is as good, and half as large")
	}
}

// toHalf is x in float16.
func toHalf(x float32) float64 {
	fraction, exponent := math.Frexp(float64(x))
	bits := min(11, 25+exponent) // fewer of the smallest numbers
	return math.Ldexp(math.RoundToEven(math.Ldexp(fraction, bits)), exponent-bits)
}

// wide is a vector of 512 numbers.
func wide(text string) (v []float32) {
	for i := range 512 / hashedDim {
		for _, x := range hashVector([]byte(fmt.Sprint(text, i))) {
			v = append(v, x/float32(math.Sqrt(512/hashedDim)))
		}
	}
	return v
}

var _ clip.SharedTexts = (*textStore)(nil)
