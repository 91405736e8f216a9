package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"hailoclip/api/access"
	"hailoclip/api/compat"
)

// secretOf is the key of that name in tests.
func secretOf(name string) string { return "hc_the-key-of-" + name + "-1234567890" }

func keyOf(name string, change func(*access.Key)) access.Key {
	var k access.Key
	k.SetDefaults()
	k.Name, k.Hash = name, access.Sum([]byte(secretOf(name)))
	if change != nil {
		change(&k)
	}
	return k
}

// keyed gives a server keys: "ann" may do all, "bob" may change nothing.
func keyed(t *testing.T, more ...access.Key) *service {
	t.Helper()
	c := access.Config{Keys: append([]access.Key{keyOf("ann", nil), keyOf("bob", func(k *access.Key) { k.Manage = false })}, more...)}
	c.Check(func(field, format string, args ...any) { t.Fatalf(field+" "+format, args...) })
	stored := kept(t)
	return serve(t, func(cfg *Config, svc *Service) {
		stored(cfg, svc)
		svc.Access = access.New(c)
	})
}

func bearerOf(name string) string { return "Bearer " + secretOf(name) }

// TestRoutesNeedKeys has the whole list: whoever adds a route says here who may use it. Those of other systems need a key, but for
// a few which their clients ask without one.
func TestRoutesNeedKeys(t *testing.T) {
	const everybody, anyKey, manager = "everybody", "any key", "a key that may manage"
	want := map[string]string{
		"GET /health": everybody, "HEAD /health": everybody, "GET /openapi.yaml": everybody, "HEAD /openapi.yaml": everybody,
		"GET /openapi.json": everybody, "HEAD /openapi.json": everybody, "GET /docs": everybody, "HEAD /docs": everybody,
		"GET /": everybody, "HEAD /": everybody, "GET /console/{name}": everybody, "HEAD /console/{name}": everybody,
		"GET /healthz": everybody, "HEAD /healthz": everybody, "GET /readyz": everybody, "HEAD /readyz": everybody, "POST /v1/tokens": anyKey,
		"GET /metrics": anyKey, "POST /admin/reload": manager,
		"GET /v1/stats": anyKey, "GET /v1/fleet": anyKey, "POST /v1/classify": anyKey, "POST /v1/embed/image": anyKey, "POST /v1/embed/text": anyKey,
		"POST /v1/classify/batch": anyKey, "POST /v1/embed/batch": anyKey, "POST /v1/compare": anyKey,
		"GET /v1/prompt-sets": anyKey, "GET /v1/prompt-sets/{name}": anyKey, "PUT /v1/prompt-sets/{name}": manager, "DELETE /v1/prompt-sets/{name}": manager,
		"POST /v1/prompt-sets/{name}/examples": manager, "POST /v1/prompt-sets/{name}/evaluate": anyKey, "POST /v1/prompt-sets/{name}/evaluate?apply=true": manager,
		"GET /v1/stream": anyKey, "GET /v1/streams": anyKey, "GET /v1/streams/{id}": anyKey, "PUT /v1/streams/{id}": manager, "DELETE /v1/streams/{id}": manager,
		"POST /v1/streams/{id}/frames": anyKey, "GET /v1/streams/{id}/events": anyKey, "GET /v1/events/{id}": anyKey, "DELETE /v1/events/{id}": manager,
		"GET /v1/events/{id}/thumbnail": anyKey, "GET /nowhere": anyKey, "POST /health": anyKey, "GET /v1/classify": anyKey, "TRACE /": anyKey,
	}
	for _, d := range compat.Dialects {
		for _, r := range d.Routes {
			if r.Own {
				continue
			}
			want[r.Method+" "+r.Path] = anyKey
			if slices.Contains([]string{"/ping", "/meta", "/props", "/info", "/.well-known/ready", "/.well-known/live", "/upstream/{id:*}"}, r.Path) {
				want[r.Method+" "+r.Path] = everybody
			}
			if r.Method == http.MethodGet {
				want["HEAD "+r.Path] = want["GET "+r.Path]
			}
		}
	}
	s := keyed(t)
	for method, paths := range s.rules.Load().router.List() {
		for _, path := range paths {
			if want[method+" "+path] == "" {
				t.Errorf("%s %s: who may?", method, path)
			}
		}
	}
	for what, who := range want {
		method, path, _ := strings.Cut(what, " ")
		path = strings.NewReplacer("{name}", "x", "{id}", "x", "{id:*}", "x").Replace(path)
		ask := func(lines ...string) int {
			c := s.send(t, method+" "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+strings.Join(append(lines, "\r\n"), "\r\n"))
			resp := must(http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method}))
			resp.Body.Close()
			return resp.StatusCode
		}
		none, bob, ann := ask(), ask("Authorization: "+bearerOf("bob")), ask("Authorization: "+bearerOf("ann"))
		if (none == 401) != (who != everybody) || (bob == 403) != (who == manager) || ann == 401 || ann == 403 || bob == 401 {
			t.Errorf("%s is for %s: without a key %d, with one that may not manage %d, with one that may %d", what, who, none, bob, ann)
		}
	}
}

