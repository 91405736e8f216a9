package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/api/access"
	"hailoclip/api/outbound"
	"hailoclip/pipeline/fair"
)

// fetching serves with hosts that may be asked.
func fetching(t *testing.T, allow ...string) *service {
	t.Helper()
	return serve(t, func(_ *Config, svc *Service) { svc.Allowed = outbound.New(outbound.Config{Allow: allow}) })
}

// host serves images for as long as the test takes.
func host(t *testing.T, handle http.HandlerFunc) (url, port string) {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	noError(t, err)
	return server.URL, port
}

func atURL(url string) string { return fmt.Sprintf(`{"image_url":%q,"prompts":["a","b"]}`, url) }

// TestFetch has an image come from its address wherever one may be given.
func TestFetch(t *testing.T) {
	url, _ := host(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Authorization")+r.Header.Get("Cookie")+r.Header.Get("X-Request-Id") != "" || !r.Close {
			t.Errorf("asked with %s %v", r.Method, r.Header)
		}
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/moved/to", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "text/html") // the bytes say what it is
		w.Write(imageFile(goodImage))
	})
	s := fetching(t, "127.0.0.1")
	for _, c := range []struct{ path, body, media string }{
		{"/v1/classify", fmt.Sprintf(`{"image_url":%q,"prompts":[%q,"other"],"top_k":1}`, url+"/x?token=1#y", goodImage), "application/json"},
		{"/v1/classify", fmt.Sprintf(`{"image":null,"IMAGE_URL":%q,"prompts":[%q,"other"],"top_k":1}`, strings.ToUpper(url[:4])+url[4:]+"/moved", goodImage), "application/json"},
		{"/v1/classify?top_k=1&image_url=" + url, fmt.Sprintf(`{"prompts":[%q,"other"]}`, goodImage), "application/json"},
		{"/v1/classify?top_k=1&prompts=other&prompts=an+image&image_url=" + url, "", "image/jpeg"},
		{"/v1/classify?top_k=1&prompts=other&prompts=an+image", "--x\r\nContent-Disposition: form-data; name=\"image_url\"\r\n\r\n" + url + "\r\n--x--\r\n", "multipart/form-data; boundary=x"},
	} {
		var a classifyAnswer
		r := s.post(t, c.path, c.body, "Content-Type", c.media)
		r.into(t, &a)
		if r.wantOK(t); len(a.Classifications) != 1 || a.Classifications[0].Text != goodImage {
			t.Errorf("%s: %s", c.path, r.body)
		}
	}
	want := s.post(t, "/v1/embed/image?encoding=base64", `{"image":"`+b64(goodImage)+`"}`)
	got := s.post(t, "/v1/embed/image?encoding=base64", `{"image_url":"`+url+`"}`)
	if vector := func(r reply) []byte { _, v, _ := bytes.Cut(r.body, []byte(`"embedding"`)); return v[:100] }; !bytes.Equal(vector(want), vector(got)) {
		t.Errorf("%s, want %s", got.body, want.body)
	}
	batch := s.post(t, "/v1/embed/batch?encoding=base64", fmt.Sprintf(`{"images":[%q,%q,"http:","https://x","%s"],"texts":["a"]}`, url, b64(goodImage), strings.ReplaceAll(url, "/", `\/`)))
	batch.wantOK(t)
	if n := strings.Count(string(batch.body), `"embedding"`); n != 4 || strings.Count(string(batch.body), `"code":"invalid_request"`) != 2 {
		t.Errorf("%s", batch.body)
	}
	s.post(t, "/v1/classify/batch", fmt.Sprintf(`{"images":[%q],"prompts":["a"]}`, url)).wantOK(t)
	dialect := fmt.Sprintf(`{"model":%q,"input":[{"image":%q},%q]}`, testModel, url, "x")
	if r := s.post(t, "/v1/embeddings", dialect); r.status != 200 || strings.Count(string(r.body), `"embedding":[`) != 2 {
		t.Errorf("%.300s", r.body)
	}
	if r := serve(t, nil).post(t, "/v1/embeddings", dialect); r.status != 400 || !strings.Contains(string(r.body), "fetch.allow has no hosts") {
		t.Errorf("%.300s", r.body)
	}
	compared := s.post(t, "/v1/compare", fmt.Sprintf(`{"a":[{"image_url":%q}],"b":[{"image":%q},{"text":%q}]}`, url, b64(goodImage), goodImage))
	if compared.wantOK(t); !strings.HasPrefix(string(compared.body), `{"cosine":[[1,1]]`) {
		t.Errorf("%s", compared.body)
	}
	s.allReturned(t)
}

