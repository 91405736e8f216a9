package compat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"hailoclip/api/rawjson"
)

func testService() *Service {
	return &Service{
		Model: "clip-vit-b-32", Aliases: []string{"openai/clip-vit-base-patch32"}, Dimension: 4, ContextLength: 77, Unready: func() string { return "" },
	}
}

// read has the union reader read a body.
func read(body string) (*Ask, error) {
	a := &Ask{Service: testService()}
	b, err := Parse([]byte(body))
	if err == nil {
		err = embeddings(a, b)
	}
	return a, err
}

// show is the items, each as it would be told a friend.
func show(a *Ask) string {
	var b strings.Builder
	for i := range a.Items {
		switch item := &a.Items[i]; {
		case item.IsText():
			fmt.Fprintf(&b, "T%q ", item.Text)
		case item.URL != nil:
			fmt.Fprintf(&b, "U%s ", item.URL)
		default:
			fmt.Fprintf(&b, "I%s%s ", item.Image, item.File)
		}
	}
	return strings.TrimSuffix(b.String(), " ")
}

func TestUnionReader(t *testing.T) {
	for body, want := range map[string]string{
		// OpenAI, infinity, LiteLLM.
		`{"input":"a cat"}`:                                      `T"a cat"`,
		`{"input":["a cat"," a\u0020dog "]}`:                     `T"a cat" T" a dog "`,
		`{"input":"data:image/png;base64,aGk="}`:                 `I"data:image/png;base64,aGk="`,
		`{"input":"data:image\/png;base64,aGk="}`:                `I"data:image\/png;base64,aGk="`,
		`{"input":["DATA:IMAGE/png;base64,aGk=","x"]}`:           `I"DATA:IMAGE/png;base64,aGk=" T"x"`,
		`{"input":"data:text/plain,x"}`:                          `T"data:text/plain,x"`,
		`{"input":"http://h/a.jpg"}`:                             `T"http://h/a.jpg"`,
		`{"input":"aGk="}`:                                       `T"aGk="`,
		`{"input":["http://h/a.jpg","aGk="],"modality":"image"}`: `U"http://h/a.jpg" I"aGk="`,
		`{"input":"x","modality":"text"}`:                        `T"x"`,
		`{"input":"x","modality":null,"content":7,"prompt":{}}`:  `T"x"`,
		`{"input":null,"content":"x"}`:                           `T"x"`,
		// Jina and OpenRouter.
		`{"input":{"text":"x"}}`: `T"x"`,
		`{"input":[{"text":"x"},{"image":"aGk="},{"image":"https:\/\/h/a"},{"url":"http://h/a"},{"bytes":"aGk="}]}`:                `T"x" I"aGk=" U"https:\/\/h/a" U"http://h/a" I"aGk="`,
		`{"input":[{"image_base64":"aGk="},{"image_url":"data:image/png;base64,aGk="},{"image_url":{"url":"aGk="}}]}`:              `I"aGk=" I"data:image/png;base64,aGk=" I"aGk="`,
		`{"input":[{"content":[{"type":"text","text":"x"}]},{"content":[{"type":"image_url","image_url":{"url":"http://h/a"}}]}]}`: `T"x" U"http://h/a"`,
		// vLLM.
		`{"messages":[{"role":"user","content":"first"},{"role":"system","content":"s"},{"role":"user","content":"x"}]}`:                  `T"x"`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant"}]}`:           `T"a\nb"`,
		`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"aGk="}},{"type":"text","text":" "}]}]}`:           `I"aGk="`,
		`{"messages":[{"role":"user","content":["data:image/png;base64,aGk="]}],"truncate_prompt_tokens":-1,"embed_dtype":"float32"}`:     `I"data:image/png;base64,aGk="`,
		`{"messages":[{"role":"user","content":"x"}],"endianness":"native","truncate_prompt_tokens":77,"dimensions":0,"normalize":false}`: `T"x"`,
		// llama.cpp.
		`{"content":"x"}`:                   `T"x"`,
		`{"content":{"prompt_string":"x"}}`: `T"x"`,
		`{"content":["x",{"prompt_string":"y"},{"prompt_string":"<__media__>\n","multimodal_data":["aGk="]},{"prompt_string":"z","multimodal_data":[]}]}`: `T"x" T"y" I"aGk=" T"z"`,
		// Cohere, Weaviate.
		`{"texts":["x","data:image/png;base64,aGk="],"images":["aGk="]}`: `T"x" T"data:image/png;base64,aGk=" I"aGk="`,
		`{"texts":[],"images":["data:image/png;base64,aGk="]}`:           `I"data:image/png;base64,aGk="`,
		`{"texts":["x"],"images":null}`:                                  `T"x"`,
		// TEI, Hugging Face, Cohere, Voyage.
		`{"inputs":"x"}`:              `T"x"`,
		`{"inputs":["x","y"]}`:        `T"x" T"y"`,
		`{"inputs":{"image":"aGk="}}`: `I"aGk="`,
		`{"inputs":[{"content":[{"type":"image_url","image_url":"http://h/a"}]},{"content":[{"type":"image_base64","image_base64":"aGk="}]},{"content":"x"}]}`: `U"http://h/a" I"aGk=" T"x"`,
		// Ollama.
		`{"prompt":"x"}`: `T"x"`,
	} {
		if a, err := read(body); err != nil {
			t.Errorf("%s: %v", body, err)
		} else if got := show(a); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestUnionReaderRefuses(t *testing.T) {
	many := strings.Repeat(`"x",`, MaxItems) + `"x"`
	for _, c := range [...]struct{ body, param, text string }{
		{`{}`, "input", "Missing 'input'"},
		{`{"input":null}`, "input", "Missing 'input'"},
		{`{"input":""}`, "input", "not empty"},
		{`{"input":" \n"}`, "input", "not empty"},
		{`{"input":[]}`, "input", "is empty"},
		{`{"input":["x",""]}`, "input[1]", "not empty"},
		{`{"input":["x",null]}`, "input[1]", "must be a string"},
		{`{"input":true}`, "input", "must be a string"},
		{`{"input":[["x"]]}`, "input[0]", "must be a string"},
		{`{"input":["\ud83d"]}`, "input[0]", "half of a character"},
		{`{"input":[` + many + `]}`, "input", "2049, at most 2048"},
		{`{"texts":["x"],"images":[` + many[4:] + `]}`, "images", "2049, at most 2048"},
		{`{"input":[1,2]}`, "input", "check_embedding_ctx_length=False"},
		{`{"input":[ [1,2],[3]]}`, "input", "check_embedding_ctx_length=False"},
		{`{"input":[` + strings.Repeat("1,", 2*MaxItems) + `1]}`, "input", "check_embedding_ctx_length=False"},
		{`{"content":[1,2,"x"]}`, "content", "check_embedding_ctx_length=False"},
		{`{"input":{}}`, "input", "neither 'text' nor 'image'"},
		{`{"input":[{"type":"video_url","video_url":"x"}]}`, "input[0]", "neither 'text' nor 'image'"},
		{`{"input":[{"text":"x","image":"aGk="}]}`, "input[0]", "a text and an image"},
		{`{"input":[{"image":"aGk=","url":"aGk="}]}`, "input[0]", "several images"},
		{`{"input":[{"image":7}]}`, "input[0]", "as a string"},
		{`{"input":[{"image_url":{"url":7}}]}`, "input[0]", "as a string"},
		{`{"input":[{"text":" "}]}`, "input[0]", "not empty"},
		{`{"input":[{"content":[]}]}`, "input[0]", "not empty"},
		{`{"inputs":[{"content":[{"text":"x"},{"image_url":"u"}]}]}`, "inputs[0]", "a text and an image"},
		{`{"inputs":[{"content":[{"image_url":"v"},{"image_url":"u"}]}]}`, "inputs[0]", "several images"},
		{`{"inputs":[{"content":[{"image_url":"v"},7]}]}`, "inputs[0].content[1]", "must be a string"},
		{`{"inputs":[{"content":[` + many + `]}]}`, "inputs[0].content", "Too many parts"},
		{`{"messages":"x"}`, "messages", "must be an array"},
		{`{"messages":[7]}`, "messages", "messages[0]"},
		{`{"messages":[{"role":"system","content":"x"}]}`, "messages", "no message of the user"},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"image":"aGk="}]}]}`, "messages[0]", "a text and an image"},
		{`{"content":{"prompt_string":"what is <__media__>","multimodal_data":["aGk="]}}`, "content", "a text and an image"},
		{`{"content":{"prompt_string":"","multimodal_data":["aGk=","aGk="]}}`, "content", "array of one image"},
		{`{"content":{"prompt_string":"<__media__>"}}`, "content", "not empty"},
		{`{"texts":[],"images":[]}`, "texts", "are empty"},
		{`{"texts":{},"images":[]}`, "texts", "neither"},
		{`{"input":"x","modality":"audio"}`, "modality", `"text" or "image"`},
		{`{"input":"x","model":"gpt"}`, "model", "does not exist"},
		{`{"input":"x","model":7}`, "model", "must be a string"},
		{`{"input":"x","dimensions":3}`, "dimensions", "must be 4"},
		{`{"input":"x","output_dimension":"4"}`, "output_dimension", "must be 4"},
		{`{"input":"x","encoding_format":"bytes"}`, "encoding_format", `"float" or "base64"`},
		{`{"input":"x","embedding_type":["float","base64"]}`, "embedding_type", `"float" or "base64"`},
		{`{"input":"x","truncate":7}`, "truncate", "true, false"},
		{`{"input":"x","truncate_prompt_tokens":10}`, "truncate_prompt_tokens", "at least 77"},
		{`{"input":"x","embed_dtype":"float16"}`, "embed_dtype", `must be "float32"`},
		{`{"input":"x","endianness":"big"}`, "endianness", `"native" or "little"`},
	} {
		_, err := read(c.body)
		if f, ok := errors.AsType[*Fault](err); !ok || f.Param != c.param || !strings.Contains(f.Text, c.text) {
			t.Errorf("%.100s: %#v, want %s about %s", c.body, err, c.text, c.param)
		}
	}
}

func TestUnionReaderOptions(t *testing.T) {
	for _, c := range [...]struct {
		more          string
		base64, whole bool
	}{
		{``, false, false},
		{`,"encoding_format":"float"`, false, false},
		{`,"encoding_format":"base64","dimensions":4,"user":"me","unknown":{}`, true, false},
		{`,"embedding_type":["base64"],"dimensions":null`, true, false},
		{`,"output_encoding":"base\u00364","output_dimension":4.0`, true, false},
		{`,"encoding_type":"float","truncate":true,"truncation":"END","model":""`, false, false},
		{`,"truncate":false,"model":"openai/clip-vit-base-patch32"`, false, true},
		{`,"truncation":"NONE","model":null`, false, true},
	} {
		a, err := read(`{"input":"x"` + c.more + `}`)
		if err != nil || a.Base64 != c.base64 || a.Whole != c.whole {
			t.Errorf("%s: base64 %v, whole %v, %v", c.more, a.Base64, a.Whole, err)
		}
	}
}

func TestLongTextsAreCutAtWords(t *testing.T) {
	a, err := read(`{"input":"` + strings.Repeat(" ", maxText) + strings.Repeat("käse\\n  ", maxText) + `"}`)
	if err != nil {
		t.Fatal(err)
	}
	if text := a.Items[0].Text; len(text) > maxText+1 || len(text) < maxText-8 || !strings.HasPrefix(text, "käse käse k") || !utf8.ValidString(text) {
		t.Errorf("%d bytes, %.20q", len(text), text)
	}
}

// FuzzRead: whatever comes, the reader says what is wrong with it, or has items that are bounded and belong to nobody else.
func FuzzRead(f *testing.F) {
	for _, seed := range [...]string{
		`{"model":"clip-vit-b-32","input":["a cat",{"text":"x"},{"image":"aGk="},{"content":[{"image_url":{"url":"data:image/png;base64,aGk="}}]}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"\ud83d\ude00"},{"text":"b"}]}],"truncate_prompt_tokens":-1}`,
		`{"content":[{"prompt_string":"<__media__>\n","multimodal_data":["aGk="]},"x"],"encoding_format":"base64"}`,
		`{"texts":["x"],"images":["aGk=","data:image/jpeg;base64,aGk="],"embedding_types":["float"]}`,
		`{"inputs":{"image":"aGk="},"parameters":{"candidate_labels":["a"]}}`, `{"prompt":"x"}`, `{"input":[[1,2],[3]]}`, `{"input":"x","INPUT":["y"]}`,
		`{"texts":["data:image/png;base64,aGk="]}`, `{"inputs":[{"content":[{"type":"image_base64","image_base64":"aGk="}]}],"truncation":true}`, `{"images":["\e"]}`, "\xef\xbb\xbf{\"input\":\" x\u2028\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, d := range Dialects {
			for i := range d.Routes {
				if d.Routes[i].JSON != nil {
					checkRead(t, &d.Routes[i], body)
				}
			}
		}
		a := &Ask{Service: testService()}
		if b, err := Parse(bytes.Clone(body)); err == nil && embeddings(a, b) == nil {
			checkSpellings(t, a)
		}
	})
}

// checkRead checks what a route makes of a body, and that its answer is JSON, for which the body is not looked at.
func checkRead(t *testing.T, route *Route, sent []byte) {
	body := bytes.Clone(sent)
	a := &Ask{Service: testService()}
	b, err := Parse(body)
	if err == nil {
		err = route.JSON(a, b)
	}
	if fault, ok := errors.AsType[*Fault](err); err != nil && (!ok && !errors.Is(err, rawjson.ErrInvalid) || ok && fault.Text == "" || !utf8.ValidString(err.Error())) {
		t.Fatalf("%v is no error for a client", err)
	}
	if len(a.Items) > MaxItems {
		t.Fatalf("%d items", len(a.Items))
	}
	type span struct{ from, to uintptr }
	var spans []span
	var texts []string
	for i := range a.Items {
		item := &a.Items[i]
		texts = append(texts, strings.Clone(item.Text))
		for _, raw := range [...][]byte{item.Image, item.URL, item.File} {
			if raw == nil {
				continue
			}
			from := uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
			spans = append(spans, span{from, from + uintptr(len(raw))})
		}
		if item.Image != nil && item.Image[0] != '"' || item.URL != nil && item.URL[0] != '"' {
			t.Fatalf("%s is no string", item.Name())
		}
		if item.IsText() && (len(item.Text) > maxText+1 || !utf8.ValidString(item.Text)) {
			t.Fatalf("a text of %d bytes", len(item.Text))
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.from) - int(b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			t.Fatal("two images lie in the same place")
		}
	}
	for i := range body {
		body[i] = 'x'
	}
	for i := range a.Items {
		if a.Items[i].Text != texts[i] {
			t.Fatalf("the text of %s lies in the body", a.Items[i].Name())
		}
	}
	if err == nil && !a.Forward {
		if answer := route.Write(nil, a, resultOf(a)); !json.Valid(answer) || bytes.Contains(answer, []byte("xxxxxxxxxxxx")) && !bytes.Contains(sent, []byte("xxxxxx")) {
			t.Fatalf("%s: %s", route.Path, answer)
		}
	}
}

// checkSpellings checks that other ways to send the same items are read as the same items.
func checkSpellings(t *testing.T, a *Ask) {
	want := show(a)
	for _, field := range [...]string{"input", "inputs", "content"} {
		for _, form := range [...]struct{ text, image string }{
			{`{"text":%s}`, `{"image":%s}`}, {`{"text":%s}`, `{"bytes":%s,"x":[{}]}`}, {`{"content":%s}`, `{"content":[{"image_url":{"url":%s}}]}`},
			{`{"content":[{"type":"text","text":%s}]}`, `{"content":[{"type":"image_url","image_url":%s},{"text":" "}]}`},
			{`{"prompt_string":%s}`, `{"prompt_string":"<__media__>\n","multimodal_data":[%s]}`},
		} {
			body := []byte(`{"` + field + `":[`)
			for i := range a.Items {
				item, with, value := &a.Items[i], form.image, []byte(nil)
				switch {
				case item.IsText() && (strings.Contains(item.Text, Marker) || isDataURI(rawjson.AppendString(nil, item.Text))):
					return // which mean an image elsewhere
				case item.IsText():
					with, value = form.text, rawjson.AppendString(nil, item.Text)
				case item.URL != nil:
					value = item.URL
				default:
					value = item.Image
				}
				if !json.Valid(value) {
					return // strings that lie in an image's place are not looked at here
				}
				if i > 0 {
					body = append(body, ", "...)
				}
				body = append(body, strings.Replace(with, "%s", string(value), 1)...)
			}
			again, err := read(string(append(body, "]}"...)))
			if err != nil || show(again) != want {
				t.Fatalf("%s: %v, %s, want %s", body, err, show(again), want)
			}
		}
	}
}
