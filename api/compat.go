package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/compat"
	"hailoclip/hailo"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// dialects are the routes of dialects that have the same method and path.
type dialects struct {
	route
	service *compat.Service
	list    []dialect // in their order in compat.Dialects; at least one
	open    bool      // no key is needed
	always  bool      // they are served while the encoder is not available, too
}

type dialect struct {
	*compat.Dialect
	*compat.Route
}

// compatAsk is what a request of a dialect asks for.
type compatAsk struct {
	dialect
	compat.Ask
	at      []operand // of each item, in r.items
	decoded bool      // the body is not as it came, see part.decoded
}

// newCompatService is what codecs may say.
func (s *Server) newCompatService(c compat.Config) *compat.Service {
	e := s.svc.Engine
	return &compat.Service{
		Model: e.Model(), Aliases: slices.Concat(e.Aliases(), c.Aliases), Dimension: e.Dimension(), ContextLength: e.MaxTokens(),
		ImageSize: e.ImageSize(), LogitScale: e.LogitScale(), Version: s.svc.Version, Started: s.start, MadeUp: s.svc.MadeUp,
		Upstream: c.Immich.Upstream != "",
		Unready: func() string {
			switch {
			case s.Draining():
				return errStopping.text
			case e.State() != clip.Unhealthy:
				return ""
			}
			return cmp.Or(e.Health().Reason, "not known")
		},
	}
}

// compatRoutes are the routes of the dialects that are on; of one alone for its own listener, where they need no key.
func (s *Server) compatRoutes(by *rules, own string) (all []*dialects) {
	found := map[string]*dialects{}
	service := s.newCompatService(by.compat)
	for _, d := range compat.Dialects {
		if !by.compat.Speaks(d.Name) || own != "" && own != d.Name {
			continue
		}
		for i := range d.Routes {
			r := &d.Routes[i]
			if r.Own && own == "" {
				continue
			}
			g := found[r.Method+r.Path]
			if g == nil {
				g = &dialects{service: service, route: route{methods: r.Method, path: r.Path}}
				found[r.Method+r.Path], all = g, append(all, g)
			}
			g.list = append(g.list, dialect{d, r})
			g.open, g.always = g.open || r.Open || own != "", g.always || r.Always
		}
	}
	for _, g := range all {
		if g.methods == "GET" {
			g.methods, g.answers = "GET HEAD", g.get
			continue
		}
		g.limit, g.do, g.answers = by.many, (*request).embedCompat, (*request).answerCompat
		limit := s.cfg.batchBody()
		if slices.ContainsFunc(g.list, takesJSON) {
			g.reads = append(g.reads, reader{"application/json", isJSON, limit, inTurn(g.readJSON)})
		}
		if slices.ContainsFunc(g.list, takesForm) {
			g.reads = append(g.reads, reader{"multipart/form-data", isMultipart, limit, g.readForm})
		}
		if slices.ContainsFunc(g.list, takesFile) {
			g.reads = append(g.reads, reader{"an image", anyMedia, limit, g.readFile})
		}
	}
	return all
}

// get answers a request without a body.
func (g *dialects) get(r *request) error {
	coded, _ := r.ctx.UserValue("id").(string)
	argument, err := url.PathUnescape(coded)
	if err != nil {
		return fail(errInvalidRequest, "The path is not valid percent-encoding")
	}
	reply, err := g.list[0].Get(g.service, strings.Clone(argument))
	if err != nil {
		return err
	}
	r.ctx.SetStatusCode(cmp.Or(reply.Status, 200))
	r.ctx.Response.Header.SetContentType(cmp.Or(reply.Media, "application/json"))
	r.ctx.Response.SetBody(reply.Body)
	return nil
}

// readJSON has the first dialect that takes the body read it.
func (g *dialects) readJSON(r *request) error {
	if len(r.ctx.Request.Header.ContentType()) == 0 && !isObject(r.body) && g.first(takesFile).Route != nil {
		return g.readFile(r) // the client does not say what it sends
	}
	d := g.first(takesJSON) // which says what is wrong or missing
	r.compat = &compatAsk{dialect: d}
	body, err := compat.Parse(r.body)
	if err != nil {
		return err
	}
	if taker := g.first(func(d dialect) bool { return d.JSON != nil && (d.Takes == nil || d.Takes(body)) }); taker.Route != nil {
		d = taker
	}
	return r.readCompat(g, d, func(a *compat.Ask) error { return d.JSON(a, body) })
}

