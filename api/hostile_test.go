package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"hailoclip/api/compat"
)

// compatError returns the message of an error of each dialect, "" where it has not the dialect's shape.
var compatError = map[string]func(body map[string]any) string{
	"openai": func(body map[string]any) string {
		e, _ := body["error"].(map[string]any)
		param, hasParam := e["param"]
		code, hasCode := e["code"]
		if text(e["type"]) == "" || !hasParam || !hasCode || param != nil && text(param) == "" || code != nil && text(code) == "" {
			return ""
		}
		return text(e["message"])
	},
	"frigate": func(body map[string]any) string {
		e, _ := body["error"].(map[string]any)
		if code, isNumber := e["code"].(float64); !isNumber || code < 400 || text(e["type"]) == "" {
			return ""
		}
		return text(e["message"])
	},
	"tei": func(body map[string]any) string {
		if text(body["error_type"]) == "" {
			return ""
		}
		return text(body["error"])
	},
	"immich":      func(body map[string]any) string { return text(body["detail"]) },
	"voyage":      func(body map[string]any) string { return text(body["detail"]) },
	"weaviate":    func(body map[string]any) string { return text(body["error"]) },
	"ollama":      func(body map[string]any) string { return text(body["error"]) },
	"huggingface": func(body map[string]any) string { return text(body["error"]) },
	"qdrant":      func(body map[string]any) string { return text(body["error"]) },
	"cohere":      func(body map[string]any) string { return text(body["message"]) },
	"roboflow":    func(body map[string]any) string { return text(body["message"]) },
	"clip_as_service": func(body map[string]any) string {
		header, _ := body["header"].(map[string]any)
		status, _ := header["status"].(map[string]any)
		return text(status["description"])
	},
}

func text(v any) string { s, _ := v.(string); return s }

// hostile is a request that is wrong, or may be.
type hostile struct {
	what  string
	from  *compatExchange // whose path and header it has
	body  string
	wrong bool     // it must be refused
	names []string // the message of a refusal has one of these; none: whatever it says
}

// TestHostileRequests: whatever is wrong with a request in a dialect, it is refused in that dialect's form by a message that names what
// is wrong, never by a 5xx, and the service goes on. Each dialect is asked 400 times, or HAILO_TEST_REQUESTS: by its recorded requests,
// changed in one place each.
func TestHostileRequests(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("HAILO_TEST_REQUESTS"))
	if n <= 0 {
		n = 400
	}
	s := compatService(t)
	at := dialectsAt()
	for _, d := range compat.Dialects {
		t.Run(d.Name, func(t *testing.T) {
			if compatError[d.Name] == nil {
				t.Fatal("it is not known what its errors look like")
			}
			random := rand.New(rand.NewPCG(13, 300))
			all := hostileOf(readExchanges(t, d.Name), random)
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			all = all[:min(n, len(all))]
			if len(all) < 300 {
				t.Errorf("only %d bad requests", len(all))
			}
			statuses, faults := map[int]int{}, 0
			for _, h := range all {
				r, ok := h.from.send(t, s, h.body)
				if !ok {
					t.Fatalf("%s: no answer to %.300q", h.what, h.body)
				}
				statuses[r.status]++
				path, _, _ := strings.Cut(h.from.target, "?")
				if why := h.misjudged(r, at[path]); why != "" {
					t.Errorf("%s: %s: %d %.300s\n%s %.300q", h.what, why, r.status, r.body, path, h.body)
					if faults++; faults == 20 {
						t.Fatal("and more")
					}
				}
			}
			t.Log(len(all), statuses)
			s.allReturned(t)
			s.do(t, "GET", "/readyz", "").wantOK(t)
		})
	}
	if strings.Contains(s.log.String(), "panic") {
		t.Error("there was a panic")
	}
}

// dialectsAt are the dialects that have a path. An error may have the form of any of them.
func dialectsAt() map[string][]string {
	at := map[string][]string{}
	for _, d := range compat.Dialects {
		for _, r := range d.Routes {
			at[r.Path] = append(at[r.Path], d.Name)
		}
	}
	return at
}

