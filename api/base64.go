package api

import (
	"bytes"

	"github.com/segmentio/asm/base64"
)

// chunk is how much text the fast decoder takes at once. Its result goes through a scratch buffer that stays in the
// first-level cache, because the decoder may have written half a result when it meets a character it does not know.
const (
	chunk        = 16 << 10
	scratchBytes = chunk / 4 * 3
)

// decodeImage decodes what a request has in 'image': base64 in the standard or the URL-safe
// alphabet, padded or not, with white space anywhere, and a data URI's prefix before it or not.
//
// It appends to dst, which must be empty and may be the memory that text itself lies in, as
// long as it does not begin behind text: what is written never overtakes what is still to be
// read. text must not be used afterwards. The error is an errInvalidImage.
func decodeImage(dst, text []byte, scratch *[scratchBytes]byte) ([]byte, error) {
	text, err := cutDataURI(text)
	if err != nil {
		return nil, err
	}
	image, at := decodeFast(dst, text, scratch)
	image, err = decodeSlow(image, text, at)
	if err != nil {
		return nil, err
	}
	if len(image) == 0 {
		return nil, fail(errInvalidImage, "'image' is empty")
	}
	return image, nil
}

// cutDataURI cuts "data:...;base64," off the text. The media type in it is not looked at: the
// bytes of the image say what it is.
func cutDataURI(text []byte) ([]byte, error) {
	text = bytes.TrimLeft(text, whiteSpace)
	scheme, mark := []byte("data:"), []byte(";base64")
	if len(text) < len(scheme) || !bytes.EqualFold(text[:len(scheme)], scheme) {
		return text, nil
	}
	head, data, found := bytes.Cut(text, []byte(","))
	if !found {
		return nil, fail(errInvalidImage, "'image' is a data URI without a comma")
	}
	tail := bytes.Join(bytes.Fields(head[max(0, len(head)-100):]), nil) // the end of a head without its white space
	if len(tail) < len(mark) || !bytes.EqualFold(tail[len(tail)-len(mark):], mark) {
		return nil, fail(errInvalidImage, "'image' is a data URI that is not base64")
	}
	return data, nil
}

// decodeFast decodes whole chunks as long as they are plain: one alphabet, no white space. It
// stops in front of the last few characters, where the padding is, and in front of the first
// chunk that is not plain, and returns how far it came.
func decodeFast(dst, text []byte, scratch *[scratchBytes]byte) (image []byte, at int) {
	alphabet := base64.RawStdEncoding
	for len(text)-at > 4 {
		// Whole groups of four characters, and never the last group.
		n := min(chunk, (len(text)-at-1)&^3)
		got, err := alphabet.Decode(scratch[:], text[at:at+n])
		if err != nil || got != n/4*3 { // the decoder skips line ends: they would shift the groups
			if alphabet == base64.RawURLEncoding {
				return dst, at
			}
			alphabet = base64.RawURLEncoding
			continue
		}
		dst = append(dst, scratch[:got]...)
		at += n
	}
	return dst, at
}

const whiteSpace = " \t\n\v\f\r"

// What a character means, where it is not one of the 64.
const (
	isSpace   = 0x40
	isPadding = 0x41
	isJunk    = 0xff
)

// sextets has the six bits of each character of both alphabets.
var sextets = func() (t [256]byte) {
	for i := range t {
		t[i] = isJunk
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = byte(i)
	}
	t['-'], t['_'] = t['+'], t['/']
	for _, c := range whiteSpace {
		t[c] = isSpace
	}
	t['='] = isPadding
	return t
}()

// decodeSlow decodes text from the given place on, which must begin a group of four.
func decodeSlow(dst, text []byte, at int) ([]byte, error) {
	var group uint32
	have, padding := 0, 0 // characters of the group that is being read
	for ; at < len(text); at++ {
		for have == 0 && padding == 0 && at+4 < len(text) { // whole groups, which is nearly all
			a, b, c, d := sextets[text[at]], sextets[text[at+1]], sextets[text[at+2]], sextets[text[at+3]]
			if a|b|c|d >= isSpace {
				break
			}
			dst = append(dst, a<<2|b>>4, b<<4|c>>2, c<<6|d)
			at += 4
		}
		six := sextets[text[at]]
		switch {
		case six == isSpace:
		case six == isPadding && padding < 2:
			padding++
		case six >= isSpace || padding > 0:
			return nil, fail(errInvalidImage,
				"'image' is not valid base64: unexpected %q at character %d of the data", text[at:at+1], at+1)
		default:
			group = group<<6 | uint32(six)
			if have++; have == 4 {
				dst = append(dst, byte(group>>16), byte(group>>8), byte(group))
				group, have = 0, 0
			}
		}
	}
	if have == 1 || padding > 0 && have+padding != 4 {
		return nil, fail(errInvalidImage, "'image' is not valid base64: it ends within a group of four characters")
	}
	switch have {
	case 2:
		dst = append(dst, byte(group>>4))
	case 3:
		dst = append(dst, byte(group>>10), byte(group>>2))
	}
	return dst, nil
}
