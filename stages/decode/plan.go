package decode

import (
	"context"
	"io"
	"math/bits"
)

// Plan is what the head of an image file says about decoding it, before any pixel is touched.
type Plan struct {
	Format        string
	Width, Height int   // of the pixels as they are decoded, before the orientation is applied
	Orientation   int   // EXIF orientation, 1 to 8
	Memory        int64 // bytes that decoding takes at most beside the file, the packed pixels included
	Native        int64 // of Memory: what a library allocates
	Work          int64 // bytes that decoding reads and writes at most, each as often as it is touched
	Extra         int64 // time that decoding may take beyond that of Work, as bytes that could be touched in it

	decode func(*task) (Image, error) // leaves the orientation to Decode
	image  Image                      // instead of decode: it need not be decoded
}

// newPlan makes the plan of an image of w x h pixels: own is what its decoder allocates beside the packed pixels,
// work what it reads and writes beside them, both in bytes.
func newPlan(w, h, own, work, orientation int, decode func(*task) (Image, error)) Plan {
	packed := 3 * w * h
	buffer := packed // which may come from the pool
	if packed <= maxPooled {
		_, buffer = sizeClass(packed)
	}
	p := Plan{Width: w, Height: h, Orientation: orientation, Memory: int64(own + buffer), Work: int64(work + packed), decode: decode}
	p.Work += int64(p.turning())
	if orientation >= 5 {
		p.Memory += int64(buffer) // rows and columns are exchanged into a second image
	}
	return p
}

// turning is the work that the orientation makes: each pixel is read and written.
func (plan Plan) turning() int {
	if plan.Orientation == 1 {
		return 0
	}
	return 6 * plan.Width * plan.Height
}

// coded adds to the plan that n bytes of coded data may take as long as factor times as many that are touched. A byte
// takes up to 1.5 ns in the slow parts of the decoders; the factors come from the worst files found.
func (p Plan) coded(n, factor int) Plan {
	p.Extra += int64(n) * int64(factor)
	return p
}

// inflateTime is the factor of Plan.coded for deflate: about three times what pixels take. Blocks that hold next to
// nothing but their codes take three times as long again, but then large screenshots would all count as long.
const inflateTime = 32

// long tells whether decoding may take longer than about a quarter of a second.
func (p Plan) long() bool { return p.Work+p.Extra >= longWork }

// task is one run of a decoder: its deadline, and the work that it has done. Every decoder tells it of what it
// touches, at least once a row or a chunk of the file.
type task struct {
	ctx         context.Context
	work, spent int64 // bytes: what the plan allows, what was touched
	checked     int64 // spent when ctx was last looked at
}

// spend counts n bytes read or written. It returns the cause of ctx when that has ended, and ErrCorrupt when
// the decoder does more than the file can honestly need.
func (t *task) spend(n int) error {
	const often = 64 << 10
	if t.spent += int64(n); t.spent > t.work {
		return corrupt("decoding takes more than its size and its pixels allow")
	}
	if n != 0 && t.spent-t.checked < often {
		return nil
	}
	t.checked = t.spent
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	return nil
}

// rows calls row with each row of p, from the top, and spends n bytes for each.
func (t *task) rows(p Image, n int, row func(pix []byte, y int)) error {
	for y := range p.Height {
		row(p.Pix[3*y*p.Width:][:3*p.Width], y)
		if err := t.spend(n); err != nil {
			return err
		}
	}
	return nil
}

// source reads b in pieces, each of which is spent when it is begun.
type source struct {
	task     *task
	b        []byte // what is left
	paid     int    // bytes at the start of b that are spent already
	reversed bool   // the first bit of a byte is its lowest
}

func (s *source) open(b []byte) { s.b, s.paid = b, 0 }

func (s *source) pay() error {
	const piece = 4 << 10
	if len(s.b) == 0 {
		return io.EOF
	}
	if s.paid == 0 {
		s.paid = min(len(s.b), piece)
		return s.task.spend(s.paid)
	}
	return nil
}

func (s *source) ReadByte() (byte, error) {
	if err := s.pay(); err != nil {
		return 0, err
	}
	c := s.b[0]
	s.b, s.paid = s.b[1:], s.paid-1
	if s.reversed {
		c = bits.Reverse8(c)
	}
	return c, nil
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.pay(); err != nil {
		return 0, err
	}
	n := copy(p, s.b[:s.paid])
	s.b, s.paid = s.b[n:], s.paid-n
	if s.reversed {
		for i := range p[:n] {
			p[i] = bits.Reverse8(p[i])
		}
	}
	return n, nil
}