// misjudged says what is wrong with the answer; "" means nothing is.
func (h *hostile) misjudged(r reply, dialects []string) string {
	switch {
	case r.status < 300 && h.wrong:
		return "taken"
	case r.status < 300 && (json.Valid(r.body) || len(r.body) == 0):
		return ""
	case r.status < 400 || r.status >= 500:
		return "no status for it"
	case r.header.Get("Content-Type") != "application/json":
		return "the error is no JSON"
	}
	var body map[string]any
	if json.Unmarshal(r.body, &body) != nil || !utf8.Valid(r.body) {
		return "the error is no JSON object"
	}
	message := ""
	for _, d := range dialects {
		message += compatError[d](body)
	}
	switch {
	case message == "":
		return fmt.Sprintf("not the form of errors of %s", dialects)
	case len(message) > 1000 || strings.Contains(message, internalSentence):
		return "no message for a client"
	}
	named := func(name string) bool { return strings.Contains(strings.ToLower(message), strings.ToLower(name)) }
	if len(h.names) > 0 && !slices.ContainsFunc(h.names, named) {
		return fmt.Sprintf("names none of %q", h.names)
	}
	return ""
}

// hostileOf changes the good requests that have a body in every way that it knows.
func hostileOf(good []compatExchange, random *rand.Rand) (all []hostile) {
	for i := range good {
		if e := &good[i]; e.status == 200 && e.method == "POST" {
			body := filled(e.body)
			if json.Valid([]byte(body)) {
				all = append(all, hostileJSON(e, body, random)...)
			} else {
				all = append(all, hostileForms(e, body, random)...)
			}
		}
	}
	return all
}

// wrongValues take the place of a value of JSON, as they are.
var wrongValues = map[string]string{
	"null": "null", "true": "true", "a number": "1", "a negative number": "-1", "a fraction": "0.5", "a number beyond float64": "1e999",
	"a number beyond int64": "123456789012345678901234567890", "an empty text": `""`, "blanks": `" \t\n"`, "a zero byte": `"\u0000"`,
	"an object": `{"a":{"b":[1]}}`, "an empty object": "{}", "an empty array": "[]", "an array in arrays": "[[[[]]]]", "deep nesting with its end": strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nulls": "[null,null]", "numbers": "[1,2,3]",
	"mixed": `["x",1,null,{"a":2}]`, "too many": "[" + strings.Repeat(`"x",`, compat.MaxItems) + `"x"]`, "a text too long": `"` + strings.Repeat("word ", 20000) + `"`,
	"many empty objects": "[" + strings.Repeat("{},", 3000) + "{}]", "objects in objects": strings.Repeat(`{"content":[`, 500) + strings.Repeat("]}", 500),
	"an address": `"http://169.254.169.254/latest/meta-data"`, "an address in a list": `["https://example.org/cat.jpg"]`, "a file": `"file:///etc/passwd"`,
	"an image that is none": `"data:image/png;base64,bm8gaW1hZ2U="`, "half a data URI": `"data:image/jpeg;base64,"`, "a data URI of no base64": `"data:image/png;base64,####"`,
	"another data URI": `"data:text/html,<script>"`, "base64 of nothing": `"===="`, "a pickle": `"gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg=="`,
	"an image that is cut": `"data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4M"`, "an unknown word": `"nonsense"`, "an object with an address": `{"url":"http://localhost/x.png"}`,
}

// notBe says which of wrongValues fields are never taken with.
type notBe struct{ fields, values []string }

var mustNotBe = []notBe{
	{[]string{"model", "modelName", "clip_version_id", "encoding_format", "output_encoding", "modality", "data_type"}, []string{"an unknown word", "a number", "an object"}},
	{[]string{"input", "inputs", "content", "texts", "images", "prompt", "text"}, []string{"too many", "numbers", "mixed", "an array in arrays", "many empty objects", "objects in objects"}},
	{[]string{"image", "images", "image_base64", "image_url", "url", "bytes", "blob", "multimodal_data"},
		[]string{"an image that is none", "an image that is cut", "half a data URI", "a data URI of no base64", "another data URI", "an address", "a file", "a pickle", "base64 of nothing"}},
}

