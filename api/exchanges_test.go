package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/compat"
	"hailoclip/hailo"
	"hailoclip/stages/clip"
)

// compatNames are the names of the model in the recorded exchanges, beside its own.
var compatNames = []string{"clip-of-tests", "jina-clip-v1", "ViT-B-32__openai", "ViT-B-32"}

// compatService is a service that speaks every dialect, and tells images of any format apart, see byPixels.
func compatService(t testing.TB) *service {
	t.Helper()
	return serve(t, func(_ *Config, svc *Service) {
		svc.Compat.Aliases = compatNames
		d := newDevice()
		svc.Engine = testEngine(t, d, func(_ *clip.Config, p *clip.Parts) { p.Images = byPixels{d} })
	})
}

// byPixels is a device whose vector of an image depends on all of its pixels, whatever they are.
type byPixels struct{ *device }

func (d byPixels) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		copy(f.Embedding, testVector(string(f.Pixels)))
	}
	return nil
}

// exchange is a request of a client, and what is expected of the answer.
type compatExchange struct {
	title  string
	method string
	target string   // path and query
	header []string // lines
	body   string   // with placeholders, see filled
	status int
	want   string // JSON, see matches; or text
}

const compatData = "compat/testdata/"

// readExchanges reads the file of a dialect: after "###" and a title the request, then "<" and the status, and the answer's body. Lines
// of a form end with CR LF.
func readExchanges(t testing.TB, dialect string) (all []compatExchange) {
	t.Helper()
	b, err := os.ReadFile(compatData + dialect + ".http")
	noError(t, err)
	for _, text := range strings.Split("\n"+string(b), "\n### ")[1:] {
		e, answer, ok := compatExchange{}, "", false
		e.title, text, _ = strings.Cut(text, "\n")
		if text, answer, ok = strings.Cut(text, "\n\n< "); !ok {
			t.Fatalf("%s: %q has no answer", dialect, e.title)
		}
		status, want, _ := strings.Cut(answer, "\n")
		must(fmt.Sscan(status, &e.status))
		e.want = strings.TrimSpace(want)
		head, body, _ := strings.Cut(text, "\n\n")
		lines := strings.Split(head, "\n")
		e.method, e.target, _ = strings.Cut(lines[0], " ")
		if e.header, e.body = lines[1:], body; strings.Contains(strings.ToLower(head), "multipart/form-data") {
			e.body = strings.ReplaceAll(body+"\n", "\n", "\r\n")
		}
		all = append(all, e)
	}
	return all
}

// filled replaces placeholders by the images of testdata that they name: {{tiny.png}}, {{base64 tiny.png}}.
func filled(text string) string {
	for _, path := range must(filepath.Glob(compatData + "tiny.*")) {
		image, name := must(os.ReadFile(path)), filepath.Base(path)
		text = strings.ReplaceAll(text, "{{base64 "+name+"}}", base64.StdEncoding.EncodeToString(image))
		text = strings.ReplaceAll(text, "{{"+name+"}}", string(image))
	}
	return text
}

// send sends the request, with this body, on a connection of its own.
func (e *compatExchange) send(t *testing.T, s *service, body string) (reply, bool) {
	t.Helper()
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", e.method, e.target, s.addr)
	for _, line := range e.header {
		head += line + "\r\n"
	}
	if e.method == "POST" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	return exchange(t, s, generated{method: e.method, bytes: head + "\r\n" + body})
}

// TestRecordedExchanges plays what clients of other systems send, to the byte but for the images, which are tiny, and checks the answer.
func TestRecordedExchanges(t *testing.T) {
	s := compatService(t)
	for _, d := range compat.Dialects {
		t.Run(d.Name, func(t *testing.T) {
			missing := slices.DeleteFunc(slices.Clone(d.Routes), func(r compat.Route) bool { return r.Own }) // has one at a port of its own
			for _, e := range readExchanges(t, d.Name) {
				t.Run(e.title, func(t *testing.T) {
					path, _, _ := strings.Cut(e.target, "?")
					missing = slices.DeleteFunc(missing, func(r compat.Route) bool {
						begin, _, open := strings.Cut(r.Path, "{")
						return r.Method == e.method && (r.Path == path || open && strings.HasPrefix(path, begin))
					})
					r, ok := e.send(t, s, filled(e.body))
					if !ok {
						return
					}
					if r.status != e.status {
						t.Fatalf("%d %.300s, want %d", r.status, r.body, e.status)
					}
					if e.want == "" || e.want[0] != '{' && e.want[0] != '[' && e.want[0] != '"' {
						if string(r.body) != e.want {
							t.Errorf("%q, want %q", r.body, e.want)
						}
						return
					}
					var want, got any
					noError(t, json.Unmarshal([]byte(e.want), &want))
					if err := json.Unmarshal(r.body, &got); err != nil || r.header.Get("Content-Type") != "application/json" {
						t.Fatalf("%s: %.300s: %v", r.header.Get("Content-Type"), r.body, err)
					}
					if what := s.matches(t, "", got, want); what != "" {
						t.Errorf("%s in %.600s", what, r.body)
					}
				})
			}
			for _, r := range missing {
				t.Errorf("%s %s has no exchange in %s%s.http", r.Method, r.Path, compatData, d.Name)
			}
		})
	}
	s.allReturned(t)
}

