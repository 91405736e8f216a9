package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits bound what is read.
type Limits struct {
	FrameBytes int // of one image; at least 1
}

const (
	maxHeaders = 16 << 10 // bytes of a line, and of the headers of a part
	inBytes    = 32 << 10 // that are read ahead, but after damage
	maxBack    = 1 << 20
)

// ErrNoImages says that many bytes went by without an image: several times Limits.FrameBytes.
var ErrNoImages = errors.New("these are no images")

// Reader finds the JPEG, PNG and WebP images in a stream of bytes: the parts of multipart/x-mixed-replace as cameras send it,
// well formed or not, images one behind the other, and mixtures of both. Not for concurrent use.
//
// An image begins where its signature is, and ends where its own structure says: segments and scans of a JPEG, chunks of a PNG,
// the length of a WebP. What is between images is read as lines, for the headers of parts, and ignored. Content-Length decides
// for an image whose structure does not, if a boundary, a signature or the end of the stream follows there. So an image is
// returned with its last byte, without waiting for the boundary behind it. After damage, reading goes on at the next boundary, or
// at a signature behind an empty line or behind the end of an image.
type Reader struct {
	r      io.Reader
	err    error // of r
	limits Limits

	in       []byte // in[lo:hi] is read and not used
	lo, hi   int
	line     bool   // in[lo] is the first byte of a line
	boundary []byte // the line as it was seen last, else as it was declared, without hyphens at its end; nil: none

	part    part
	headers int // bytes of headers of the part so far
	length  int // its Content-Length; -1: none that can be true
	ignore  int // bytes of in in which no signature counts: the rest of a part

	skipped int
	barren  int    // bytes read since the last image
	skim    []byte // memory for images that cannot be kept
	taking  taking // the image that is being read
}

// part says where in a part the next line is.
type part byte

const (
	outside part = iota
	inHeaders
	inBody
)

// NewReader begins with the first byte of a body. boundary is that of its Content-Type; "": it has none.
func NewReader(r io.Reader, boundary string, l Limits) *Reader {
	x := &Reader{r: r, limits: l, in: make([]byte, inBytes), line: true, length: -1}
	if boundary != "" && len(boundary) < maxHeaders {
		x.boundary = []byte("--" + trimHyphens(boundary))
	}
	return x
}

// Next reads the next image into buf, whatever that has in it, and returns it. It asks grow for a slice that begins with the bytes
// of b and has room for more bytes behind them: never for more than twice what has been read, or 64 KiB.
//
// skipped counts since the last call what was no image, was cut, or was larger than FrameBytes. err is io.EOF at the end, the
// error of the reader, ErrNoImages, or that of grow: then the image is given up, and another call goes on behind it. What is
// returned is always buf or what grow made of it, empty with an error: nothing that grow has lent is lost.
func (r *Reader) Next(buf []byte, grow func(b []byte, more int) ([]byte, error)) (image []byte, skipped int, err error) {
	t := &r.taking
	*t = taking{Reader: r, kept: buf, grow: grow}
	defer func() { t.kept, t.w, t.grow = nil, nil, nil }() // they are the caller's
	for {
		if t.kind, err = r.seek(); err != nil {
			break
		}
		var found bool
		if found, err = t.take(); found {
			break
		}
		if r.skipped++; err != nil {
			break
		}
	}
	skipped, r.skipped = r.skipped, 0
	if err != nil {
		return t.kept[:0], skipped, err
	}
	r.barren = 0
	return t.kept, skipped, nil
}

// seek goes to the next signature, past whatever is in front of it.
func (r *Reader) seek() (*kind, error) {
	for {
		b := r.in[r.lo:r.hi]
		end := bytes.IndexByte(b, '\n') + 1 // of the line
		if end > 0 {
			b = b[:min(len(b), end+longestSignature)]
		}
		k, at, whole := signature(b, r.ignore)
		switch {
		case whole && (end == 0 || at < end):
			r.use(at)
			return k, nil
		case end > 0 && (k == nil || at >= end):
			if line := bytes.TrimRight(b[:end], "\r\n"); r.line {
				r.readLine(line)
			}
			r.use(end)
			r.line = true
			continue
		case len(b) >= maxHeaders: // that is no line
			r.endPart(r.part != outside)
			r.use(len(b) - longestSignature)
			r.line = false
		}
		if err := r.fill(); err != nil {
			r.endPart(r.part == inBody && r.lo < r.hi)
			return nil, err
		}
	}
}

