package api

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

type compareAnswer struct {
	Cosine          [][]float64 `json:"cosine"`
	Dimension       int         `json:"dimension"`
	InferenceTimeMS float64     `json:"inference_time_ms"`
	Model           string      `json:"model"`
	RequestID       string      `json:"request_id"`
}

// TestCompare has every kind of item on both sides.
func TestCompare(t *testing.T) {
	s := serve(t, nil)
	long := slices.Clone(testVector("a dog"))
	for i := range long {
		long[i] *= 1e20
	}
	item := func(format string, args ...any) string { return "{" + fmt.Sprintf(format, args...) + "}" }
	items := []string{
		item(`"text":"a cat"`), item(`"image":%q`, b64(goodImage)), item(`"vector":%s`, numbersJSON(long)),
		item(`"Text":null,"vector":%q`, base64.StdEncoding.EncodeToString(appendFloats(nil, testVector("a cow")))),
		item(`"text":"a cat","other":[{}]`), item(`"image":"data:;base64,%s"`, strings.ReplaceAll(b64("a bird"), "/", `\/`)),
	}
	names := []string{"a cat", goodImage, "a dog", "a cow", "a cat", "a bird"}
	r := s.post(t, "/v1/compare", `{"a":[`+strings.Join(items, ",")+`],"b":[`+strings.Join(items[1:4], ",")+`]}`)
	r.wantOK(t)
	var a compareAnswer
	r.into(t, &a)
	if len(a.Cosine) != 6 || a.Dimension != testDimension || a.Model != testModel {
		t.Fatalf("%s", r.body)
	}
	for i, row := range a.Cosine {
		for j, got := range row {
			want := dot(testVector(names[i]), testVector(names[j+1]))
			if len(row) != 3 || math.Abs(got-want) > 1e-6 || got > 1 {
				t.Errorf("%s, %s: %v, want %v", names[i], names[j+1], got, want)
			}
		}
	}
	s.allReturned(t)
}

// TestCompareMany has as much as is allowed.
func TestCompareMany(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxBatchBodyBytes = 16 << 20 })
	var items []string
	for i := range maxSide {
		switch {
		case i < maxBatchImages:
			items = append(items, `{"image":"`+b64(fmt.Sprint(i))+`"}`)
		case i < maxBatchImages+maxBatchTexts:
			items = append(items, fmt.Sprintf(`{"text":"%d"}`, i))
		default:
			items = append(items, `{"vector":`+numbersJSON(testVector(fmt.Sprint(i)))+`}`)
		}
	}
	var a compareAnswer
	vectors := items[maxSide-16:]
	r := s.post(t, "/v1/compare", `{"a":[`+strings.Join(items, ",")+`],"b":[`+strings.Join(vectors, ",")+`]}`)
	r.into(t, &a)
	if r.status != 200 || len(a.Cosine) != maxSide || len(a.Cosine[1023]) != len(vectors) || a.Cosine[1023][len(vectors)-1] < 1-1e-6 {
		t.Errorf("%d %.300s", r.status, r.body)
	}
	s.allReturned(t)
	full := `{"a":[` + strings.Join(items, ",") + `],"b":[`
	s.post(t, "/v1/compare", full+items[0]+`]}`).wantError(t, 400, "invalid_request", "b[0]: Too many images: 65")
	s.post(t, "/v1/compare", full+items[64]+`]}`).wantError(t, 400, "invalid_request", "b[0]: Too many texts: 257")
	s.post(t, "/v1/compare", `{"b":[{"text":"x"}],"a":[`+strings.Repeat("5,", 1024)+`5]}`).wantError(t, 400, "invalid_request", "Too many items in 'a': 1025")
}