// TestFetchRefused has addresses that are not asked at all.
func TestFetchRefused(t *testing.T) {
	asked := atomic.Int32{}
	url, port := host(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	other, otherPort := host(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	s := fetching(t, "127.0.0.1:"+port, "localhost", "*.example.org")
	for name, c := range map[string]struct{ path, body, code, sentence string }{
		"another port":          {"", atURL(other), "invalid_request", "fetch.allow"},
		"a private address":     {"", atURL("http://localhost:" + otherPort), "invalid_request", "fetch.allow"},
		"another host":          {"", atURL("http://10.0.0.1/"), "invalid_request", "fetch.allow"},
		"metadata":              {"", atURL("http://169.254.169.254/latest/"), "invalid_request", "fetch.allow"},
		"a decimal address":     {"", atURL("http://2130706433:" + port), "invalid_request", "fetch.allow"},
		"an octal address":      {"", atURL("http://0177.0.0.1:" + port), "invalid_request", "fetch.allow"},
		"mapped":                {"", atURL("http://[::ffff:10.0.0.1]:" + port), "invalid_request", "fetch.allow"},
		"a name that ends so":   {"", atURL("http://evil-example.org"), "invalid_request", "fetch.allow"},
		"in front of @":         {"", atURL("http://127.0.0.1:" + port + "@10.0.0.1/"), "invalid_request", "no user"},
		"a user":                {"", atURL("http://user:secret@127.0.0.1:" + port), "invalid_request", "no user"},
		"a file":                {"", atURL("file:///etc/passwd"), "invalid_request", "http://"},
		"another scheme":        {"", atURL("gopher://127.0.0.1:" + port), "invalid_request", "http://"},
		"no scheme":             {"", atURL("127.0.0.1:" + port), "invalid_request", "no address"},
		"no host":               {"", atURL("http:///x"), "invalid_request", "http://"},
		"a path":                {"", atURL("/v1/stats"), "invalid_request", "http://"},
		"opaque":                {"", atURL("http:127.0.0.1:" + port), "invalid_request", "http://"},
		"a line end":            {"", atURL(url + "/\r\nX: y"), "invalid_request", "no address"},
		"a space":               {"", atURL(url + "/ HTTP/1.1"), "invalid_request", "no address"},
		"a backslash":           {"", atURL(`http://127.0.0.1:` + port + `\@10.0.0.1/`), "invalid_request", ""},
		"too long":              {"", atURL(url + "/" + strings.Repeat("x", maxAddress)), "invalid_request", "2048"},
		"empty":                 {"", atURL(""), "invalid_request", "image_url"},
		"an object":             {"", `{"image_url":{"url":"` + url + `"},"prompts":["x"]}`, "invalid_request", "must be the address"},
		"beside an image":       {"", classifyBody(goodImage, `,"image_url":"`+url+`"`, "x"), "invalid_request", "exclude"},
		"beside what is none":   {"", `{"image":5,"image_url":"` + url + `","prompts":["x"]}`, "invalid_request", "exclude"},
		"in the query, too":     {"?image_url=" + url, atURL(url), "invalid_request", "in the query and in the body"},
		"for a whole batch":     {"/batch", `{"images":["x"],"image_url":"` + url + `","prompts":["x"]}`, "invalid_request", "image_url is not supported"},
		"with prompts that are": {"", `{"image_url":"` + url + `","prompts":[]}`, "invalid_prompts", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.post(t, "/v1/classify"+c.path, c.body)
			if r.wantError(t, 400, c.code, c.sentence); strings.Contains(string(r.body), "secret") {
				t.Errorf("%s", r.body)
			}
		})
	}
	s.post(t, "/v1/prompt-sets/x/examples", `{"label":"a","image_url":"`+url+`"}`).wantError(t, 400, "invalid_request", "image_url")
	if asked.Load() > 0 {
		t.Errorf("%d requests were sent", asked.Load())
	}
	serve(t, nil).post(t, "/v1/classify", atURL(url)).wantError(t, 400, "invalid_request", "image_url is not supported, send the image: fetch.allow has no hosts")
}

// TestFetchHostile asks hosts that answer with something else than a whole image. Nothing of that is told but the status, nothing
// stays behind, and the service goes on.
func TestFetchHostile(t *testing.T) {
	const secret = "a secret of the inner network"
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(append(imageFile(goodImage), make([]byte, 64<<20)...))
	z.Close()
	image := imageFile(goodImage)
	raw := func(lines string, body ...[]byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, strings.ReplaceAll(lines, "\n", "\r\n"))
			for _, b := range body {
				conn.Write(b)
			}
		}
	}
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	answers := map[string]struct {
		handle http.HandlerFunc
		status int
		code   string
		text   string
	}{
		"status":         {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusNotFound) }, 400, "invalid_image", "answers 404 Not Found"},
		"error":          {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusInternalServerError) }, 400, "invalid_image", "answers 500"},
		"strange status": {raw("HTTP/1.1 799 " + secret + "\nContent-Length: 0\n\n"), 400, "invalid_image", "answers 799"},
		"nothing":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 400, "invalid_image", "answers 204"},
		"a part":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent); w.Write(image) }, 400, "invalid_image", "answers 206"},
		"unchanged":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, 400, "invalid_image", "answers 304"},
		"no image":       {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, secret) }, 400, "invalid_image", "is not an image"},
		"no bytes":       {func(http.ResponseWriter, *http.Request) {}, 400, "invalid_image", "is not an image"},
		"a broken image": {func(w http.ResponseWriter, _ *http.Request) { w.Write(image[:len(image)/2]) }, 400, "invalid_image", "runcated"},
		"a format":       {func(w http.ResponseWriter, _ *http.Request) { w.Write(imageFile(avifImage)) }, 415, "unsupported_image", "AVIF"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("asked for %s", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		}, 400, "invalid_image", "is not an image"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(image); err != nil {
					return
				}
			}
		}, 413, "body_too_large", "larger than 1048576 bytes"},
		"drip": {func(w http.ResponseWriter, r *http.Request) {
			for {
				w.Write(image[:1])
				if http.NewResponseController(w).Flush() != nil {
					return
				}
				select {
				case <-time.After(time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
		}, 400, "invalid_image", "did not come from image_url within 200ms"},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-ended:
			}
		}, 400, "invalid_image", "within 200ms"},
		"promises much":     {raw("HTTP/1.1 200 OK\nContent-Length: 99999999999999\n\n", image), 413, "body_too_large", "larger than 1048576 bytes"},
		"promises more":     {raw("HTTP/1.1 200 OK\nContent-Length: 999999\n\n", image), 400, "invalid_image", "could not be fetched"},
		"promises less":     {raw("HTTP/1.1 200 OK\nContent-Length: 30\n\n", image), 400, "invalid_image", "runcated"},
		"two lengths":       {raw("HTTP/1.1 200 OK\nContent-Length: 30\nContent-Length: 40\n\n", image), 400, "invalid_image", "could not be fetched"},
		"broken chunks":     {raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\n", image), 400, "invalid_image", "could not be fetched"},
		"endless chunk":     {raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nffffffffffffffff0\n", image), 400, "invalid_image", "could not be fetched"},
		"no HTTP":           {raw("SSH-2.0-OpenSSH_9.6 " + secret + "\n"), 400, "invalid_image", "could not be fetched"},
		"another protocol":  {raw("HTTP/1.1 101 Switching Protocols\nUpgrade: x\nConnection: Upgrade\n\n", image), 400, "invalid_image", "answers 101"},
		"large headers":     {raw("HTTP/1.1 200 OK\nX: " + strings.Repeat("x", 1<<20) + "\n\n"), 400, "invalid_image", "could not be fetched"},
		"endless headers":   {raw("HTTP/1.1 200 OK\n" + strings.Repeat("X: y\n", 1<<18)), 400, "invalid_image", "could not be fetched"},
		"endless promises":  {raw(strings.Repeat("HTTP/1.1 103 Early Hints\nX: y\n\n", 1<<16)), 400, "invalid_image", "could not be fetched"},
		"gone":              {raw(""), 400, "invalid_image", "could not be fetched"},
		"to another port":   {moved("http://127.0.0.1:1/"), 400, "invalid_request", "fetch.allow"},
		"to another host":   {moved("http://localhost/"), 400, "invalid_request", "fetch.allow"},
		"to metadata":       {moved("http://169.254.169.254/"), 400, "invalid_request", "fetch.allow"},
		"to a file":         {moved("file:///etc/passwd"), 400, "invalid_request", "fetch.allow"},
		"round and round":   {func(w http.ResponseWriter, r *http.Request) { moved(r.URL.Path)(w, r) }, 400, "invalid_image", "could not be fetched"},
		"moved to nowhere":  {moved(""), 400, "invalid_image", ""},
		"moved to nonsense": {moved("http://[::1"), 400, "invalid_image", "could not be fetched"},
	}
	url, port := host(t, func(w http.ResponseWriter, r *http.Request) {
		name, err := strconv.Unquote(`"` + r.URL.Path[1:] + `"`)
		noError(t, err)
		answers[name].handle(w, r)
	})
	s := fetching(t, "127.0.0.1:"+port)
	s.fetcher.patience = 200 * time.Millisecond
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			if c.code != "invalid_image" || !strings.Contains(c.text, "within") { // the others may take their time, on any machine
				s.fetcher.patience = time.Minute
				defer func() { s.fetcher.patience = 200 * time.Millisecond }()
			}
			r := s.post(t, "/v1/classify", atURL(url+"/"+strings.ReplaceAll(name, " ", "%20")))
			if r.wantError(t, c.status, c.code, c.text); strings.Contains(string(r.body), "secret") || strings.Contains(string(r.body), port) {
				t.Errorf("%s", r.body)
			}
			s.allReturned(t)
		})
	}
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	refusing := ln.Addr().String()
	ln.Close()
	s = fetching(t, "127.0.0.1")
	s.post(t, "/v1/classify", atURL("http://"+refusing)).wantError(t, 400, "invalid_image", "The image could not be fetched from image_url")
	s.post(t, "/v1/classify", atURL("https://"+strings.TrimPrefix(url, "http://"))).wantError(t, 400, "invalid_image", "could not be fetched")
	s.do(t, "GET", "/health", "").wantOK(t)
}

