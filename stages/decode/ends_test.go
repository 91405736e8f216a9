package decode

import (
	"context"
	"errors"
	"testing"
)

// watched is a context that ends when it has been looked at so many times, and notes how much work was done then.
type watched struct {
	context.Context
	run     *task
	looks   int
	at      int64 // spent at the last look
	ended   bool
	longest int64 // work between two looks
}

func (c *watched) Err() error {
	if c.ended {
		return context.DeadlineExceeded
	}
	c.longest = max(c.longest, c.run.spent-c.at)
	c.at = c.run.spent
	if c.looks--; c.looks < 0 {
		c.ended = true
		return context.DeadlineExceeded
	}
	return nil
}

// TestEnds ends the context of every kind of image at the beginning, in the middle and near the end: what is still done
// then is bounded, and so is what is done between two looks at it. What is done in one go is spent before it begins: by
// libraries, and when an image is turned.
func TestEnds(t *testing.T) {
	const (
		most  = 512 << 10 // bytes
		never = 1 << 40
	)
	for name, d := range decoders(t, exact) {
		for _, c := range largeFiles(t) {
			if name == "go" && c.format != JPEG {
				continue
			}
			t.Run(name+"/"+c.format+" "+c.name, func(t *testing.T) {
				plan, err := d.Inspect(c.b)
				if err != nil {
					t.Fatal(err)
				}
				decode := func(looks int) (*watched, error) {
					ctx := &watched{Context: t.Context(), looks: looks}
					ctx.run = &task{ctx: ctx, work: plan.Work}
					p, err := plan.run(ctx.run)
					p.Release()
					return ctx, err
				}
				whole, err := decode(never)
				if err != nil {
					t.Fatal(err)
				}
				looks := never - whole.looks
				if c.format != JPEG && whole.longest > most+int64(plan.turning()) {
					t.Errorf("%d bytes of work between two looks", whole.longest)
				}
				least := 3 * plan.Width * plan.Height
				if plan.Orientation > 1 {
					least *= 3 // read and written once more
				}
				if whole.run.spent < int64(least) {
					t.Errorf("%d bytes of work for %d x %d pixels", whole.run.spent, plan.Width, plan.Height)
				}
				for _, n := range []int{0, looks / 2, looks - 1} {
					ctx, err := decode(n)
					if !errors.Is(err, context.DeadlineExceeded) || ctx.run.spent > ctx.at+most {
						t.Errorf("ended after %d looks of %d, %d bytes later: %v", n, looks, ctx.run.spent-ctx.at, err)
					}
				}
			})
		}
	}
}
