package api

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"hailoclip/api/rawjson"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// Limits of one request.
const (
	maxBatchImages = 64
	maxBatchTexts  = 256
)

// batchItems is the images and texts of one request, and what came of each.
type batchItems struct {
	images  []sentImage
	results []imageResult  // what came of each image
	texts   []string       // copies
	rows    []cache.Vector // of each text
	errs    []error        // why a text has none
	open    sync.Mutex     // of who decodes an image with request.scratch
	sides   [2][]operand   // of a comparison
}

// sentImage is an image as it was sent. It lies in the body, or at an address.
type sentImage struct {
	data    []byte      // a JSON value, which should be the image in base64, or the image itself
	json    bool        // it is the former
	raw     decode.Raw  // of a raw frame
	address string      // where it is to be fetched; "": it is not
	head    decode.Plan // of a request in a dialect
	err     error       // why it cannot be used
}

// imageResult is what came of an image.
type imageResult struct {
	clip.Result
	err error
}

// batchBodies are the bodies in which many images may come.
func (s *Server) batchBodies(read func(*request, *input) error) []reader {
	limit := s.cfg.batchBody()
	return []reader{
		{"application/json", isJSON, limit, jsonReader(read)},
		{"multipart/form-data", isMultipart, limit, formReader(read, (*request).addPart)},
	}
}

// addPart takes a part of a form with many images.
func (r *request) addPart(p part) error {
	m := r.itemsOf()
	switch string(p.name) {
	case "image":
		if len(m.images) == maxBatchImages {
			return tooMany("images", maxBatchImages+1, maxBatchImages)
		}
		image := sentImage{data: p.data}
		if len(p.frame) > 0 {
			if image.raw, image.err = decode.ParseRaw(string(p.frame)); image.err != nil {
				image.err = fail(errInvalidRequest, headerFrame+": %v", image.err)
			}
		}
		m.images = append(m.images, image)
		return nil
	case "texts":
		if len(m.texts) == maxBatchTexts {
			return tooMany("texts", maxBatchTexts+1, maxBatchTexts)
		}
		text, err := checkText(string(p.data), r.rules.MaxPromptBytes)
		if !utf8.Valid(p.data) {
			text, err = "", fail(errInvalidRequest, "'text' is not valid UTF-8")
		}
		m.addText(text, err)
		return nil
	}
	return r.input.addPart(p)
}

func tooMany(what string, n, most int) error {
	return fail(errInvalidRequest, "Too many %s: %d, at most %d are allowed", what, n, most)
}

// readArray calls do with each element of an array in the JSON, if there is one.
func readArray(raw []byte, name string, most int, do func(element []byte)) error {
	if rawjson.Given(raw) && raw[0] != '[' {
		return fail(errInvalidRequest, "Missing or invalid '%s' array", name)
	}
	if n := rawjson.Elements(raw); n > most {
		return tooMany(name, n, most)
	}
	rawjson.EachElement(raw, do)
	return nil
}

// itemsOf is r.items, which it makes where there is none.
func (r *request) itemsOf() *batchItems {
	if r.items == nil {
		r.items = &batchItems{}
	}
	return r.items
}

// addText takes a text, or why it cannot be used.
func (m *batchItems) addText(text string, err error) {
	m.texts, m.errs = append(m.texts, text), append(m.errs, err)
}

// readImages adds the images in the JSON, if there are.
func (r *request) readImages(in *input) error {
	m := r.itemsOf()
	return readArray(in.Images, "images", maxBatchImages, func(image []byte) {
		m.images = append(m.images, r.sentImage(image))
	})
}

// sentImage reads an image of a batch: an address, or else the image in base64, which has no colon.
func (r *request) sentImage(raw []byte) sentImage {
	if bytes.HasPrefix(raw, []byte(`"http:`)) || bytes.HasPrefix(raw, []byte(`"https:`)) {
		return r.imageAt(raw)
	}
	return sentImage{data: raw, json: true}
}

// imageAt is the image at the address in a JSON value.
func (r *request) imageAt(raw []byte) (image sentImage) {
	in := input{ImageURL: raw}
	image.address, image.err = in.imageURL(r)
	return image
}

// readTexts adds the texts in the JSON, if there are.
func (r *request) readTexts(in *input) error {
	m := r.itemsOf()
	return readArray(in.Texts, "texts", maxBatchTexts, func(raw []byte) {
		one := input{Text: raw}
		m.addText(one.text(r.rules.MaxPromptBytes))
	})
}

