package api

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hailoclip/cache"
	"hailoclip/stages"
)

func checkString(t *testing.T, s string) {
	t.Helper()
	encoded := appendString([]byte("x"), s)[1:]
	var got string
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatalf("%q became %s: %v", s, encoded, err)
	}
	if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
		t.Fatalf("%q became %s, which reads %q", s, encoded, got)
	}
	// encoding/json makes one U+FFFD of each bad byte, too.
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.Encode(s)
	var theirs string
	json.Unmarshal(want.Bytes(), &theirs)
	if got != theirs {
		t.Fatalf("%q reads %q, with encoding/json %q", s, got, theirs)
	}
	if !utf8.Valid(encoded) || bytes.ContainsAny(encoded, "\u2028\u2029\n\r\x00") {
		t.Fatalf("%q became %q", s, encoded)
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", `"\/`, "\x00\x1f\x7f", "\n\r\t\b\f", "ü😀", "a\u2028b\u2029c", "\xff", "a\xc3", "\xed\xa0\x80", "<&>", "\ufffd"} {
		checkString(t, s)
	}
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", `"\`, "\x00", "ü\xff\u2028"} {
		f.Add(s)
	}
	f.Fuzz(checkString)
}

func TestAppendNumbers(t *testing.T) {
	numbers := []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1.0 / 3, 1e-7, 5e-324, math.MaxFloat64, 1e21, 123456789.125, math.SmallestNonzeroFloat32}
	for _, f := range numbers {
		var got float64
		if b := appendFloat(nil, f); json.Unmarshal(b, &got) != nil || got != f {
			t.Errorf("%v became %s, which reads %v", f, b, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0", 1499: "0.001", 145 * time.Millisecond: "145", 1234567: "1.235", time.Hour: "3.6e+06"} {
		if got := string(appendMillis(nil, d)); got != want {
			t.Errorf("%v became %s, want %s", d, got, want)
		}
	}
	if !finite(numbers...) || finite(1, math.NaN()) || finite(math.Inf(1)) || finite(float32(math.Inf(-1))) || !finite[float32]() {
		t.Error("finite is wrong")
	}
}

// TestAnswers reads what the encoder wrote with encoding/json.
func TestAnswers(t *testing.T) {
	c := classification{
		prompts: []string{"a", "b \"<ü>\"", "\xff"}, vectors: []cache.Vector{{}, {Truncated: true}, {}},
		matches:    []stages.Match{{Prompt: 1, Cosine: 0.25, Probability: 0.9999999, Score: 0.9999999}, {Prompt: 2, Cosine: -1e-9, Score: 5e-324}},
		logitScale: 100, inference: 1500 * time.Microsecond, model: "m", id: "i",
	}
	var a classifyAnswer
	reply{body: c.appendJSON(nil)}.into(t, &a)
	got := a.Classifications
	if len(got) != 2 || got[0].Text != c.prompts[1] || got[0].Rank != 1 || !got[0].Truncated || got[0].Score != 0.9999999 ||
		got[1].Text != "\ufffd" || got[1].Rank != 2 || got[1].Truncated || got[1].Score != 5e-324 || got[1].Cosine != -1e-9 ||
		*a.InferenceTimeMS != 1.5 || a.LogitScale != 100 || a.Model != "m" || a.RequestID != "i" {
		t.Errorf("%s", c.appendJSON(nil))
	}
	c.matches = nil
	if !strings.HasPrefix(string(c.appendJSON(nil)), `{"classifications":[],`) {
		t.Errorf("%s", c.appendJSON(nil))
	}

	e := embedding{vector: []float32{0.1, -1e-8, math.MaxFloat32}, model: "m", id: "i"}
	if want := `{"embedding":[0.1,-1e-08,3.4028235e+38],"dimension":3,"inference_time_ms":0,"model":"m","request_id":"i"}`; string(e.appendJSON(nil)) != want {
		t.Errorf("%s", e.appendJSON(nil))
	}
}

func BenchmarkEncodeEmbedding(b *testing.B) {
	e := embedding{vector: testVector("x"), model: testModel, id: newRequestID()}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.appendJSON(out[:0])
	}
}
