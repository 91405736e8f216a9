package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hailoclip/api/bulk"
)

// fakeQdrant answers as the HTTP interface of Qdrant says (version 1.15), and refuses all else: fields and parameters that there are
// none, ids that are no UUID, vectors of another size, a key that is wrong.
type fakeQdrant struct {
	t           testing.TB
	key         string
	mu          sync.Mutex
	collections map[string]*fakeCollection
	requests    int
	trouble     func(n int, w http.ResponseWriter, r *http.Request) bool // answers in its place; may be nil
}

type fakeCollection struct {
	vectors json.RawMessage
	size    int
	points  map[string]fakePoint
	ids     []string // sorted; nil: to be sorted anew
	indexed bool
}

type fakePoint struct {
	vector  []float32
	payload map[string]json.RawMessage
}

func startQdrant(t testing.TB) (*fakeQdrant, string) {
	f := &fakeQdrant{t: t, collections: map[string]*fakeCollection{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return f, "qdrant://" + server.Listener.Addr().String()
}

var (
	anUUID       = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	collectionAt = regexp.MustCompile(`^/collections/([^/]+)(/.*)?$`)
)

func (f *fakeQdrant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if f.trouble != nil && f.trouble(f.requests, w, r) {
		return
	}
	if f.key != "" && r.Header.Get("api-key") != f.key {
		fail(w, http.StatusUnauthorized, "Invalid API key: "+r.Header.Get("api-key"))
		return
	}
	if f.key == "" && r.Header.Get("api-key") != "" {
		f.t.Error("it sends a key that it has not")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20+1))
	if err != nil || len(body) > 32<<20 {
		fail(w, http.StatusRequestEntityTooLarge, "payload too large")
		return
	}
	m := collectionAt.FindStringSubmatch(r.URL.Path)
	if m == nil {
		fail(w, http.StatusNotFound, "no such route")
		return
	}
	if r.Method != http.MethodGet && r.Header.Get("Content-Type") != "application/json" {
		fail(w, http.StatusBadRequest, "Content type error")
		return
	}
	c, query := f.collections[m[1]], r.URL.RawQuery
	route := r.Method + " " + m[2]
	if c == nil && route != "PUT " {
		fail(w, http.StatusNotFound, "Not found: Collection `"+m[1]+"` doesn't exist!")
		return
	}
	switch route {
	case "GET ":
		answer(w, map[string]any{"status": "green", "points_count": len(c.points), "config": map[string]any{"params": map[string]any{"vectors": c.vectors}}})
	case "PUT ":
		f.create(w, m[1], c, query, body)
	case "PUT /index":
		var b struct {
			Name   string `json:"field_name"`
			Schema string `json:"field_schema"`
		}
		if !strict(w, body, &b) || query != "wait=true" || b.Name != "key" || b.Schema != "keyword" {
			fail(w, http.StatusBadRequest, "index")
			return
		}
		c.indexed = true
		answer(w, map[string]any{"operation_id": 1, "status": "completed"})
	case "PUT /points":
		c.upsert(w, query, body)
	case "POST /points/delete":
		var b struct {
			Points []string `json:"points"`
		}
		if !strict(w, body, &b) || query != "wait=true" {
			return
		}
		for _, id := range b.Points {
			delete(c.points, id)
		}
		c.ids = nil
		answer(w, map[string]any{"operation_id": 1, "status": "completed"})
	case "POST /points/scroll":
		c.scroll(w, query, body)
	default:
		fail(w, http.StatusNotFound, "no such route")
	}
}

func (f *fakeQdrant) create(w http.ResponseWriter, name string, c *fakeCollection, query string, body []byte) {
	var b struct {
		Vectors struct {
			Size     int    `json:"size"`
			Distance string `json:"distance"`
		} `json:"vectors"`
	}
	if !strict(w, body, &b) {
		return
	}
	switch {
	case c != nil:
		fail(w, http.StatusConflict, "Wrong input: Collection `"+name+"` already exists!")
	case query != "" || b.Vectors.Size < 1 || b.Vectors.Size > 65536 || b.Vectors.Distance != "Cosine":
		fail(w, http.StatusUnprocessableEntity, "Validation error in JSON body")
	default:
		vectors, _ := json.Marshal(b.Vectors)
		f.collections[name] = &fakeCollection{vectors: vectors, size: b.Vectors.Size, points: map[string]fakePoint{}}
		answer(w, true)
	}
}

func (c *fakeCollection) upsert(w http.ResponseWriter, query string, body []byte) {
	var b struct {
		Points []struct {
			ID      string                     `json:"id"`
			Vector  json.RawMessage            `json:"vector"`
			Payload map[string]json.RawMessage `json:"payload"`
		} `json:"points"`
	}
	if !strict(w, body, &b) {
		return
	}
	if query != "wait=true" {
		fail(w, http.StatusBadRequest, "not waited for")
		return
	}
	for _, p := range b.Points {
		if !anUUID.MatchString(p.ID) {
			fail(w, http.StatusBadRequest, "Format error in JSON body: value "+p.ID+" is not a valid point ID")
			return
		}
		var point fakePoint
		if string(p.Vector) != "{}" {
			if err := json.Unmarshal(p.Vector, &point.vector); err != nil {
				fail(w, http.StatusBadRequest, "Format error in JSON body: data did not match any variant of untagged enum VectorStruct")
				return
			}
			if len(point.vector) != c.size {
				fail(w, http.StatusBadRequest, fmt.Sprintf("Wrong input: Vector dimension error: expected dim: %d, got %d", c.size, len(point.vector)))
				return
			}
			length := 0.0
			for _, x := range point.vector {
				length += float64(x) * float64(x)
			}
			for i := range point.vector {
				point.vector[i] /= float32(math.Sqrt(length))
			}
		}
		point.payload = p.Payload
		if _, there := c.points[p.ID]; !there {
			c.ids = nil
		}
		c.points[p.ID] = point
	}
	answer(w, map[string]any{"operation_id": 1, "status": "completed"})
}

func (c *fakeCollection) scroll(w http.ResponseWriter, query string, body []byte) {
	var b struct {
		Limit       int     `json:"limit"`
		Offset      *string `json:"offset"`
		WithPayload any     `json:"with_payload"`
		WithVector  bool    `json:"with_vector"`
		Filter      *struct {
			Must []struct {
				Key   string `json:"key"`
				Match struct {
					Value string `json:"value"`
				} `json:"match"`
			} `json:"must"`
		} `json:"filter"`
	}
	if !strict(w, body, &b) {
		return
	}
	if query != "" || b.Limit < 1 || b.Offset != nil && !anUUID.MatchString(*b.Offset) || b.Filter != nil && (len(b.Filter.Must) != 1 || !c.indexed) {
		fail(w, http.StatusBadRequest, "scroll")
		return
	}
	if c.ids == nil {
		c.ids = make([]string, 0, len(c.points))
		for id := range c.points {
			c.ids = append(c.ids, id)
		}
		slices.Sort(c.ids)
	}
	points, next := []any{}, any(nil)
	for _, id := range c.ids {
		p := c.points[id]
		if b.Offset != nil && id < *b.Offset {
			continue
		}
		if b.Filter != nil {
			var value string
			if m := b.Filter.Must[0]; json.Unmarshal(p.payload[m.Key], &value) != nil || value != m.Match.Value {
				continue
			}
		}
		if len(points) == b.Limit {
			next = id
			break
		}
		payload := p.payload
		if only, ok := b.WithPayload.([]any); ok {
			payload = map[string]json.RawMessage{}
			for _, name := range only {
				if v, there := p.payload[name.(string)]; there {
					payload[name.(string)] = v
				}
			}
		}
		point := map[string]any{"id": id, "payload": payload}
		if b.WithVector && p.vector != nil {
			point["vector"] = p.vector
		} else if b.WithVector {
			point["vector"] = struct{}{}
		}
		points = append(points, point)
	}
	answer(w, map[string]any{"points": points, "next_page_offset": next})
}

func strict(w http.ResponseWriter, body []byte, v any) bool {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, "Format error in JSON body: "+err.Error())
		return false
	}
	return true
}

