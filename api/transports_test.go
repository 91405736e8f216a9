package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hailoclip/api/compat"
)

// carried is a text or an image on its way through a transport.
type carried struct {
	text  string
	image []byte
}

// quoted is the text as JSON, encoded the image in base64, uri either of them as clients of OpenAI send it.
func (c carried) quoted() string  { return string(must(json.Marshal(c.text))) }
func (c carried) encoded() string { return `"` + base64.StdEncoding.EncodeToString(c.image) + `"` }
func (c carried) uri() string {
	if c.image == nil {
		return c.quoted()
	}
	media := http.DetectContentType(c.image)
	if !strings.HasPrefix(media, "image/") {
		media = "image/jpeg" // so it is said
	}
	return `"data:` + media + ";base64," + c.encoded()[1:]
}

// either is one of two formats for JSON with the item in it.
func (c carried) either(text, image string) string {
	if c.image == nil {
		return fmt.Sprintf(text, c.quoted())
	}
	return fmt.Sprintf(image, c.encoded())
}

func listOf(items []carried, each func(carried) string) string {
	var all []string
	for _, c := range items {
		all = append(all, each(c))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// ofKind are the texts or the images of items.
func ofKind(items []carried, images bool) (some []carried) {
	return slices.DeleteFunc(slices.Clone(items), func(c carried) bool { return (c.image != nil) != images })
}

// transport is a way to get vectors.
type transport struct {
	dialect, path string
	carries       string // t: texts, i: images, m: both in one request, s: many items in one
	// body makes JSON; what does not begin with '{' is a form, or the image as it is.
	body  func(items []carried) string
	other map[string]int // by case: statuses that are not those of /v1/embed/text and /v1/embed/image
}

const namedModel = `"model":"clip-of-tests",`

// transports are all, the service's own first: they tell what the others must answer.
var transports = []transport{
	{"", "/v1/embed/text", "t", func(l []carried) string { return `{"text":` + l[0].quoted() + `}` }, nil},
	{"", "/v1/embed/image", "i", func(l []carried) string { return `{"image":` + l[0].encoded() + `}` }, nil},
	{"", "/v1/embed/image", "i", func(l []carried) string { return string(l[0].image) }, nil},
	{"", "/v1/embed/image", "i", func(l []carried) string { return partsOf("image", string(l[0].image)) }, nil},
	{"openai", "/v1/embeddings", "tims", func(l []carried) string {
		return `{` + namedModel + `"encoding_format":"float","input":` + listOf(l, carried.uri) + `}`
	}, nil},
	{"openai", "/v1/embeddings", "tims", func(l []carried) string {
		return `{` + namedModel + `"encoding_format":"base64","input":` + listOf(l, carried.uri) + `}`
	}, nil},
	{"openai", "/v1/embeddings", "tims", func(l []carried) string { // Jina's
		return `{` + namedModel + `"input":` + listOf(l, func(c carried) string { return c.either(`{"text":%s}`, `{"image":%s}`) }) + `}`
	}, nil},
	{"openai", "/v1/embeddings", "ti", func(l []carried) string { // vLLM's
		item := `{"type":"text","text":` + l[0].quoted() + `}`
		if l[0].image != nil {
			item = `{"type":"image_url","image_url":{"url":` + l[0].uri() + `}}`
		}
		return `{` + namedModel + `"messages":[{"role":"user","content":[` + item + `]}]}`
	}, nil},
	{"openai", "/embeddings", "tis", func(l []carried) string { // infinity's
		modality := "text"
		if l[0].image != nil {
			modality = "image"
		}
		return `{` + namedModel + `"modality":"` + modality + `","input":` + listOf(l, carried.uri) + `}`
	}, nil},
	{"openai", "/embeddings_image", "is", func(l []carried) string { return `{` + namedModel + `"input":` + listOf(l, carried.uri) + `}` }, nil},
	{"frigate", "/embedding", "ts", func(l []carried) string { return `{"content":` + listOf(l, carried.quoted) + `}` }, nil},
	{"frigate", "/embeddings", "tims", func(l []carried) string {
		return `{` + namedModel + `"content":` + listOf(l, func(c carried) string {
			return c.either(`{"prompt_string":%s}`, `{"prompt_string":"<__media__>\n","multimodal_data":[%s]}`)
		}) + `}`
	}, nil},
	{"immich", "/predict", "ti", func(l []carried) string {
		if l[0].image != nil {
			return partsOf("entries", `{"clip":{"visual":{"modelName":"ViT-B-32__openai"}}}`, "image", string(l[0].image))
		}
		return partsOf("entries", `{"clip":{"textual":{"modelName":"ViT-B-32__openai","options":{}}}}`, "text", l[0].text)
	}, nil},
	{"weaviate", "/vectorize", "tims", func(l []carried) string {
		return `{"texts":` + listOf(ofKind(l, false), carried.quoted) + `,"images":` + listOf(ofKind(l, true), carried.encoded) + `}`
	}, map[string]int{"an empty text": 200}},
	{"ollama", "/api/embed", "ts", func(l []carried) string { return `{` + namedModel + `"input":` + listOf(l, carried.quoted) + `}` },
		map[string]int{"an empty text": 200}},
	{"ollama", "/api/embeddings", "t", func(l []carried) string { return `{` + namedModel + `"prompt":` + l[0].quoted() + `}` },
		map[string]int{"an empty text": 200}},
	{"tei", "/embed", "ts", func(l []carried) string { return `{"inputs":` + listOf(l, carried.quoted) + `}` }, map[string]int{"an empty text": 422}},
	{"huggingface", "/", "t", func(l []carried) string { return `{"inputs":` + l[0].quoted() + `}` }, map[string]int{"the device is away": 502}},
	{"huggingface", "/predict", "t", func(l []carried) string { return `{"inputs":` + l[0].quoted() + `}` }, map[string]int{"the device is away": 502}},
	{"cohere", "/v1/embed", "ts", func(l []carried) string { return `{` + namedModel + `"texts":` + listOf(l, carried.quoted) + `}` }, nil},
	{"cohere", "/v2/embed", "is", func(l []carried) string {
		return `{` + namedModel + `"input_type":"image","embedding_types":["float"],"images":` + listOf(l, carried.uri) + `}`
	}, nil},
	{"cohere", "/v2/embed", "tims", func(l []carried) string {
		return `{` + namedModel + `"input_type":"search_query","inputs":` + listOf(l, func(c carried) string {
			if c.image != nil {
				return `{"content":[{"type":"image_url","image_url":{"url":` + c.uri() + `}}]}`
			}
			return `{"content":[{"type":"text","text":` + c.quoted() + `}]}`
		}) + `}`
	}, nil},
	{"voyage", "/v1/multimodalembeddings", "tims", func(l []carried) string {
		return `{` + namedModel + `"inputs":` + listOf(l, func(c carried) string {
			if c.image != nil {
				return `{"content":[{"type":"image_base64","image_base64":` + c.uri() + `}]}`
			}
			return `{"content":[{"type":"text","text":` + c.quoted() + `}]}`
		}) + `}`
	}, nil},
	{"roboflow", "/clip/embed_text", "ts", func(l []carried) string { return `{"text":` + listOf(l, carried.quoted) + `}` }, nil},
	{"roboflow", "/clip/embed_image", "is", func(l []carried) string {
		return `{"image":` + listOf(l, func(c carried) string { return `{"type":"base64","value":` + c.encoded() + `}` }) + `}`
	}, nil},
	{"qdrant", "/qdrant/infer", "tims", func(l []carried) string {
		return `{"inference":"update","inputs":` + listOf(l, func(c carried) string {
			return `{` + namedModel + c.either(`"data":%s,"data_type":"text"}`, `"data":%s,"data_type":"image"}`)
		}) + `}`
	}, map[string]int{"too many pixels": 400, "a body too large": 400}}, // Qdrant tells no more apart
	{"clip_as_service", "/post", "tims", func(l []carried) string {
		return `{"execEndpoint":"/","data":` + listOf(l, func(c carried) string { return c.either(`{"text":%s}`, `{"blob":%s}`) }) + `}`
	}, nil},
}

// withoutVectors are paths of dialects whose answers have none.
var withoutVectors = []string{"/similarity", "/clip/compare", "/rank", "/api/show"}

// partsOf is a form of these names and values.
func partsOf(fields ...string) (form string) {
	for i := 0; i < len(fields); i += 2 {
		form += "--b\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\n\r\n" + fields[i+1] + "\r\n"
	}
	return form + "--b--\r\n"
}

// TestTransports: the same twenty cases through every transport have the same vectors, to the bit, and the same statuses.
func TestTransports(t *testing.T) {
	s := compatService(t)
	at := dialectsAt()
	file := func(name string) carried { return carried{image: must(os.ReadFile(compatData + name))} }
	jpeg, png, webp := file("tiny.jpg"), file("tiny.png"), file("tiny.webp")
	text := func(all ...string) (items []carried) {
		for _, s := range all {
			items = append(items, carried{text: s})
		}
		return items
	}
	var many []string
	for i := range 64 {
		many = append(many, "text "+strconv.Itoa(i))
	}
	bmp := func(text string) carried { return carried{image: imageFile(text)} }
	cases := []struct {
		what  string
		items []carried
	}{
		{"a text", text("a photo of a cat")},
		{"a text of many scripts", text("Ein Café — 自行车 🐈 e\u0301 \u05d0\u200f")},
		{"a text with signs of JSON", text(`"a" \ {"b": [1]} / ` + "\t\n\u2028\u0001 <&>")},
		{"a text in blanks", text("  a photo of a cat \n")},
		{"a text that is cut", text(strings.Repeat("word ", 100))},
		{"a text that is an address", text("https://example.org/cat.jpg")},
		{"texts in their order", text("b", "a", "c", "a", "b")},
		{"64 texts", text(many...)},
		{"JPEG", []carried{jpeg}},
		{"PNG", []carried{png}},
		{"WebP", []carried{webp}},
		{"BMP", []carried{bmp(goodImage)}},
		{"images in their order", []carried{webp, jpeg, png, jpeg, webp}},
		{"texts and images", append(text("a", "b", "a"), png, jpeg, png)},
		{"an empty text", text("")},
		{"no image", []carried{bmp(notAnImage)}},
		{"an image that is cut", []carried{bmp(truncatedImage)}},
		{"too many pixels", []carried{bmp(hugeImage)}},
		{"a bad image behind good ones", []carried{jpeg, png, bmp(notAnImage)}},
		{"the device is away", text(unavailableText)},
		{"a body too large", []carried{{image: bytes.Repeat([]byte{'x'}, s.cfg.MaxBatchBodyBytes)}}},
	}
	for _, tr := range transports {
		if tr.dialect != "" && !slices.ContainsFunc(compat.Dialects, func(d *compat.Dialect) bool { return d.Name == tr.dialect }) {
			t.Error("no dialect is called", tr.dialect)
			continue
		}
		for _, c := range cases {
			images := len(ofKind(c.items, true))
			texts := len(c.items) - images
			can := func(kind string) bool { return strings.Contains(tr.carries, kind) }
			if texts > 0 && !can("t") || images > 0 && !can("i") || texts > 0 && images > 0 && !can("m") || len(c.items) > 1 && !can("s") {
				continue
			}
			r := s.carry(t, &tr, c.items)
			status, want := 200, [][]float32(nil)
			for _, item := range c.items {
				one := &transports[0]
				if item.image != nil {
					one = &transports[1]
				}
				reference := s.carry(t, one, []carried{item})
				if reference.status != 200 {
					status, want = reference.status, nil
					break
				}
				want = append(want, vectorsIn(reference.body)...)
			}
			if other := tr.other[c.what]; other != 0 {
				status, want = other, nil
			}
			what := fmt.Sprintf("%s %s %.70q: %s", tr.dialect, tr.path, tr.body(c.items), c.what)
			if r.status != status {
				t.Errorf("%s: %d %.300s, want %d", what, r.status, r.body, status)
			} else if status != 200 && tr.dialect != "" {
				h := hostile{wrong: true}
				if why := h.misjudged(reply{status: 400, header: r.header, body: r.body}, at[tr.path]); why != "" {
					t.Errorf("%s: %s: %.300s", what, why, r.body)
				}
			} else if got := vectorsIn(r.body); want != nil && !slices.EqualFunc(got, want, slices.Equal[[]float32]) {
				t.Errorf("%s: %d vectors that are others, or not in their order, want %d: %.300s", what, len(got), len(want), r.body)
			}
		}
	}
	s.allReturned(t)
	for _, d := range compat.Dialects { // a codec does not escape
		for _, route := range d.Routes {
			carries := func(tr transport) bool { return tr.dialect == d.Name && tr.path == route.Path }
			if route.Method == http.MethodPost && !slices.ContainsFunc(transports, carries) && !slices.Contains(withoutVectors, route.Path) {
				t.Errorf("no transport for %s of %s", route.Path, d.Name)
			}
		}
	}
}

func (s *service) carry(t *testing.T, tr *transport, items []carried) reply {
	t.Helper()
	body := tr.body(items)
	media := "application/json"
	switch {
	case strings.HasPrefix(body, "--b\r\n"):
		media = "multipart/form-data; boundary=b"
	case body[0] != '{':
		media = "image/*"
	}
	return s.do(t, "POST", tr.path, body, "Content-Type", media)
}

// vectorsIn are the vectors in an answer in their order, wherever they are: as numbers, in base64, or as JSON in a string.
func vectorsIn(body []byte) (all [][]float32) {
	d := json.NewDecoder(bytes.NewReader(body))
	var value func() []float32
	value = func() (numbers []float32) {
		token, err := d.Token()
		if err != nil {
			return nil
		}
		switch token := token.(type) {
		case json.Delim:
			for d.More() {
				if token == '{' {
					_, _ = d.Token() // the name
				}
				numbers = append(numbers, value()...)
			}
			_, _ = d.Token()
			if len(numbers) == testDimension {
				all = append(all, numbers)
			}
			return nil
		case float64:
			return []float32{float32(token)}
		case string:
			if b, err := base64.StdEncoding.DecodeString(token); err == nil && len(b) == 4*testDimension {
				all = append(all, littleEndian(b))
			} else if strings.HasPrefix(token, "[") {
				all = append(all, vectorsIn([]byte(token))...)
			}
		}
		return nil
	}
	value()
	return all
}

// TestVectorsIn: what the other test relies on.
func TestVectorsIn(t *testing.T) {
	a, b := testVector("a"), testVector("b")
	quoted := string(must(json.Marshal(b)))
	body := fmt.Sprintf(`{"x":[7],"z":%s,"b":{"list":[%q,"x",[[%s]]]},"a":%q}`, must(json.Marshal(a)),
		base64.StdEncoding.EncodeToString(appendFloats(nil, b)), quoted, quoted)
	if got := vectorsIn([]byte(body)); !slices.EqualFunc(got, [][]float32{a, b, b, b}, slices.Equal[[]float32]) {
		t.Errorf("%d vectors", len(got))
	}
}