// TestCompareRefused: an item that cannot be used is named.
func TestCompareRefused(t *testing.T) {
	s := serve(t, nil)
	good := `{"text":"x"}`
	numbers := func(n int, what string) string {
		return `{"vector":[` + strings.TrimSuffix(strings.Repeat(what+",", n), ",") + `]}`
	}
	for item, want := range map[string]string{
		`5`: "an object with one of", `null`: "an object with one of", `[]`: "an object with one of", `"x"`: "an object with one of", `{}`: "an object with one of",
		`{"text":null}`: "an object with one of", `{"text":"x","image":"x"}`: "an object with one of", `{"vector":[1],"text":"x"}`: "an object with one of",
		`{"text":""}`: "'text'", `{"text":5}`: "'text'", `{"text":"` + strings.Repeat("x", 2049) + `"}`: "too long: 2049",
		`{"image":5}`: "Invalid 'image'", `{"image":"%%"}`: "not valid base64", `{"image":""}`: "empty",
		`{"image":"` + b64(notAnImage) + `"}`: "", `{"image":"` + b64(truncatedImage) + `"}`: "",
		`{"vector":5}`: "has 0 numbers", `{"vector":{}}`: "has 0 numbers", `{"vector":[]}`: "has 0 numbers", `{"vector":[1,2]}`: "has 2 numbers, those of the model have 512",
		numbers(513, "1"): "has 513 numbers", numbers(1_000, "1"): "has 1000 numbers", numbers(512, "null"): "not numbers", numbers(512, `"1"`): "not numbers", numbers(512, "[1]"): "not numbers",
		numbers(512, "0"): "zero", numbers(512, "1e39"): "not finite", numbers(512, "1e400"): "not numbers",
		`{"vector":"AAAA"}`: "base64 of 2048 bytes", `{"vector":"` + strings.Repeat("A", 2732) + `"}`: "base64 of 2048 bytes",
		`{"vector":"` + base64.StdEncoding.EncodeToString(make([]byte, 2048)) + `"}`:                                                              "zero",
		`{"vector":"` + base64.StdEncoding.EncodeToString(appendFloats(nil, slices.Repeat([]float32{float32(math.NaN())}, testDimension))) + `"}`: "not finite",
	} {
		for side, body := range map[string]string{"a[3]": `{"a":[` + good + `,` + good + `,` + good + `,` + item + `],"b":[` + good + `]}`, "b[1]": `{"a":[` + good + `],"b":[` + good + `,` + item + `,` + good + `]}`} {
			r := s.post(t, "/v1/compare", body)
			if text := string(r.body); r.status != 400 || !strings.Contains(text, `"error":"`+side+`: `) || !strings.Contains(text, want) {
				t.Errorf("%.80s: %d %.300s, want %s and %q", item, r.status, text, side, want)
			}
		}
	}
	for body, want := range map[string]string{
		`{}`: "Missing or invalid 'a'", `{"a":[` + good + `]}`: "Missing or invalid 'b'", `{"a":{},"b":[` + good + `]}`: "Missing or invalid 'a'",
		`{"a":[],"b":[` + good + `]}`: "Missing or invalid 'a'", `{"a":[` + good + `],"b":null}`: "Missing or invalid 'b'", `{"a":[` + good + `],"a":[],"b":[` + good + `]}`: "Missing or invalid 'a'",
	} {
		s.post(t, "/v1/compare", body).wantError(t, 400, "invalid_request", want)
	}
	image := func(text string) string { return `{"image":"` + b64(text) + `"}` }
	s.post(t, "/v1/compare", `{"a":[`+good+`],"b":[`+image(goodImage)+`,`+image(avifImage)+`,`+image(notAnImage)+`]}`).wantError(t, 415, "unsupported_image", "b[1]: ")
	s.post(t, "/v1/compare", `{"a":[`+image(hugeImage)+`],"b":[`+image(avifImage)+`]}`).wantError(t, 413, "image_too_large", "a[0]: ")
	s.post(t, "/v1/compare", `{"a":[`+image(lostDevice)+`],"b":[`+good+`]}`).wantError(t, 503, "unavailable", "a[0]: ")
	s.post(t, "/v1/compare", `{"a":[{"text":"`+unencodableText+`"}],"b":[`+good+`]}`).wantError(t, 500, "encode_failed", "text")
	s.post(t, "/v1/compare", `{"a":[`, "Content-Type", "multipart/form-data; boundary=x").wantError(t, 415, "unsupported_media_type", "send application/json")
	s.allReturned(t)
}
