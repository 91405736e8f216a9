package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// available is how many bytes may still be handed out.
func (m *Memory) available() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free
}

// TestBodyMemory fills the memory for bodies with halves of large ones that never end.
func TestBodyMemory(t *testing.T) {
	const budget = 2 << 20
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyMemoryBytes = budget })
	promise := postHead + "Content-Length: 1048576\r\n\r\n"
	half := strings.Repeat("A", 600<<10) // needs a buffer of 1 MiB, and one of 256 KiB until that is there
	free := s.bodies.available

	holder := s.send(t, promise+half)
	until(t, func() bool { return free() == budget-1<<20 })

	only(t, s.send(t, promise, half)).wantError(t, 429, "queue_full", "large requests")
	if free() != budget-1<<20 {
		t.Errorf("%d bytes are free after a refusal", free())
	}

	// A promise takes the smallest buffer only: all of these are inside together, as far as one address may go.
	for range (budget/4*3 - 1<<20) / pooledSizes[0] {
		s.send(t, promise+half[:10<<10]) // the server itself waits for the first 8 KiB
	}
	until(t, func() bool { return free() == budget/4 })
	s.post(t, "/v1/embed/text", `{"text":"x"}`).wantError(t, 429, "queue_full", "large requests")
	other := "POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 12\r\n\r\n" + `{"text":"x"}`
	only(t, s.sendFrom(t, "127.0.0.2", other)).wantOK(t)
	s.do(t, "GET", "/health", "").wantOK(t)

	holder.Close()
	until(t, func() bool { return free() == budget/4+1<<20 })
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
	until(t, func() bool { return free() == budget/4+1<<20 })
}

// TestPlentyOfBodyMemory: a body gets what it promises at once, while that leaves three quarters to others, and up to 1 MiB.
func TestPlentyOfBodyMemory(t *testing.T) {
	const budget = 8 << 20
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyBytes, c.MaxBodyMemoryBytes = 3<<20, budget })
	held := 0
	for _, c := range []struct{ promised, takes int }{
		{150_000, 256 << 10}, {3 << 20, 1 << 20}, {10_000, 64 << 10}, {1 << 20, 1 << 20}, {1 << 20, 64 << 10}, {150_000, 64 << 10},
	} {
		s.send(t, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", postHead, c.promised, strings.Repeat(" ", 9<<10)))
		held += c.takes
		until(t, func() bool { return s.bodies.available() == int64(budget-held) })
	}
}

// TestBodyMemoryComesBack sends requests of every size and end, and counts.
func TestBodyMemoryComesBack(t *testing.T) {
	const limit = 3 << 20
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyBytes, c.MaxBodyMemoryBytes = limit, 2*limit })
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, limit - 1, limit, limit + 1} {
		body := strings.Repeat(" ", size)
		chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, body)
		if size == 0 {
			chunked = "0\r\n\r\n"
		}
		status := map[bool]int{true: 413, false: 400}[size > limit]
		for name, request := range map[string]string{
			"promised": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body),
			"chunked":  "Transfer-Encoding: chunked\r\n\r\n" + chunked,
		} {
			if r := only(t, s.send(t, postHead+"Connection: close\r\n"+request)); r.status != status {
				t.Errorf("%s, %d bytes: %d %s", name, size, r.status, r.body)
			}
		}
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x"))
	s.post(t, "/v1/classify", classifyBody(panickingImage, "", "x"))
	s.post(t, "/v1/classify", classifyBody(goodImage, "", panickingText))
	until(t, func() bool { return s.bodies.available() == 2*limit })
}

// TestLargeBodiesTakeTurns has a large body wait while others are being unpacked, until its deadline, and no small one.
func TestLargeBodiesTakeTurns(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyBytes, c.MaxBodyMemoryBytes = 4<<20, 16<<20 })
	var taken []func()
	for range spared() {
		taken = append(taken, must(s.unpacking.Take(t.Context(), fair.Caller{Address: "another"})))
	}
	large := strings.Repeat(" ", largeBody) + classifyBody(goodImage, "", "x")
	post := func(body, header string) reply {
		return only(t, s.send(t, posted(body, "Connection: close\r\n", header)))
	}
	post(large, headerTimeout+": 20\r\n").wantError(t, 504, "deadline_exceeded", "")
	post(classifyBody(goodImage, "", "x"), "").wantOK(t)
	taken[0]()
	post(large, "").wantOK(t)
	for _, done := range taken[1:] {
		done()
	}
}

