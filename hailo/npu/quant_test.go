package npu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hailoclip/hailo"
)

func quantised(format, features uint32) *Stream {
	s := &Stream{Height: 1, Width: 2, Features: features, Format: format, Scale: 0.5, ZeroPoint: 10}
	s.FrameBytes = 2 * features * uint32(elementBytes(format))
	return s
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name   string
		stream *Stream
		row    []byte
		want   []float32
	}{
		{"uint8", quantised(FormatUint8, 4), []byte{0, 10, 11, 255}, []float32{-5, 0, 0.5, 122.5}},
		{"uint16", quantised(FormatUint16, 3), []byte{0, 0, 12, 0, 0xff, 0xff}, []float32{-5, 1, 32762.5}},
		{"float32", quantised(FormatFloat32, 2), []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, []float32{1, -2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.stream.validate(2, int(tt.stream.Features)); err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(tt.want))
			tt.stream.decode(got, tt.row)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			back := make([]byte, len(tt.row))
			tt.stream.encode(back, got)
			if !bytes.Equal(back, tt.row) {
				t.Errorf("encoded again: %v, want %v", back, tt.row)
			}
		})
	}
}

func TestEncodeClamps(t *testing.T) {
	s := quantised(FormatUint8, 5)
	row := make([]byte, 5)
	s.encode(row, []float32{-1000, 1000, 0.26, float32(math.Inf(1)), float32(math.NaN())})
	if !bytes.Equal(row[:4], []byte{0, 255, 11, 255}) {
		t.Error(row)
	}
}

func TestStreamValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Stream)
	}{
		{"other width", func(s *Stream) { s.Width = 3 }},
		{"other features", func(s *Stream) { s.Features = 5 }},
		{"product overflows", func(s *Stream) { s.Height, s.Width = 1<<31, 4 }},
		{"no format", func(s *Stream) { s.Format = FormatNative }},
		{"unknown format", func(s *Stream) { s.Format = 4 }},
		{"other size", func(s *Stream) { s.FrameBytes++ }},
		{"scale 0", func(s *Stream) { s.Scale = 0 }},
		{"scale below 0", func(s *Stream) { s.Scale = -1 }},
		{"scale not a number", func(s *Stream) { s.Scale = float32(math.NaN()) }},
		{"scale infinite", func(s *Stream) { s.Scale = float32(math.Inf(1)) }},
		{"zero point not a number", func(s *Stream) { s.ZeroPoint = float32(math.NaN()) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := quantised(FormatUint8, 4)
			check := func() error { return errors.Join(s.validate(2, 4), s.convertible()) }
			if err := check(); err != nil {
				t.Fatal(err)
			}
			if tt.change(s); check() == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	v := []float32{3, -4}
	if err := normalize(v); err != nil || v[0] != 0.6 || v[1] != -0.8 {
		t.Error(v, err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, v := range [][]float32{{0, 0}, {nan, 1}, {inf, 1}, {}} {
		if err := normalize(v); !errors.Is(err, hailo.ErrEncode) {
			t.Error(v, err)
		}
	}
	// Squares that float32 cannot hold.
	v = []float32{3e30, 4e30}
	if err := normalize(v); err != nil || math.Abs(float64(v[0])-0.6) > 1e-6 {
		t.Error(v, err)
	}
}

func TestProject(t *testing.T) {
	row := []float32{1, 2}
	want := []float32{0.8, 0.6}                                                         // (4, 3) / 5
	plain := &Text{Width: 2, Projection: []float32{2, 1, 1, 1}}                         // x @ P = (4, 3)
	turned := &Text{Width: 2, Projection: []float32{2, 1, 1, 1}, Transposed: true}      // P @ x = (4, 3): symmetric
	skew := &Text{Width: 2, Projection: []float32{0, 3, 2, 0}}                          // (4, 3)
	skewT := &Text{Width: 2, Projection: []float32{0, 2, 3, 0}, Transposed: true}       // (4, 3)
	wide := &Text{Width: 2, Projection: []float32{0, 0, 3, 2, 0, 0}}                    // [2, 3]: (4, 0, 3)
	wideT := &Text{Width: 2, Projection: []float32{0, 2, 0, 0, 3, 0}, Transposed: true} // [3, 2]
	for name, tt := range map[string]struct {
		text *Text
		want []float32
	}{
		"symmetric": {plain, want}, "symmetric transposed": {turned, want},
		"skew": {skew, want}, "skew transposed": {skewT, want},
		"wide": {wide, []float32{0.8, 0, 0.6}}, "wide transposed": {wideT, []float32{0.8, 0, 0.6}},
		"none": {&Text{Width: 2}, []float32{float32(1 / math.Sqrt(5)), float32(2 / math.Sqrt(5))}},
	} {
		got, err := tt.text.project(row, len(tt.want))
		if err != nil {
			t.Error(name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(name, diff)
		}
	}
}

func TestFill(t *testing.T) {
	in := quantised(FormatUint16, 2)
	text := &Text{ContextLength: 4, Width: 2, Vocabulary: 9, PadToken: 7,
		Row: func(token int32) []float32 { return []float32{float32(token), -float32(token)} }}
	slot := make([]byte, 4*in.rowBytes())
	text.fill(slot, in, []int32{3, 4})
	// q = v / 0.5 + 10, little-endian
	want := []byte{16, 0, 4, 0, 18, 0, 2, 0, 24, 0, 0, 0, 24, 0, 0, 0}
	if !bytes.Equal(slot, want) {
		t.Errorf("%v, want %v", slot, want)
	}
	text.fill(slot, in, []int32{1, 1, 1, 1})
	if slot[12] != 12 {
		t.Error(slot)
	}
}

func TestTextCheck(t *testing.T) {
	text := &Text{ContextLength: 4, Vocabulary: 9, EndToken: 8}
	for _, tt := range []struct {
		name   string
		tokens []int32
		end    int // -1: refused
	}{
		{"plain", []int32{1, 2, 8}, 2},
		{"first end token counts", []int32{1, 8, 2, 8}, 1},
		{"no end token: the last", []int32{1, 2}, 1},
		{"full", []int32{1, 2, 3, 8}, 3},
		{"empty", nil, -1},
		{"too long", []int32{1, 2, 3, 4, 8}, -1},
		{"outside of the vocabulary", []int32{1, 9, 8}, -1},
		{"negative", []int32{-1, 8}, -1},
	} {
		end, err := text.check(tt.tokens)
		if tt.end < 0 && !errors.Is(err, hailo.ErrEncode) || tt.end >= 0 && (err != nil || end != tt.end) {
			t.Errorf("%s: %d, %v", tt.name, end, err)
		}
	}
}

func TestSyntheticText(t *testing.T) {
	text := SyntheticText(1<<20, 77, 512, 2, 0)
	if text.Vocabulary != 1<<16 {
		t.Error(text.Vocabulary)
	}
	if err := text.validate(512); err != nil {
		t.Fatal(err)
	}
	in := quantised(FormatUint16, 512)
	in.Scale, in.ZeroPoint = 1./32767, 32768
	row, back := make([]byte, in.rowBytes()), make([]float32, 512)
	for _, token := range []int32{0, 1, 2, 4095, 49407, 1<<16 - 1} {
		in.encode(row, text.Row(token))
		in.decode(back, row)
		if got := TokenOf(back); got != token {
			t.Errorf("%d became %d", token, got)
		}
	}
}

// TestRateBusy counts the time with images in flight, texts or not, and no other.
func TestRateBusy(t *testing.T) {
	var r rateWatch
	now := time.Unix(0, 0)
	for _, e := range []struct {
		after               time.Duration
		images, texts, done int
	}{{0, 2, 0, 0}, {time.Second, 1, 1, 1}, {time.Second, 0, 0, 1}, {time.Hour, 1, 0, 0}, {time.Second, 0, 0, 1}} {
		now = now.Add(e.after)
		r.event(now, e.images, e.texts, e.done)
	}
	r.event(now, 5, 0, 0)
	r.restart() // the worker is lost with what was in flight
	r.event(now.Add(time.Hour), 0, 0, 0)
	if r.total != 3*time.Second {
		t.Errorf("busy for %v, want 3s", r.total)
	}
}

// A device with a rate of rate(in flight), for some time.
func drive(r *rateWatch, now time.Time, d time.Duration, inFlight int, perSecond float64) time.Time {
	step := time.Duration(float64(time.Second) / perSecond)
	for end := now.Add(d); now.Before(end); {
		now = now.Add(step)
		r.event(now, inFlight, 0, 1)
	}
	return now
}

func TestRateWatch(t *testing.T) {
	var r rateWatch
	now := time.Unix(1, 0)
	now = drive(&r, now, 60*time.Second, 16, 300)
	now = drive(&r, now, 60*time.Second, 1, 70) // fewer in flight is not slow
	if r.slow != "" {
		t.Fatal(r.slow)
	}
	now = drive(&r, now, 45*time.Second, 16, 150)
	if r.slow != "" {
		t.Fatal("slow for less than a minute: ", r.slow)
	}
	now = drive(&r, now, 12*time.Second, 16, 290)
	now = drive(&r, now, 55*time.Second, 16, 150)
	if r.slow != "" {
		t.Fatal("slow for less than a minute at a time: ", r.slow)
	}
	now = drive(&r, now, 30*time.Second, 16, 150)
	if !strings.Contains(r.slow, "encodes 150 images/s where it did 300") {
		t.Fatalf("slow for more than a minute: %q", r.slow)
	}
	r.restart()
	now = drive(&r, now, 25*time.Second, 16, 280)
	if r.slow != "" {
		t.Fatal("it has recovered: ", r.slow)
	}
	// While it has nothing to do, or texts too, nothing is measured.
	r.event(now, 0, 0, 0)
	now = now.Add(time.Hour)
	r.event(now, 16, 4, 0)
	for range 10_000 {
		now = now.Add(10 * time.Millisecond)
		r.event(now, 16, 4, 1)
	}
	drive(&r, now, 25*time.Second, 16, 280)
	if r.slow != "" || r.ratio < 0.9 {
		t.Errorf("%q, ratio %v", r.slow, r.ratio)
	}
}

// TestRateWatchWithMoreInFlight: a number in flight that was never seen does not hide a slow device.
func TestRateWatchWithMoreInFlight(t *testing.T) {
	var r rateWatch
	now := drive(&r, time.Unix(1, 0), 60*time.Second, 8, 300)
	drive(&r, now, 90*time.Second, 20, 150)
	if !strings.Contains(r.slow, "encodes 150 images/s where it did 300") {
		t.Errorf("slow: %q", r.slow)
	}
}

func TestMemory(t *testing.T) {
	m, err := newMemory([models]int{3, 2}, [models]int{5000, 100}, [models]int{10, 9000})
	if err != nil {
		t.Fatal(err)
	}
	defer m.file.Close()
	n := 0
	for model := range models {
		for _, r := range []region{m.input[model], m.output[model]} {
			for i := range r.count {
				if r.offset%4096 != 0 || r.stride%4096 != 0 {
					t.Errorf("%+v is not on pages", r)
				}
				for j, b := range m.at(r, i) {
					if b != 0 {
						t.Fatalf("slot %d of %+v overlaps another at %d", i, r, j)
					}
				}
				n++
				copy(m.at(r, i), bytes.Repeat([]byte{byte(n)}, r.stride))
			}
		}
	}
	if err := m.file.Truncate(10); err == nil {
		t.Error("the memory can be shrunk")
	}
}

func TestLineLog(t *testing.T) {
	var out bytes.Buffer
	l := &lineLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	l.next()
	io.WriteString(l, "first\n\nsec")
	io.WriteString(l, "ond\n"+strings.Repeat("x", 10_000))
	io.WriteString(l, strings.Repeat("y", 10_000)+"\nlast")
	if l.lastLine() != strings.Repeat("x", maxLogLine) {
		t.Errorf("%q", l.lastLine())
	}
	l.flush()
	if l.lastLine() != "last" || strings.Count(out.String(), "\n") != 4 || !strings.Contains(out.String(), "line=second\n") {
		t.Errorf("%s", out.String())
	}
	out.Reset()
	for i := range 1000 {
		fmt.Fprintf(l, "flood %d\n", i)
	}
	if n := strings.Count(out.String(), "\n"); n > maxLogBurst {
		t.Errorf("%d lines", n)
	}
	l.window = time.Now().Add(-2 * maxLogEvery)
	io.WriteString(l, "later\n")
	if !strings.Contains(out.String(), "lines left out") || !strings.HasSuffix(out.String(), "line=later\n") {
		t.Errorf("%s", out.String())
	}
}

// What the next worker says again is known, until one was ready.
func TestLineLogSaysOnce(t *testing.T) {
	var out bytes.Buffer
	l := &lineLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	for range 2 {
		l.next()
		io.WriteString(l, "[HailoRT] [error] no device\nworker: no device\n")
	}
	if want := "level=ERROR"; strings.Count(out.String(), "\n") != 2 || strings.Count(out.String(), want) != 1 || l.lastLine() != "worker: no device" {
		t.Errorf("%s", out.String())
	}
	l.ready()
	l.next()
	io.WriteString(l, "worker: no device\n")
	if strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%s", out.String())
	}
}
