package load

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hailoclip/stages/decode"
)

// Limits of what one request holds.
const (
	MaxPrompts = 1000
	maxBody    = 64 << 20
)

// Image is a compressed image and what to call it.
type Image struct {
	Name   string
	Data   []byte
	Answer []byte // what a good answer to it contains; nil: the field that was asked for
}

// Bodies makes the bodies of the requests, one image after the other. Safe for concurrent use.
type Bodies struct {
	path        string // with its query
	contentType string
	answer      string // the field that a good answer must have
	ask         Ask
	list        []body
	next        atomic.Uint64
	serial      atomic.Uint64 // of fresh prompts
}

// body is that of one image.
type body struct {
	bytes []byte
	marks []int  // offsets of the digits that make fresh prompts new ones
	frame string // X-Frame-Format; "": none
	good  []byte // what a good answer contains
}

// Kinds of bodies.
const (
	JSON      = "json"      // the image in base64, and the prompts
	Binary    = "binary"    // the file of the image; the prompts are in the query
	Raw       = "raw"       // its pixels as rgb24; the prompts are in the query
	Multipart = "multipart" // a form
)

// rawBody decodes an image, and says how its pixels lie.
func rawBody(image []byte) (pixels []byte, frame string, err error) {
	p, err := decode.NewDecoder(decode.Config{MaxPixels: maxBody / 3, JPEGScale: decode.ScaleExact}, 1).DecodeBytes(image)
	if err != nil {
		return nil, "", err
	}
	defer p.Release()
	return bytes.Clone(p.Pix), fmt.Sprintf("rgb24; %dx%d", p.Width, p.Height), nil
}

// formBody makes a form of an image and of what else would be the query.
func formBody(image []byte, query url.Values) (body []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	err = w.SetBoundary("hailo-clip-bench") // the same for all images
	for name, values := range query {
		for _, value := range values {
			err = cmp.Or(err, w.WriteField(name, value))
		}
	}
	part, failed := w.CreateFormFile("image", "image")
	if err = cmp.Or(err, failed); err == nil {
		_, err = part.Write(image)
	}
	err = cmp.Or(err, w.Close())
	return b.Bytes(), w.FormDataContentType(), err
}

// Ask is what the requests ask of each image, and how.
type Ask struct {
	Body    string // JSON, Binary, Raw or Multipart; "": JSON
	Prompts int    // to classify it against; 0: to embed it. In a query are as many as fit into the head of a request
	Fresh   bool   // new prompts in every request, which no cache can know; else all requests have the same. For JSON only
	Set     string // the name of a prompt set instead, which Register makes of the prompts where there is none; "": none
}

// NewBodies makes requests with images (compressed, in any format).
func NewBodies(images []Image, ask Ask) (*Bodies, error) {
	ask.Body = cmp.Or(ask.Body, JSON)
	if len(images) == 0 {
		return nil, errors.New("no image")
	}
	if ask.Prompts < 0 || ask.Prompts > MaxPrompts {
		return nil, fmt.Errorf("prompts: %d is out of bounds: 0 to %d", ask.Prompts, MaxPrompts)
	}
	if ask.Fresh && (ask.Body != JSON || ask.Set != "") {
		return nil, errors.New("fresh prompts are for bodies of JSON only, without a prompt set")
	}
	if ask.Set != "" && ask.Prompts == 0 {
		return nil, errors.New("a prompt set has prompts")
	}
	b := &Bodies{path: "/v1/classify", answer: "classifications", ask: ask}
	if b.ask.Fresh = ask.Fresh && ask.Prompts > 0; ask.Prompts == 0 {
		b.path, b.answer = "/v1/embed/image", "embedding"
	}
	query := url.Values{}
	if ask.Set != "" {
		query.Set("prompt_set", ask.Set)
	} else {
		for i := range ask.Prompts {
			query.Add("prompts", Prompt(i))
		}
	}
	if (ask.Body == Binary || ask.Body == Raw) && len(query) > 0 {
		b.path += "?" + query.Encode()
	}
	// No run repeats the prompts of another, because services remember them over restarts.
	b.serial.Store(uint64(time.Now().Unix()) << 28)
	for _, image := range images {
		var one body
		var err error
		switch one.bytes = image.Data; ask.Body {
		case JSON:
			b.contentType = "application/json"
			if base64.StdEncoding.EncodedLen(len(image.Data)) <= maxBody {
				one = jsonBody(image.Data, ask)
			}
		case Binary:
			b.contentType = "image/jpeg"
		case Raw:
			b.contentType = "application/octet-stream"
			one.bytes, one.frame, err = rawBody(image.Data)
		case Multipart:
			one.bytes, b.contentType, err = formBody(image.Data, query)
		default:
			err = fmt.Errorf("body %q is none of %s, %s, %s and %s", ask.Body, JSON, Binary, Raw, Multipart)
		}
		if err == nil && max(len(one.bytes), len(image.Data)) > maxBody {
			err = fmt.Errorf("too many bytes for a body of %d", maxBody)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", image.Name, err)
		}
		if one.good = image.Answer; one.good == nil {
			one.good = strconv.AppendQuote(nil, b.answer)
		}
		b.list = append(b.list, one)
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

// get returns the next body, not to be changed, its X-Frame-Format and what a good answer to it contains. Fresh prompts are written
// into a copy in buffer, which the caller keeps for the next call.
func (b *Bodies) get(buffer *[]byte) (bytes []byte, frame string, good []byte) {
	body := &b.list[(b.next.Add(1)-1)%uint64(len(b.list))]
	if !b.ask.Fresh {
		return body.bytes, body.frame, body.good
	}
	*buffer = append((*buffer)[:0], body.bytes...)
	for _, mark := range body.marks {
		n := b.serial.Add(1)
		for i := range len(digits) {
			(*buffer)[mark+i] = "0123456789abcdef"[n>>(60-4*i)&15]
		}
	}
	return *buffer, "", body.good
}

// MeanBytes is the mean length of the bodies.
func (b *Bodies) MeanBytes() float64 {
	sum := 0
	for _, body := range b.list {
		sum += len(body.bytes)
	}
	return float64(sum) / float64(len(b.list))
}

// String says what is asked, for the report.
func (b *Bodies) String() string {
	prompts := fmt.Sprintf("%d prompts", b.ask.Prompts)
	switch {
	case b.ask.Set != "":
		prompts = "the prompt set " + b.ask.Set
	case b.ask.Fresh:
		prompts += " (new ones in every request)"
	}
	path, _, _ := strings.Cut(b.path, "?")
	return fmt.Sprintf("POST %s, %s, %d different images, %s, mean body %.1f kB",
		path, b.ask.Body, len(b.list), prompts, b.MeanBytes()/1000)
}

// checkAnswer says what is wrong with an answer that is to contain good; code is that of its status.
func (b *Bodies) checkAnswer(code string, answer, good []byte) error {
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
	if !bytes.Contains(answer, good) {
		return fmt.Errorf("the answer is wrong: %.300q, want %.300q in it", answer, good)
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
