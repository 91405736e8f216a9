package api

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a body of multipart/form-data. Its size is bounded by the reader of the route.
const (
	maxParts        = 1000
	maxPartHeaders  = 16 << 10 // bytes, of one part
	longestBoundary = 70       // RFC 2046, 5.1.1
)

// headerFrame names the pixel format of a raw frame, in the head of a request or of a part.
const headerFrame = "X-Frame-Format"

// part is one part of a form. All of it lies in the body.
type part struct {
	name  []byte // of the field, valid UTF-8, at least one byte; never a path, and not bounded but by maxPartHeaders
	media []byte // Content-Type as it was sent; empty where there is none
	frame []byte // X-Frame-Format as it was sent; empty where there is none
	data  []byte // as it was sent, with no capacity beyond

	decoded bool // the name had escapes, in whose place it lies now
}

// eachPart calls do with each part of a form, in their order, until do returns an error, which it returns. It changes body,
// in which it decodes the escapes of names, so that a body can be read once only. It copies nothing, allocates no more
// than the boundary, and looks at each byte a bounded number of times. Other errors are an errInvalidRequest: the limits
// above, a form without an end, a part without a name.
//
// The syntax is that of RFC 7578 and RFC 2046, read as browsers, curl, Python's requests and Go's mime/multipart write it:
// there may be text before the first boundary and behind the last, blanks behind a boundary, and no line end at the very
// end; where the first boundary ends in LF alone, all of them do. Names are quoted, with the escapes \" and %22, or in
// the form name*=UTF-8”... (RFC 8187). File names are not looked at. Refused are headers that are folded, and a
// Content-Transfer-Encoding that is not the identity.
func eachPart(contentType, body []byte, do func(part) error) error {
	boundary, err := boundaryOf(contentType)
	if err != nil {
		return err
	}
	f := form{delimiter: append([]byte("\r\n--"), boundary...)}
	rest, last, ok := f.begin(body)
	if !ok {
		return fail(errInvalidRequest, "The form has no boundary as its Content-Type has it")
	}
	for n := 1; !last; n++ {
		if n > maxParts {
			return fail(errInvalidRequest, "Too many parts: at most %d are allowed", maxParts)
		}
		var p part
		if rest, err = p.readHeaders(rest, n); err != nil {
			return err
		}
		if p.data, rest, last, ok = f.cut(rest); !ok {
			return fail(errInvalidRequest, "The form ends within part %d: its last boundary is missing", n)
		}
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

// boundaryOf finds the boundary in a Content-Type.
func boundaryOf(contentType []byte) ([]byte, error) {
	_, params, _ := bytes.Cut(contentType, []byte(";"))
	for len(params) > 0 {
		key, value, rest, ok := cutParam(params)
		if !ok {
			break
		}
		if foldEqual(key, "boundary") && len(value) > 0 && len(value) <= longestBoundary {
			return value, nil
		}
		params = rest
	}
	return nil, fail(errInvalidRequest, "The Content-Type of the form has no boundary of 1 to %d characters", longestBoundary)
}

// form knows the boundary of a form.
type form struct {
	delimiter []byte // line end, two hyphens, boundary
}

func (f *form) newline() []byte { return f.delimiter[:bytes.IndexByte(f.delimiter, '\n')+1] }

// begin finds the first boundary and learns how lines end. rest is what follows its line; last says that it is the
// only one.
func (f *form) begin(body []byte) (rest []byte, last, ok bool) {
	for rest = body; len(rest) > 0; _, rest, _ = bytes.Cut(rest, []byte("\n")) {
		line, found := bytes.CutPrefix(rest, f.delimiter[len("\r\n"):])
		if !found {
			continue
		}
		if after, last, ok := endOfDelimiter(line, []byte("\r\n")); ok {
			return after, last, true
		}
		if after, last, ok := endOfDelimiter(line, []byte("\n")); ok && !last {
			f.delimiter = f.delimiter[1:]
			return after, false, true
		}
	}
	return nil, false, false
}

// cut cuts the data of a part, which ends before the next boundary. b is what follows the headers.
func (f *form) cut(b []byte) (data, rest []byte, last, ok bool) {
	if line, found := bytes.CutPrefix(b, f.delimiter[len(f.newline()):]); found { // the empty line was that of the boundary
		if rest, last, ok = endOfDelimiter(line, f.newline()); ok {
			return nil, rest, last, true
		}
	}
	for from := 0; ; {
		i := bytes.Index(b[from:], f.delimiter)
		if i < 0 {
			return nil, nil, false, false
		}
		i += from
		if rest, last, ok = endOfDelimiter(b[i+len(f.delimiter):], f.newline()); ok {
			return b[:i:i], rest, last, true
		}
		from = i + len(f.delimiter)
	}
}

// endOfDelimiter reads what follows a boundary in its line, and the end of the line. Anything else there makes the line
// data.
func endOfDelimiter(b, newline []byte) (rest []byte, last, ok bool) {
	b, last = bytes.CutPrefix(b, []byte("--"))
	b = bytes.TrimLeft(b, " \t")
	rest, ok = bytes.CutPrefix(b, newline)
	return rest, last, ok || last && len(b) == 0
}

// readHeaders reads the headers of part number n, at the start of b, and returns what follows the empty line behind them.
func (p *part) readHeaders(b []byte, n int) (rest []byte, err error) {
	head := b[:min(len(b), maxPartHeaders)]
	for {
		line, after, ok := bytes.Cut(head, []byte("\n"))
		switch {
		case !ok && len(b) > maxPartHeaders:
			return nil, fail(errInvalidRequest, "The headers of part %d are larger than %d bytes", n, maxPartHeaders)
		case !ok:
			return nil, fail(errInvalidRequest, "The form ends within the headers of part %d", n)
		}
		head = after
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			break
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(key) == 0 || line[0] == ' ' || line[0] == '\t' {
			return nil, fail(errInvalidRequest, "Part %d has a header that is not of the form 'Name: value', in one line", n)
		}
		if err := p.header(key, bytes.Trim(value, " \t"), n); err != nil {
			return nil, err
		}
	}
	if len(p.name) == 0 {
		return nil, errNoName(n)
	}
	return b[min(len(b), maxPartHeaders)-len(head):], nil
}

// header takes from a header what is needed.
func (p *part) header(key, value []byte, n int) error {
	switch {
	case foldEqual(key, "Content-Disposition"):
		if len(p.name) > 0 {
			return fail(errInvalidRequest, "Part %d has Content-Disposition twice", n)
		}
		if p.name, p.decoded = nameOf(value); len(p.name) == 0 {
			return errNoName(n)
		}
		if !utf8.Valid(p.name) {
			return fail(errInvalidRequest, "The name of part %d is not valid UTF-8", n)
		}
	case foldEqual(key, "Content-Type"):
		p.media = value
	case foldEqual(key, headerFrame):
		p.frame = value
	case foldEqual(key, "Content-Transfer-Encoding"):
		identity := func(coding string) bool { return foldEqual(value, coding) }
		if !slices.ContainsFunc([]string{"", "binary", "8bit", "7bit"}, identity) {
			return fail(errInvalidRequest, "Part %d has a Content-Transfer-Encoding: send the bytes as they are", n)
		}
	}
	return nil
}

func errNoName(n int) error {
	return fail(errInvalidRequest, "Part %d has no name: send Content-Disposition: form-data; name=\"...\"", n)
}

// foldEqual compares without regard to case, and does not allocate.
func foldEqual(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }

// nameOf finds the name of the field in a Content-Disposition, and decodes it in place; empty where there is no single one. decoded
// says that this has changed something.
func nameOf(disposition []byte) (name []byte, decoded bool) {
	kind, params, _ := bytes.Cut(disposition, []byte(";"))
	if !foldEqual(bytes.TrimSpace(kind), "form-data") {
		return nil, false
	}
	var plainName, extended []byte
	for len(params) > 0 {
		key, value, rest, ok := cutParam(params)
		plain, star := foldEqual(key, "name"), foldEqual(key, "name*")
		switch {
		case !ok || plain && plainName != nil || star && extended != nil:
			return nil, false
		case plain:
			plainName = value
		case star:
			extended = value
		}
		params = rest
	}
	if extended != nil {
		return decodeExtended(extended), bytes.IndexByte(extended, '%') >= 0
	}
	name = unescape(plainName)
	return name, len(name) != len(plainName)
}

// cutParam cuts one parameter off a header, "key=value" or "key="value"", and the semicolon behind it (RFC 2045, 5.1). The
// value keeps its escapes. What there is between two semicolons may be empty.
func cutParam(b []byte) (key, value, rest []byte, ok bool) {
	const blanks = " \t"
	b = bytes.TrimLeft(b, blanks)
	if len(b) == 0 || b[0] == ';' {
		return nil, nil, b[min(len(b), 1):], true
	}
	key, b, ok = bytes.Cut(b, []byte("="))
	key, b = bytes.TrimRight(key, blanks), bytes.TrimLeft(b, blanks)
	if !ok || bytes.ContainsAny(key, `;"`) {
		return nil, nil, nil, false
	}
	if len(b) == 0 || b[0] != '"' {
		value, rest, _ = bytes.Cut(b, []byte(";"))
		return key, bytes.TrimRight(value, blanks), rest, true
	}
	end := 1
	for ; end < len(b) && b[end] != '"'; end++ {
		if escaped(b[end:]) {
			end++
		}
	}
	if end >= len(b) {
		return nil, nil, nil, false
	}
	value, b = b[1:end], bytes.TrimLeft(b[end+1:], blanks)
	if len(b) > 0 && b[0] != ';' {
		return nil, nil, nil, false
	}
	return key, value, b[min(len(b), 1):], true
}

// escaped says that b begins with an escape of a quoted string. A backslash before a letter is none: old browsers send
// whole paths of Windows as file names, without escapes.
func escaped(b []byte) bool {
	return len(b) >= 2 && b[0] == '\\' && strings.IndexByte(`()<>@,;:\"/[]?=`, b[1]) >= 0
}

// unescape decodes the escapes of a quoted string in place: \" and %22, which is what browsers send.
func unescape(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		switch {
		case escaped(b[i:]):
			i++
			out = append(out, b[i])
		case bytes.HasPrefix(b[i:], []byte("%22")):
			i += 2
			out = append(out, '"')
		default:
			out = append(out, b[i])
		}
	}
	return out
}

// decodeExtended decodes a value as RFC 8187 has it in place: charset'language'text in percent-encoding. It is empty for
// one that is not UTF-8 or ASCII.
func decodeExtended(b []byte) []byte {
	charset, b, _ := bytes.Cut(b, []byte("'"))
	_, b, ok := bytes.Cut(b, []byte("'"))
	if !ok || !foldEqual(charset, "utf-8") && !foldEqual(charset, "us-ascii") {
		return nil
	}
	out := b[:0]
	for i := 0; i < len(b); i++ {
		if b[i] != '%' {
			out = append(out, b[i])
			continue
		}
		var c [1]byte
		if i+3 > len(b) {
			return nil
		}
		if _, err := hex.Decode(c[:], b[i+1:i+3]); err != nil {
			return nil
		}
		out, i = append(out, c[0]), i+2
	}
	return out
}
