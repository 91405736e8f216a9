// Package source reads frames: from multipart/x-mixed-replace and concatenated JPEG as cameras and ffmpeg send it, from addresses
// that are pulled, and from files, folders and cameras of this machine.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/stages/decode"
)

// Frame is an image of a source.
type Frame struct {
	Image []byte        // good until the function that got it returns, but with Options.Buffers its own
	Raw   decode.Raw    // of what ffmpeg has decoded: rgb24
	Time  time.Duration // since the start of a file; of images, by FPS; -1 for what is live or has no time
	Name  string        // of the file, in a folder
}

// Options say how a source is opened.
type Options struct {
	// FPS is how many frames a second are asked of ffmpeg, and how often an address that answers with one image is asked, which
	// is once a second at 0. Of streams of images all frames are read.
	FPS float64

	Local   bool      // files, folders and devices of this machine are allowed: for the command line
	Stdin   io.Reader // what "-" reads
	Allowed outbound.Allowed
	Limits  Limits       // a raw frame is made smaller to fit
	Log     *slog.Logger // nil: none

	// Buffers lends memory for frames. Then each frame is in memory of its own, which belongs to the function that got it, also
	// when that returns an error. Where there is none, a live source loses the frame and others wait. nil: one buffer of Run.
	Buffers *Buffers

	// State is told that frames come (nil), and else why not (*Error): for Info.Trouble, without credentials. May be nil, as the
	// others.
	State func(error)
	// Skipped is told how many frames were lost in the source: no images, cut, too large, without memory.
	Skipped func(n int)
}

// Buffers lends memory. Neither blocks.
type Buffers struct {
	Get func(size int) ([]byte, error) // an empty slice with room for size bytes
	Put func(b []byte)
}

// Error says what is wrong with a source. Its text has no credentials.
type Error struct {
	Code string // auth, not_found, codec, timeout, not_allowed, no_ffmpeg, unavailable
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Codes of Error.
const (
	codeAuth        = "auth"
	codeNotFound    = "not_found"
	codeCodec       = "codec"
	codeTimeout     = "timeout"
	codeNotAllowed  = "not_allowed"
	codeNoFFmpeg    = "no_ffmpeg"
	codeUnavailable = "unavailable"
)

func fail(code, format string, args ...any) *Error { return &Error{code, fmt.Errorf(format, args...)} }

// Times of live sources.
const (
	firstPause  = 500 * time.Millisecond
	longPause   = 30 * time.Second // the longest, and the first where asking again is of no use by itself
	worked      = 10 * time.Second // of frames, after which the pauses begin anew
	silence     = 15 * time.Second // without a frame, after which a source is given up
	memoryPause = 20 * time.Millisecond
)

// Run reads frames from an address and calls each with every one of them, one at a time, until ctx ends (its error), a file has
// ended (nil), or each returns an error, which it returns. What is live is opened again for ever, after pauses that double from
// half a second to half a minute, less up to a half by chance. An *Error is for good: what Check says, and what is wrong with a file.
//
// Addresses: http and https (multipart/x-mixed-replace, or an image, which is asked for again and again), rtsp and rtsps
// (ffmpeg); local ones: "-" (Stdin), folders of images, images, .mjpeg, other files and /dev/video* (ffmpeg). Users and passwords
// of http are sent only when asked for, by digest where the camera offers it; those of rtsp are in the arguments of ffmpeg, which
// other users of the machine can see. ffmpeg is given the address that Allowed has resolved; but where an RTSP camera redirects,
// it goes there.
func Run(ctx context.Context, address string, o Options, each func(Frame) error) error {
	a, err := parse(address, o)
	if err != nil {
		return err
	}
	d := newDelivery(ctx, o, a.live(), each)
	open := a.opener(o)
	if d.live {
		return d.retry(ctx, Mask(address), open)
	}
	return d.ended(open(ctx, d))
}

func newDelivery(ctx context.Context, o Options, live bool, each func(Frame) error) *delivery {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Buffers == nil {
		each, o.Buffers = oneBuffer(each)
	}
	return &delivery{ctx: ctx, o: o, each: each, live: live, patience: silence}
}

// oneBuffer lends memory that is used again when each has returned.
func oneBuffer(each func(Frame) error) (func(Frame) error, *Buffers) {
	var free []byte
	put := func(b []byte) {
		if cap(b) > cap(free) {
			free = b
		}
	}
	get := func(size int) (b []byte, _ error) {
		if b, free = free, nil; cap(b) < size {
			b = make([]byte, 0, size)
		}
		return b[:0], nil
	}
	return func(f Frame) error {
		defer put(f.Image)
		return each(f)
	}, &Buffers{get, put}
}

// retry opens what is live again and again.
func (d *delivery) retry(ctx context.Context, name string, open opener) error {
	logged := ""
	for pause := firstPause; ; {
		d.since = time.Time{}
		err := d.ended(open(ctx, d))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d.failed != nil {
			return d.failed
		}
		e := explain(err)
		if !d.since.IsZero() && time.Since(d.since) >= worked {
			pause = firstPause
		}
		if e.Code == codeNoFFmpeg {
			d.state(e)
			return e
		}
		if e.Code == codeAuth || e.Code == codeNotAllowed { // cameras shut out who asks often with a wrong password
			pause = longPause
		}
		if text := e.Error(); text != logged || d.told { // once, and not with every attempt
			d.o.Log.Warn("a source is lost, and opened again", "source", name, "error", text, "code", e.Code)
			logged = text
		}
		d.state(e)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, longPause)
	}
}

