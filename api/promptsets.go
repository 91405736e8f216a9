package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
	"hailoclip/api/stream/event"
	"hailoclip/cache/sets"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// setAsk is what a request for a prompt set asks, and what came of it. Nothing of it lies in the body but the image of an
// example and those of an evaluation.
type setAsk struct {
	name      string
	condition clip.Condition

	definition sets.Definition // PUT
	label      string          // of an example
	example    clip.Example
	event      string // its id, if the example is that of an event
	trial      trial  // evaluate

	info       clip.SetInfo
	created    bool
	evaluation *clip.Evaluation
}

// promptSetRoutes are the routes of prompt sets.
func (s *Server) promptSetRoutes(by *rules) []route {
	const all, one = "/v1/prompt-sets", "/v1/prompt-sets/{name}"
	large, brief, long := s.cfg.batchBody(), by.one, by.many
	return []route{
		{"GET", all, brief, nil, nil, nil, (*request).listPromptSets},
		{"GET", one, brief, nil, nil, nil, (*request).getPromptSet},
		{"DELETE", one, brief, nil, nil, nil, (*request).deletePromptSet},
		{"PUT", one, long, []reader{
			{"application/json", isJSON, large, inTurn(readPromptSet)},
		}, nil, (*request).putPromptSet, (*request).answerPromptSet},
		{"POST", one + "/examples", brief, s.imageBodies(readExample), nil, (*request).addExample, (*request).answerPromptSet},
		{"POST", one + "/evaluate", long, []reader{
			{"multipart/form-data", isMultipart, large, readTrialForm},
			{"application/x-ndjson", isNDJSON, large, inTurn(readTrialLines)},
		}, nil, (*request).evaluatePromptSet, (*request).answerEvaluation},
	}
}

func (r *request) promptSets() *clip.PromptSets { return r.server.svc.Engine.PromptSets() }

func (r *request) setName() (string, error) {
	return r.pathName("name", "a prompt set", sets.ValidName)
}

// pathName is the name in the path, percent-decoded once.
func (r *request) pathName(parameter, of string, valid func(string) bool) (string, error) {
	coded, _ := r.ctx.UserValue(parameter).(string)
	name, err := url.PathUnescape(coded)
	if err != nil || !valid(name) {
		return "", fail(errInvalidRequest, "The name of %s must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", of)
	}
	return strings.Clone(name), nil
}

// readSet reads of the head of a request what every change of a set has.
func (r *request) readSet() (ask *setAsk, err error) {
	ask = new(setAsk)
	if ask.name, err = r.setName(); err != nil {
		return nil, err
	}
	ask.condition, err = r.condition(ask.name)
	return ask, err
}

// condition reads If-Match and If-None-Match of a request that changes a set. Of several ETags the set's own counts, if it
// is among them.
func (r *request) condition(name string) (c clip.Condition, err error) {
	c.Caller = r.caller
	tags, err := etags(&r.ctx.Request.Header, fasthttp.HeaderIfMatch)
	switch {
	case err != nil:
		return c, err
	case len(tags) == 1:
		c.IfMatch = tags[0]
	case len(tags) > 1:
		info, err := r.promptSets().Info(r.work, name, false)
		if err != nil && !errors.Is(err, clip.ErrNoSet) {
			return c, err
		}
		if c.IfMatch = tags[0]; slices.Contains(tags, info.ETag) {
			c.IfMatch = info.ETag
		}
	}
	if tags, err = etags(&r.ctx.Request.Header, fasthttp.HeaderIfNoneMatch); err == nil && tags != nil {
		if c.IfNoneMatch = slices.Equal(tags, []string{anyETag}); !c.IfNoneMatch {
			err = fail(errInvalidRequest, "If-None-Match of a change must be *")
		}
	}
	return c, err
}

// anyETag is what any version has.
const anyETag = "*"

// etags returns the ETags in a header without their quotes, anyETag for "*", nil where there is no such header. A weak one,
// which a change must not depend on (RFC 9110, 13.1.1), keeps its W/ and its quotes, and so do those of "" and "*".
func etags(h *fasthttp.RequestHeader, name string) (tags []string, err error) {
	list := string(bytes.Join(h.PeekAll(name), []byte(",")))
	for rest := strings.Trim(list, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
		weak := strings.HasPrefix(rest, "W/")
		tag, after, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(rest, "W/"), `"`), `"`)
		switch {
		case rest == anyETag && tags == nil:
			return []string{anyETag}, nil
		case !ok || rest[0] != '"' && !strings.HasPrefix(rest, `W/"`) || after != "" && !strings.ContainsAny(after[:1], " \t,"):
			return nil, fail(errInvalidRequest, `%s must be * or ETags in quotes, such as "5f2a"`, name)
		case weak:
			tag = `W/"` + tag + `"`
		case tag == anyETag, tag == "": // neither is any ETag, nor none
			tag = `"` + tag + `"`
		}
		tags, rest = append(tags, tag), after
	}
	if tags == nil && len(h.Peek(name)) > 0 {
		return nil, fail(errInvalidRequest, `%s must be * or ETags in quotes, such as "5f2a"`, name)
	}
	return tags, nil
}

