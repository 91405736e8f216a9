// Package backendtest holds the test that every hailo.Backend passes.
package backendtest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"hailoclip/hailo/internal/assert"

	"hailoclip/hailo"
)

// Run checks what the comments of hailo.Backend promise. open makes a fresh backend, with at
// least two frames, whose model has at least the token ids 1 to 8; Run closes it, and open may
// close it once more. Vectors are compared by cosine, because a batch may be computed in another
// order than one image.
func Run(t *testing.T, open func(t *testing.T) hailo.Backend) {
	for _, tt := range []struct {
		name string
		test func(c check)
	}{
		{"info", check.info},
		{"images", check.images},
		{"texts", check.texts},
		{"refusals", check.refusals},
		{"ended context", check.endedContext},
		{"concurrent", check.concurrent},
		{"close", check.closing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t)
			defer func() { _ = b.Close() }()
			tt.test(check{t, b})
			assert.Equal(t, b.Frames().Free(), b.Frames().Len(), "frames in the pool")
		})
	}
}

// check is a backend in a test.
type check struct {
	*testing.T
	b hailo.Backend
}

func (c check) info() {
	i := c.b.Info()
	assert.True(c, i.Backend != "" && i.Device != "" && i.TextDigest != "" && i.ImageDigest != "", "incomplete: %+v", i)
	assert.True(c, i.ImageBatch > 0 && i.ImageCalls > 0 && i.TextBatch > 0, "incomplete: %+v", i)
	s := c.b.Status()
	assert.True(c, s.Ready && s.Degraded == (s.Reason() != ""), "a fresh backend is %+v", s)
	assert.True(c, c.b.Info() == i, "Info changed")
}

// images: unit vectors, the same for the same image alone or in a batch, others for others.
func (c check) images() {
	n := min(c.b.Info().ImageBatch, c.b.Frames().Len())
	frames := c.take(n)
	defer release(frames)
	alone := make([][]float32, n)
	for i, f := range frames {
		paint(f.Pixels, i)
		c.encode(frames[i : i+1])
		alone[i] = slices.Clone(f.Embedding)
		c.unit(alone[i])
	}
	for size := 1; size <= n; size++ {
		for _, f := range frames {
			clear(f.Embedding)
		}
		c.encode(frames[:size])
		for i, f := range frames[:size] {
			c.same(f.Embedding, alone[i], "image", i, "in a batch of", size)
		}
		for i, f := range frames[size:] {
			assert.True(c, f.Embedding[0] == 0, "a batch of %d wrote to frame %d", size, size+i)
		}
	}
	paint(frames[0].Pixels, 1000)
	c.encode(frames[:1])
	c.differ(frames[0].Embedding, alone[0])
	c.encode(nil)
}

// texts: the same in any number and order.
func (c check) texts() {
	var all [][]int32
	for i := range 3*c.b.Info().TextBatch + 1 {
		all = append(all, sentence(i))
	}
	together := c.encodeTexts(all...)
	for i := range 10 {
		i = i * len(all) / 10
		c.unit(together[i])
		c.same(c.encodeTexts(all[i])[0], together[i], "text", i, "among others")
	}
	c.differ(together[0], together[1])
	c.encodeTexts()
}

func (c check) refusals() {
	for name, tokens := range map[string][][]int32{
		"empty text":                {sentence(0), {}},
		"longer than any context":   {make([]int32, 1<<16)},
		"one bad text among others": {sentence(0), make([]int32, 1<<16), sentence(1)},
	} {
		assert.ErrorIs(c, assert.Err(c.b.EncodeTexts(c.Context(), tokens)), hailo.ErrEncode, "%s", name)
	}
	frames := c.take(1)
	defer release(frames)
	paint(frames[0].Pixels, 0)
	many := slices.Repeat(frames, c.b.Info().ImageBatch+1)
	assert.ErrorIs(c, c.b.EncodeImages(c.Context(), many), hailo.ErrEncode, "one image more than ImageBatch")
	c.encode(frames)
}

func (c check) endedContext() {
	why := errors.New("why the context ended")
	ctx, cancel := context.WithCancelCause(c.Context())
	cancel(why)
	frames := c.take(1)
	defer release(frames)
	paint(frames[0].Pixels, 0)
	assert.ErrorIs(c, c.b.EncodeImages(ctx, frames), why, "EncodeImages")
	assert.ErrorIs(c, assert.Err(c.b.EncodeTexts(ctx, [][]int32{sentence(0)})), why, "EncodeTexts")
	c.encode(frames)
}

