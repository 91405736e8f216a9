package api

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"hailoclip/api/rawjson"
)

// generator makes requests for operations by their description: as they should be, and wrong in one way or several.
type generator struct {
	*rand.Rand
	t     *testing.T
	spec  *spec
	names map[string][]string // values of parameters that mean something to the service, by name
	wrong bool                // the next request may be wrong; else it is as its schemas have it
}

// err says once in n times, in a request that may be wrong, that something is to be.
func (g *generator) err(n int) bool { return g.wrong && g.chance(n) }

// chance says yes once in n times.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func oneOf[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

// raw is JSON as it is, which need not be valid.
type raw string

// images of which the fake device and the decoders make something different each.
var generatedImages = []string{
	goodImage, goodImage, goodImage, "a cat", notAnImage, truncatedImage, hugeImage, avifImage, lostDevice, failingImage, panickingImage, notFiniteImage,
}

var generatedTexts = []string{
	"x", "a cat", goodImage, "\u00e4\U0001f408", " padded\t", strings.Repeat("long ", 100), unencodableText, unavailableText, panickingText, notFiniteText,
}

// value makes one that a schema allows. name is that of the field or the parameter it is for.
func (g *generator) value(schema node, name string, depth int) any {
	if parts := schema.child("allOf").items(); len(parts) > 0 {
		all := map[string]any{}
		for _, part := range parts {
			maps.Copy(all, g.value(part, name, depth).(map[string]any))
		}
		return all
	}
	if parts := schema.child("oneOf").items(); len(parts) > 0 {
		return g.value(oneOf(g, parts...), name, depth)
	}
	if values, ok := schema.child("enum").value.([]any); ok {
		return oneOf(g, values...)
	}
	kind, _ := schema.child("type").value.(string)
	if kinds, ok := schema.child("type").value.([]any); ok {
		kind = oneOf(g, kinds...).(string)
	}
	switch kind {
	case "null":
		return nil
	case "boolean":
		return g.chance(2)
	case "integer", "number":
		return g.number(schema, kind)
	case "string":
		return g.text(schema, name)
	case "array":
		return g.array(schema, name, depth)
	case "object":
		return g.object(schema, depth)
	case "": // anything
		return oneOf[any](g, nil, "x", 1)
	}
	g.t.Fatalf("%s: the generator knows no type %q", schema.pointer, kind)
	return nil
}

func bound(schema node, name string, fallback float64) float64 {
	if n, ok := schema.child(name).value.(json.Number); ok {
		fallback, _ = n.Float64()
	}
	return fallback
}

func (g *generator) number(schema node, kind string) any {
	low := max(bound(schema, "minimum", -5), bound(schema, "exclusiveMinimum", -5)+0.001)
	high := bound(schema, "maximum", max(low, 0)+5)
	f := low + g.Float64()*(high-low)
	if kind == "integer" || g.chance(3) {
		return int(min(math.Ceil(f), math.Floor(high)))
	}
	return f
}

func (g *generator) text(schema node, name string) any {
	if known := g.names[name]; len(known) > 0 && !g.err(4) {
		return oneOf(g, known...)
	}
	switch pattern := schema.text("pattern"); pattern {
	case "":
	case "^[0-9a-f]{32}$":
		return hex.EncodeToString(g.bytes(16))
	case "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$":
		return oneOf(g, "a", "x.y", "Z_9-", strings.Repeat("n", 64))
	case "^[-_.:/+=@~A-Za-z0-9]+$":
		return oneOf(g, "mine", "a/b:c", strings.Repeat("i", 128))
	default:
		g.t.Fatalf("%s: the generator knows no pattern %s", schema.pointer, pattern)
	}
	switch {
	case schema.pointer == "/components/schemas/Image", name == "image", name == "images":
		return b64(oneOf(g, generatedImages...))
	case schema.text("format") == "binary":
		return string(imageFile(oneOf(g, generatedImages...)))
	case schema.text("contentEncoding") == "base64":
		if g.err(3) {
			return base64.StdEncoding.EncodeToString(g.bytes(g.IntN(100)))
		}
		return base64.StdEncoding.EncodeToString(appendFloats(nil, testVector("x")))
	}
	return oneOf(g, generatedTexts...)
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g *generator) array(schema node, name string, depth int) any {
	items := schema.child("items")
	least, most := int(bound(schema, "minItems", 0)), int(bound(schema, "maxItems", 4))
	n := min(least+g.IntN(3), most)
	if items.text("type") == "number" && least == 1 && !g.err(4) {
		n = testDimension // a vector
	}
	list := make([]any, n)
	for i := range list {
		list[i] = g.value(items, name, depth+1)
	}
	return list
}

