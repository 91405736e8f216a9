package api

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hailoclip/api/rawjson"
	"hailoclip/cache"
	"hailoclip/stages"
	"hailoclip/stages/clip"
)

func checkString(t *testing.T, s string) {
	t.Helper()
	encoded := rawjson.AppendString([]byte("x"), s)[1:]
	var got string
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatalf("%q became %s: %v", s, encoded, err)
	}
	if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != want {
		t.Fatalf("%q became %s, which reads %q", s, encoded, got)
	}
	// encoding/json makes one U+FFFD of each bad byte, too.
	var theirs string
	if noError(t, json.Unmarshal(must(json.Marshal(s)), &theirs)); got != theirs {
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
		if b := rawjson.AppendFloat(nil, f); json.Unmarshal(b, &got) != nil || got != f {
			t.Errorf("%v became %s, which reads %v", f, b, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0", 1499: "0.001", 145 * time.Millisecond: "145", 1234567: "1.235", time.Hour: "3.6e+06"} {
		if got := string(appendMillis(nil, d)); got != want {
			t.Errorf("%v became %s, want %s", d, got, want)
		}
	}
}

// TestAppendMillis compares it with how any other number is written.
func TestAppendMillis(t *testing.T) {
	for us := int64(1); us < 1e13; us = us*21/20 + 1 {
		for _, us := range []int64{us, -us, us / 10 * 10, us / 1000 * 1000} {
			if got, want := string(appendMillis([]byte("0"), time.Duration(us*1000))), "0"+string(rawjson.AppendFloat(nil, float64(us)/1000)); got != want {
				t.Errorf("%d us is %s, want %s", us, got, want)
			}
		}
	}
}

// TestAnswers reads what the encoder wrote with encoding/json.
func TestAnswers(t *testing.T) {
	prompts := []string{"a", "b \"<ü>\"", "\xff"}
	r := request{server: handlerOnly(t), texts: prompts}
	r.result.Prompts = &cache.Prompts{Rows: []cache.Vector{{}, {Truncated: true}, {}}}
	r.result.Matches = []stages.Match{{Label: 1, Cosine: 0.25, Probability: 0.9999999, Score: 0.9999999}, {Label: 2, Cosine: -1e-9, Score: 5e-324}}
	b := appendClassification([]byte("{"), &r, 1500*time.Microsecond)
	var a classifyAnswer
	reply{body: append(b, '}')}.into(t, &a)
	got := a.Classifications
	if len(got) != 2 || got[0].Text != prompts[1] || got[0].Rank != 1 || !got[0].Truncated || got[0].Score != 0.9999999 ||
		got[1].Text != "\ufffd" || got[1].Rank != 2 || got[1].Truncated || got[1].Score != 5e-324 || got[1].Cosine != -1e-9 ||
		*a.InferenceTimeMS != 1.5 || a.LogitScale != 100 {
		t.Errorf("%s", b)
	}
	r.result = clip.Result{}
	r.result.Embedding = []float32{0.1, -1e-8, math.MaxFloat32}
	both := string(appendEmbedding(append(appendClassification(nil, &r, 0), ' '), &r, 0))
	if want := `"classifications":[],"inference_time_ms":0,"logit_scale":100 "embedding":[0.1,-1e-08,3.4028235e+38],"dimension":3,"inference_time_ms":0`; both != want {
		t.Errorf("%s, want %s", both, want)
	}
}

func BenchmarkEncodeEmbedding(b *testing.B) {
	var r request
	r.result.Embedding = testVector("x")
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = appendEmbedding(out[:0], &r, 0)
	}
}