func answer(w http.ResponseWriter, result any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"result": result, "status": "ok", "time": 0.001})
}

func fail(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": map[string]any{"error": reason}, "time": 0.001})
}

func TestQdrant(t *testing.T) {
	_, address := startQdrant(t)
	conform(t, kind{rounded: true, outside: true, many: 20_000}, func(*testing.T) string { return fmt.Sprintf("%s/t%d", address, tables.Add(1)) })
}

// TestQdrantTrouble: what passes by itself is waited for, and nothing is lost.
func TestQdrantTrouble(t *testing.T) {
	f, address := startQdrant(t)
	s := openSink(t, address+"/c")
	defer s.Close()
	f.trouble = func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch n % 6 {
		case 0:
			return false
		case 1:
			w.Header().Set("Retry-After", "0")
			fail(w, http.StatusTooManyRequests, "Rate limiting exceeded")
		case 2:
			fail(w, http.StatusServiceUnavailable, "shard is recovering")
		case 3:
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>"))
		case 4:
			panic(http.ErrAbortHandler) // the connection is lost
		case 5:
			w.Header().Set("Content-Length", "100") // in the middle of an answer
			_, _ = w.Write([]byte(`{"result":`))
		}
		return true
	}
	for i := range 10 {
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(i)}))
		kind{rounded: true}.found(t, s, rowOf(i))
	}
	if n := len(contents(t, s)); n != 10 {
		t.Errorf("%d rows", n)
	}
	f.mu.Lock()
	f.requests = 0
	f.trouble = func(n int, w http.ResponseWriter, _ *http.Request) bool { fail(w, 503, "never"); return true }
	f.mu.Unlock()
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "after 10 tries", "503", "never")
	ctx, cancel := context.WithCancel(t.Context())
	f.mu.Lock()
	f.trouble = func(n int, w http.ResponseWriter, _ *http.Request) bool { cancel(); fail(w, 503, "never"); return true }
	f.mu.Unlock()
	if err := s.Put(ctx, []bulk.Row{rowOf(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put when its context ends: %v", err)
	}
}

// TestQdrantRefuses: what does not pass by itself is told at once, in Qdrant's words, without the key.
func TestQdrantRefuses(t *testing.T) {
	f, address := startQdrant(t)
	f.key = "right"
	t.Setenv(QdrantKey, "s3cret")
	_, err := Open(t.Context(), address+"/c", Options{Dimension: dimension})
	says(t, err, "401", "Invalid API key", QdrantKey)
	if err != nil && strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the key is in %q", err)
	}
	t.Setenv(QdrantKey, "right")
	s := openSink(t, address+"/c")
	defer s.Close()
	noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
	before := f.requests
	f.trouble = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		fail(w, 400, "Wrong input:\nsomething")
		return true
	}
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "400", `Wrong input:\nsomething`)
	f.trouble = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "307")
	f.trouble = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte("<html>"))
		return true
	}
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "not Qdrant")
	if f.requests != before+3 {
		t.Errorf("it asked %d times", f.requests-before)
	}
}

