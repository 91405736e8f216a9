package rawjson

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"
)

func TestAppendBase64(t *testing.T) {
	for n := range 800 {
		numbers := make([]float32, n)
		for i := range numbers {
			numbers[i] = float32(i) - 0.25
		}
		raw, err := binary.Append(nil, binary.LittleEndian, numbers)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(AppendBase64([]byte("x"), numbers)), `x"`+base64.StdEncoding.EncodeToString(raw)+`"`; got != want {
			t.Fatalf("%d numbers: %.60s, want %.60s", n, got, want)
		}
	}
}

// TestFieldsAndStringsLieInTheText is what makes them cheap: images are decoded where they lie.
func TestFieldsAndStringsLieInTheText(t *testing.T) {
	raw := Raw(`{"A":"text","b":[1]}`)
	var v struct{ A, B Raw }
	if !Fields(raw, &v) || string(v.A) != `"text"` || string(v.B) != "[1]" {
		t.Fatalf("%s", v)
	}
	s, ok := String(v.A)
	if !ok || s != "text" {
		t.Fatal(s, ok)
	}
	copy(raw[6:], "TEXT")
	if string(v.A) != `"TEXT"` || s != "TEXT" {
		t.Error("they are copies")
	}
	for _, other := range []string{"", "1", `"x"`, "[1]", "null"} {
		if Fields(Raw(other), &v) {
			t.Errorf("%q is an object", other)
		}
	}
	for text, want := range map[string]string{`"a\u00e4\n"`: "aä\n", `""`: "", `"\ud83d\ude00"`: "😀"} {
		if s, ok := String(Raw(text)); !ok || s != want || !json.Valid([]byte(text)) {
			t.Errorf("%s: %q, %v", text, s, ok)
		}
	}
	if _, ok := String(Raw("7")); ok {
		t.Error("7 is a string")
	}
}
