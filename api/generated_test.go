package api

import (
	"bufio"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
)

// TestGeneratedRequests: whatever is asked, the answer has a status that is described, and a body that the schema allows. Each
// operation is asked 20 times, or HAILO_TEST_REQUESTS (see "make openapi-test"), by requests made of its description, of
// which most are wrong somehow.
func TestGeneratedRequests(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("HAILO_TEST_REQUESTS"))
	if n <= 0 {
		n = 20
	}
	s := serve(t, func(c *Config, svc *Service) {
		kept(t)(c, svc)
		svc.RequestTimeout, svc.BatchTimeout = 20*time.Second, 20*time.Second
	})
	camera := filepath.Join(t.TempDir(), "latest.png")
	noError(t, os.WriteFile(camera, pngFile(goodImage), 0o600))
	s.name(source.Named{"porch": camera})
	doc := newSpec(t, must(openAPIFiles())["openapi.json"].Body)
	doc.operations(func(method, path string, operation node) {
		t.Run(operation.text("operationId"), func(t *testing.T) {
			g := &generator{
				Rand: rand.New(rand.NewPCG(12, uint64(len(path)))), t: t, spec: doc,
				names: map[string][]string{"model": {testModel}, "prompt_set": {"pets"}, "label": {"cat"}, "source": {""}, "format": {""}},
			}
			switch {
			case strings.HasPrefix(path, "/v1/streams"):
				g.names["id"] = []string{"door"}
			case strings.HasPrefix(path, "/upstream"):
				g.names["id"] = []string{testModel + "/props"}
			case strings.HasPrefix(path, "/v1/models"):
				g.names["id"] = []string{testModel}
			case path == "/v1/classify":
				g.names["source"] = []string{"porch"}
			default:
				g.names["name"] = []string{"pets", "style.css"}
			}
			statuses := map[int]int{}
			for i := range n {
				if i%10 == 0 { // what earlier ones have changed or deleted
					s.json(t, "PUT", "/v1/prompt-sets/pets", `{"labels":[{"name":"cat","prompts":["a cat"]},{"name":"dog"}]}`)
					s.json(t, "PUT", "/v1/streams/door",
						`{"prompts":["x"],"policy":"queue","events":{"store":true,"thumbnails":true,"on":"changes","min_frames":1}}`)
				}
				if strings.HasPrefix(path, "/v1/events") && i%10 == 0 {
					e := event.Event{ID: event.NewID(), Stream: "door", Kind: event.Enter, Label: "x", Time: time.Now(), Vector: testVector("x"), JPEG: black}
					noError(t, s.svc.Store.Add(t.Context(), &e))
					g.names["id"] = []string{e.ID}
				}
				g.wrong = i%2 == 1
				asked := g.request(method, path, operation)
				r, ok := exchange(t, s, asked)
				if !ok {
					continue
				}
				statuses[r.status]++
				if path == "/v1/classify" && r.status == 200 { // in either form with both methods
					result := "ClassifyResult"
					if strings.HasPrefix(string(r.body), `{"label":`) {
						result = "FlatClassification"
					}
					visit(t, result, doc.at("/components/schemas/"+result), r.body)
				} else if err := operation.conforms(r); err != nil {
					t.Errorf("%.3000q: %d %v", asked.bytes, r.status, err)
				}
			}
			good := func(status int) bool { return status < 300 }
			if !slices.ContainsFunc(slices.Collect(maps.Keys(statuses)), good) && n >= 100 && path != "/v1/stream" {
				t.Errorf("no request in %d was a good one: %v", n, statuses)
			}
			t.Log(statuses)
		})
	})
	s.allReturned(t)
	s.do(t, "GET", "/readyz", "").wantOK(t)
}

// exchange sends a request on a connection of its own and returns the answer; false where the request is cut and the connection was
// closed. Of an answer without an end it is the head.
func exchange(t *testing.T, s *service, asked generated) (reply, bool) {
	t.Helper()
	c := must(net.Dial("tcp", s.addr)).(*net.TCPConn)
	defer c.Close()
	noError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	go func() {
		_, _ = io.WriteString(c, asked.bytes) // the service may refuse it before it has all
		if asked.cut {
			_ = c.CloseWrite()
		}
	}()
	from := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(from, &http.Request{Method: asked.method})
		switch {
		case err != nil && asked.cut:
			return reply{}, false
		case err != nil:
			t.Errorf("%.3000q: %v", asked.bytes, err)
			return reply{}, false
		case resp.StatusCode == http.StatusContinue:
			continue
		case strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream"):
			return reply{status: resp.StatusCode, header: resp.Header}, true
		}
		r, err := read(resp)
		if err != nil {
			t.Errorf("%.3000q: %v", asked.bytes, err)
		}
		return r, err == nil
	}
}