// readClassifyBatch reads what /v1/classify/batch is asked.
func readClassifyBatch(r *request, in *input) error {
	defer func() { *in = input{} }()
	if err := in.noURL(); err != nil { // they are for each image
		return err
	}
	if err := in.question(r); err != nil {
		return err
	}
	if err := r.readImages(in); err != nil {
		return err
	}
	if len(r.items.images) == 0 {
		return fail(errInvalidRequest, "Missing or invalid 'images' array")
	}
	return nil
}

// readEmbedBatch reads what /v1/embed/batch is asked.
func readEmbedBatch(r *request, in *input) (err error) {
	defer func() { *in = input{} }()
	if err = in.noURL(); err != nil {
		return err
	}
	if r.vectors, err = vectorsOf(r.ctx); err != nil {
		return err
	}
	if err = r.readTexts(in); err != nil {
		return err
	}
	if err = r.readImages(in); err != nil {
		return err
	}
	if len(r.items.images)+len(r.items.texts) == 0 {
		return fail(errInvalidRequest, "Missing 'images' or 'texts': send an array of at least one")
	}
	return nil
}

// openImage returns image i of r.items. It decodes base64 over its text, one image at a time, or fetches the image. The engine may read it until
// it calls r.release.
func (r *request) openImage(i int) (image []byte, err error) {
	m := r.items
	if image, err = r.bytesOf(&m.images[i]); err == nil {
		r.holders.Add(1)
	}
	return image, err
}

func (r *request) bytesOf(s *sentImage) ([]byte, error) {
	switch limit := r.server.cfg.MaxBodyBytes; {
	case s.err != nil:
		return nil, s.err
	case s.address != "":
		return r.fetch(s.address)
	case len(s.data) > limit:
		return nil, fail(errBodyTooLarge, "The image is larger than %d bytes", limit)
	case !s.json && len(s.data) == 0:
		return nil, fail(errInvalidImage, "'image' is empty")
	case !s.json:
		return slices.Clip(s.data), nil
	case s.data[0] != '"' || len(s.data) < 2:
		return nil, fail(errInvalidImage, "Invalid 'image': it must be a string with the image in base64")
	}
	r.items.open.Lock()
	defer r.items.open.Unlock()
	text := s.data[1 : len(s.data)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		var unescaped string
		if json.Unmarshal(s.data, &unescaped) != nil {
			return nil, fail(errInvalidImage, "'image' is not a valid JSON string")
		}
		text = []byte(unescaped)
	}
	if len(text) == 0 {
		return nil, fail(errInvalidImage, "'image' is empty")
	}
	image, err := decodeImage(s.data[:0], text, r.scratch)
	return slices.Clip(image), err
}

// batch is the images of r for the engine.
func (r *request) batch() (clip.Request, clip.Batch) {
	m := r.items
	m.results = make([]imageResult, len(m.images))
	r.ask.Release, r.ask.Lane = r.release, pipeline.Lane{Caller: r.caller}
	return r.ask, clip.Batch{
		Len: len(m.images), Open: r.openImage,
		Raw:  func(i int) decode.Raw { return m.images[i].raw },
		Done: func(i int, result clip.Result, err error) { m.results[i] = imageResult{result, err} },
	}
}

// Batches with more matches than manyMatches, which may take megabytes each, are classified so many at once.
const (
	manyMatches    = 4096
	matchingAtOnce = 8
)

// classifyBatch has the engine classify the images.
func (r *request) classifyBatch() error {
	if n := len(r.items.images); n*min(r.ask.TopK, sets.MaxLabels) > manyMatches {
		done, err := r.server.matching.Take(r.work, r.caller)
		if err != nil {
			return pipeline.Late(r.work)
		}
		defer done()
	}
	start := time.Now()
	ask, images := r.batch()
	images.Known = func(*cache.Prompts) { r.result.TextTime = time.Since(start) }
	return r.server.svc.Engine.ClassifyBatch(r.work, ask, images)
}

// embedBatch has the engine embed the texts that can be, and the images.
func (r *request) embedBatch() error {
	if err := r.embedTexts(); err != nil {
		return err
	}
	ask, images := r.batch()
	return r.server.svc.Engine.EmbedImageBatch(r.work, ask, images)
}