// exclusive are names of fields of which there must be exactly one.
var exclusive = [][]string{{"prompts", "prompt_set"}, {"text", "image", "vector", "event"}}

func (g *generator) object(schema node, depth int) any {
	o := map[string]any{}
	required, _ := schema.child("required").value.([]any)
	for _, name := range schema.child("properties").names() {
		if slices.Contains(required, any(name)) || depth < 4 && g.chance(4) {
			o[name] = g.value(schema.child("properties").child(name), name, depth+1)
		}
	}
	if more := schema.child("additionalProperties"); more.value != nil && more.child("type").value != nil {
		for range g.IntN(3) {
			name := oneOf(g, "cat", "dog", "background", "nobody")
			o[name] = g.value(more, name, depth+1)
		}
	}
	if g.err(4) {
		return o
	}
	for _, group := range exclusive { // which no schema says
		var there []string
		for _, name := range group {
			if schema.child("properties").child(name).value != nil {
				there = append(there, name)
			}
		}
		if len(there) < 2 {
			continue
		}
		one := oneOf(g, there...)
		for _, name := range there {
			delete(o, name)
		}
		o[one] = g.value(schema.child("properties").child(one), one, depth+1)
	}
	return o
}

// junk is a value that hardly anything allows.
func (g *generator) junk() any {
	return oneOf(g, []any{
		nil, true, -1, 0, 0.5, 1 << 40, raw("1e999"), raw("-0"), raw("1E400"), raw(`"\ud800"`), raw("[,]"), raw("NaN"), raw("01"), "", " ", "null", "x\x00y",
		strings.Repeat("w", 3000), "\xff\xfe", []any{}, []any{nil}, []any{[]any{}}, map[string]any{}, map[string]any{"x": 1},
		raw(strings.Repeat("[", 5000) + strings.Repeat("]", 5000)), raw(strings.Repeat("[", 100000)),
	}...)
}

// spoil puts something wrong somewhere into a value.
func (g *generator) spoil(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 && !g.chance(6) {
			names := slices.Sorted(maps.Keys(v))
			name := oneOf(g, names...)
			switch g.IntN(6) {
			case 0:
				delete(v, name)
			case 1:
				v[oneOf(g, "more", "IMAGE", "Prompts", "image_url", "prompt_set", "")] = g.junk()
			default:
				v[name] = g.spoil(v[name])
			}
			return v
		}
	case []any:
		if len(v) > 0 && !g.chance(4) {
			at := g.IntN(len(v))
			switch g.IntN(6) {
			case 0:
				return slices.Delete(v, at, at+1)
			case 1:
				for len(v) < 1100 {
					v = append(v, v[at])
				}
				return v
			default:
				v[at] = g.spoil(v[at])
			}
			return v
		}
	}
	return g.junk()
}

// appendValue writes a value as JSON, raw ones as they are, and now and then a field twice.
func (g *generator) appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case raw:
		return append(b, v...)
	case map[string]any:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.appendValue(append(rawjson.AppendString(b, name), ':'), v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = g.appendValue(b, item)
		}
		return append(b, ']')
	case string:
		if strings.Contains(v, "\xff") { // as it is, which is not UTF-8
			return append(append(append(b, '"'), v...), '"')
		}
	}
	text, err := json.Marshal(v)
	noError(g.t, err)
	return append(b, text...)
}

// damage changes bytes of a body.
func (g *generator) damage(body string) string {
	switch at := g.IntN(len(body) + 1); g.IntN(6) {
	case 0:
		return body[:at]
	case 1:
		return body[:at] + string(g.bytes(3)) + body[at:]
	case 2:
		return "\xef\xbb\xbf" + body
	case 3:
		return "\xff\xfe" + body
	case 4:
		return body + body
	default:
		return ""
	}
}

// generated is a request as its bytes, and what must be known to read the answer.
type generated struct {
	method, target string
	bytes          string
	cut            bool // the body is shorter than it says
}

