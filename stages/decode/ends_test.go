package decode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// costlyFile is an image and the error that decoding it ends with, nil for none.
type costlyFile struct {
	name string
	b    []byte
	err  error
}

// costlyFiles are those of largeFiles and others that make the most of their bytes.
func costlyFiles(t testing.TB) []costlyFile {
	files := costlyIndexed()
	for _, f := range largeFiles(t) {
		files = append(files, costlyFile{f.format + " " + f.name, f.b, nil})
	}
	for _, kinds := range [][]int{nil, {predictor}, {crossColor}, {subtractGreen}, {colorIndexing}} {
		files = append(files, costlyFile{fmt.Sprint("VP8L, transforms ", kinds), webpOf(solidVP8L(800, 600, kinds...)), nil})
	}
	return append(files,
		costlyFile{"PNG of 1 bit", pngOf("IHDR\x00\x00\x03\xe8\x00\x00\x03\xe8\x01\x03\x00\x00\x00", "IDAT"+string(deflated(make([]byte, 1000*(1+125))))), nil},
		costlyFile{"PNG of empty chunks", pngOf(slices.Concat([]string{smallIHDR}, slices.Repeat([]string{"IDAT"}, 100_000), []string{smallRows})...), nil},
		costlyFile{"PNG of empty blocks", pngOf(smallIHDR, smallRows[:6]+strings.Repeat("\x00\x00\x00\xff\xff", 100_000)+smallRows[6:]), nil})
}

// TestEnds ends the context of every kind of image at the beginning, in the middle and near the end: what is still done
// then is bounded, and so is what is done between two looks at it. What is done in one go is spent before it begins: by
// libraries, and when an image is turned. The plan covers the work, and GIF and BMP cost no more than their bytes and pixels.
func TestEnds(t *testing.T) {
	const (
		most  = 256 << 10 // bytes
		never = 1 << 40
	)
	for name, d := range decoders(t, exact) {
		for _, c := range costlyFiles(t) {
			plan, err := d.Inspect(c.b)
			if err != nil {
				t.Fatal(c.name, err)
			}
			if name == "go" && plan.Format != JPEG {
				continue
			}
			t.Run(name+"/"+c.name, func(t *testing.T) {
				pixels := plan.Width * plan.Height
				if honest := int64(2*len(c.b) + 7*pixels); (plan.Format == GIF || plan.Format == BMP) && plan.Work > honest {
					t.Errorf("work %d, at most %d is honest", plan.Work, honest)
				}
				decode := func(looks int) (*watched, error) {
					ctx := &watched{Context: t.Context(), looks: looks}
					ctx.run = &task{ctx: ctx, work: plan.Work}
					p, err := plan.run(ctx.run)
					p.Release()
					return ctx, err
				}
				whole, err := decode(never)
				if !errors.Is(err, c.err) {
					t.Fatalf("%v, want %v", err, c.err)
				}
				looks := never - whole.looks
				if plan.Format != JPEG && whole.longest > most+int64(plan.turning()) {
					t.Errorf("%d bytes of work between two looks", whole.longest)
				}
				least := 3 * pixels
				if plan.Orientation > 1 {
					least *= 3 // read and written once more
				}
				if err == nil && whole.run.spent < int64(least) {
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
