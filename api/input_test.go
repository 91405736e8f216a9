package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bytedance/sonic"

	"hailoclip/api/rawjson"
)

// TestSonicIsNative fails when a new Go release makes sonic fall back to encoding/json, which
// would cost a hundred times as much for a large image.
func TestSonicIsNative(t *testing.T) {
	if sonic.APIKind != sonic.UseSonicJSON {
		t.Error("sonic does not support this version of Go natively")
	}
}

// TestImageIsNotCopied checks the reason for the choice of decoder: the text of the image lies
// in the body.
func TestImageIsNotCopied(t *testing.T) {
	body := []byte(`{"prompts":["one","two"],"image":"` + strings.Repeat("QUJD", 1000) + `"}`)
	var in input
	noError(t, in.parse(body))
	at := bytes.Index(body, []byte("QUJD"))
	body[at] = 'X'
	if in.Image[0] != 'X' {
		t.Error("the image is a copy")
	}
	prompts := must(in.prompts(10, 10))
	for i := range body {
		body[i] = '#'
	}
	if !slices.Equal(prompts, []string{"one", "two"}) {
		t.Errorf("the prompts lie in the body: %q", prompts)
	}
}

func TestElements(t *testing.T) {
	cases := map[string]int{
		``: 0, `[`: 0, `null`: 0, `"[1]"`: 0, `{"a":[1,2]}`: 0, `[]`: 0, "[ \n]": 0,
		`[1]`: 1, `[""]`: 1, `["a,b"]`: 1, `["\",\"","\\",","]`: 3, `[[1,2],{"a":1,"b":2}, 3]`: 3,
	}
	for raw, want := range cases {
		if got := rawjson.Elements([]byte(raw)); got != want {
			t.Errorf("%s has %d elements, want %d", raw, got, want)
		}
	}
}

// FuzzElements compares with encoding/json.
func FuzzElements(f *testing.F) {
	for _, raw := range []string{`[]`, "[ \n]", `[1, "a,]\"", {"a":[1,2],"b":"\\"} ,[[],[3]] , null]`, `["\\\"",""]`, `{"a":1}`, `"[1]"`, `1`, `["\u0022,"]`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got []string
		rawjson.EachElement(raw, func(element []byte) { got = append(got, string(element)) }) // whatever it is, no panic
		if raw = bytes.TrimSpace(raw); !json.Valid(raw) {
			return
		}
		got = nil
		rawjson.EachElement(raw, func(element []byte) { got = append(got, string(element)) })
		var want []json.RawMessage
		if raw[0] == '[' {
			noError(t, json.Unmarshal(raw, &want))
		}
		if len(got) != len(want) || rawjson.Elements(raw) != len(want) {
			t.Fatalf("%d elements in %q, want %d", len(got), raw, len(want))
		}
		for i := range got {
			if got[i] != string(want[i]) {
				t.Fatalf("element %d of %q is %q, want %q", i, raw, got[i], want[i])
			}
		}
	})
}

