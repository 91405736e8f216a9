package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is a backend whose calls a test ends by hand.
type device struct {
	chip
	info  hailo.Info
	calls []*deviceCall // begun, in order
	ready bool
}

type deviceCall struct {
	ctx    context.Context
	frames []*hailo.Frame
	end    chan error
}

func (d *device) Info() hailo.Info     { return d.info }
func (d *device) Status() hailo.Status { return hailo.Status{Ready: d.ready} }

func (d *device) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	c := &deviceCall{ctx, slices.Clone(frames), make(chan error)}
	d.mu.Lock()
	d.calls = append(d.calls, c)
	d.mu.Unlock()
	err := <-c.end
	if err != nil && strings.HasPrefix(err.Error(), "panic") {
		panic(err)
	}
	return err
}

// bench is a batcher in front of a device. It knows a of 10 ms and b of 1 ms, and that callers 1 to 9 come back after 2 ms.
type bench struct {
	*Batcher
	t      *testing.T
	device *device
	seen   int // calls that the test has taken
}

var gathering = hailo.Info{ImageBatch: 4, ImageCalls: 2, Gathers: true}

func newBench(t *testing.T, info hailo.Info, maxWait time.Duration) *bench {
	d := &device{info: info}
	b := &bench{Batcher: New(d, maxWait), t: t, device: d}
	b.unknown, b.rule.a, b.rule.b = false, 10*time.Millisecond, time.Millisecond
	for n := range 9 {
		c := b.rule.caller(who(n + 1))
		for range 5 {
			b.rule.answered(time.Now().Add(-2*time.Millisecond), c)
			b.rule.ready(time.Now(), c)
		}
	}
	return b
}

func who(n int) fair.Caller {
	return fair.Caller{Address: fmt.Sprint("address", n), Connection: uint64(n)}
}

// send has frames of a caller encoded; its error comes later.
func (b *bench) send(ctx context.Context, from, n int) <-chan error {
	frames := make([]*hailo.Frame, n)
	for i := range frames {
		frames[i] = &hailo.Frame{}
	}
	err := make(chan error, 1)
	go func() { err <- b.Encode(ctx, who(from), frames...) }()
	synctest.Wait()
	return err
}

// expect checks how many frames the calls have that have begun since, and returns these calls.
func (b *bench) expect(what string, frames ...int) []*deviceCall {
	b.t.Helper()
	synctest.Wait()
	b.device.mu.Lock()
	defer b.device.mu.Unlock()
	var got []int
	begun := b.device.calls[b.seen:]
	for _, c := range begun {
		got = append(got, len(c.frames))
	}
	if !slices.Equal(got, frames) {
		b.t.Fatalf("%s: calls of %v frames, want %v", what, got, frames)
	}
	b.seen = len(b.device.calls)
	return begun
}

// done ends a call well, as a run of so many frames.
func (c *deviceCall) done(run int) {
	for _, f := range c.frames {
		f.Run = hailo.Run{Frames: run, Took: time.Duration(10+run) * time.Millisecond}
	}
	c.end <- nil
	synctest.Wait()
}

func (b *bench) answered(errs ...<-chan error) {
	b.t.Helper()
	for _, err := range errs {
		select {
		case e := <-err:
			if e != nil {
				b.t.Error(e)
			}
		default:
			b.t.Error("no answer")
		}
	}
}

// TestHold follows three callers who come back: together from the first run on that all of them are in.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		one := b.send(ctx, 1, 1)
		first := b.expect("a free device starts", 1)
		two, three := b.send(ctx, 2, 1), b.send(ctx, 3, 1)
		b.expect("caller 1 will be back when the device is free")
		first[0].done(1)
		b.answered(one)
		b.expect("caller 1 is worth 2 ms of two who wait")
		time.Sleep(1900 * time.Microsecond)
		b.expect("it is not late yet")
		one = b.send(ctx, 1, 1)
		all := b.expect("nobody else is expected", 3)
		all[0].done(3)
		b.answered(one, two, three)
		again := b.send(ctx, 3, 1)
		b.expect("two more are expected")
		time.Sleep(2 * time.Millisecond)
		b.expect("they are late, by less than usual")
		time.Sleep(time.Millisecond)
		last := b.expect("nobody came", 1)
		last[0].done(1)
		b.answered(again)
		if s := b.Stats(); s.Held != 2 || s.Hold < 4*time.Millisecond || s.Hold > 6*time.Millisecond || !slices.Equal(s.Groups, []uint64{0, 2, 0, 1, 0}) {
			t.Errorf("%+v", s)
		}
		b.Close()
	})
}

// TestAtOnce has callers of whom nothing is known: each frame goes to the device, which gathers them itself, as far as it has room.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		var errs []<-chan error
		for n := range 8 {
			errs = append(errs, b.send(ctx, 20+n, 1))
		}
		calls := b.expect("each alone", 1, 1, 1, 1, 1, 1, 1, 1)
		errs = append(errs, b.send(ctx, 40, 1), b.send(ctx, 41, 1))
		b.expect("no room")
		calls[0].done(1)
		more := b.expect("room for one", 1)
		for _, c := range append(calls[1:], more...) {
			c.done(4)
		}
		b.expect("room", 1)[0].done(1)
		b.answered(errs...)
		b.Close()
	})
}

