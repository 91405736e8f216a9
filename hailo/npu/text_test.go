package npu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

// stream has rows of features numbers, with q = v / 0.5 + 10.
func stream(format, rows, features uint32) wire.Stream {
	s := wire.Stream{Height: 1, Width: rows, Features: features, Format: format, Scale: 0.5, ZeroPoint: 10}
	s.FrameBytes = rows * uint32(s.RowBytes())
	return s
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
		assert.True(t, err == nil, "%v %v", name, err)
		assert.Diff(t, tt.want, got, "%s", name)
		if _, err := tt.text.project([]float32{0, 0}, len(tt.want)); !errors.Is(err, hailo.ErrEncode) {
			t.Error(name, ": a vector of no length: ", err)
		}
	}
}

func TestFill(t *testing.T) {
	in := stream(wire.FormatUint16, 4, 2)
	text := &Text{ContextLength: 4, Width: 2, Vocabulary: 9, PadToken: 7,
		Row: func(token int32) []float32 { return []float32{float32(token), -float32(token)} }}
	slot := make([]byte, 4*in.RowBytes())
	text.fill(slot, &in, []int32{3, 4})
	// q = v / 0.5 + 10, little-endian
	want := []byte{16, 0, 4, 0, 18, 0, 2, 0, 24, 0, 0, 0, 24, 0, 0, 0}
	assert.True(t, bytes.Equal(slot, want), "%v, want %v", slot, want)
	text.fill(slot, &in, []int32{1, 1, 1, 1})
	assert.True(t, slot[12] == 12, "%v", slot)
}

func TestTextCheck(t *testing.T) {
	text := &Text{ContextLength: 4, Vocabulary: 9, EndToken: 8}
	for _, tt := range []struct {
		name   string
		tokens []int32
		end    int
	}{
		{"plain", []int32{1, 2, 8}, 2},
		{"first end token counts", []int32{1, 8, 2, 8}, 1},
		{"no end token: the last", []int32{1, 2}, 1},
		{"full", []int32{1, 2, 3, 8}, 3},
	} {
		assert.Equal(t, assert.Value(text.check(tt.tokens)), tt.end, "%s", tt.name)
	}
	for name, tokens := range map[string][]int32{
		"empty": nil, "too long": {1, 2, 3, 4, 8}, "outside of the vocabulary": {1, 9, 8}, "negative": {-1, 8},
	} {
		assert.ErrorIs(t, assert.Err(text.check(tokens)), hailo.ErrEncode, "%s", name)
	}
}

// textDevice is a backend, whose worker has no process, that takes texts of one token in batches of two.
type textDevice struct {
	*Backend
	w *worker
}

func newTextDevice(t *testing.T) *textDevice {
	w := testWorker()
	d := &textDevice{w.b, w}
	d.memory = assert.Value(wire.NewMemory([models]int{0, 2}, [models]int{0, 4}, [models]int{0, 4}))
	d.opt.Config.TextBatch, d.opt.Dimension, d.turn = 2, 2, make(chan struct{}, 1)
	d.opt.Text = &Text{ContextLength: 2, Width: 2, Vocabulary: 99, Row: func(token int32) []float32 { return []float32{float32(token), 1} }}
	w.loaded[TextModel] = &wire.Loaded{Input: stream(wire.FormatUint8, 2, 2), Output: stream(wire.FormatUint8, 2, 2)}
	w.proc = &process{conn: socket(t)}
	d.current.Store(w)
	t.Cleanup(func() { d.ended.Wait(); d.memory.File.Close() })
	return d
}

// encode calls EncodeTexts with texts of these tokens.
func (d *textDevice) encode(ctx context.Context, tokens ...int32) <-chan error {
	texts := make([][]int32, len(tokens))
	for i := range tokens {
		texts[i] = tokens[i : i+1]
	}
	result := make(chan error, 1)
	go func() {
		vectors, err := d.EncodeTexts(ctx, texts)
		if err == nil && len(vectors) != len(texts) {
			err = fmt.Errorf("%d vectors", len(vectors))
		}
		result <- err
	}()
	synctest.Wait()
	return result
}