// matches compares an answer with what is expected, and says what differs; "" means nothing does. Fields that are not expected may be
// there. A string that begins with $ stands for a value:
//
//	$text X        the vector of a text; $image NAME: of an image of testdata
//	$base64 ...    such a vector in base64, $quoted ...: as JSON in a string
//	$string, $number, $list: any, but not an empty one
func (s *service) matches(t *testing.T, at string, got, want any) string {
	t.Helper()
	differs := func(what any) string { return fmt.Sprintf("%s: %.200v, want %.200v", at, got, what) }
	switch want := want.(type) {
	case map[string]any:
		object, _ := got.(map[string]any)
		if object == nil {
			return differs("an object")
		}
		for name, w := range want {
			g, there := object[name]
			if !there {
				return at + "." + name + " is missing"
			}
			if what := s.matches(t, at+"."+name, g, w); what != "" {
				return what
			}
		}
		return ""
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return differs(fmt.Sprint(len(want), " elements"))
		}
		for i, w := range want {
			if what := s.matches(t, fmt.Sprintf("%s[%d]", at, i), list[i], w); what != "" {
				return what
			}
		}
		return ""
	case string:
		kind, rest, _ := strings.Cut(want, " ")
		ok := false
		switch kind {
		case "$string":
			text, isText := got.(string)
			ok = isText && text != ""
		case "$number":
			_, ok = got.(float64)
		case "$list":
			list, _ := got.([]any)
			ok = len(list) > 0
		case "$text", "$image":
			ok = slices.Equal(numbersOf(got), s.vectorOf(t, want))
		case "$base64":
			ok = got == base64.StdEncoding.EncodeToString(appendFloats(nil, s.vectorOf(t, "$"+rest)))
		case "$quoted":
			var inner any
			text, _ := got.(string)
			ok = json.Unmarshal([]byte(text), &inner) == nil && slices.Equal(numbersOf(inner), s.vectorOf(t, "$"+rest))
		default:
			ok = got == want
		}
		if !ok {
			return differs(want)
		}
		return ""
	}
	if !reflect.DeepEqual(got, want) {
		return differs(want)
	}
	return ""
}

// numbersOf is a list of numbers of JSON as float32; nil: it is none.
func numbersOf(list any) (all []float32) {
	elements, _ := list.([]any)
	for _, v := range elements {
		n, ok := v.(float64)
		if !ok {
			return nil
		}
		all = append(all, float32(n))
	}
	return all
}

// vectorOf is what the service's own interface answers for "$text X" or "$image NAME".
func (s *service) vectorOf(t *testing.T, what string) []float32 {
	t.Helper()
	if name, ok := strings.CutPrefix(what, "$image "); ok {
		return s.nativeImage(t, must(os.ReadFile(compatData+name)))
	}
	return s.nativeText(t, strings.TrimPrefix(what, "$text "))
}

func (s *service) nativeText(t *testing.T, text string) []float32 {
	t.Helper()
	return s.native(t, "/v1/embed/text", map[string]any{"text": text})
}

func (s *service) nativeImage(t *testing.T, image []byte) []float32 {
	t.Helper()
	return s.native(t, "/v1/embed/image", map[string]any{"image": image})
}

func (s *service) native(t *testing.T, path string, body any) []float32 {
	t.Helper()
	r := s.post(t, path, string(must(json.Marshal(body))), "Accept", "application/octet-stream")
	if r.status != 200 {
		t.Fatalf("%s: %d %s", path, r.status, r.body)
	}
	return littleEndian(r.body)
}

// littleEndian reads float32.
func littleEndian(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24)
	}
	return v
}
