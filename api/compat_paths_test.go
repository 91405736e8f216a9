package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"

	"hailoclip/api/compat"
)

// TestCompatPaths: no dialect takes a path of the service's own, nor the other way round, and where two have the same one they agree
// on who may use it.
func TestCompatPaths(t *testing.T) {
	s := newService(t, nil)
	by := s.rules.Load()
	of := func(routes []route) (*router.Router, [][2]string) {
		r := router.New()
		r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
		var all [][2]string
		for _, to := range routes {
			for _, method := range strings.Fields(to.methods) {
				r.Handle(method, to.path, func(*fasthttp.RequestCtx) {})
				for _, argument := range []string{"x", "embed", "models", "batch"} {
					all = append(all, [2]string{method, regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(to.path, argument)})
				}
			}
		}
		return r, all
	}
	var theirs []route
	for _, d := range s.compatRoutes(by, "") {
		theirs = append(theirs, d.route)
		for _, other := range d.list {
			if other.Open != d.open {
				t.Errorf("%s %s: open to everybody for one dialect, and not for another", d.methods, d.path)
			}
		}
	}
	own := s.routes(by)
	if len(theirs) == 0 || len(own) < 30 {
		t.Fatalf("%d and %d routes", len(theirs), len(own))
	}
	ownRouter, ownPaths := of(own)
	theirRouter, theirPaths := of(theirs)
	for _, c := range []struct {
		by    *router.Router
		paths [][2]string
	}{{ownRouter, theirPaths}, {theirRouter, ownPaths}} {
		for _, p := range c.paths {
			if handle, _ := c.by.Lookup(p[0], p[1], &fasthttp.RequestCtx{}); handle != nil {
				t.Errorf("%s %s is the service's own and a dialect's", p[0], p[1])
			}
		}
	}
}

// TestCompatAddresses has what users make of the address of a service when they give it to a client.
func TestCompatAddresses(t *testing.T) {
	s := serve(t, aliased)
	const body = `{"input":"x"}`
	for path, want := range map[string]int{
		"/v1/embeddings": 200, "/v1/embeddings?api-version=1": 200, "http://elsewhere/v1/embeddings": 200,
		"/v1/embeddings/": 200, "//v1/embeddings": 200, "//v1/embeddings//": 200, "///v1/embeddings": 200,
		"/v1//embeddings": 404, "/V1/embeddings": 404, "/v1/v1/embeddings": 404, "/v1/%65mbeddings": 404, "/v1%2fembeddings": 404, "/v1%2Fembeddings/": 404,
		"/v1/./embeddings": 404, "/x/../v1/embeddings": 404, "/v1/..%2fv1/embeddings": 404, "/v1/embeddings%00": 404, "/v1/embeddings;x": 404, "//x/v1/embeddings": 404,
		"//v1/classify": 404, "/v1/classify/": 404, "//health": 404, "/health/": 404, "//v1/prompt-sets/": 404, "//admin/reload": 404,
	} {
		for _, method := range []string{"POST", "PUT"} {
			r := only(t, s.send(t, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
				method, path, len(body), body)))
			switch {
			case method == "POST" && r.status != want:
				t.Errorf("%s: %d %.200s, want %d", path, r.status, r.body, want)
			case method == "PUT" && r.status != 404 && r.status != 405:
				t.Errorf("PUT %s: %d %.200s", path, r.status, r.body)
			}
		}
	}
	s.post(t, "/v1/v1/embeddings", body).wantError(t, 404, "not_found", "adds /v1 itself")
	s.post(t, "/nowhere", body).wantError(t, 404, "not_found", "see /docs")
	for path, want := range map[string]int{
		"/v1/models/" + testModel: 200, "/v1/models/ViT-B-32__openai": 200, "/v1/models/ViT-B-32%5F_openai": 200, "/v1/models": 200, "/v1/models/": 200,
		"/v1/models/a%2Fb": 404, "/v1/models/a/b": 404, "/v1/models/%2e%2e": 404,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if r := s.do(t, method, path, ""); r.status != want || (len(r.body) == 0) != (method == "HEAD") {
				t.Errorf("%s %s: %d %.200s, want %d", method, path, r.status, r.body, want)
			}
		}
	}
}