func moved(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
}

// TestFetchEnds: a request that is over, by its deadline or because its client has gone, asks no longer.
func TestFetchEnds(t *testing.T) {
	came, went := make(chan struct{}, 10), make(chan struct{}, 10)
	url, _ := host(t, func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
		went <- struct{}{}
	})
	s := fetching(t, "127.0.0.1")
	s.post(t, "/v1/classify", atURL(url), headerTimeout, "200").wantError(t, 504, "deadline_exceeded", "")
	<-came
	<-went
	c := s.send(t, posted(atURL(url)))
	<-came
	c.Close()
	<-went
	s.allReturned(t)
}

// TestFetchMemory: what is fetched counts as memory for bodies, and as a body.
func TestFetchMemory(t *testing.T) {
	url, _ := host(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write(append(imageFile(goodImage), make([]byte, 900<<10)...))
	})
	s := fetching(t, "127.0.0.1")
	body := `{"images":[` + strings.TrimSuffix(strings.Repeat(`"`+url+`",`, 6), ",") + `]}`
	r := s.post(t, "/v1/embed/batch", body) // four fit into max_batch_body_bytes
	if r.wantOK(t); strings.Count(string(r.body), `"embedding"`) != 4 || strings.Count(string(r.body), "larger than 4194304 bytes together") != 2 {
		t.Errorf("%.300s", r.body)
	}
	s.allReturned(t)
	taken := s.bodies.all - 128<<10 // one body, and not its image
	if !s.bodies.take("another", taken, 0) {
		t.Fatal("there is no memory")
	}
	s.post(t, "/v1/classify", atURL(url)).wantError(t, 429, "queue_full", "")
	s.bodies.mu.Lock()
	s.bodies.free += taken
	delete(s.bodies.held, "another")
	s.bodies.mu.Unlock()
	s.post(t, "/v1/classify", atURL(url)).wantOK(t)
	s.allReturned(t)
}