func (g *dialects) readForm(r *request) error {
	d := g.first(takesForm)
	return r.readCompat(g, d, func(a *compat.Ask) error {
		err := eachPart(r.ctx.Request.Header.ContentType(), r.body, func(p part) error {
			r.compat.decoded = r.compat.decoded || p.decoded
			return d.Form(a, string(p.name), p.data)
		})
		if err != nil || d.End == nil {
			return err
		}
		return d.End(a)
	})
}

func (g *dialects) readFile(r *request) error {
	if isObject(r.body) && g.first(takesJSON).Route != nil {
		return inTurn(g.readJSON)(r) // curl says that it were a form
	}
	d := g.first(takesFile)
	return r.readCompat(g, d, func(a *compat.Ask) error { return d.File(a, r.body) })
}

func takesJSON(d dialect) bool { return d.JSON != nil }
func takesForm(d dialect) bool { return d.Form != nil }
func takesFile(d dialect) bool { return d.File != nil }

// isObject says whether a body looks like a JSON object.
func isObject(body []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) }

// forBody is the dialect for the kind of body that a request names, which nobody has read: the first where none takes that.
func (g *dialects) forBody(h *fasthttp.RequestHeader) *compat.Dialect {
	takes := takesFile
	switch media := mediaOf(h); {
	case isMultipart(media):
		takes = takesForm
	case isJSON(media):
		takes = takesJSON
	}
	return cmp.Or(g.first(takes).Dialect, g.list[0].Dialect)
}

func (g *dialects) first(has func(d dialect) bool) (d dialect) {
	if i := slices.IndexFunc(g.list, has); i >= 0 {
		return g.list[i]
	}
	return d
}

// readCompat makes r.compat by what read finds, and of its items a batch.
func (r *request) readCompat(g *dialects, d dialect, read func(*compat.Ask) error) error {
	c := &compatAsk{dialect: d, Ask: compat.Ask{Service: g.service}}
	r.compat = c
	if err := read(&c.Ask); err != nil {
		return err
	}
	if away := r.server.svc.Engine.State() == clip.Unhealthy; away && c.hasOther() {
		c.Forward = true
	} else if away && !c.Forward {
		return r.server.notReady()
	}
	if c.Forward {
		return nil
	}
	m := r.itemsOf()
	c.at = make([]operand, len(c.Items))
	for i := range c.Items {
		item := &c.Items[i]
		if item.IsText() {
			c.at[i] = operand{kind: aText, n: len(m.texts)}
			m.addText(item.Text, nil)
			continue
		}
		c.at[i] = operand{kind: anImage, n: len(m.images)}
		switch {
		case item.URL != nil:
			m.images = append(m.images, r.imageAt(item.URL))
		case item.File != nil:
			m.images = append(m.images, sentImage{data: item.File})
		default:
			m.images = append(m.images, sentImage{data: item.Image, json: true})
		}
	}
	return nil
}

// hasOther says whether another server answers the request where the encoder cannot.
func (c *compatAsk) hasOther() bool { return c.Always && c.Service.Upstream }