func TestHalfCharacters(t *testing.T) {
	for text, half := range map[string]string{
		`a cat`: "", `\ud83d\ude00`: "", `\uD83D\uDE00 \ud83d\ude00`: "", `\u00e9\ufffd`: "", `\\ud800`: "", `\n\"\\`: "", "\ufffd": "",
		`a \ud800`: `\ud800`, `\udc00b`: `\udc00`, `\ud83d\ud83d\ude00`: `\ud83d`, `\ud83d\ude00\ude00`: `\ude00`, `\uD800 \udc00`: `\uD800`, `\ud800\\udc00`: `\ud800`, `\ud800\u0041`: `\ud800`,
	} {
		var in input
		noError(t, in.parse([]byte(`{"text":"`+text+`","prompts":["a","`+text+`"]}`)))
		_, err := in.text(100)
		_, promptsErr := in.prompts(2, 100)
		for kind, err := range map[error]error{errInvalidRequest: err, errInvalidPrompts: promptsErr} {
			if half == "" && err != nil || half != "" && (!errors.Is(err, kind) || !strings.Contains(err.Error(), half+", which is half of a character")) {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// TestSpacesDoNotCount: those around a prompt, which no tokenizer sees, are not part of its length.
func TestSpacesDoNotCount(t *testing.T) {
	for prompt, ok := range map[string]bool{"a cat": true, "  a cat   \\n ": true, "a cats": false, "  a cats": false} {
		var in input
		noError(t, in.parse([]byte(`{"prompts": ["`+prompt+`"], "text": "`+prompt+`"}`)))
		if _, err := in.prompts(1, 5); (err == nil) != ok {
			t.Errorf("prompt %q: %v", prompt, err)
		}
		if _, err := in.text(5); (err == nil) != ok {
			t.Errorf("text %q: %v", prompt, err)
		}
	}
}

// TestSpacesAreNotEncoded: a text that is over the limit with the spaces around it reaches the encoder
// without them, at either end, and any other as it came.
func TestSpacesAreNotEncoded(t *testing.T) {
	texts := []string{"   a cat", "a cat   ", "  a cat  ", " cat ", "a cat"}
	before := slices.Clone(texts)
	if got, want := trimmed(texts, 5), []string{"a cat", "a cat", "a cat", " cat ", "a cat"}; !slices.Equal(got, want) {
		t.Errorf("encoded: %q", got)
	}
	if !slices.Equal(texts, before) {
		t.Errorf("changed: %q", texts)
	}
}

// FuzzInput compares the fast way through a body with the slow one, which is encoding/json's.
func FuzzInput(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `null`, `[1]`, `{"image":"QUJD","prompts":["a","b"],"top_k":2,"threshold":0.5}`,
		`{"image":5,"image":"x"}`, `{"IMAGE":"a\/b\u0041","prompts":["\ud83d\ude00",1,null]}`, `{"image":"` + "\xff\x00" + `"}`,
		`{"text":"x","top_k":1e999,"threshold":-0}`, `{"image_url":{},"prompts":[[","]]}`, ` {"x":[1,}]}`, `{"top_k": 3 }`, `{"top_k":01}`,
		`{"prompts":"[1,2]","text":["x"]}`, `{"image":null,"prompts":null,"text":null}`, `{"a":` + strings.Repeat("[", 5000),
		"\xef\xbb\xbf{}", "\xff\xfe{\x00}\x00", "{\x00", "{\"text\":\"\xc3\"}", `{"":"00\0","":["0",null]}`, `{"prompts":["\0"],"text":"\0"}`,
	} {
		f.Add([]byte(body))
	}
	use := func(parse func(*input, []byte) error, body []byte) (all string, err error) {
		body = bytes.Clone(body)
		var in input
		if err := parse(&in, body); err != nil {
			return "", err
		}
		var errs [5]error
		prompts, err := in.prompts(100, 100)
		errs[0] = err
		topK, err := in.topK(50)
		errs[1] = err
		threshold, cut, err := in.threshold()
		errs[2] = err
		text, err := in.text(100)
		errs[3] = err
		var scratch [scratchBytes]byte
		image, err := in.decodeImage(body, &scratch)
		errs[4] = err
		for _, err := range errs {
			if err != nil && outcomeOf(err).status != 400 {
				panic(err)
			}
		}
		return fmt.Sprintf("%q %v %v %v %q %x %q", prompts, topK, threshold, cut, text, image, errs), nil
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := use((*input).parse, body)
		if err != nil {
			if !errors.Is(err, rawjson.ErrInvalid) || len(err.Error()) > 200 {
				t.Fatalf("%v", err)
			}
			if json.Valid(body) && utf8.Valid(body) && bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
				t.Fatalf("%q is an object: %v", body, err)
			}
			return
		}
		if !json.Valid(body) {
			return // sonic does not look at escapes in what nobody asked for: {"x":"\0"}
		}
		want, err := use((*input).parseSlowly, body)
		if err != nil {
			t.Fatalf("%q: the slow way says %v", body, err)
		}
		if got != want {
			t.Fatalf("%q: fast %s, slow %s", body, got, want)
		}
	})
}