// TestFetchTurns: one caller asks a host few times at once, whatever it has waiting, and others go past it.
func TestFetchTurns(t *testing.T) {
	slow := make(chan struct{})
	inside, most := atomic.Int32{}, atomic.Int32{}
	url, _ := host(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			for n := inside.Add(1); n > most.Load(); most.Store(n) {
			}
			<-slow
			inside.Add(-1)
		}
		w.Write(imageFile(goodImage))
	})
	s := serve(t, func(_ *Config, svc *Service) {
		svc.Access = access.New(access.Config{Keys: []access.Key{keyOf("ann", nil), keyOf("bob", nil)}})
		svc.Allowed = outbound.New(outbound.Config{Allow: []string{"127.0.0.1"}})
	})
	const batch = 12
	var anns sync.WaitGroup
	for range 2 {
		anns.Go(func() {
			body := `{"images":[` + strings.TrimSuffix(strings.Repeat(`"`+url+`/slow",`, batch), ",") + `]}`
			r := s.post(t, "/v1/embed/batch", body, "Authorization", bearerOf("ann"))
			if r.wantOK(t); strings.Count(string(r.body), `"embedding"`) != batch {
				t.Errorf("%.300s", r.body)
			}
		})
	}
	until(t, func() bool { return inside.Load() == fetchesOfOne })
	s.post(t, "/v1/classify", atURL(url), "Authorization", bearerOf("bob")).wantOK(t)
	close(slow)
	anns.Wait()
	if most.Load() != fetchesOfOne {
		t.Errorf("%d at once", most.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.fetcher.take(ctx, fair.Caller{Address: "x"}); err == nil {
		t.Error("a turn for who has gone")
	}
	if len(s.fetcher.own) > 0 {
		t.Errorf("%d callers are remembered", len(s.fetcher.own))
	}
}

// FuzzAddress: whatever a caller sends as an address, what is to be asked is http or https, has no credentials, is a host that the list
// may allow, and reads the same once more.
func FuzzAddress(f *testing.F) {
	for _, address := range []string{
		"http://127.0.0.1/x?y#z", "https://user:password@camera.example:8443/", "http://127.0.0.1:80\\@10.0.0.1/", "//x", "http:x",
		"http://[::1%25eth0]/", "http://camera.example:080/", "HTTP://CAMERA.example./%0d%0a", "data:image/png;base64,AAAA",
	} {
		f.Add(address)
	}
	allowed := outbound.New(outbound.Config{Allow: []string{"camera.example", "127.0.0.0/8"}})
	fetcher := newFetcher(allowed)
	f.Fuzz(func(t *testing.T, address string) {
		u, err := fetcher.target(address)
		if err != nil {
			if o := outcomeOf(err); o.status != 400 || len(o.text) > 200 {
				t.Errorf("%q: %d %s", address, o.status, o.text)
			}
			return
		}
		again, err := fetcher.target(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is %q, and that is %v, %v", address, u, again, err)
		}
		ip, isIP := netip.ParseAddr(u.Hostname())
		if isIP == nil && !ip.Unmap().IsLoopback() || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" || strings.ContainsAny(u.String(), "\r\n \t") {
			t.Errorf("%q is %q", address, u)
		}
	})
}