// TestForgivenPathsNeedKeys: another way to write a path is no way around the door.
func TestForgivenPathsNeedKeys(t *testing.T) {
	s := keyed(t)
	for _, path := range []string{"/v1/embeddings", "//v1/embeddings", "/v1/embeddings/"} {
		if r := s.post(t, path, `{"input":"x"}`); r.status != 401 || !strings.Contains(string(r.body), `"invalid_request_error"`) && !strings.Contains(string(r.body), `"type"`) {
			t.Errorf("%s: %d %.200s", path, r.status, r.body)
		}
		s.post(t, path, `{"input":"x"}`, "Authorization", bearerOf("bob")).wantOK(t)
	}
}

// switched turns a dialect on or off by the name of its setting. It returns false where there is none of that name.
func switched(c *compat.Config, name string, on bool) bool {
	for f, v := range reflect.ValueOf(c).Elem().Fields() {
		if f.Tag.Get("yaml") == name {
			if v.Kind() == reflect.Struct {
				v = v.FieldByName("Enabled")
			}
			v.SetBool(on)
			return true
		}
	}
	return false
}

// TestCompatSwitches: dialects go off and on, and names come and go, with the next request; what is off is not there.
func TestCompatSwitches(t *testing.T) {
	s := serve(t, nil)
	apply := func(change func(*compat.Config)) {
		c := allDialects()
		change(&c)
		s.Apply(s.cfg, c, time.Minute, time.Minute)
	}
	listed := func() (on []string) {
		var home struct {
			Paths, Compat map[string][]string
		}
		noError(t, json.Unmarshal(s.do(t, "GET", "/", "", "Accept", "application/json").body, &home))
		for name, paths := range home.Compat {
			on = append(on, name)
			for _, path := range paths {
				if home.Paths[path] == nil {
					t.Errorf("%s of %s is not among the paths", path, name)
				}
			}
		}
		return on
	}
	ask := func(model string) reply { return s.post(t, "/v1/embeddings", `{"input":"x","model":"`+model+`"}`) }
	ask(testModel).wantOK(t)
	if r := ask("mine"); r.status != 404 || !strings.Contains(string(r.body), "model_not_found") {
		t.Errorf("%d %s", r.status, r.body)
	}
	apply(func(c *compat.Config) { c.Aliases = []string{"mine"} })
	ask("mine").wantOK(t)
	if r := s.do(t, "GET", "/v1/models/mine", ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	apply(func(*compat.Config) {})
	if r := ask("mine"); r.status != 404 {
		t.Errorf("a name that was taken away: %d %s", r.status, r.body)
	}
	for _, d := range compat.Dialects {
		if !slices.Contains(listed(), d.Name) {
			t.Errorf("%s is not listed", d.Name)
		}
		only := compat.Config{}
		for _, on := range []bool{true, false} { // alone, and all the others
			c := allDialects()
			if !switched(&only, d.Name, true) || !switched(&c, d.Name, false) {
				t.Fatalf("there is no setting compat.%s", d.Name)
			}
			if on {
				c = only
			}
			s.Apply(s.cfg, c, time.Minute, time.Minute)
			if got := listed(); slices.Contains(got, d.Name) != on || on && len(got) != 1 {
				t.Errorf("%s on: %v; listed: %q", d.Name, on, got)
			}
			for _, r := range d.Routes {
				path := strings.NewReplacer("/upstream/{id:*}", "/upstream/"+testModel+"/props", "{id:*}", testModel).Replace(r.Path)
				if status := s.do(t, r.Method, path, "").status; on && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
					t.Errorf("%s %s of %s, which is on: %d", r.Method, path, d.Name, status)
				}
			}
		}
	}
	apply(func(c *compat.Config) { c.OpenAI = false })
	r := s.do(t, "GET", "/v1/models/mine", "")
	if frigate := slices.ContainsFunc(compat.Dialects, func(d *compat.Dialect) bool { return d.Name == "frigate" }); !frigate {
		r.wantError(t, 404, "not_found", "")
	}
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
}
