package bench

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of what one request holds.
const (
	MaxPrompts = 1000
	maxBody    = 64 << 20
)

// Bodies makes the bodies of the requests, one picture after the other. Safe for concurrent use.
// Another format than base64 in JSON takes another constructor.
type Bodies struct {
	path, contentType string
	answer            string // the field that a good answer must have
	quoted            []byte // likewise, as JSON has it
	prompts           int
	pictures          []*picture
	next              atomic.Uint64
	serial            atomic.Uint64 // of fresh prompts
}

// picture is one picture's body, or where the prompts are fresh a pool of copies.
type picture struct {
	shared body
	copies *sync.Pool // of *body; nil: the prompts are known, the body never changes
}

type body struct {
	picture *picture
	bytes   []byte
	marks   []int // offsets of the digits to fill in, one for each prompt
}

// JSONBodies makes requests to classify images (compressed, in any format) against a number of
// prompts, or with 0 prompts to embed them. Fresh prompts are new ones in every request, which
// no cache can know; else all requests have the same.
func JSONBodies(images [][]byte, prompts int, fresh bool) (*Bodies, error) {
	if len(images) == 0 {
		return nil, errors.New("no picture")
	}
	if prompts < 0 || prompts > MaxPrompts {
		return nil, fmt.Errorf("prompts: %d is out of bounds: 0 to %d", prompts, MaxPrompts)
	}
	b := &Bodies{path: "/v1/classify", contentType: "application/json", answer: "classifications", prompts: prompts}
	if prompts == 0 {
		b.path, b.answer = "/v1/embed/image", "embedding"
	}
	b.quoted = strconv.AppendQuote(nil, b.answer)
	// No run repeats the prompts of another, because services remember them over restarts.
	b.serial.Store(uint64(time.Now().Unix()) << 28)
	for i, image := range images {
		if base64.StdEncoding.EncodedLen(len(image)) > maxBody {
			return nil, fmt.Errorf("picture %d has %d bytes, too many for a body of %d", i+1, len(image), maxBody)
		}
		p := &picture{}
		p.shared = jsonBody(p, image, prompts, fresh)
		if fresh && prompts > 0 {
			p.copies = &sync.Pool{New: func() any {
				return &body{p, bytes.Clone(p.shared.bytes), p.shared.marks}
			}}
		}
		b.pictures = append(b.pictures, p)
	}
	return b, nil
}

// digits are what makes a fresh prompt a new one.
const digits = "0000000000000000"

func jsonBody(p *picture, image []byte, prompts int, fresh bool) body {
	b := body{picture: p}
	b.bytes = append(b.bytes, `{"image":"`...)
	b.bytes = base64.StdEncoding.AppendEncode(b.bytes, image)
	b.bytes = append(b.bytes, '"')
	for i := range prompts {
		b.bytes = append(b.bytes, map[bool]string{true: `,"prompts":["`, false: `,"`}[i == 0]...)
		b.bytes = append(b.bytes, Prompt(i)...)
		if fresh {
			b.bytes = append(b.bytes, ' ')
			b.marks = append(b.marks, len(b.bytes))
			b.bytes = append(b.bytes, digits...)
		}
		b.bytes = append(b.bytes, '"')
	}
	if prompts > 0 {
		b.bytes = append(b.bytes, ']')
	}
	b.bytes = append(b.bytes, '}')
	return b
}

// get returns the next body, for the caller alone until put.
func (b *Bodies) get() *body {
	p := b.pictures[(b.next.Add(1)-1)%uint64(len(b.pictures))]
	if p.copies == nil {
		return &p.shared
	}
	c := p.copies.Get().(*body)
	for _, mark := range c.marks {
		n := b.serial.Add(1)
		for i := range len(digits) {
			c.bytes[mark+i] = "0123456789abcdef"[n>>(60-4*i)&15]
		}
	}
	return c
}

func (b *Bodies) put(c *body) {
	if c.picture.copies != nil {
		c.picture.copies.Put(c)
	}
}

// fresh says whether every request has new prompts.
func (b *Bodies) fresh() bool { return b.pictures[0].copies != nil }

// Pictures is the number of different pictures.
func (b *Bodies) Pictures() int { return len(b.pictures) }

// Prompts is the number of prompts of a request.
func (b *Bodies) Prompts() int { return b.prompts }

// Bytes is the mean length of a body.
func (b *Bodies) Bytes() int {
	sum := 0
	for _, p := range b.pictures {
		sum += len(p.shared.bytes)
	}
	return sum / len(b.pictures)
}

// looksGood is a quick look at an answer with a good status, where checkAnswer would cost too much.
func (b *Bodies) looksGood(answer []byte) bool { return bytes.Contains(answer, b.quoted) }

// checkAnswer says whether an answer with a good status is one.
func (b *Bodies) checkAnswer(answer []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(answer, &fields); err != nil {
		return fmt.Errorf("the answer is not a JSON object: %w", err)
	}
	if _, ok := fields[b.answer]; !ok {
		return fmt.Errorf("the answer has no %q", b.answer)
	}
	return nil
}

var (
	things = strings.Fields("cat dog bicycle car bus train person child horse bird boat bridge house tree flower pizza " +
		"cup guitar clock lamp chair table book phone camera ball kite umbrella backpack suitcase truck ladder " +
		"fountain statue tower tent fence mountain river bottle")
	places = []string{"on a street", "in a park", "on a beach", "in a kitchen", "in the snow", "at night", "in the rain",
		"on a table", "in a garden", "near a lake", "in a forest", "on a hill", "in a crowd", "in the fog", "at sunset",
		"in a museum", "on a roof", "in a station", "behind a window", "in black and white", "seen from above",
		"on a bridge", "in a field", "in an office", "on a sofa"}
)

// Prompt is the i-th of 1000 different descriptions of the kind that CLIP is asked with.
func Prompt(i int) string {
	i %= len(things) * len(places)
	return "a photo of a " + things[i%len(things)] + " " + places[(i/len(things)+i)%len(places)]
}