// request makes a request for an operation.
func (g *generator) request(method, template string, operation node) generated {
	wrong := func() bool { return g.err(8) }
	path, query, header := template, url.Values{}, [][2]string{{"Host", "localhost"}}
	parameters := append(g.spec.at("/paths").child(template).child("parameters").items(), operation.child("parameters").items()...)
	for _, p := range parameters {
		name, in := p.text("name"), p.text("in")
		if in != "path" && !g.chance(4) {
			continue
		}
		values := []any{g.value(p.child("schema"), name, 0)}
		if list, ok := values[0].([]any); ok {
			values = list
		}
		for i, v := range values {
			if wrong() {
				v = oneOf[any](g, "", "x", "-1", "1e999", "NaN", "%zz", "\xff", "a b", "..", strings.Repeat("y", 3000), 7, true)
			}
			text := fmt.Sprint(v)
			switch in {
			case "path":
				if text == "" || text == "." || text == ".." {
					text = "-"
				}
				path = strings.Replace(path, "{"+name+"}", url.PathEscape(text), 1)
			case "query":
				query.Add(name, text)
			case "header":
				if i == 0 && !strings.ContainsAny(text, "\r\n") {
					header = append(header, [2]string{name, text})
				}
			}
		}
	}
	if wrong() {
		query.Add(oneOf(g, "top_k", "prompts", "timings", "encoding", "unknown", "image_url"), oneOf(g, "", "1", "x", "null", "\x00"))
	}
	target := path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	if wrong() {
		target += "?" + oneOf(g, "", "&&", "%zz=%", "#x", "a=b=c", "\x7f")
	}
	body := g.body(operation, &header)
	for wrong() {
		header = append(header, oneOf(g, [][2]string{
			{"Origin", "https://example.org"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"X-Request-Timeout-Ms", "0"}, {"X-Request-Timeout-Ms", "1"},
			{"X-Request-Timeout-Ms", strings.Repeat("9", 30)}, {"Accept", "application/octet-stream"}, {"Accept", "text/html"},
			{"Accept", ";;,q=x"},
			{"Content-Encoding", "gzip"}, {"X-Long", strings.Repeat("z", 20_000)}, {"Authorization", "Bearer nobody"}, {"Connection", "close"},
			{"X-Frame-Format", "rgb24; 0x0"}, {"X-Frame-Format", "rgb24; 32x32"}, {"X-Frame-Format", "nv12; 99999x99999"}, {"If-Match", "*"}, {"If-None-Match", "*"},
			{"Expect", "100-continue"}, {"Upgrade", "websocket"}, {"Content-Type", "text/plain"}, {"Transfer-Encoding", "gzip"}, {"Last-Event-ID", "x"},
		}...))
	}
	return g.assemble(method, target, header, body)
}

// body makes one of a kind that the operation takes, and names it in the header.
func (g *generator) body(operation node, header *[][2]string) string {
	content := operation.child("requestBody").child("content")
	if len(content.names()) == 0 {
		return oneOf(g, "", "", "", "x")
	}
	media := oneOf(g, content.names()...)
	schema, body := content.child(media).child("schema"), ""
	switch media {
	case "application/json", "application/x-ndjson":
		for range 1 + g.IntN(2) {
			v := g.value(schema, "", 0)
			for g.err(2) {
				v = g.spoil(v)
			}
			body += string(g.appendValue(nil, v))
			if media == "application/json" {
				break
			}
			body += "\n"
		}
	case "multipart/form-data":
		var parts []string
		v, _ := g.value(schema, "", 0).(map[string]any)
		for g.err(2) {
			v, _ = g.spoil(v).(map[string]any)
		}
		for name, value := range v {
			list, ok := value.([]any)
			if !ok {
				list = []any{value}
			}
			for _, one := range list {
				parts = append(parts, name, fmt.Sprint(one))
			}
		}
		media, body = formOf(g.t, parts...)
		if g.err(8) {
			media = "multipart/form-data"
		}
	default:
		body = string(imageFile(oneOf(g, generatedImages...)))
		if media == "image/*" {
			media = oneOf(g, "image/jpeg", "image/bmp", "image/png")
		} else if g.chance(2) {
			body = string(g.bytes(testSize * testSize * 3))
			*header = append(*header, [2]string{headerFrame, "rgb24; 32x32"})
		}
	}
	switch {
	case g.err(8):
		body = g.damage(body)
	case g.err(30):
		body += strings.Repeat(" ", 5<<20) // more than any route takes
	}
	if g.err(10) {
		media = oneOf(g, "text/plain", "application/json; charset=latin1", "image/svg+xml", "x", "", "multipart/form-data; boundary=", "APPLICATION/JSON")
	}
	*header = append(*header, [2]string{"Content-Type", media})
	return body
}

// assemble writes the request, its body with a length or in chunks, and now and then with a length that is wrong.
func (g *generator) assemble(method, target string, header [][2]string, body string) generated {
	r := generated{method: method, target: target}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, target)
	for _, h := range header {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	switch {
	case g.chance(8) && body != "":
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for body != "" {
			n := min(1+g.IntN(64<<10), len(body))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		if r.cut = g.err(8); !r.cut {
			b.WriteString("0\r\n\r\n")
		}
	case g.err(20):
		r.cut = true
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body)+1, body)
	case g.err(30):
		fmt.Fprintf(&b, "Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", len(body), body)
	case g.err(30):
		fmt.Fprintf(&b, "Content-Length: %s\r\n\r\n%s", oneOf(g, "-1", "x", "1e3", strings.Repeat("9", 30)), body)
	default:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	r.bytes = b.String()
	return r
}