// embedTexts has the engine embed the texts that can be.
func (r *request) embedTexts() error {
	m := r.items
	m.rows = make([]cache.Vector, len(m.texts))
	var usable []string
	var at []int
	for i, err := range m.errs {
		if err == nil {
			usable, at = append(usable, m.texts[i]), append(at, i)
		}
	}
	if len(usable) == 0 {
		return nil
	}
	start := time.Now()
	rows, errs := r.server.svc.Engine.EmbedTextBatch(r.work, r.caller, trimmed(usable, r.rules.MaxPromptBytes))
	r.result.TextTime = time.Since(start)
	for j, i := range at {
		m.rows[i], m.errs[i] = rows[j], errs[j]
	}
	if r.work.Err() != nil {
		return pipeline.Late(r.work)
	}
	return nil
}

// outcomes looks at the errors of a batch, of which the worst is that of the log's line. Where nothing was done because the
// service cannot, the request fails with that.
func (r *request) outcomes() error {
	m, unavailable := r.items, true
	note := func(err error) {
		if err == nil {
			unavailable = false
			return
		}
		o := outcomeOf(err)
		unavailable = unavailable && o.status == errStopping.status
		if r.fault.err == nil || o.status > r.fault.status {
			r.fault = o
		}
	}
	for _, f := range m.results {
		note(f.err)
	}
	for _, err := range m.errs {
		note(err)
	}
	if unavailable {
		return r.fault.err
	}
	return nil
}

// appendFailure appends the fields of an item that has failed.
func appendFailure(b []byte, err error) []byte {
	o := outcomeOf(err)
	b = rawjson.AppendString(append(b, `"error":`...), o.text)
	return rawjson.AppendString(append(b, `,"code":`...), o.code)
}

// answerClassifyBatch writes the answer of /v1/classify/batch.
func (r *request) answerClassifyBatch() error {
	if err := r.outcomes(); err != nil {
		return err
	}
	m := r.items
	a, err := r.newAnswer(512 * len(m.results))
	if err != nil {
		return err
	}
	defer a.unlessSent()
	a.list(`{"results":[`, len(m.results), func(b []byte, i int) []byte {
		f := &m.results[i]
		if f.err != nil {
			return appendFailure(b, f.err)
		}
		r.result.Set = f.Set
		return r.appendImageTimings(appendMatches(b, r.texts, &f.Result), f.Times[:])
	})
	return a.end(appendScoring)
}

// answerEmbedBatch writes the answer of /v1/embed/batch.
func (r *request) answerEmbedBatch() error {
	if err := r.outcomes(); err != nil {
		return err
	}
	m, dimension := r.items, r.server.svc.Engine.Dimension()
	perNumber := 6 // characters
	if r.vectors == vectorsJSON {
		perNumber = 13
	}
	a, err := r.newAnswer((len(m.results) + len(m.rows)) * (dimension*perNumber + 64))
	if err != nil {
		return err
	}
	defer a.unlessSent()
	if r.vectors == vectorsBinary {
		return r.answerBytes(a, dimension)
	}
	a.list(`{"images":[`, len(m.results), func(b []byte, i int) []byte {
		f := &m.results[i]
		if f.err != nil {
			return appendFailure(b, f.err)
		}
		return r.appendImageTimings(appendVector(b, f.Embedding, r.vectors), f.Times[:])
	})
	a.list(`,"texts":[`, len(m.rows), func(b []byte, i int) []byte {
		if m.errs[i] != nil {
			return appendFailure(b, m.errs[i])
		}
		b = append(appendVector(b, m.rows[i].Embedding, r.vectors), `,"tokens":`...)
		b = append(strconv.AppendInt(b, int64(m.rows[i].Tokens), 10), `,"truncated":`...)
		return strconv.AppendBool(b, m.rows[i].Truncated)
	})
	return a.end(appendDimension)
}

// answerBytes writes the vectors of the images and then of the texts, and nothing else. The numbers of one that has failed
// are none (NaN).
func (r *request) answerBytes(a *answer, dimension int) error {
	m, failed := r.items, slices.Repeat([]float32{float32(math.NaN())}, dimension)
	add := func(v []float32) { a.add(func(b []byte) []byte { return appendFloats(b, v) }) }
	for _, f := range m.results {
		if f.err != nil {
			f.Embedding = failed
		}
		add(f.Embedding)
	}
	for i, row := range m.rows {
		if m.errs[i] != nil {
			row.Embedding = failed
		}
		add(row.Embedding)
	}
	return a.send("application/octet-stream")
}

// appendDimension appends the fields that answers with vectors have in common.
func appendDimension(b []byte, r *request, took time.Duration) []byte {
	b = strconv.AppendInt(append(b, `,"dimension":`...), int64(r.server.svc.Engine.Dimension()), 10)
	return appendMillis(append(b, `,"inference_time_ms":`...), took)
}
