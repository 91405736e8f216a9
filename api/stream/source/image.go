package source

import (
	"bytes"
	"cmp"
	"encoding/binary"
)

// kind is a format of images that say themselves where they end.
type kind struct {
	signature string // '?' is any byte
	walk      func(*taking) verdict
}

const longestSignature = 12

var (
	jpeg  = &kind{"\xff\xd8\xff", (*taking).walkJPEG}
	png   = &kind{"\x89PNG\r\n\x1a\n", (*taking).walkPNG}
	webp  = &kind{"RIFF????WEBP", (*taking).walkWebP}
	kinds = [256]*kind{0xff: jpeg, 0x89: png, 'R': webp} // by the first byte
)

// match says whether b begins with the signature, and whether as much of it as there is does.
func (k *kind) match(b []byte) (whole, begun bool) {
	n := min(len(b), len(k.signature))
	for i, c := range b[:n] {
		if s := k.signature[i]; s != c && s != '?' {
			return false, false
		}
	}
	return n == len(k.signature), true
}

// signature finds the first signature that begins at from or later, whole or cut off by the end of b. It is nil if there is none.
func signature(b []byte, from int) (k *kind, at int, whole bool) {
	for i := from; i < len(b); i++ {
		if k := kinds[b[i]]; k != nil {
			if whole, begun := k.match(b[i:]); begun {
				return k, i, whole
			}
		}
	}
	return nil, len(b), false
}

// verdict is what a walk through an image finds.
type verdict byte

const (
	more   verdict = iota // bytes are wanted
	ended                 // in front of pos
	broken                // at pos
)

// taking is an image that is being read.
type taking struct {
	*Reader
	kept []byte // the caller's
	grow func(b []byte, more int) ([]byte, error)

	kind   *kind
	w      []byte // the bytes so far: kept, or the last ones that were skimmed
	gone   int    // bytes in front of w
	pos    int    // where the walk goes on, in w or behind it
	state  byte   // of the walk
	length int    // as the part says; -1: not known

	skimming bool  // the image is not kept, because it is too large or for
	failed   error // of grow
}

// take reads an image from its signature on. If it is not found whole, what is read next is behind it, or wherever an image may
// begin.
func (t *taking) take() (found bool, err error) {
	t.w, t.gone, t.pos, t.state, t.length, t.skimming, t.failed = t.kept[:0], 0, 0, 0, t.Reader.length, false, nil
	if t.length < longestSignature {
		t.length = -1
	}
	t.endPart(false)
	t.ignore = 0
	for {
		switch t.kind.walk(t) {
		case ended:
			return t.end(t.pos), t.failed
		case broken:
			return t.recover(t.gone + t.pos)
		}
		if t.gone+len(t.w) == t.length && t.atEnd() {
			return t.end(len(t.w)), t.failed
		}
		if err := t.read(); err != nil {
			return t.recover(t.gone + len(t.w))
		}
	}
}

// end ends the image, or what there was of it, after n bytes of w, and gives the others back. It says whether the image is kept.
func (t *taking) end(n int) bool {
	t.back(t.w[n:])
	t.w = t.w[:n]
	if t.line, t.ignore = true, max(0, t.length-t.gone-n); t.skimming {
		return false
	}
	t.kept = t.w
	return true
}

// atEnd says whether something begins behind the bytes so far. If not, the length of the part was wrong.
func (t *taking) atEnd() bool {
	for {
		b := bytes.TrimLeft(t.in[t.lo:t.hi], "\r\n")
		if _, at, whole := signature(b, 0); whole && at == 0 || t.atBoundary(b) {
			return true
		}
		if len(b) < max(len(t.boundary), longestSignature) {
			if err := t.fill(); err == nil {
				continue
			}
			if len(b) == 0 {
				return true
			}
		}
		t.length = -1
		return false
	}
}

func (r *Reader) atBoundary(b []byte) bool {
	if r.boundary == nil {
		return bytes.HasPrefix(b, []byte("--")) || isContent(b)
	}
	return bytes.HasPrefix(b, r.boundary) || isContent(b)
}

// recover ends an image whose structure is broken behind fault bytes, or which the stream has cut: by its length, if that is
// true, else in front of whatever begins next. There an image that has an end is found after all: some cameras write what
// decoders make sense of.
func (t *taking) recover(fault int) (found bool, err error) {
	for t.length > t.gone+len(t.w) && !t.skimming && err == nil {
		err = t.read()
	}
	if t.length == t.gone+len(t.w) && t.atEnd() {
		return t.end(len(t.w)), t.failed
	}
	t.length = -1
	for t.pos = min(1, len(t.w)); ; {
		at := t.next(fault-t.gone, err != nil)
		if at < 0 && err != nil {
			at = len(t.w)
		}
		if at >= 0 {
			whole := bytes.TrimRight(t.w[:at], "\r\n")
			if t.kind == jpeg && t.state&scanned != 0 && bytes.HasSuffix(whole, []byte("\xff\xd9")) {
				return t.end(len(whole)), t.failed
			}
			if t.end(at); t.lo < t.hi {
				err = nil
			}
			return false, cmp.Or(t.failed, err)
		}
		err = t.read()
	}
}