// unchanged says whether a client has a version already, by the ETags of its If-None-Match as etags returns them: that of the
// version, also if a proxy has made it a weak one, or anyETag.
func unchanged(known []string, etag string) bool {
	return slices.ContainsFunc(known, func(tag string) bool { return tag == anyETag || tag == etag || tag == `W/"`+etag+`"` })
}

// readPromptSet reads a definition.
func readPromptSet(r *request) error {
	ask, err := r.readSet()
	if err != nil {
		return err
	}
	text, err := rawjson.UTF8(r.body)
	if err != nil {
		return err
	}
	if half := rawjson.HalfCharacter(unsafe.String(unsafe.SliceData(text), len(text))); half != "" && json.Valid(text) {
		return fail(errInvalidRequest, "The set has %s, which is half of a character", half)
	}
	if ask.definition, err = sets.ParseJSON(text); err != nil {
		var fault sets.Fault
		switch {
		case !json.Valid(text):
			return fail(errInvalidJSON, "The body %s", err)
		case errors.As(err, &fault) && fault.Field == "":
			return fail(errInvalidRequest, "The body %s", err)
		}
		return err
	}
	r.set = ask
	return ask.decodeImages(r.scratch)
}

// decodeImages has the images of the definition in plain base64, of which a client may send any kind.
func (a *setAsk) decodeImages(scratch *[scratchBytes]byte) error {
	for _, o := range a.definition.Owners() {
		images := *o.Images
		for i, text := range images[:min(len(images), sets.MaxExamples)] {
			coded := []byte(text)
			image, err := decodeImage(coded[:0], coded, scratch)
			if err != nil {
				return fmt.Errorf("%s.images[%d]: %w", o.Where, i, err)
			}
			images[i] = base64.StdEncoding.EncodeToString(image)
		}
	}
	return nil
}

// putPromptSet makes or replaces a set. Only one with images may take longer than a request for one image.
func (r *request) putPromptSet() (err error) {
	ctx := r.work
	if !r.set.definition.HasImages() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.rules.one)
		defer cancel()
	}
	r.set.info, r.set.created, err = r.promptSets().Put(ctx, r.set.name, r.set.definition, r.set.condition)
	return err
}

// readExample reads what is to be an example of a label.
func readExample(r *request, in *input) error {
	ask, err := r.readSet()
	if err != nil {
		return err
	}
	if err := in.noURL(); err != nil {
		return err
	}
	if ask.label, err = in.labelOf(); err != nil {
		return err
	}
	r.set = ask
	hasImage := in.binary || in.Image != "" || in.imageBad
	switch {
	case rawjson.Given(in.Vector) && hasImage, rawjson.Given(in.Event) && (hasImage || rawjson.Given(in.Vector)):
		return fail(errInvalidRequest, "'image', 'vector' and 'event' exclude each other")
	case rawjson.Given(in.Vector):
		ask.example.Vector, err = in.vector()
		return err
	case rawjson.Given(in.Event):
		if in.Event[0] != '"' || rawjson.Unmarshal(string(in.Event), &ask.event) != nil || ask.event == "" {
			return fail(errInvalidRequest, "Invalid 'event': it must be the id of an event")
		}
		ask.event = strings.Clone(ask.event)
		return nil
	case !hasImage:
		return fail(errInvalidImage, "Missing 'image', 'vector' or 'event': send the image in base64, its embedding, or the id of an event")
	}
	if err := in.image(r); err != nil {
		return err
	}
	if !r.ask.Raw.Compressed() {
		return fail(errInvalidRequest, "An example must be the file of an image, not a raw frame")
	}
	ask.example.Image = r.ask.Image
	return nil
}

