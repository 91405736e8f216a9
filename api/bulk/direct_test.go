package bulk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestDirectTriesAgain: what passes is tried again; what stays is the image's error while others are encoded, and the encoder's where
// none is.
func TestDirectTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		gone := errors.New("device gone")
		d := NewDirect("model", testDigest, 2, func(_ context.Context, image []byte) ([]float32, []Match, error) {
			switch text := string(image); {
			case text == "slow" && tries.Add(1) < 4:
				return nil, nil, errors.New("not yet")
			case text == "poison":
				return nil, nil, errors.New("cannot be encoded")
			case text == "gone":
				return nil, nil, gone
			}
			return vectorOf(image), nil, nil
		})
		defer d.Close(t.Context())
		send := func(text string) {
			if err := d.Send(t.Context(), text, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		send("slow")
		if r := <-d.Results(); r.Key != "slow" || r.Error != "" || tries.Load() != 4 {
			t.Errorf("%+v after %d tries", r, tries.Load())
		}
		send("poison")
		synctest.Wait()
		send("good")
		if r := <-d.Results(); r.Key != "good" {
			t.Errorf("%+v", r)
		}
		if idle, _ := d.Idle(t.Context()); idle {
			t.Error("it is idle with an image that is tried again")
		}
		if r := <-d.Results(); r.Key != "poison" || !r.Again || !strings.Contains(r.Error, "failed 6 times: cannot be encoded") {
			t.Errorf("%+v", r)
		}
		synctest.Wait()
		if idle, _ := d.Idle(t.Context()); !idle {
			t.Error("it is not idle")
		}
		send("gone")
		<-d.ctx.Done()
		if err := d.Send(t.Context(), "good", nil); !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

// TestEncoderFails ends a run with what is wrong, and what is stored stays.
func TestEncoderFails(t *testing.T) {
	b := newBench(t)
	for i := range 500 {
		b.write(fmt.Sprint(i), fmt.Sprint(i))
	}
	gone := errors.New("device gone")
	if s, err := b.run(func(j *Job) {
		j.Encoder = &breaking{Direct: j.Encoder.(*Direct), after: 300, err: gone}
	}); !errors.Is(err, gone) || s.Rows == 0 {
		t.Fatal(s, err)
	}
	b.mustRun(nil)
	b.check()
}

type breaking struct {
	*Direct
	after int
	err   error
}

func (e *breaking) Send(ctx context.Context, key string, image []byte) error {
	if e.after--; e.after < 0 {
		return e.err
	}
	return e.Direct.Send(ctx, key, image)
}