func TestKeys(t *testing.T) {
	s := keyed(t)
	long := strings.Repeat("x", 6<<10)
	for _, tt := range []struct {
		name  string
		lines []string
		ok    bool
	}{
		{"right", []string{"Authorization: " + bearerOf("ann")}, true},
		{"scheme in other letters", []string{"authorization: BEARER  " + secretOf("ann") + " "}, true},
		{"none", nil, false},
		{"empty", []string{"Authorization: "}, false},
		{"no key", []string{"Authorization: Bearer"}, false},
		{"an empty key", []string{"Authorization: Bearer "}, false},
		{"no scheme", []string{"Authorization: " + secretOf("ann")}, false},
		{"another scheme", []string{"Authorization: Basic " + secretOf("ann")}, false},
		{"a wrong key", []string{"Authorization: Bearer " + secretOf("eve")}, false},
		{"a prefix", []string{"Authorization: Bearer " + secretOf("ann")[:20]}, false},
		{"more", []string{"Authorization: Bearer " + secretOf("ann") + "x"}, false},
		{"two", []string{"Authorization: " + bearerOf("ann") + ", " + bearerOf("bob")}, false},
		{"twice", []string{"Authorization: " + bearerOf("ann"), "Authorization: " + bearerOf("ann")}, false},
		{"twice, one wrong", []string{"Authorization: Bearer x", "Authorization: " + bearerOf("ann")}, false},
		{"not ASCII", []string{"Authorization: Bearer \xff\xc3\xa4" + secretOf("ann")}, false},
		{"huge", []string{"Authorization: Bearer " + long}, false},
		{"its hash", []string{"Authorization: Bearer " + access.Sum([]byte(secretOf("ann"))).Text()}, false},
		{"another header", []string{"X-Api-Key: " + secretOf("ann")}, false},
		{"a subprotocol where no WebSocket begins", []string{"Sec-WebSocket-Protocol: hailo-clip, key." + secretOf("ann")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines := strings.Join(append(tt.lines, "Connection: close", ""), "\r\n")
			r := only(t, s.send(t, posted(classifyBody(goodImage, "", "x"), lines)))
			if tt.ok {
				r.wantOK(t)
				return
			}
			r.wantError(t, 401, "unauthorized", "key")
			if got := r.header.Get("WWW-Authenticate"); got != `Bearer realm="hailo-clip"` {
				t.Errorf("WWW-Authenticate %q", got)
			}
		})
	}
	if s.do(t, "GET", "/v1/stats?key="+secretOf("ann"), "").status != 401 {
		t.Error("a key in the address is taken")
	}
	s.stop()
	log := s.log.String()
	for _, secret := range []string{secretOf("eve"), "Bearer", "hc_the", access.Sum([]byte(secretOf("ann"))).Text()[7:]} {
		if strings.Contains(strings.ReplaceAll(log, `"path":"/v1/stats"`, ""), secret) {
			t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
	if strings.Count(log, `"key":"ann"`) != 2 || !strings.Contains(log, `"code":"unauthorized"`) {
		t.Errorf("who has asked is not in the log:\n%s", log)
	}
}

// TestKeysBeforeBodies: of those who have no key nothing is read but the head.
func TestKeysBeforeBodies(t *testing.T) {
	s := keyed(t)
	c := s.send(t, "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	only(t, c).wantError(t, 401, "unauthorized", "Authorization: Bearer KEY") // and no 100 before it
	c = s.send(t, "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n", strings.Repeat(" ", 10000))
	only(t, c).wantError(t, 401, "unauthorized", "")
	body := classifyBody(goodImage, "", "x")
	c = s.send(t, fmt.Sprintf("POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\nAuthorization: %s\r\n\r\n", len(body), bearerOf("ann")))
	r := bufio.NewReader(c)
	if resp := must(http.ReadResponse(r, nil)); resp.StatusCode != http.StatusContinue {
		t.Fatal(resp.Status)
	}
	fmt.Fprint(c, body)
	must(read(must(http.ReadResponse(r, nil)))).wantOK(t)
	if n := s.svc.Access.Find([]byte(secretOf("ann"))); !n.Enter() {
		t.Error("it is still inside")
	}
}

// TestPathsOfOthers: no way to write a path makes it one that needs no key.
func TestPathsOfOthers(t *testing.T) {
	s := keyed(t)
	for _, path := range []string{"/health/../v1/stats", "/console/../v1/stats", "//v1/stats", "/v1/stats/", "/%76%31/stats", "/v1/./stats", "/health%2f..%2fv1%2fstats",
		"/openapi./../v1/stats", "/v1/stats;/health", "/v1/stats#/health", "/v1/stats?/health", "http://x/v1/stats", "/V1/stats", `/health\..\v1\stats`} {
		c := s.send(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if r := only(t, c); r.status != 401 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

func TestConcurrentOfKey(t *testing.T) {
	s := keyed(t, keyOf("one", func(k *access.Key) { k.MaxConcurrent = 1 }))
	auth := "Authorization: " + bearerOf("one") + "\r\n"
	busy := s.send(t, posted(classifyBody(heldImage, "", "x"), auth))
	<-s.entered
	only(t, s.send(t, posted(classifyBody(goodImage, "", "x"), "Connection: close\r\n", auth))).wantError(t, 429, "queue_full", "this key")
	s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("ann")).wantOK(t)
	s.release()
	must(read(must(http.ReadResponse(bufio.NewReader(busy), nil)))).wantOK(t)
	until(t, func() bool { return s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("one")).status == 200 })

	ws := s.dial(t, `{"prompts":["x","y"]}`, "Authorization", bearerOf("one"))
	s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("one")).wantError(t, 429, "queue_full", "this key")
	_ = ws.CloseNow()
	until(t, func() bool { return s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("one")).status == 200 })
}

// TestBulkKey: requests with a key of priority bulk wait for each other and are not refused, and others go before them.
func TestBulkKey(t *testing.T) {
	s := keyed(t, keyOf("slow", func(k *access.Key) { k.Priority = "bulk" }))
	held := s.send(t, posted(classifyBody(heldImage, "", "x"), "Authorization: "+bearerOf("ann")+"\r\n"))
	<-s.entered
	var all []func() reply
	for range 3 * testQueue { // without the key most would be refused
		c := s.send(t, posted(classifyBody(goodImage, "", "x"), "Authorization: "+bearerOf("slow")+"\r\n"))
		all = append(all, func() reply { return must(read(must(http.ReadResponse(bufio.NewReader(c), nil)))) })
	}
	s.release()
	for _, answer := range append(all, func() reply { return must(read(must(http.ReadResponse(bufio.NewReader(held), nil)))) }) {
		answer().wantOK(t)
	}
}

// dialBrowser opens a WebSocket as a page does.
func (s *service) dialBrowser(t *testing.T, protocols ...string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ws, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.url, "http")+"/v1/stream",
		&websocket.DialOptions{HTTPClient: s.client, Subprotocols: protocols, HTTPHeader: http.Header{"Origin": {s.url}}})
	if err == nil {
		t.Cleanup(func() { _ = ws.CloseNow() })
	}
	return ws, resp, err
}