func TestQdrantCollections(t *testing.T) {
	f, address := startQdrant(t)
	f.collections["named"] = &fakeCollection{vectors: json.RawMessage(`{"clip":{"size":8,"distance":"Cosine"},"size":{"size":8,"distance":"Dot"}}`)}
	_, err := Open(t.Context(), address+"/named", Options{Dimension: dimension})
	says(t, err, "have names")
	for name, words := range map[string]string{"": "the address is", "/a/b": "the address is", "/a%2Fb": "the address is", "/..": "the address is", "/a?x=1": "no parameter",
		"/a?tls=maybe": "true or false", "/a?api_key=s3cret": QdrantKey} {
		_, err := Open(t.Context(), address+name, Options{Dimension: dimension})
		says(t, err, words)
	}
	_, err = Open(t.Context(), strings.Replace(address, "://", "://user:s3cret@", 1)+"/a", Options{Dimension: dimension})
	says(t, err, QdrantKey)
	_, err = Open(t.Context(), strings.Replace(address, "qdrant:", "qdrants:", 1)+"/a", Options{Dimension: dimension})
	says(t, err, "HTTP response to HTTPS client")
	_, err = Open(t.Context(), "qdrant://127.0.0.1:1/a", Options{Dimension: dimension})
	says(t, err, "refused")
	s := must[bulk.Sink](t)(Open(t.Context(), address+"/none", Options{}))
	defer s.Close()
	if all := contents(t, s); len(all) != 0 || f.collections["none"] != nil {
		t.Error("an unasked collection")
	}
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "no such collection")
	s = openSink(t, address+"/Bilder%20und%20%C3%A4")
	defer s.Close()
	noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
	c := f.collections["Bilder und ä"]
	if c == nil || len(c.points) != 1 || !c.indexed {
		t.Fatalf("the collections are %v", f.collections)
	}
	// Points of others are left alone.
	c.points["00000000-0000-0000-0000-000000000001"] = fakePoint{payload: map[string]json.RawMessage{"key": json.RawMessage("7")}}
	c.ids = nil
	if diff := cmp.Diff(rowsOf(rowOf(1)), contents(t, s)); diff != "" {
		t.Error(diff)
	}
	f.trouble = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/scroll") {
			answer(w, map[string]any{"points": []any{}, "next_page_offset": "00000000-0000-0000-0000-000000000001"})
			return true
		}
		return false
	}
	says(t, s.Each(t.Context(), func(string, string) error { return nil }), "same page again")
}

// TestQdrantLarge: a batch that is larger than what Qdrant reads goes in parts.
func TestQdrantLarge(t *testing.T) {
	f, address := startQdrant(t)
	s := openSink(t, address+"/c")
	defer s.Close()
	rows := make([]bulk.Row, 100)
	for i := range rows {
		rows[i] = rowOf(i)
		rows[i].Error = strings.Repeat("e", 400<<10) + strconv.Itoa(i)
	}
	noError(t, s.Put(t.Context(), rows))
	if n := len(f.collections["c"].points); n != len(rows) {
		t.Errorf("%d points", n)
	}
}
