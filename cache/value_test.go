package cache

import (
	"bytes"
	"encoding/hex"
	"math"
	"slices"
	"testing"
)

func TestValueRoundTrip(t *testing.T) {
	for name, v := range map[string]Vector{
		"one number": {Embedding: []float32{1}},
		"typical":    vectorOf("ns", "a cat", 512),
		"extremes":   {Embedding: []float32{0, float32(math.Copysign(0, -1)), math.MaxFloat32, -math.SmallestNonzeroFloat32}, Tokens: math.MaxInt32, Truncated: true},
	} {
		key := keyOf("ns", name)
		got, ok := parseValue(key, formatValue(key, v))
		if !ok || !slices.Equal(got.Embedding, v.Embedding) || got.Tokens != v.Tokens || got.Truncated != v.Truncated {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
}

// The format of files that are out there. A change needs another valueVersion.
func TestValueFormat(t *testing.T) {
	key := keyOf("ns", "a cat")
	if got, want := hex.EncodeToString(key[:]), goldenKey; got != want {
		t.Errorf("key %s, want %s", got, want)
	}
	value := formatValue(key, Vector{Embedding: []float32{0.6, -0.8}, Tokens: 4, Truncated: true})
	if got, want := hex.EncodeToString(value), goldenValue; got != want {
		t.Errorf("value %s, want %s", got, want)
	}
}

const (
	goldenKey   = "b77f9732a72e1c0392e5ae4b0f4d00274dfe1a6351ae9251441686580e79edec"
	goldenValue = "01010000040000009a99193fcdcc4cbf93c0aa024c469a94"
)

func TestKeysDiffer(t *testing.T) {
	seen := make(map[diskKey]string)
	for _, pair := range [][2]string{{"ns", "a"}, {"nsa", ""}, {"n", "sa"}, {"", "nsa"}, {"ns", "a\x00"}} {
		key := keyOf(pair[0], pair[1])
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %s have the same key", pair, other)
		}
		seen[key] = pair[0] + "|" + pair[1]
	}
}

func TestDamagedValues(t *testing.T) {
	key := keyOf("ns", "a cat")
	value := formatValue(key, vectorOf("ns", "a cat", testDim))
	for i := range value {
		for bit := range 8 {
			damaged := bytes.Clone(value)
			damaged[i] ^= 1 << bit
			if soundValue(key, damaged) {
				t.Fatalf("bit %d of byte %d does not matter", bit, i)
			}
		}
		if soundValue(key, value[:i]) || soundValue(key, value[i+1:]) {
			t.Fatalf("cut at %d does not matter", i)
		}
	}
	if soundValue(keyOf("ns", "a dog"), value) || soundValue(keyOf("other", "a cat"), value) {
		t.Fatal("it is also the value of another key")
	}
	old := bytes.Clone(value)
	old[0] = valueVersion + 1
	old = old[:len(old)-valueSum]
	old = append(old, make([]byte, valueSum)...)
	putSum(key, old)
	if soundValue(key, old) {
		t.Fatal("a value of another version is taken")
	}
}

func FuzzParseValue(f *testing.F) {
	key := keyOf("ns", "a cat")
	value := formatValue(key, vectorOf("ns", "a cat", testDim))
	f.Add(value, false)
	f.Add(value[:len(value)-1], false)
	f.Add(value[:valueHead+valueSum], true)
	f.Add([]byte{}, true)
	f.Add(bytes.Repeat([]byte{0xff}, 64), true)
	f.Add(append([]byte{1, 1, 0, 0, 5, 0, 0, 0}, make([]byte, 16)...), true)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) >= valueSum {
			putSum(key, b) // a checksum that fits lets the rest be tested
		}
		before := bytes.Clone(b)
		v, ok := parseValue(key, b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if ok && !bytes.Equal(formatValue(key, v), b) {
			t.Fatalf("%x is read as %+v, which is written otherwise", b, v)
		}
	})
}