// TestLargeBodiesOfOneCaller: who has had its turn for long comes after others, however many more it has sent before them.
func TestLargeBodiesOfOneCaller(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxBodyBytes, c.MaxBodyMemoryBytes = 4<<20, 64<<20 })
	var taken []func()
	for range spared() {
		taken = append(taken, must(s.unpacking.Take(t.Context(), fair.Caller{Address: "127.0.0.1"})))
	}
	order := make(chan string, 9)
	ask := func(ip string) {
		inside := s.unpacking.Len() + 1
		c := s.sendFrom(t, ip, posted(strings.Repeat(" ", largeBody)+"x", "Connection: close\r\n")) // no JSON: only read
		go func() {
			only(t, c).wantError(t, 400, "invalid_json", "")
			order <- ip
		}()
		until(t, func() bool { return s.unpacking.Len() == inside })
	}
	for range 8 {
		ask("127.0.0.1")
	}
	ask("127.0.0.2")
	taken[0]()
	var all []string
	for range 9 {
		all = append(all, <-order)
	}
	for _, done := range taken[1:] {
		done()
	}
	if all[8] == "127.0.0.2" {
		t.Errorf("answered in the order %v", all)
	}
}

func TestLargeBuffersAreNotKept(t *testing.T) {
	var m Memory
	m.free = 1 << 30
	for _, size := range []int{largestPooled + 1, 2 << 20, 16 << 20} {
		b, err := m.get("", size, 0)
		if err != nil || len(b) != 0 || cap(b) != size {
			t.Fatalf("%d bytes with room for %d, %v", len(b), cap(b), err)
		}
		m.put("", b)
	}
	for i := range m.pools {
		if v := m.pools[i].Get(); v != nil {
			t.Errorf("a buffer has been kept for %d bytes", pooledSizes[i])
		}
	}
}

// TestBodyMemoryIsBounded takes and puts back from many sides; run it with -race.
func TestBodyMemoryIsBounded(t *testing.T) {
	const budget = 1 << 20
	var m Memory
	m.free = budget
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			address, mine := string(rune('a'+i%3)), bytes.Repeat([]byte{byte(i)}, 16)
			for n := range 500 {
				b, err := m.get(address, (i*n*997)%(budget+budget/8)+1, 0)
				if err != nil {
					continue
				}
				copy(b[:16], mine)
				if free := m.available(); free < 0 || free > int64(budget-cap(b)) {
					t.Errorf("%d bytes are free while %d are taken", free, cap(b))
				}
				if !bytes.Equal(b[:16], mine) {
					t.Error("two have the same buffer")
				}
				m.put(address, b)
			}
		})
	}
	clients.Wait()
	if free := m.available(); free != budget || len(m.held) > 0 {
		t.Errorf("%d bytes are free at the end", free)
	}
}

// TestNothingKeptPointsIntoABody: what the cache, the log and the caller keep of a request is the
// same after its memory has been given back and overwritten.
func TestNothingKeptPointsIntoABody(t *testing.T) {
	var mu sync.Mutex
	var kept []string
	records := make(chan slog.Record, 100)
	s := serve(t, func(_ *Config, svc *Service) {
		svc.Engine = testEngine(t, newDevice(), func(_ *clip.Config, p *clip.Parts) {
			p.Tokenize = func(text string) ([]int32, bool) {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, text)
				return tokenize(text)
			}
		})
		svc.Log = slog.New(recorder{records: records})
	})
	requests := []string{
		classifyBody(goodImage, "", "first", "second \u00fc", strings.Repeat("long ", 400)), classifyBody(failingImage, "", "third"),
		classifyBody(panickingImage, "", "fourth"), `{"image":"AAAA!AAA","prompts":["x"]}`, classifyBody(goodImage, "", panickingText), `{"image":`, `{"text":"fifth"}`,
	}
	s.client.Transport.(*http.Transport).DisableKeepAlives = true
	for i, body := range requests {
		path := "/v1/classify"
		if strings.HasPrefix(body, `{"text"`) {
			path = "/v1/embed/text"
		}
		s.post(t, path, body, headerRequestID, fmt.Sprint("request-", i))
	}
	s.stop()
	want := []string{"first", "second ü", strings.Repeat("long ", 400), "third", "fourth", panickingText, "fifth"}
	slices.Sort(want)
	if slices.Sort(kept); !slices.Equal(kept, want) {
		t.Errorf("kept %.200q\nwant %.200q", kept, want)
	}
	if len(records) != len(requests) {
		t.Fatalf("%d lines in the log", len(records))
	}
	for i := range requests {
		(<-records).Attrs(func(a slog.Attr) bool {
			text := a.Value.String()
			if !utf8.ValidString(text) || a.Key == "request_id" && text != fmt.Sprint("request-", i) || a.Key == "path" && !strings.HasPrefix(text, "/v1/") {
				t.Errorf("line %d has %s=%.200q", i, a.Key, text)
			}
			return true
		})
	}
}