func TestKeyOfWebSocket(t *testing.T) {
	s := keyed(t)
	for _, protocols := range [][]string{nil, {"hailo-clip"}, {"hailo-clip", "key.x"}, {"hailo-clip", "key." + secretOf("eve")},
		{"hailo-clip", "key." + secretOf("ann"), "key." + secretOf("ann")}} {
		if _, resp, err := s.dialBrowser(t, protocols...); err == nil || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %v", protocols, err)
		}
	}
	ws, resp, err := s.dialBrowser(t, "hailo-clip", "key."+secretOf("ann"))
	noError(t, err)
	if got := ws.Subprotocol(); got != subprotocol {
		t.Errorf("subprotocol %q", got)
	}
	for name, values := range resp.Header {
		if strings.Contains(strings.Join(values, ""), "hc_") {
			t.Errorf("%s has the key", name)
		}
	}
	say(t, ws, `{"prompts":["x","y"]}`)
	show(t, ws, imageFile(goodImage))
	if _, b, err := ws.Read(t.Context()); err != nil || !strings.Contains(string(b), "classifications") {
		t.Errorf("%s %v", b, err)
	}
	noError(t, ws.CloseNow())
	if ws, _, err := serve(t, nil).dialBrowser(t); err != nil || ws.Subprotocol() != "" {
		t.Error("one was selected that was not offered", err)
	}
	until(t, func() bool { return strings.Contains(s.log.String(), `"key":"ann","path":"/v1/stream"`) })
	if strings.Contains(s.log.String(), "hc_") {
		t.Error("a key is in the log")
	}
}

