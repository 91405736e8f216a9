package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"

	"github.com/valyala/fasthttp"

	"hailoclip/api/compat"
	"hailoclip/api/console"
)

// Sample is an image that the console offers to who has none at hand.
type Sample struct {
	Name string // of the file, such as cat.jpg
	JPEG []byte // only read
}

// consolePath is where the files of the console are.
const consolePath = "/console/"

// pageHeaders restrict what pages of the service may do in a browser: they load only what this service serves, are in no frame,
// may use the camera, and send no Referer.
var pageHeaders = [][2]string{
	{"Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'"},
	{"Referrer-Policy", "no-referrer"},
	{"Permissions-Policy", "camera=(self)"},
}

// home serves "/": the console, or for clients that ask for JSON and not for HTML a list of what is served.
func (s *Server) home(r *request) error {
	r.ctx.Response.Header.Add(fasthttp.HeaderVary, fasthttp.HeaderAccept)
	if accept := bytes.ToLower(r.ctx.Request.Header.Peek(fasthttp.HeaderAccept)); bytes.Contains(accept, []byte("application/json")) &&
		!bytes.Contains(accept, []byte("text/html")) {
		return r.answerJSON(struct {
			Service string              `json:"service"`
			Version string              `json:"version"`
			Paths   map[string][]string `json:"paths"`
			Compat  map[string][]string `json:"compat"`
		}{"hailo-clip", s.svc.Version, s.served(), s.spoken()})
	}
	return r.answerFile(console.Files()[console.Index])
}

// served is every path with its methods.
func (s *Server) served() map[string][]string {
	paths := map[string][]string{}
	by := s.rules.Load()
	for _, d := range s.compatRoutes(by, "") {
		paths[plainPath(d.path)] = append(paths[plainPath(d.path)], strings.Fields(d.methods)...)
	}
	for _, to := range s.routes(by) {
		paths[to.path] = append(paths[to.path], strings.Fields(to.methods)...)
	}
	return paths
}

// spoken is the paths of each dialect that is on.
func (s *Server) spoken() map[string][]string {
	paths, by := map[string][]string{}, s.rules.Load()
	for _, d := range compat.Dialects {
		if by.compat.Speaks(d.Name) {
			paths[d.Name] = []string{}
			for _, r := range d.Routes {
				if !r.Own {
					paths[d.Name] = append(paths[d.Name], plainPath(r.Path))
				}
			}
		}
	}
	return paths
}

// plainPath is a path of a route as people know it.
func plainPath(path string) string { return strings.ReplaceAll(path, ":*}", "}") }

// consoleFile serves the files that the console loads.
func (s *Server) consoleFile(r *request) error {
	name, _ := r.ctx.UserValue("name").(string)
	file, ok := s.consoleFiles()[name]
	if !ok {
		return fail(errNotFound, "The console has no such file")
	}
	return r.answerFile(file)
}

// newConsoleFiles are the console's files, the samples, and what its pages must know of the service.
func (s *Server) newConsoleFiles() map[string]console.File {
	files := maps.Clone(console.Files())
	names := []string{}
	for _, sample := range s.svc.Samples {
		names = append(names, sample.Name)
		files[sample.Name] = console.NewFile(sample.Name, sample.JPEG)
	}
	e := s.svc.Engine
	config, _ := json.Marshal(struct { // no value of these cannot be written
		ImageSize int      `json:"image_size"` // pixels of a side of what the model sees
		Fit       string   `json:"fit"`        // how an image is brought there: crop, squash or pad
		MaxTokens int      `json:"max_tokens"` // of a text, start and end included
		Samples   []string `json:"samples"`    // names of files
		Fleet     bool     `json:"fleet"`      // there is one
	}{e.ImageSize(), e.Fit(), e.MaxTokens(), names, s.svc.Fleet != nil})
	files["config.json"] = console.NewFile("config.json", config)
	return files
}

// answerFile answers with a file, or with 304 when the client has it already. Browsers ask each time, so that they have the
// files of the program that serves and not of a former one.
func (r *request) answerFile(f console.File) error {
	h := &r.ctx.Response.Header
	for _, header := range pageHeaders {
		h.Set(header[0], header[1])
	}
	h.Set(fasthttp.HeaderCacheControl, "no-cache")
	tag, body := f.ETag, f.Body
	if f.Gzip != nil {
		h.Add(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
		if r.ctx.Request.Header.HasAcceptEncoding("gzip") {
			tag, body = strings.TrimSuffix(f.ETag, `"`)+`-gzip"`, f.Gzip // other bytes, so another tag
			h.SetContentEncoding("gzip")
		}
	}
	h.Set(fasthttp.HeaderETag, tag)
	known, _ := etags(&r.ctx.Request.Header, fasthttp.HeaderIfNoneMatch) // none of what cannot be read
	if unchanged(known, strings.Trim(tag, `"`)) {
		h.SetContentEncoding("")
		r.ctx.SetStatusCode(fasthttp.StatusNotModified)
		return nil
	}
	h.SetContentType(f.Media)
	r.ctx.Response.SetBodyRaw(body)
	return nil
}

// isPage says whether a browser asks for a page to show, as when a user follows a link from another site. That is allowed: the
// page is the same for everybody, and the other site cannot read it.
func isPage(ctx *fasthttp.RequestCtx) bool {
	h, path := &ctx.Request.Header, string(ctx.Path())
	return (ctx.IsGet() || ctx.IsHead()) && (path == "/" || path == "/docs") &&
		string(h.Peek("Sec-Fetch-Mode")) == "navigate" && string(h.Peek("Sec-Fetch-Dest")) == "document"
}
