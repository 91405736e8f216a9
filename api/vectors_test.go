package api

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"testing"
)

// float16s reads binary16, by its definition.
func float16s(half uint16) float64 {
	exponent, fraction := int(half>>10&31), float64(half&1023)
	f := math.Ldexp(1024+fraction, exponent-25)
	switch {
	case exponent == 0:
		f = math.Ldexp(fraction, -24)
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		f = math.Inf(1)
	}
	return math.Copysign(f, -float64(half>>15&1)+0.5)
}

// TestFloat16 has every number of 16 bits, those between them, and what lies outside.
func TestFloat16(t *testing.T) {
	for half := range uint16(0x7c00) {
		f, next := float16s(half), float16s(half+1)
		if half+1 == 0x7c00 {
			next = 65536 // as if it went on
		}
		even := half + half&1
		between := (f + next) / 2
		for in, want := range map[float32]uint16{
			float32(f): half, float32(between): even,
			math.Nextafter32(float32(between), 0): half, math.Nextafter32(float32(between), math.MaxFloat32): half + 1,
		} {
			if got := float16(in); got != want {
				t.Fatalf("%v is %#x, want %#x", in, got, want)
			}
			if got := float16(-in); got != want|0x8000 {
				t.Fatalf("%v is %#x, want %#x", -in, got, want|0x8000)
			}
		}
	}
	inf := float32(math.Inf(1))
	for in, want := range map[float32]uint16{inf: 0x7c00, math.MaxFloat32: 0x7c00, math.SmallestNonzeroFloat32: 0} {
		if got := float16(in); got != want {
			t.Errorf("%v is %#x, want %#x", in, got, want)
		}
	}
	if got := float16(float32(math.NaN())); !math.IsNaN(float16s(got)) {
		t.Errorf("NaN is %#x", got)
	}
}

// TestVectors reads the same embedding in each form, of an image and of a text.
func TestVectors(t *testing.T) {
	s := serve(t, nil)
	for path, body := range map[string]string{"/v1/embed/image": classifyBody(goodImage, ""), "/v1/embed/text": `{"text":"` + goodImage + `"}`} {
		want := testVector(goodImage)
		near := func(t *testing.T, got []float64, tolerance float64) {
			t.Helper()
			if len(got) != len(want) {
				t.Fatalf("%d numbers, want %d", len(got), len(want))
			}
			for i, v := range got {
				if math.Abs(v-float64(want[i])) > tolerance {
					t.Fatalf("number %d is %v, want %v", i, v, want[i])
				}
			}
		}
		t.Run("JSON"+path, func(t *testing.T) {
			var a struct{ Embedding []float64 }
			noError(t, json.Unmarshal(s.post(t, path, body).body, &a))
			near(t, a.Embedding, 1e-8)
		})
		floats := func(b []byte) (v []float64) {
			for ; len(b) >= 4; b = b[4:] {
				v = append(v, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
			}
			return v
		}
		t.Run("bytes"+path, func(t *testing.T) {
			r := s.post(t, path, body, "Accept", "application/octet-stream")
			if r.status != 200 || r.header.Get("Content-Type") != "application/octet-stream" || r.header.Get("Server-Timing") == "" {
				t.Errorf("%d %v", r.status, r.header)
			}
			near(t, floats(r.body), 0)
		})
		for encoding, decode := range map[string]func([]byte, float64) []float64{
			"base64": func(b []byte, _ float64) []float64 { return floats(b) },
			"f16": func(b []byte, _ float64) (v []float64) {
				for ; len(b) >= 2; b = b[2:] {
					v = append(v, float16s(binary.LittleEndian.Uint16(b)))
				}
				return v
			},
			"int8": func(b []byte, scale float64) (v []float64) {
				for _, c := range b {
					v = append(v, float64(int8(c))*scale)
				}
				return v
			},
		} {
			t.Run(encoding+path, func(t *testing.T) {
				var a struct {
					Embedding, Encoding string
					Dimension           int
					Scale               *float64
				}
				r := s.post(t, path+"?encoding="+encoding, body, "Accept", "application/octet-stream")
				noError(t, json.Unmarshal(r.body, &a))
				if a.Encoding != encoding || a.Dimension != len(want) || (a.Scale != nil) != (encoding == "int8") {
					t.Errorf("%+v", a)
				}
				scale, tolerance := 0.0, map[string]float64{"f16": 1.0 / 4096}[encoding]
				if a.Scale != nil {
					largest := slices.MaxFunc(want, func(a, b float32) int { return int(math.Copysign(1, math.Abs(float64(a))-math.Abs(float64(b)))) })
					if scale, tolerance = *a.Scale, *a.Scale*0.5001; scale != math.Abs(float64(largest))/127 {
						t.Errorf("scale %v with a largest number of %v", scale, largest)
					}
				}
				near(t, decode(must(base64.StdEncoding.DecodeString(a.Embedding)), scale), tolerance)
			})
		}
		s.post(t, path+"?encoding=float8", body).wantError(t, 400, "invalid_request", `Unknown 'encoding' "float8": it must be base64, f16 or int8`)
		s.post(t, path, "x", "Accept", "application/octet-stream").wantError(t, 400, "invalid_json", "")
	}
}

func TestPrefersBytes(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "application/*": false, "text/html": false, "application/json": false, "application/json, */*": false,
		"application/octet-stream": true, "Application/Octet-Stream;q=0.1": true, "application/octet-stream, */*": true,
		"application/octet-stream;q=0": false, "application/octet-stream; q=0.5, application/json": false, "application/json;q=0.5,application/octet-stream": true,
		"application/json, application/octet-stream": false, "application/octet-stream, application/json": true, "text/html, application/octet-stream;v=1;q=0.9": true,
		",,;q=1, application/octet-stream;q": true, "application/octet-stream;q=x": true, "application/octet-stream;q=nan": false,
	} {
		if got := prefersBytes([]byte(accept)); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

// TestZeroVector has no scale to divide by.
func TestZeroVector(t *testing.T) {
	if got, want := string(appendVector(nil, make([]float32, 3), vectorsInt8)), `"embedding":"AAAA","encoding":"int8","scale":0`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := string(appendVector(nil, nil, vectorsJSON)), `"embedding":[]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