// brokenValues make the whole body invalid.
var brokenValues = map[string]string{
	"half a character": `"a \ud800 b"`, "the other half": `"\udc00"`, "no UTF-8": "\"\xff\xfe\"", "an escape that is none": `"\q"`, "a line end in a text": "\"a\nb\"",
	"no end of a text": `"abc`, "a bare word": "undefined", "NaN": "NaN", "a number with a zero before": "01", "deep nesting": strings.Repeat("[", 20000),
	"a comma too much": "[1,]", "a comment": "/* x */ 1", "quotes of another kind": "'x'", "nothing": "",
}

// hostileJSON changes each value of a JSON body, and the body as a whole.
func hostileJSON(e *compatExchange, body string, random *rand.Rand) (all []hostile) {
	add := func(what, body string, wrong bool, names ...string) {
		all = append(all, hostile{e.title + ": " + what, e, body, wrong, names})
	}
	var tree any
	if err := json.Unmarshal([]byte(body), &tree); err != nil {
		panic(err)
	}
	const mark = "\"\x01\"" // no JSON that is sent has it
	eachPlace(tree, nil, func(path []string, replaced func(any) any) {
		where := strings.Join(path, ".")
		raw := string(must(json.Marshal(replaced("\x01"))))
		raw = strings.Replace(raw, `"\u0001"`, mark, 1)
		for what, value := range wrongValues {
			names := append(slices.Clone(path), "JSON", "missing", "model")
			if value == "null" { // as if it were not there
				names = nil
			}
			refused := slices.ContainsFunc(mustNotBe, func(m notBe) bool {
				return slices.Contains(m.fields, path[len(path)-1]) && slices.Contains(m.values, what)
			})
			add(where+" is "+what, strings.Replace(raw, mark, value, 1), refused, names...)
		}
		for what, value := range brokenValues {
			ignored := value == "" || value[0] == '"' // an array may be empty, and texts that nobody reads are not looked at
			add(where+" is "+what, strings.Replace(raw, mark, value, 1), !ignored && len(path) <= 1, append(slices.Clone(path), "JSON", "UTF-8", "missing", "model")...)
		}
	})
	object, _ := tree.(map[string]any)
	for name := range object {
		less := maps.Clone(object)
		delete(less, name)
		add("no "+name, string(must(json.Marshal(less))), false)
		add(name+" twice", strings.TrimSuffix(body, "}")+fmt.Sprintf(`,%q:5}`, name), false)
	}
	for name, values := range map[string][]string{
		"model": {`"gpt-4"`, `"` + strings.Repeat("m", 5000) + `"`, `"../../etc/passwd"`, `"\u0000"`, "5", "[]"}, "dimensions": {"7", "-1", `"512"`, "1e300"},
	} {
		for _, value := range values {
			more := maps.Clone(object)
			more[name] = json.RawMessage(value)
			if changed, err := json.Marshal(more); err == nil {
				add(name+" is "+value[:min(len(value), 20)], string(changed), false, name, "gpt-4")
			}
		}
	}
	for range 20 {
		at := random.IntN(len(body))
		add("cut", body[:at], true, "JSON")
		flipped := []byte(body)
		flipped[at] ^= byte(1 + random.IntN(255))
		add("a byte changed", string(flipped), false)
	}
	for what, other := range map[string]string{
		"nothing": "", "blanks": " \n", "an array": "[]", "a text": `"x"`, "a number": "1", "null": "null", "true": "true", "an empty object": "{}",
		"two bodies": body + body, "more behind": body + "x", "UTF-16": "\xff\xfe" + strings.Join(strings.Split(body, ""), "\x00"), "a list of it": "[" + body + "]",
		"an image": string(black), "zeros": strings.Repeat("\x00", 100), "XML": "<xml/>", "a form": "a=1&b=2",
	} {
		add(what, other, what != "an image" && what != "an empty object")
	}
	for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x", "image/jpeg", "", "application/xml"} {
		other := *e
		other.header = slices.DeleteFunc(slices.Clone(e.header), func(line string) bool { return strings.HasPrefix(strings.ToLower(line), "content-type:") })
		if media != "" {
			other.header = append(other.header, "Content-Type: "+media)
		}
		all = append(all, hostile{e.title + ": sent as " + media, &other, body, false, nil})
	}
	return all
}