// TestFullGroup is not held, and goes to the device behind the run that goes on.
func TestFullGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		one := b.send(ctx, 1, 1)
		first := b.expect("a free device starts", 1)
		six := b.send(ctx, 2, 6) // of one call, in two groups
		second := b.expect("a full group", 4)
		first[0].done(1)
		second[0].done(4)
		b.answered(one)
		time.Sleep(10 * time.Millisecond)
		third := b.expect("the rest, when nobody came", 2)
		if len(six) > 0 {
			t.Error("a call returns with frames in the device")
		}
		third[0].done(2)
		b.answered(six)
		b.Close()
	})
}

// TestEndsOfAHold are a deadline that would pass, and a caller who goes.
func TestEndsOfAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		run := func() { // one frame of caller 1, who is expected afterwards
			one := b.send(ctx, 1, 1)
			time.Sleep(20 * time.Millisecond) // nobody else is expected any more
			b.expect("alone", 1)[0].done(1)
			b.answered(one)
		}
		run()
		soon, cancel := context.WithTimeout(ctx, 15*time.Millisecond)
		defer cancel()
		late := b.send(soon, 2, 1)
		b.expect("the run ends before the deadline only if it begins now", 1)[0].done(1)
		b.answered(late)

		run()
		left, leave := context.WithCancelCause(ctx)
		gone := errors.New("gone")
		alone, two := b.send(left, 3, 1), b.send(ctx, 4, 1)
		b.expect("held")
		leave(gone)
		synctest.Wait()
		if err := <-alone; !errors.Is(err, gone) {
			t.Errorf("error %v", err)
		}
		b.expect("the other waits on")
		time.Sleep(10 * time.Millisecond)
		c := b.expect("without it", 1)[0]
		if deadline, ok := c.ctx.Deadline(); ok {
			t.Errorf("the call ends at %v, the caller waits for ever", deadline)
		}
		c.done(1)
		b.answered(two)
		b.Close()
	})
}

// TestFailures: a frame that the encoder refuses fails alone, a lost device and a panic fail all, and callers hear it.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, time.Millisecond), t.Context()
		group := func() (good, bad <-chan error, c *deviceCall) {
			good, bad = b.send(ctx, 20, 1), b.send(ctx, 21, 1)
			time.Sleep(time.Millisecond)
			return good, bad, b.expect("both, after max_wait", 2)[0]
		}
		good, bad, c := group()
		c.end <- fmt.Errorf("%w: one of them", hailo.ErrEncode)
		b.expect("the first alone", 1)[0].done(1)
		b.expect("the second alone", 1)[0].end <- fmt.Errorf("%w: this one", hailo.ErrEncode)
		synctest.Wait()
		b.answered(good)
		if err := <-bad; !errors.Is(err, hailo.ErrEncode) || !strings.Contains(err.Error(), "this one") {
			t.Errorf("error %v", err)
		}
		for _, want := range []error{hailo.ErrDeviceLost, errors.New("panic, please")} {
			good, bad, c := group()
			c.end <- want
			synctest.Wait()
			for _, err := range []<-chan error{good, bad} {
				var panicked *pipeline.PanicError
				if e := <-err; !errors.Is(e, want) && (!errors.As(e, &panicked) || fmt.Sprint(panicked.Value) != want.Error()) {
					t.Errorf("error %v, want %v", e, want)
				}
			}
		}
		b.Close()
	})
}

// TestStandIn has the device lost and something else encode: that is told of each frame at once, whoever is expected.
func TestStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		one := b.send(ctx, 1, 1)
		b.expect("alone", 1)[0].end <- nil // no word of a run
		synctest.Wait()
		two, three := b.send(ctx, 2, 1), b.send(ctx, 3, 1)
		calls := b.expect("each alone", 1, 1)
		a := b.rule.a
		calls[0].end <- nil
		synctest.Wait()
		calls[1].done(1)
		if b.rule.a < a-time.Millisecond || b.rule.a > a+time.Millisecond || b.away {
			t.Errorf("a is %v, was %v; away: %v", b.rule.a, a, b.away)
		}
		b.answered(one, two, three)
		four := b.send(ctx, 4, 1)
		b.expect("the device is back")
		time.Sleep(10 * time.Millisecond)
		b.expect("alone", 1)[0].done(1)
		b.answered(four)
		b.Close()
	})
}