// next finds where something begins behind pos: a boundary, a signature in its place, or any signature that is behind fault. -1:
// nowhere, and pos is where to look further. last says that w is all there is.
func (t *taking) next(fault int, last bool) int {
	w, end := t.w, len(t.w)
	if !last {
		end = max(t.pos, end-max(longestSignature, len(t.boundary)))
	}
	for ; t.pos < end; t.pos++ {
		b := w[t.pos:]
		if k := kinds[b[0]]; k != nil {
			before := w[:t.pos]
			placed := t.pos >= fault || bytes.HasSuffix(before, []byte("\n\n")) || bytes.HasSuffix(before, []byte("\n\r\n")) ||
				bytes.HasSuffix(before, []byte("\xff\xd9"))
			if whole, _ := k.match(b); whole && placed {
				return t.pos
			}
		}
		if t.boundary != nil && b[0] == t.boundary[0] && w[t.pos-1] == '\n' && bytes.HasPrefix(b, t.boundary) {
			return t.pos
		}
	}
	return -1
}

// read reads on, at least a byte, up to the length of the part, or by so much that what is behind the image fits into in.
func (t *taking) read() error {
	want := inBytes
	if t.length > t.gone+len(t.w) {
		want = t.length - t.gone - len(t.w)
	}
	if len(t.w) == cap(t.w) {
		t.makeRoom(want)
	}
	n := len(t.w)
	room := t.w[n:min(cap(t.w), n+want)]
	if t.lo < t.hi { // in small pieces at first: what proves to be no image goes back
		m := copy(room[:min(len(room), max(n, 512))], t.in[t.lo:t.hi])
		t.lo += m
		t.w = t.w[:n+m]
		return nil
	}
	m, err := t.Reader.read(room)
	t.w = t.w[:n+m]
	return err
}

// makeRoom makes room for bytes behind w, by growing it or, where that fails, by forgetting what the walk is past.
func (t *taking) makeRoom(want int) {
	const first = 64 << 10
	n := len(t.w)
	if !t.skimming {
		add := min(max(first, n), t.limits.FrameBytes-n)
		if t.length > n {
			add = min(add, want)
		}
		if add > 0 {
			grown, err := t.grow(t.w, add)
			if err == nil {
				t.kept, t.w = grown, grown
				return
			}
			t.failed = err
		}
		if t.skim == nil {
			t.skim = make([]byte, 0, inBytes)
		}
	}
	// The walk is near the end of w, or behind it.
	d := max(min(t.pos, n)-len("\n\r\n"), n-inBytes/2, 0)
	rest := t.w[d:]
	if !t.skimming {
		t.skimming, t.w = true, t.skim
	}
	t.w = append(t.w[:0], rest...)
	t.gone, t.pos = t.gone+d, max(1, t.pos-d)
}

// States of a walk through a JPEG.
const (
	inScan  = 1 << iota // in the coded data behind a scan's header
	scanned             // there was a scan
)

// walkJPEG goes from marker to marker (ITU-T T.81, annex B): over the content of segments, whatever that is.
func (t *taking) walkJPEG() verdict {
	t.pos = max(t.pos, 2)
	w, pos, state := t.w, t.pos, t.state
	v := more
walk:
	for pos < len(w) {
		if state&inScan != 0 {
			i := bytes.IndexByte(w[pos:], 0xff)
			if i < 0 {
				pos = len(w)
				break
			}
			pos += i
		}
		if w[pos] != 0xff {
			v = broken
			break
		}
		if pos+1 == len(w) {
			break
		}
		switch m := w[pos+1]; {
		case m == 0xff: // fill byte
			pos++
		case m >= 0xd0 && m <= 0xd7, m == 0x00 && state&inScan != 0, m == 0x01: // restart, byte stuffed, TEM
			pos += 2
		case m == 0xd9 && state&scanned != 0:
			pos += 2
			v = ended
			break walk
		case m < 0xc0, m == 0xd8, m == 0xd9:
			v = broken
			break walk
		default:
			if len(w) < pos+4 {
				break walk
			}
			n := int(binary.BigEndian.Uint16(w[pos+2:]))
			if n < 2 {
				v = broken
				break walk
			}
			pos += 2 + n
			if state &^= inScan; m == 0xda {
				state |= inScan | scanned
			}
		}
	}
	t.pos, t.state = pos, state
	return v
}

// walkPNG goes from chunk to chunk.
func (t *taking) walkPNG() verdict {
	if t.gone == 0 {
		t.pos = max(t.pos, 8)
	}
	for {
		if t.state != 0 {
			if t.pos <= len(t.w) {
				return ended
			}
			return more
		}
		if len(t.w) < t.pos+8 {
			return more
		}
		n, name := int64(binary.BigEndian.Uint32(t.w[t.pos:])), t.w[t.pos+4:t.pos+8]
		letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
		if !letter(name[0]) || !letter(name[1]) || !letter(name[2]) || !letter(name[3]) ||
			n+12 > int64(t.limits.FrameBytes-t.gone-t.pos) {
			return broken
		}
		if string(name) == "IEND" {
			t.state = 1
		}
		t.pos += int(n) + 12
	}
}

// walkWebP believes the length of the file.
func (t *taking) walkWebP() verdict {
	if t.state == 0 {
		if len(t.w) < longestSignature {
			return more
		}
		n := int64(binary.LittleEndian.Uint32(t.w[4:]))
		n += 8 + n&1
		if n < longestSignature || n > int64(t.limits.FrameBytes) {
			return broken
		}
		t.pos, t.state = int(n), 1
	}
	if t.pos <= len(t.w) {
		return ended
	}
	return more
}