// concurrent: calls at once get their own answers.
func (c check) concurrent() {
	want := c.encodeTexts(sentence(0), sentence(1), sentence(2), sentence(3))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 4 {
				got := assert.Value(c.b.EncodeTexts(c.Context(), [][]int32{sentence(i)}))
				c.same(got[0], want[i], "text", i)
			}
		})
		wg.Go(func() {
			var first []float32
			for range 4 {
				got := assert.Value(Encode(c.Context(), c.b, func(pixels []byte) { paint(pixels, i) }))
				if first == nil {
					first = got
				}
				c.same(got, first, "image", i)
			}
		})
	}
	wg.Wait()
}

// closing: while calls come in. Each of them works or says that the backend is closed.
func (c check) closing() {
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for i := range 4 {
		wg.Go(func() {
			var err error
			for err == nil {
				select {
				case started <- struct{}{}:
				default:
				}
				if _, err = Encode(c.Context(), c.b, func(pixels []byte) { paint(pixels, i) }); err == nil {
					_, err = c.b.EncodeTexts(c.Context(), [][]int32{sentence(i)})
				}
			}
			assert.ErrorIs(c, err, hailo.ErrClosed)
		})
	}
	<-started
	assert.NoError(c, c.b.Close())
	wg.Wait()
	s := c.b.Status()
	assert.True(c, !s.Ready && s.Reason() != "", "a closed backend is %+v", s)
	assert.ErrorIs(c, c.b.EncodeImages(c.Context(), nil), hailo.ErrClosed, "no images after Close")
	assert.NoError(c, c.b.Close(), "second Close")
}

func (c check) take(n int) []*hailo.Frame {
	c.Helper()
	frames := make([]*hailo.Frame, n)
	for i := range frames {
		frames[i] = assert.Value(c.b.Frames().Get(c.Context()))
	}
	return frames
}

func release(frames []*hailo.Frame) {
	for _, f := range frames {
		f.Release()
	}
}

func (c check) encode(frames []*hailo.Frame) {
	c.Helper()
	err := c.b.EncodeImages(c.Context(), frames)
	assert.MustTrue(c, err == nil, "%d images: %v", len(frames), err)
}

func (c check) encodeTexts(tokens ...[]int32) [][]float32 {
	c.Helper()
	vectors, err := c.b.EncodeTexts(c.Context(), tokens)
	assert.MustTrue(c, err == nil && len(vectors) == len(tokens), "%d vectors for %d texts: %v", len(vectors), len(tokens), err)
	return vectors
}

// unit checks the length of a vector.
func (c check) unit(v []float32) {
	c.Helper()
	assert.True(c, math.Abs(hailo.Dot(v, v)-1) <= 1e-5, "a vector has the squared length %v", hailo.Dot(v, v))
}

// differ checks that two inputs did not get one vector.
func (c check) differ(a, b []float32) {
	c.Helper()
	assert.True(c, Cosine(a, b) <= 0.999999, "two inputs have one vector: cosine %v", Cosine(a, b))
}

func (c check) same(got, want []float32, what ...any) {
	c.Helper()
	cosine := Cosine(got, want)
	assert.True(c, cosine >= 0.9999, "%v: cosine with itself %v", what, cosine)
}

// Encode takes a frame, has its pixels filled, and returns the embedding of the image.
func Encode(ctx context.Context, b hailo.Backend, fill func(pixels []byte)) ([]float32, error) {
	f, err := b.Frames().Get(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	fill(f.Pixels)
	err = b.EncodeImages(ctx, []*hailo.Frame{f})
	return slices.Clone(f.Embedding), err
}

// paint fills an image with coloured stripes, others for every seed.
func paint(pixels []byte, seed int) {
	for i := range pixels {
		pixels[i] = byte((i%3+1)*(60+seed*37) + i/96*(seed%5+3))
	}
}

// sentence is a list of 1 to 5 token ids from 1 to 8; the first two differ in their first token.
func sentence(i int) []int32 {
	ids := make([]int32, i%5+1)
	for j := range ids {
		ids[j] = int32((i+j*j)%8 + 1)
	}
	return ids
}

// Cosine of the angle between two vectors of one length.
func Cosine(a, b []float32) float64 {
	return hailo.Dot(a, b) / math.Sqrt(hailo.Dot(a, a)*hailo.Dot(b, b))
}
