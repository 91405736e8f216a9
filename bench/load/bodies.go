package load

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of what one request holds.
const (
	MaxPrompts = 1000
	maxBody    = 64 << 20
)

// Image is a compressed image and what to call it.
type Image struct {
	Name string
	Data []byte
}

// Bodies makes the bodies of the requests, one image after the other. Safe for concurrent use.
type Bodies struct {
	path   string
	answer string // the field that a good answer must have
	quoted []byte // likewise, as JSON has it
	ask    Ask
	list   []body
	next   atomic.Uint64
	serial atomic.Uint64 // of fresh prompts
}

// body is that of one image.
type body struct {
	bytes []byte
	marks []int // offsets of the digits that make fresh prompts new ones
}

// Ask is what the requests ask of each image.
type Ask struct {
	Prompts int    // to classify it against; 0: to embed it
	Fresh   bool   // new prompts in every request, which no cache can know; else all requests have the same
	Set     string // the name of the prompt set that Register makes of the prompts, which are not sent then; "": none
}

// JSONBodies makes requests with images (compressed, in any format).
func JSONBodies(images []Image, ask Ask) (*Bodies, error) {
	if len(images) == 0 {
		return nil, errors.New("no image")
	}
	if ask.Prompts < 0 || ask.Prompts > MaxPrompts {
		return nil, fmt.Errorf("prompts: %d is out of bounds: 0 to %d", ask.Prompts, MaxPrompts)
	}
	if ask.Set != "" && (ask.Prompts == 0 || ask.Fresh) {
		return nil, errors.New("a prompt set has prompts, and always the same")
	}
	b := &Bodies{path: "/v1/classify", answer: "classifications", ask: ask}
	if b.ask.Fresh = ask.Fresh && ask.Prompts > 0; ask.Prompts == 0 {
		b.path, b.answer = "/v1/embed/image", "embedding"
	}
	b.quoted = strconv.AppendQuote(nil, b.answer)
	// No run repeats the prompts of another, because services remember them over restarts.
	b.serial.Store(uint64(time.Now().Unix()) << 28)
	for _, image := range images {
		if base64.StdEncoding.EncodedLen(len(image.Data)) > maxBody {
			return nil, fmt.Errorf("%s has %d bytes, too many for a body of %d", image.Name, len(image.Data), maxBody)
		}
		b.list = append(b.list, jsonBody(image.Data, ask))
	}
	return b, nil
}

// digits are what makes a fresh prompt a new one.
const digits = "0000000000000000"

func jsonBody(image []byte, ask Ask) (b body) {
	b.bytes = base64.StdEncoding.AppendEncode([]byte(`{"image":"`), image)
	b.bytes = append(b.bytes, '"')
	if ask.Set != "" {
		b.bytes = append(b.bytes, `,"prompt_set":"`+ask.Set+`"}`...)
		return b
	}
	separator, end := `,"prompts":["`, "}"
	for i := range ask.Prompts {
		b.bytes = append(b.bytes, separator+Prompt(i)...)
		if ask.Fresh {
			b.bytes = append(b.bytes, ' ')
			b.marks = append(b.marks, len(b.bytes))
			b.bytes = append(b.bytes, digits...)
		}
		b.bytes = append(b.bytes, '"')
		separator, end = `,"`, "]}"
	}
	b.bytes = append(b.bytes, end...)
	return b
}

// get returns the next body, not to be changed. Fresh prompts are written into a copy in buffer,
// which the caller keeps for the next call.
func (b *Bodies) get(buffer *[]byte) []byte {
	body := &b.list[(b.next.Add(1)-1)%uint64(len(b.list))]
	if !b.ask.Fresh {
		return body.bytes
	}
	*buffer = append((*buffer)[:0], body.bytes...)
	for _, mark := range body.marks {
		n := b.serial.Add(1)
		for i := range len(digits) {
			(*buffer)[mark+i] = "0123456789abcdef"[n>>(60-4*i)&15]
		}
	}
	return *buffer
}

// String says what is asked, for the report.
func (b *Bodies) String() string {
	bytes, prompts := 0, fmt.Sprintf("%d prompts", b.ask.Prompts)
	for _, body := range b.list {
		bytes += len(body.bytes)
	}
	switch {
	case b.ask.Set != "":
		prompts = fmt.Sprintf("a prompt set of %d labels", b.ask.Prompts)
	case b.ask.Fresh:
		prompts += " (new ones in every request)"
	}
	return fmt.Sprintf("POST %s, %d different images, %s, mean body %.1f kB", b.path, len(b.list), prompts, float64(bytes/len(b.list))/1000)
}

// looksGood is a quick look at an answer with a good status, where checkAnswer would cost too much.
func (b *Bodies) looksGood(answer []byte) bool { return bytes.Contains(answer, b.quoted) }

// checkAnswer says what is wrong with an answer; code is that of its status.
func (b *Bodies) checkAnswer(code string, answer []byte) error {
	var fields map[string]json.RawMessage
	if code != "" {
		return fmt.Errorf("status %s: %.300q", code, answer)
	}
	if err := json.Unmarshal(answer, &fields); err != nil {
		return fmt.Errorf("the answer is not a JSON object: %w: %.300q", err, answer)
	}
	if _, ok := fields[b.answer]; !ok {
		return fmt.Errorf("the answer has no %q: %.300q", b.answer, answer)
	}
	return nil
}

var (
	things = strings.Fields("cat dog bicycle car bus train person child horse bird boat bridge house tree flower pizza " +
		"cup guitar clock lamp chair table book phone camera ball kite umbrella backpack suitcase truck ladder " +
		"fountain statue tower tent fence mountain river bottle")
	places = strings.Split("on a street,in a park,on a beach,in a kitchen,in the snow,at night,in the rain,on a table,in a garden,"+
		"near a lake,in a forest,on a hill,in a crowd,in the fog,at sunset,in a museum,on a roof,in a station,behind a window,"+
		"in black and white,seen from above,on a bridge,in a field,in an office,on a sofa", ",")
)

// Prompt is the i-th of 1000 different descriptions of the kind that CLIP is asked with.
func Prompt(i int) string {
	i %= len(things) * len(places)
	return "a photo of a " + things[i%len(things)] + " " + places[(i/len(things)+i)%len(places)]
}