// eachPlace calls f for each value in the tree below its root, with the names on the way there and a function that returns the tree with
// another value in its place.
func eachPlace(tree any, path []string, f func(path []string, replaced func(any) any)) {
	walk := func(name string, value any, put func(any) any) {
		path := append(slices.Clone(path), name)
		if name == "" {
			path = path[:len(path)-1]
		}
		f(path, put)
		eachPlace(value, path, func(path []string, replaced func(any) any) {
			f(path, func(v any) any { return put(replaced(v)) })
		})
	}
	switch tree := tree.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			walk(name, tree[name], func(v any) any {
				changed := maps.Clone(tree)
				changed[name] = v
				return changed
			})
		}
	case []any:
		for i := range tree {
			walk("", tree[i], func(v any) any {
				changed := slices.Clone(tree)
				changed[i] = v
				return changed
			})
		}
	}
}

// hostileForms changes the parts of a form, and the form as a whole.
func hostileForms(e *compatExchange, body string, random *rand.Rand) (all []hostile) {
	add := func(what, body string, wrong bool, names ...string) {
		all = append(all, hostile{e.title + ": " + what, e, body, wrong, names})
	}
	boundary, _, _ := strings.Cut(body, "\r\n")
	end := boundary + "--\r\n"
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(body, boundary+"\r\n"), end), boundary+"\r\n")
	joined := func(parts ...string) string {
		return boundary + "\r\n" + strings.Join(parts, boundary+"\r\n") + end
	}
	for i, part := range parts {
		head, value, _ := strings.Cut(part, "\r\n\r\n")
		value = strings.TrimSuffix(value, "\r\n")
		_, name, _ := strings.Cut(head, `name="`)
		name, _, _ = strings.Cut(name, `"`)
		with := func(part string) string {
			changed := slices.Clone(parts)
			changed[i] = part
			return joined(changed...)
		}
		add("no "+name, joined(slices.Delete(slices.Clone(parts), i, i+1)...), true, name, "request")
		add(name+" twice", joined(append(slices.Clone(parts), part)...), false)
		add(name+" first", joined(append([]string{part}, slices.Delete(slices.Clone(parts), i, i+1)...)...), false)
		add(name+" is empty", with(head+"\r\n\r\n\r\n"), true)
		add(name+" is zeros", with(head+"\r\n\r\n"+strings.Repeat("\x00", 50)+"\r\n"), false)
		add(name+" is no UTF-8", with(head+"\r\n\r\n\xff\xfe\xc3\r\n"), true)
		add(name+" without a name", with("Content-Disposition: form-data\r\n\r\n"+value+"\r\n"), true)
		add(name+" without a header", with("\r\n"+value+"\r\n"), true)
		add(name+" by another name", with(strings.Replace(part, name, "../../etc/passwd", 1)), true)
		add(name+" with a long header", with("X: "+strings.Repeat("x", 20<<10)+"\r\n"+part), false)
		if json.Valid([]byte(value)) {
			for _, h := range hostileJSON(e, value, random) {
				if h.from == e {
					add(h.what, with(head+"\r\n\r\n"+h.body+"\r\n"), false, "entries", "request", "task", "model", "JSON", "image", "text", "form")
				}
			}
			continue
		}
		for what, other := range map[string]string{
			"an image that is cut": string(black[:len(black)/2]), "no image": "no image", "base64": base64.StdEncoding.EncodeToString(black),
			"a pickle": "\x80\x04\x95\x1f\x00", "a web page": "<html>", "blanks": " \t ", "a long text": strings.Repeat("word ", 20000),
		} {
			add(name+" is "+what, with(head+"\r\n\r\n"+other+"\r\n"), false)
		}
	}
	add("many parts", joined(slices.Repeat(parts, 1000)...), false)
	add("no end", strings.TrimSuffix(body, end), true)
	add("only the end", end, true)
	add("nothing", "", true)
	add("another boundary", strings.ReplaceAll(body, boundary, "--x"), true)
	for range 30 {
		at := random.IntN(len(body) - len(end))
		add("cut", body[:at], true)
		flipped := bytes.Clone([]byte(body))
		flipped[at] ^= byte(1 + random.IntN(255))
		add("a byte changed", string(flipped), false)
	}
	return all
}
