package hailo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Frame is one image as the image encoder takes it, and its embedding.
type Frame struct {
	Pixels    []byte    // size*size*3 bytes: rows from the top, RGB, 8 bit
	Embedding []float32 // as long as the model's embedding, of unit length after EncodeImages
	Slot      int       // number of the frame within its pool, from 0
	Run       Run       // of the last EncodeImages

	pool *Frames
}

// Run is what a device that Gathers tells of the run in which a frame was encoded.
type Run struct {
	Frames int           // in that run, as far as is known; 0: something else stood in for the device
	Took   time.Duration // 0: not known
}

// Frames is a fixed set of frames; their number bounds what is between resize and answer.
// Safe for concurrent use.
type Frames struct {
	free    chan *Frame
	all     int
	several chan struct{} // holds a value while somebody is in GetSeveral
}

// NewFrames makes a pool of one frame for each of the given pixel buffers, which it keeps.
func NewFrames(pixels [][]byte, dimension int) *Frames {
	p := &Frames{free: make(chan *Frame, len(pixels)), all: len(pixels), several: make(chan struct{}, 1)}
	for i, px := range pixels {
		p.free <- &Frame{Pixels: px, Embedding: make([]float32, dimension), Slot: i, pool: p}
	}
	return p
}

// NewHeapFrames makes a pool of n frames of size x size pixels in ordinary memory.
func NewHeapFrames(n, size, dimension int) *Frames {
	pixels := make([][]byte, n)
	for i := range pixels {
		pixels[i] = make([]byte, size*size*3)
	}
	return NewFrames(pixels, dimension)
}

// Get takes a frame out of the pool; it blocks until one is free or ctx ends.
// The caller owns the frame until it calls Release.
func (p *Frames) Get(ctx context.Context) (*Frame, error) {
	if f := p.TryGet(); f != nil {
		return f, nil
	}
	select {
	case f := <-p.free:
		return f, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// GetSeveral appends n frames, of which the pool must have as many, to list. It blocks as Get does, n times if need be; on an
// error it has taken none. One caller at a time gathers frames in it, so that two never wait for each other's.
func (p *Frames) GetSeveral(ctx context.Context, list []*Frame, n int) ([]*Frame, error) {
	if n > p.all {
		return list, fmt.Errorf("%d frames, where there are %d", n, p.all)
	}
	if n > 1 {
		select {
		case p.several <- struct{}{}:
			defer func() { <-p.several }()
		case <-ctx.Done():
			return list, context.Cause(ctx)
		}
	}
	before := len(list)
	for range n {
		f, err := p.Get(ctx)
		if err != nil {
			for _, f := range list[before:] {
				f.Release()
			}
			return list[:before], err
		}
		list = append(list, f)
	}
	return list, nil
}

// TryGet is Get without waiting: it is nil when no frame is free.
func (p *Frames) TryGet() *Frame {
	select {
	case f := <-p.free:
		return f
	default:
		return nil
	}
}

// Len is the number of frames in all; Free is how many of them are in the pool now.
func (p *Frames) Len() int  { return p.all }
func (p *Frames) Free() int { return len(p.free) }

// Release gives the frame back to its pool. Exactly once for each Get. The embedding is forgotten: an encoder that did
// not write one could otherwise answer with that of another image.
func (f *Frame) Release() {
	clear(f.Embedding)
	f.pool.free <- f
}

var errNotUnit = errors.New("a vector of length 0, infinity or NaN")

// Dot is the scalar product of two vectors of one length: of unit vectors, the cosine of their angle.
func Dot(a, b []float32) (sum float64) {
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

// Normalize writes v scaled to unit length (L2, summed in float64) into out, which may be v. It is an
// error when v has no direction: all numbers 0, or one not finite.
func Normalize(out, v []float32) error {
	sum := Dot(v, v)
	if !(sum > 0) || math.IsInf(sum, 0) { // NaN is not > 0
		return errNotUnit
	}
	scale := 1 / math.Sqrt(sum)
	for i, x := range v {
		out[i] = float32(float64(x) * scale)
	}
	return nil
}