// labelOf returns a copy of the label that an image is to have.
func (in *input) labelOf() (label string, err error) {
	if in.label != nil {
		if !utf8.Valid(in.label) {
			return "", fail(errInvalidRequest, "'label' is not valid UTF-8")
		}
		return strings.TrimSpace(string(in.label)), nil
	}
	raw := string(in.Label)
	if !rawjson.Given(in.Label) || raw[0] != '"' || rawjson.Unmarshal(raw, &label) != nil {
		return "", fail(errInvalidRequest, `Missing or invalid 'label': it must be the name of a label, or "background"`)
	}
	if half := rawjson.HalfCharacter(raw); half != "" {
		return "", fail(errInvalidRequest, "'label' has %s, which is half of a character", half)
	}
	return strings.TrimSpace(label), nil
}

// vector returns a copy of the vector.
func (in *input) vector() (v []float32, err error) {
	const longest = 8192
	ok := false
	if n := rawjson.Elements(in.Vector); n > 0 && n <= longest {
		v, ok = rawjson.Floats(in.Vector)
	}
	if !ok {
		return nil, fail(errInvalidRequest, "Invalid 'vector': it must be a list of 1 to %d numbers", longest)
	}
	if slices.ContainsFunc(v, func(x float32) bool { return math.IsInf(float64(x), 0) }) {
		return nil, fail(errInvalidRequest, "Invalid 'vector': a number is too large")
	}
	return v, nil
}

func (r *request) addExample() (err error) {
	if r.set.event != "" {
		if r.set.example, err = r.eventExample(r.set.event); err != nil {
			return err
		}
	}
	r.set.info, err = r.promptSets().AddExample(r.work, r.set.name, r.set.label, r.set.example, r.set.condition)
	return err
}

// eventExample makes an example of what is stored of an event.
func (r *request) eventExample(id string) (clip.Example, error) {
	svc := &r.server.svc
	if svc.Store == nil {
		return clip.Example{}, cmp.Or(svc.Lost, event.ErrLost)
	}
	e, err := svc.Store.Get(r.work, id)
	if err == nil && (len(e.Vector) == 0 || e.Model == "") {
		err = fail(errInvalidRequest, "The event has no vector: send 'image' or 'vector'")
	}
	return clip.Example{Vector: e.Vector, Model: e.Model, Thumbnail: e.JPEG}, err
}

// answerPromptSet answers with a set that has changed.
func (r *request) answerPromptSet() error {
	r.setETag(r.set.info.ETag)
	if r.set.created {
		r.ctx.SetStatusCode(fasthttp.StatusCreated)
		r.ctx.Response.Header.Set(fasthttp.HeaderLocation, "/v1/prompt-sets/"+r.set.name)
	}
	err := r.answerJSON(&r.set.info)
	if errors.Is(err, errBodyMemory) { // but the change is made
		info := r.set.info
		info.Definition = sets.Definition{Labels: []sets.Label{}}
		info.Warnings = []string{"the definition is left out, because too much is being answered: GET has it"}
		return r.answerJSON(&info)
	}
	return err
}

func (r *request) setETag(tag string) { r.ctx.Response.Header.Set(fasthttp.HeaderETag, `"`+tag+`"`) }

func (r *request) getPromptSet() error {
	name, err := r.setName()
	if err != nil {
		return err
	}
	full := string(r.ctx.QueryArgs().Peek("examples"))
	if full != "" && full != "full" {
		return fail(errInvalidRequest, "'examples' in the query must be full")
	}
	known, err := etags(&r.ctx.Request.Header, fasthttp.HeaderIfNoneMatch)
	if err != nil {
		return err
	}
	done, err := r.server.telling.Take(r.work, r.caller)
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	info, err := r.promptSets().Info(r.work, name, full != "")
	if err != nil {
		return err
	}
	// The ETag is that of the definition: while the answer changes with the progress of encoding, caches get none.
	keep := func() { r.ctx.Response.Header.Set(fasthttp.HeaderCacheControl, "no-cache") } // and ask about it by its ETag
	if info.State == clip.SetReady {
		r.setETag(info.ETag)
		if unchanged(known, info.ETag) {
			keep()
			r.ctx.SetStatusCode(fasthttp.StatusNotModified)
			return nil
		}
		defer keep()
	}
	return r.answerJSON(&info)
}

func (r *request) listPromptSets() error {
	list, err := r.promptSets().List()
	if err != nil {
		return err
	}
	if list == nil {
		list = []clip.SetSummary{}
	}
	return r.answerJSON(map[string][]clip.SetSummary{"prompt_sets": list})
}

func (r *request) deletePromptSet() error {
	if r.server.stopping.Load() {
		return errStopping
	}
	ask, err := r.readSet()
	if err != nil {
		return err
	}
	if err := r.promptSets().Delete(r.work, ask.name, ask.condition); err != nil {
		return err
	}
	r.ctx.SetStatusCode(fasthttp.StatusNoContent)
	return nil
}