// TestStuckCall has a call that does not return: others are encoded all the same.
func TestStuckCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hailo.Info{ImageBatch: 4, ImageCalls: 1}, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hangs := b.send(ctx, 1, 1)
		stuck := b.expect("alone", 1)[0]
		two := b.send(t.Context(), 2, 1)
		b.expect("one call at a time")
		time.Sleep(time.Minute)
		three := b.send(t.Context(), 3, 1)
		b.expect("those who wait", 2)[0].done(0)
		b.answered(two, three)
		stuck.done(0)
		b.answered(hangs)
		if len(b.device.calls) != 2 || len(b.running) != 0 {
			t.Errorf("%d calls run", len(b.running))
		}
		b.Close()
	})
}

// TestCallsOfNone: a backend that does not say how many calls it takes gets one at a time.
func TestCallsOfNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hailo.Info{ImageBatch: 4}, 0)
		one, two := b.send(t.Context(), 1, 1), b.send(t.Context(), 2, 1)
		b.expect("the first", 1)[0].done(0)
		b.expect("the second", 1)[0].done(0)
		b.answered(one, two)
		b.Close()
	})
}

// TestMeasure measures a device when it first has nothing to do, and again some time after frames of others have spoilt that.
func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &device{info: gathering}
		d.pool = hailo.NewHeapFrames(4, 1, 1)
		b := &bench{Batcher: New(d, 0), t: t, device: d}
		one := b.send(t.Context(), 1, 1)
		b.expect("no device yet", 1)[0].done(1)
		b.answered(one)
		for range 5 {
			b.expect("a measurement", 1)[0].done(2)
			two := b.send(t.Context(), 2, 1)
			b.expect("no measurement follows", 1)[0].done(1)
			b.answered(two)
			time.Sleep(measureAgain)
			two = b.send(t.Context(), 2, 1)
			b.expect("one follows", 1)[0].done(1)
			b.answered(two)
		}
		for n := range 6 {
			b.expect("a measurement", []int{1, 4}[n%2])[0].done([]int{1, 4}[n%2])
		}
		if b.rule.a != 10*time.Millisecond || b.rule.b != time.Millisecond || d.pool.Free() != 4 {
			t.Errorf("a %v, b %v, %d frames are back", b.rule.a, b.rule.b, d.pool.Free())
		}
		b.Close()
	})
}

// TestManyCallers bounds what is remembered, and forgets those who were not heard of for longest.
func TestManyCallers(t *testing.T) {
	r := rule{cap: 8, a: 10 * time.Millisecond}
	now := time.Now()
	for n := range 10 * maxCallers {
		for _, key := range []fair.Caller{who(n), {Address: "usual", Connection: 1}} {
			c := r.caller(key)
			r.ready(now, c)
			r.answered(now, c)
		}
		now = now.Add(time.Millisecond)
	}
	if len(r.connections) > maxCallers || len(r.addresses) > maxCallers || !r.connections[fair.Caller{Address: "usual", Connection: 1}].returns() {
		t.Errorf("%d connections, %d addresses", len(r.connections), len(r.addresses))
	}
	if len(r.owing) > maxCallers {
		t.Errorf("%d callers owe", len(r.owing))
	}
}

// TestContextOutlivesTheCall: what a backend derives from the context of a call may look at it when all calls have their answers,
// as the goroutine does that context.AfterFunc starts for a context that is not of the standard library.
func TestContextOutlivesTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, gathering, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		one, two := b.send(ctx, 20, 1), b.send(ctx, 21, 1)
		time.Sleep(time.Millisecond)
		c := b.expect("both, after max_wait", 2)[0]
		<-c.ctx.Done()
		c.done(2)
		b.answered(one, two)
		if err := c.ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if deadline, ok := c.ctx.Deadline(); !ok || deadline != time.Now() {
			t.Errorf("deadline %v", deadline)
		}
		b.Close()
	})
}

// TestCallThatLasts has the call of a caller who comes back last for seconds, as of a stand-in or one that hangs. Frames wait for
// its end as for that of some runs, and no longer.
func TestCallThatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ctx := newBench(t, gathering, 0), t.Context()
		one := b.send(ctx, 1, 1)
		lasts := b.expect("alone", 1)[0]
		two := b.send(ctx, 20, 1)
		time.Sleep(100 * time.Millisecond)
		b.expect("caller 1 will be back when the device is free")
		time.Sleep(100 * time.Millisecond)
		b.expect("it works for too long", 1)[0].done(1)
		b.answered(two)
		lasts.done(1)
		b.answered(one)
		b.Close()
	})
}

// TestAbandonedHold has everybody leave whom the device waits with: what follows is not counted as waiting.
func TestAbandonedHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, gathering, 0)
		one := b.send(t.Context(), 1, 1)
		time.Sleep(20 * time.Millisecond) // nobody else is expected any more
		b.expect("alone", 1)[0].done(1)
		b.answered(one)
		ctx, leave := context.WithCancel(t.Context())
		gone := b.send(ctx, 20, 1)
		b.expect("caller 1 is expected")
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		late := b.send(t.Context(), 21, 1)
		b.expect("nobody is", 1)[0].done(1)
		b.answered(late)
		if s := b.Stats(); s.Hold > time.Second {
			t.Errorf("%+v", s)
		}
		b.Close()
	})
}