// TestRevoked: what goes on with a key ends when it is revoked, and only that.
func TestRevoked(t *testing.T) {
	s := keyed(t, keyOf("cat", nil))
	put := s.json(t, "PUT", "/v1/streams/door", `{"prompts":["x","y"],"events":{}}`, "Authorization", bearerOf("ann"))
	if put.status != 201 {
		t.Fatalf("%d %s", put.status, put.body)
	}
	ws := s.dial(t, `{"prompts":["x","y"]}`, "Authorization", bearerOf("cat"))
	stays := s.dial(t, `{"prompts":["x","y"]}`, "Authorization", bearerOf("ann"))
	show(t, ws, imageFile(goodImage))
	_, _, err := ws.Read(t.Context())
	noError(t, err)
	open := func(request string) *bufio.Reader { return bufio.NewReader(s.send(t, request)) }
	auth := "Authorization: " + bearerOf("cat") + "\r\n"
	events := open("GET /v1/streams/door/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n" + auth + "\r\n")
	for line := ""; !strings.HasPrefix(line, ": hailo-clip"); {
		line = must(events.ReadString('\n'))
	}
	push := open("POST /v1/streams/door/frames HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n" + auth + "\r\n")
	until(t, func() bool { return s.svc.Hub.Stats().Fed >= 3 })
	kept := s.svc.Access.Find([]byte(secretOf("cat")))

	s.svc.Access.Apply(access.Config{Keys: []access.Key{keyOf("ann", nil)}})
	var closed websocket.CloseError
	if _, _, err = ws.Read(t.Context()); !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation || !strings.HasPrefix(closed.Reason, "unauthorized: ") {
		t.Errorf("the WebSocket: %v", err)
	}
	rest := string(must(io.ReadAll(events)))
	if !strings.Contains(rest, "event: end\ndata: ") || !strings.Contains(rest, `"code":"unauthorized"`) {
		t.Errorf("the listener: %s", rest)
	}
	r := must(read(must(http.ReadResponse(push, nil))))
	if r.status != 401 || !strings.Contains(string(r.body), `"unauthorized"`) || !strings.Contains(string(r.body), `"frames":0`) {
		t.Errorf("the push: %d %s", r.status, r.body)
	}
	s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("cat")).wantError(t, 401, "unauthorized", "")
	show(t, stays, imageFile(goodImage))
	if _, _, err := stays.Read(t.Context()); err != nil {
		t.Error("another key's has ended, too", err)
	}
	for range 3 { // all have left
		until(t, kept.Enter)
	}
}