// opener reads frames until the source ends or fails, or ctx or d do.
type opener func(ctx context.Context, d *delivery) error

// delivery gives frames to the function that wants them.
type delivery struct {
	ctx      context.Context
	o        Options
	each     func(Frame) error
	live     bool
	patience time.Duration // without a frame, after which a source is given up
	failed   error         // of each
	since    time.Time     // the first frame since the source was opened
	told     bool          // State was told that frames come
	last     int           // bytes of the last image
}

// ended returns the error with which reading has ended: that of ctx or each before others, and nil for the end of a file.
func (d *delivery) ended(err error) error {
	switch {
	case d.failed != nil:
		return d.failed
	case d.ctx.Err() != nil:
		return d.ctx.Err()
	case err == nil || d.live:
		return err
	}
	return explain(err)
}

func (d *delivery) state(err error) {
	if d.told = err == nil; d.o.State != nil {
		d.o.State(err)
	}
}

func (d *delivery) skipped(n int) {
	if n > 0 && d.o.Skipped != nil {
		d.o.Skipped(n)
	}
}

// buffer returns memory for the next image: of the size of the last one, if there is as much.
func (d *delivery) buffer() []byte {
	if d.last > 0 {
		if b, err := d.get(d.last + d.last/8); err == nil {
			return b[:0]
		}
	}
	return nil
}

// get lends memory; for what is not live it waits for it.
func (d *delivery) get(size int) ([]byte, error) {
	for {
		b, err := d.o.Buffers.Get(size)
		if err == nil || d.live {
			return b, err
		}
		select {
		case <-time.After(memoryPause):
		case <-d.ctx.Done():
			return nil, d.ctx.Err()
		}
	}
}

// grow is what Reader.Next asks for memory.
func (d *delivery) grow(b []byte, more int) ([]byte, error) {
	grown, err := d.get(len(b) + more)
	if err != nil {
		return nil, err
	}
	grown = append(grown[:0], b...)
	d.put(b)
	return grown, nil
}

// put gives back memory that no frame was made of.
func (d *delivery) put(b []byte) {
	if cap(b) > 0 {
		d.o.Buffers.Put(b)
	}
}

// next reads an image with r, and skips those for which there is no memory. Its memory is then the caller's.
func (d *delivery) next(r *Reader) ([]byte, error) {
	for {
		var refused error
		image, skipped, err := r.Next(d.buffer(), func(b []byte, more int) (grown []byte, err error) {
			grown, err = d.grow(b, more)
			refused = err
			return grown, err
		})
		d.skipped(skipped)
		if err == nil {
			return image, nil
		}
		d.put(image)
		if refused == nil || d.ctx.Err() != nil || !errors.Is(err, refused) {
			return nil, err
		}
	}
}

// deliver gives a frame away, with its memory.
func (d *delivery) deliver(f Frame) error {
	if d.since.IsZero() {
		d.since = time.Now()
	}
	if !d.told {
		d.state(nil)
	}
	d.last = len(f.Image)
	if d.failed = d.each(f); d.failed != nil {
		return d.failed
	}
	return d.ctx.Err()
}