// embedCompat has the engine embed the items.
func (r *request) embedCompat() error {
	if r.compat.Forward {
		return nil
	}
	if size := r.compat.answerSize(); size >= largeAnswer {
		if err := r.reserve(size); err != nil { // now, and not once all is done
			return err
		}
	}
	if err := r.embedTexts(); err != nil {
		return err
	}
	c, m, cut := r.compat, r.items, 0
	for i, o := range c.at {
		switch {
		case o.kind != aText:
			continue
		case m.errs[o.n] != nil && !c.hasOther():
			return c.fault(i, m.errs[o.n])
		case m.errs[o.n] != nil, !m.rows[o.n].Truncated:
			continue
		}
		if cut++; c.Whole {
			name := c.Items[i].Name()
			return &compat.Fault{Kind: compat.ErrRequest, Param: name, Text: fmt.Sprintf(
				"%s exceeds the context length: it has more than the %d tokens that the model reads", name, c.Service.ContextLength)}
		}
	}
	if cut > 0 {
		r.ctx.Response.Header.Set("X-Clip-Truncated", strconv.Itoa(cut))
	}
	ask, images := r.batch()
	images.Open = func(i int) ([]byte, error) {
		image, err := r.openImage(i)
		if err == nil {
			m.images[i].head, _ = r.server.heads.Inspect(image) // the engine says what is wrong
		}
		return image, err
	}
	work, stop := context.WithCancelCause(r.work)
	defer stop(nil)
	failed, done := -1, images.Done
	images.Done = func(i int, result clip.Result, err error) {
		if done(i, result, err); err != nil && failed < 0 && !c.hasOther() {
			failed = i
			stop(err) // the request fails by it: the others are not needed
		}
	}
	err := r.server.svc.Engine.EmbedImageBatch(work, ask, images)
	if failed < 0 || r.work.Err() != nil {
		return err
	}
	at := slices.IndexFunc(c.at, func(o operand) bool { return o.kind == anImage && o.n == failed })
	return c.fault(at, m.results[failed].err)
}

// fault says that an item has failed, which fails the request.
func (c *compatAsk) fault(item int, err error) error {
	name := c.Items[item].Name()
	return &compat.Fault{Kind: err, Param: name, Text: name + ": " + err.Error()}
}

// answerCompat writes the answer of a dialect.
func (r *request) answerCompat() error {
	c, m := r.compat, r.items
	if c.Forward {
		return r.forward()
	}
	result := compat.Result{Vectors: make([]compat.Vector, len(c.at)), ID: r.id, Took: time.Since(r.arrived)}
	for i, o := range c.at {
		err := m.resolve(&o)
		if errors.Is(err, hailo.ErrDeviceLost) && c.hasOther() {
			return r.forward()
		}
		if err != nil {
			return c.fault(i, err)
		}
		v := &result.Vectors[i]
		if v.Embedding = o.vector; o.kind == aText {
			v.Tokens = m.rows[o.n].Tokens
		} else {
			head := &m.images[o.n].head
			v.Format, v.Width, v.Height = strings.ToLower(head.Format), head.Width, head.Height
		}
	}
	write := func(b []byte) []byte { return c.Write(b, &c.Ask, &result) }
	size := c.answerSize()
	if size < largeAnswer {
		return r.answerBuilt(write)
	}
	r.unreserve()
	a, err := r.newAnswer(size)
	if err != nil {
		return err
	}
	defer a.unlessSent()
	a.add(write)
	return a.send("application/json")
}

// answerSize is about how long the answer will be, in bytes.
func (c *compatAsk) answerSize() int {
	perNumber := 13 // characters
	if c.Base64 {
		perNumber = 6
	}
	return 512 + len(c.at)*(perNumber*c.Service.Dimension+64)
}

// failCompat appends the body of the answer for an error, as the dialect has it, and returns the status.
func (r *request) failCompat(b []byte, o outcome) ([]byte, int) {
	d := r.dialects.forBody(&r.ctx.Request.Header)
	if r.compat != nil {
		d = r.compat.Dialect
	}
	f := compat.Failure{Status: o.status, Code: o.code, Text: o.text, RequestID: r.id}
	var fault *compat.Fault
	if errors.As(o.err, &fault) {
		f.Param = fault.Param
		if o.kind.text == "" { // it is the error's own
			f.Text = fault.Text
		}
	}
	if o.kind == errInternalFailure {
		r.ctx.Response.Header.Set("X-Should-Retry", "false") // it would be the same again, and clients of OpenAI try again after any 5xx
	}
	b = d.Fail(b, &f)
	return b, f.Status
}

// newHeads makes what reads the heads of images.
func newHeads() *decode.Decoder {
	return decode.NewDecoder(decode.Config{MaxPixels: 1<<31 - 1, JPEGScale: decode.ScaleExact}, 0)
}