// readLine reads a line outside of images, without its end.
func (r *Reader) readLine(line []byte) {
	switch {
	case len(line) == 0:
		if r.part == inHeaders {
			r.part = inBody
		}
	case r.isBoundary(line):
		r.endPart(r.headers > 0)
		r.part, r.ignore = inHeaders, 0
		r.boundary = append(r.boundary[:0], trimHyphens(string(line))...)
	case r.part == inBody:
		r.endPart(true)
	case r.part == inHeaders || isContent(line): // there are streams without any boundary
		if r.part, r.ignore = inHeaders, 0; r.headers+len(line) > maxHeaders {
			r.endPart(true)
			break
		}
		r.headers += len(line)
		if name, value, _ := bytes.Cut(line, []byte(":")); len(name) == len(contentLength) && isContent(line) &&
			strings.EqualFold(string(name), contentLength) {
			r.length = -1
			if n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31); err == nil && int(n) <= r.limits.FrameBytes {
				r.length = int(n)
			}
		}
	}
}

const contentLength = "Content-Length"

// isContent says whether a line is a header such as Content-Type.
func isContent(line []byte) bool {
	const n = len("Content-")
	return len(line) > n && bytes.EqualFold(line[:n], []byte("Content-")) && bytes.IndexByte(line, ':') > n
}

// isBoundary says whether a line separates parts: the boundary without its hyphens does so, too.
func (r *Reader) isBoundary(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("--")) {
		return len(r.boundary) > 2 && bytes.Equal(bytes.TrimRight(line, "- \t"), r.boundary[2:])
	}
	strange := func(c byte) bool { return c < ' ' || c > '~' }
	return len(line) <= longestBoundary && !slices.ContainsFunc(line, strange) && trimHyphens(string(line)) != "--"
}

const longestBoundary = 200 // RFC 2046 allows 70 and the hyphens

// trimHyphens returns a boundary with two hyphens in front at least, and none behind.
func trimHyphens(s string) string {
	s = strings.TrimRight(s, "- \t")
	if !strings.HasPrefix(s, "--") {
		s = "--" + s
	}
	return s
}

// endPart begins anew outside of parts. lost says that the part had no image, and is counted.
func (r *Reader) endPart(lost bool) {
	if lost {
		r.skipped++
		r.ignore = max(0, r.length)
	}
	r.part, r.headers, r.length = outside, 0, -1
}

// use removes n bytes from in.
func (r *Reader) use(n int) {
	r.lo += n
	r.ignore = max(0, r.ignore-n)
}

// fill reads more into in, at least a byte unless it returns an error.
func (r *Reader) fill() error {
	if r.lo == r.hi && len(r.in) > inBytes {
		r.in = make([]byte, inBytes)
		r.lo, r.hi = 0, 0
	}
	if r.lo > 0 {
		r.hi = copy(r.in, r.in[r.lo:r.hi])
		r.lo = 0
	}
	if r.hi == len(r.in) {
		r.in = append(r.in, make([]byte, inBytes)...) // after damage, while it holds a line of maxHeaders
	}
	n, err := r.read(r.in[r.hi:])
	r.hi += n
	return err
}

// read reads at least one byte into b, which has room, or returns the error.
func (r *Reader) read(b []byte) (int, error) {
	for range 100 {
		if r.err != nil {
			return 0, r.err
		}
		if r.barren > 4*r.limits.FrameBytes+maxBack {
			r.err = fmt.Errorf("%w: %d bytes went by without one", ErrNoImages, r.barren)
			return 0, r.err
		}
		var n int
		n, r.err = r.r.Read(b)
		if r.barren += n; n > 0 {
			return n, nil
		}
	}
	if r.err == nil {
		r.err = io.ErrNoProgress
	}
	return 0, r.err
}

// back puts bytes that were taken from in, or read, in front of it again: of very many the last, up to maxBack.
func (r *Reader) back(b []byte) {
	rest := r.in[r.lo:r.hi]
	if len(b) <= r.lo {
		r.lo -= copy(r.in[r.lo-len(b):], b)
		return
	}
	b = b[max(0, len(b)+len(rest)-maxBack):]
	n := len(b) + len(rest)
	in := r.in
	if n > len(in) {
		in = make([]byte, n)
	}
	copy(in[len(b):], rest)
	copy(in, b)
	r.in, r.lo, r.hi = in, 0, n
}