// run finishes what is in flight, text by text with these statuses, and returns its tokens.
func (d *textDevice) run(t *testing.T, statuses ...wire.Code) (tokens []int) {
	t.Helper()
	for slot, p := range d.w.inFlight[TextModel].slots {
		if p.sequence == 0 {
			continue
		}
		tokens = append(tokens, (int(d.memory.Input(TextModel, slot)[0])-10)/2)
		copy(d.memory.Output(TextModel, slot), []byte{1, 2, 3, 4})
		done := &wire.Done{Model: TextModel, Slot: uint32(slot), Sequence: p.sequence}
		if len(statuses) > slot {
			done.Status = statuses[slot]
		}
		assert.Must(t, d.w.complete(done))
	}
	synctest.Wait()
	return tokens
}

// Calls take turns, a batch each; and after each batch the images that waited for it come first.
func TestTextsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTextDevice(t)
		image := func(slot uint32, sequence uint64) {
			assert.Must(t, d.w.finished(t, ImageModel, slot, sequence, wire.Success))
			synctest.Wait()
		}
		many, one := d.encode(t.Context(), 1, 2, 3, 4, 5), d.encode(t.Context(), 9)
		d.w.launch(ImageModel, 0)
		d.w.launch(ImageModel, 1)
		batches := [][]int{d.run(t)}
		d.w.launch(ImageModel, 2) // after that batch: the next one need not wait for it
		for _, slot := range []uint32{1, 0} {
			assert.MustTrue(t, d.run(t) == nil, "texts before images that waited")
			image(slot, 3+uint64(slot))
		}
		batches = append(batches, d.run(t))
		image(2, 5)
		batches = append(batches, d.run(t), d.run(t))
		assert.Equal(t, fmt.Sprint(batches), "[[1 2] [9] [3 4] [5]]")
		for _, result := range []<-chan error{many, one} {
			assert.NoError(t, <-result)
		}
	})
}

// A call ends at its first error, and at the end of its context; other calls do not notice.
func TestTextsGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTextDevice(t)
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		failing, leaving := d.encode(t.Context(), 1, 2, 3), d.encode(ctx, 4, 5, 6)
		waiting, good := d.encode(ctx, 7), d.encode(t.Context(), 8)
		d.run(t, 8)
		assert.ErrorIs(t, <-failing, hailo.ErrEncode, "a text that failed")
		cancel(why)
		for _, result := range []<-chan error{leaving, waiting} { // the first one has texts on the device
			assert.ErrorIs(t, <-result, why)
		}
		assert.Equal(t, fmt.Sprint(d.run(t), d.run(t), d.run(t)), "[4 5] [8] []")
		assert.NoError(t, <-good)
	})
}

// Who waits when the device is lost, or stops for its heat, may go elsewhere at once.
func TestTextsOfALostDevice(t *testing.T) {
	for name, lose := range map[string]func(w *worker){
		"lost": func(w *worker) { w.end(errors.New("gone")) },
		"hot":  func(w *worker) { w.setThrottling(t, throttlingStopped) },
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newTextDevice(t)
			taken, waiting := d.encode(t.Context(), 1), d.encode(t.Context(), 2)
			lose(d.w)
			for _, result := range []<-chan error{waiting, d.encode(t.Context(), 3)} {
				assert.ErrorIs(t, <-result, hailo.ErrDeviceLost, "%v", name)
			}
			assert.True(t, len(taken) == 0, "%s: the device has it", name)
			_ = d.w.answer()
			assert.ErrorIs(t, <-taken, hailo.ErrDeviceLost, "%v", name)
		})
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
	assert.True(t, r.total == 3*time.Second, "busy for %v, want 3s", r.total)
}

// A device with a rate in runs of run frames, twice as many in flight, for some time.
func drive(r *rateWatch, now time.Time, d time.Duration, run int, perSecond float64) time.Time {
	step := time.Duration(float64(run) * float64(time.Second) / perSecond)
	for end := now.Add(d); now.Before(end); {
		now = now.Add(step)
		for range run {
			r.event(now, 2*run, 0, 1)
		}
	}
	return now
}