// recorder hands on the lines of a log as they were handed to it.
type recorder struct {
	slog.Handler
	records chan slog.Record
}

func (r recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r recorder) Handle(_ context.Context, record slog.Record) error {
	r.records <- record
	return nil
}

// TestExpect: a client that asks before it sends its body gets every refusal that the body is
// not needed for, and "100 Continue" otherwise.
func TestExpect(t *testing.T) {
	good := serve(t, nil)
	stopping := serve(t, nil)
	stopping.do(t, "GET", "/health", "") // it accepts connections
	stopping.stopping.Store(true)
	ill := serve(t, nil)
	ill.lose("no device")
	const asks = "Host: x\r\nExpect: 100-continue\r\n"
	for _, c := range []struct {
		s      *service
		head   string
		status int
		code   string
	}{
		{good, "POST /v1/classify HTTP/1.1\r\n" + asks + "Content-Length: 1048577\r\n\r\n", 413, "body_too_large"},
		{good, "POST /v1/classify HTTP/1.1\r\n" + asks + "Content-Type: video/mp4\r\nContent-Length: 9\r\n\r\n", 415, "unsupported_media_type"},
		{good, "POST /v1/classify HTTP/1.1\r\n" + asks + headerTimeout + ": x\r\nContent-Length: 9\r\n\r\n", 400, "invalid_request"},
		{good, "POST /v2 HTTP/1.1\r\n" + asks + "Content-Length: 9\r\n\r\n", 404, "not_found"},
		{good, "PUT /v1/classify HTTP/1.1\r\n" + asks + "Content-Length: 9\r\n\r\n", 405, "method_not_allowed"},
		{good, "POST /v1/classify HTTP/1.1\r\n" + asks + "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"},
		{stopping, "POST /v1/classify HTTP/1.1\r\n" + asks + "Content-Length: 9\r\n\r\n", 503, "stopping"},
		{ill, "POST /v1/embed/text HTTP/1.1\r\n" + asks + "Content-Length: 9\r\n\r\n", 503, "not_ready"},
	} {
		only(t, c.s.send(t, c.head)).wantError(t, c.status, c.code, "")
	}
	t.Run("wanted", func(t *testing.T) {
		c := good.send(t)
		r := bufio.NewReader(c)
		body := classifyBody(goodImage, "", "x")
		for range 2 { // the connection goes on
			fmt.Fprintf(c, "POST /v1/classify HTTP/1.1\r\n%sX-Request-Id: mine\r\nContent-Length: %d\r\n\r\n", asks, len(body))
			if resp := must(http.ReadResponse(r, nil)); resp.StatusCode != http.StatusContinue {
				t.Fatal(resp)
			}
			fmt.Fprint(c, body)
			if a := must(read(must(http.ReadResponse(r, nil)))); a.status != http.StatusOK || len(a.header[headerRequestID]) != 1 {
				t.Fatal(a)
			}
		}
		if n := strings.Count(good.log.String(), `"request_id":"mine"`); n != 2 {
			t.Errorf("%d lines in the log for 2 requests", n)
		}
	})
	only(t, good.send(t, "GET /health HTTP/1.1\r\n"+asks+"Content-Length: 9\r\n\r\n")).wantOK(t) // no body is needed
}

// TestAnotherKindOfBody: it takes a reader in the route. Who sends none of the kinds learns which there are.
func TestAnotherKindOfBody(t *testing.T) {
	s := newService(t, nil)
	routes := s.routes(s.rules.Load())
	to := routes[slices.IndexFunc(routes, func(to route) bool { return to.path == "/v1/embed/image" })]
	to.path, to.reads = to.path+"/or-bytes", append(to.reads[:1:1], reader{
		media: "image/bmp", accepts: func(media []byte) bool { return string(media) == "image/bmp" }, limit: 10_000,
		read: func(r *request) error { r.ask.Image = r.body; return nil },
	})
	s.rules.Load().router.POST(to.path, to.handle(s.other, nil))
	s.listen(t)
	s.post(t, to.path, string(imageFile(goodImage)), "Content-Type", "image/bmp").wantOK(t)
	s.post(t, to.path, classifyBody(goodImage, "")).wantOK(t)
	s.post(t, to.path, "x", "Content-Type", "text/plain").wantError(t, 415, "unsupported_media_type", "send application/json or image/bmp")
	s.post(t, to.path, strings.Repeat("x", 10_001), "Content-Type", "image/bmp").wantError(t, 413, "body_too_large", "10000 bytes")
	s.allReturned(t)
}