// TestKeysAndOrigins: with keys, as without, a page of another origin gets nothing, and one that may is told what is wrong.
func TestKeysAndOrigins(t *testing.T) {
	plainOnly(t) // its origins are http
	const cross = "Sec-Fetch-Site: cross-site"
	auth := "Authorization: " + bearerOf("ann")
	configure := func(c *Config) {
		c.AllowedOrigins, c.AllowedHosts = []string{"https://app.example"}, []string{"clip.local"}
	}
	with := serve(t, func(c *Config, svc *Service) {
		configure(c)
		svc.Access = access.New(access.Config{Keys: []access.Key{keyOf("ann", nil)}})
	})
	without := serve(t, func(c *Config, _ *Service) { configure(c) })
	for _, tt := range []struct {
		name, host string
		lines      []string
		with       []int // statuses with keys: without one, with one
		without    int
	}{
		{"a program", "clip.local", nil, []int{401, 200}, 200},
		{"our own page", "clip.local", []string{"Origin: http://clip.local"}, []int{401, 200}, 200},
		{"a listed page", "clip.local", []string{"Origin: https://app.example", cross}, []int{401, 200}, 200},
		{"a foreign page", "clip.local", []string{"Origin: https://evil.example", cross}, []int{403, 403}, 403},
		{"a foreign page of an old browser", "clip.local", []string{"Origin: https://evil.example"}, []int{403, 403}, 403},
		{"a page without an origin", "clip.local", []string{"Origin: null"}, []int{403, 403}, 403},
		{"a page that hides its origin", "clip.local", []string{cross}, []int{403, 403}, 403},
		{"a page of the same site", "clip.local", []string{"Origin: http://other.clip.local", "Sec-Fetch-Site: same-site"}, []int{403, 403}, 403},
		{"a rebound name", "evil.example", []string{"Origin: http://evil.example", "Sec-Fetch-Site: same-origin"}, []int{403, 403}, 403},
		{"a rebound name without an origin", "evil.example", nil, []int{403, 403}, 403},
		{"an address", "127.0.0.1", nil, []int{401, 200}, 200},
	} {
		ask := func(s *service, more ...string) reply {
			lines := slices.Concat([]string{"Host: " + tt.host, "Connection: close", "Content-Type: application/json"}, tt.lines, more)
			body := classifyBody(goodImage, "", "x")
			return only(t, s.send(t, fmt.Sprintf("POST /v1/classify HTTP/1.1\r\n%s\r\nContent-Length: %d\r\n\r\n%s", strings.Join(lines, "\r\n"), len(body), body)))
		}
		none, key, open := ask(with), ask(with, auth), ask(without)
		if got := []int{none.status, key.status}; !slices.Equal(got, tt.with) || open.status != tt.without {
			t.Errorf("%s: with keys %v, without %d; want %v and %d", tt.name, got, open.status, tt.with, tt.without)
		}
		if listed := strings.HasPrefix(strings.Join(tt.lines, ""), "Origin: https://app.example"); listed && none.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
			t.Errorf("%s: a page cannot read the 401: %v", tt.name, none.header)
		}
	}
	ask := "OPTIONS /v1/classify HTTP/1.1\r\nHost: clip.local\r\nConnection: close\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\nOrigin: "
	r := only(t, with.send(t, ask+"https://app.example\r\n\r\n"))
	if r.status != 204 || !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "Authorization") || r.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", r.status, r.header)
	}
	only(t, with.send(t, ask+"https://evil.example\r\n\r\n")).wantError(t, 403, "origin_not_allowed", "")
}

// TestManyWrongKeys: they take no memory and no place in the queue, and the right one is served all the while.
func TestManyWrongKeys(t *testing.T) {
	s := keyed(t)
	_, ask := s.asker(t, "GET /v1/stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+strings.Repeat("x", 43)+"\r\n\r\n")
	for range 1000 {
		ask().wantError(t, 401, "unauthorized", "")
	}
	s.do(t, "GET", "/v1/stats", "", "Authorization", bearerOf("ann")).wantOK(t)
	s.allReturned(t)
}

func BenchmarkDoor(b *testing.B) {
	var c access.Config
	for i := range 256 {
		c.Keys = append(c.Keys, keyOf(fmt.Sprint("k", i), nil))
	}
	keys, sent := access.New(c), []byte(secretOf("k0"))
	for b.Loop() {
		if keys.Find(sent) == nil {
			b.Fatal("not found")
		}
	}
}