func TestRateWatch(t *testing.T) {
	var r rateWatch
	now := time.Unix(1, 0)
	now = drive(&r, now, 60*time.Second, 8, 300)
	now = drive(&r, now, 60*time.Second, 1, 70) // in shorter runs it is not slow
	assert.MustTrue(t, r.slow == "", "%v", r.slow)
	now = drive(&r, now, 45*time.Second, 8, 150)
	assert.MustTrue(t, r.slow == "", "slow for less than a minute: %v", r.slow)
	now = drive(&r, now, 12*time.Second, 8, 290)
	now = drive(&r, now, 55*time.Second, 8, 150)
	assert.MustTrue(t, r.slow == "", "slow for less than a minute at a time: %v", r.slow)
	now = drive(&r, now, 30*time.Second, 8, 150)
	const slow = "encodes 150 images/s where it did 300"
	assert.MustTrue(t, strings.Contains(r.slow, slow), "slow for more than a minute: %q", r.slow)
	r.restart()
	now = drive(&r, now, 25*time.Second, 8, 280)
	assert.MustTrue(t, r.slow == "", "it has recovered: %v", r.slow)
	// While it has nothing to do, or texts too, nothing is measured.
	r.event(now, 0, 0, 0)
	now = now.Add(time.Hour)
	r.event(now, 16, 4, 0)
	for range 10_000 {
		now = now.Add(10 * time.Millisecond)
		r.event(now, 16, 4, 1)
	}
	drive(&r, now, 25*time.Second, 8, 280)
	assert.True(t, r.slow == "" && r.current >= 0.9*280, "%q, %v images/s", r.slow, r.current)
	// A length of runs that was never seen does not hide a slow device.
	r = rateWatch{}
	now = drive(&r, time.Unix(1, 0), 60*time.Second, 4, 300)
	drive(&r, now, 90*time.Second, 8, 150)
	assert.True(t, strings.Contains(r.slow, slow), "slow: %q", r.slow)
	// Callers who were encoded together and are no more are no slow device: runs of 2 at 130/s after runs of 4 at 220/s.
	r = rateWatch{}
	now = drive(&r, time.Unix(1, 0), 60*time.Second, 4, 220)
	now = drive(&r, now, 200*time.Second, 2, 130)
	assert.MustTrue(t, r.slow == "", "%v", r.slow)
	drive(&r, now, 200*time.Second, 2, 80)
	assert.True(t, r.slow != "", "slow in runs of 2")
}

func TestLineLog(t *testing.T) {
	var out bytes.Buffer
	l := &lineLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	l.next()
	io.WriteString(l, "first\n\nsec")
	io.WriteString(l, "ond\n"+strings.Repeat("x", 10_000))
	io.WriteString(l, strings.Repeat("y", 10_000)+"\nlast")
	assert.True(t, l.lastLine() == strings.Repeat("x", maxLogLine), "%q", l.lastLine())
	l.flush()
	lines := func() int { return strings.Count(out.String(), "\n") }
	assert.True(t, l.lastLine() == "last" && lines() == 4 && strings.Contains(out.String(), "line=second\n"), "%s", out.String())
	out.Reset()
	for i := range 1000 {
		fmt.Fprintf(l, "flood %d\n", i)
	}
	assert.True(t, lines() <= maxLogBurst, "%d lines", lines())
	l.window = time.Now().Add(-2 * maxLogEvery)
	io.WriteString(l, "later\n")
	assert.True(t, strings.Contains(out.String(), "lines left out") && strings.HasSuffix(out.String(), "line=later\n"), "%s", out.String())

	// What the next worker says again is known, until one was ready.
	out.Reset()
	l = &lineLog{log: l.log}
	for range 2 {
		l.next()
		io.WriteString(l, "[HailoRT] [error] no device\nworker: no device\n")
	}
	assert.True(t, lines() == 2 && strings.Count(out.String(), "level=ERROR") == 1, "%s", out.String())
	assert.Equal(t, l.lastLine(), "worker: no device")
	l.ready()
	l.next()
	io.WriteString(l, "worker: no device\n")
	assert.True(t, lines() == 3, "%s", out.String())
}
