package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"hailoclip/api/rawjson"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
	"hailoclip/pipeline"
	"hailoclip/stages"
)

// readSource reads what GET /v1/classify is asked: all of it is in the query.
func readSource(r *request) (err error) {
	h, args := &r.ctx.Request.Header, r.ctx.QueryArgs()
	if string(h.Peek("Sec-Fetch-Site")) == "same-site" && len(h.Peek("Origin")) == 0 { // an image or a link on a page of another port
		return fail(errOrigin, "Requests from pages of other origins are refused, see server.allowed_origins")
	}
	names := args.PeekMulti("source")
	if len(names) != 1 || !event.ValidName(string(names[0])) {
		return fail(errInvalidRequest, "'source' in the query must be one name of a source: 1 to 64 letters, digits, '.', '_' and '-'")
	}
	r.source, r.flat = string(names[0]), true
	if len(args.Peek("flat")) > 0 {
		if r.flat, err = r.flag("flat"); err != nil {
			return err
		}
	}
	return r.readInput(func(r *request, in *input) error {
		defer func() { *in = input{} }()
		if err := in.noURL(); err != nil {
			return err
		}
		return in.question(r)
	})
}

// classifySource has an image of a source be classified.
func (r *request) classifySource() error {
	if err := r.look(); err != nil {
		return err
	}
	return image(r.server.svc.Engine.Classify)(r)
}

// look takes an image of r.source, as fetch does one of an address.
func (r *request) look() error {
	f, memory, address := r.server.fetcher, r.server.bodies, r.caller.Address
	done, err := f.take(r.work, r.caller)
	if err != nil {
		return pipeline.Late(r.work)
	}
	defer done()
	ctx, cancel := context.WithTimeout(r.work, f.patience)
	defer cancel()
	var full error
	frame, err := r.server.svc.Hub.Image(ctx, r.source, source.Buffers{
		Get: func(size int) (b []byte, err error) {
			if b, err = memory.get(address, size, 0); err != nil {
				full = err
				cancel()
			}
			return b, err
		},
		Put: func(b []byte) { memory.put(address, b) },
	})
	_, unable := errors.AsType[*source.Error](err)
	switch {
	case err == nil:
		r.hasCome()
		memory.put(address, r.body) // of an empty body
		r.body = frame.Image
		r.ask.Image, r.ask.Raw = slices.Clip(frame.Image), frame.Raw
		return nil
	case full != nil:
		return full
	case r.work.Err() != nil:
		return pipeline.Late(r.work)
	case unable || ctx.Err() != nil:
		return fmt.Errorf("%w: %s: %w", errNoImage, r.source, err)
	}
	return err
}

// answerClassification writes the answer of /v1/classify.
func (r *request) answerClassification() error {
	if r.flat {
		r.ctx.Response.Header.Set("Cache-Control", "no-store")
		return result(appendFlat)(r)
	}
	return result(appendClassification)(r)
}

// unknownLabel is the label of an answer in which none holds, as it is the state of a stream.
const unknownLabel = "unknown"

// maxState is how many characters the state of an entity of Home Assistant may have.
const maxState = 255

// appendFlat appends the fields of a flat answer of /v1/classify: what other programs keep of a classification are a few texts and
// numbers that they find by one name each. label is the best one if it fits, else unknownLabel, and score its score or 0; labels has the
// score of each label that the full answer has.
func appendFlat(b []byte, r *request, took time.Duration) []byte {
	names, matches := r.texts, r.result.Matches
	if set := r.result.Set; set != nil {
		names = set.Names
	}
	label, score, matched := unknownLabel, 0.0, len(matches) > 0 && r.result.Reason == ""
	if matched {
		label, score = firstCharacters(names[matches[0].Label], maxState), matches[0].Score
	}
	b = rawjson.AppendString(append(b, `"label":`...), label)
	b = rawjson.AppendFloat(append(b, `,"score":`...), score)
	b = strconv.AppendBool(append(b, `,"matched":`...), matched)
	if r.result.Reason != "" {
		b = rawjson.AppendString(append(b, `,"reason":`...), string(r.result.Reason))
	}
	b = append(b, `,"ts":"`...)
	b = append(r.arrived.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00"), '"')
	if r.source != "" {
		b = rawjson.AppendString(append(b, `,"source":`...), r.source)
	}
	b = append(b, `,"labels":{`...)
	for i, m := range matches {
		name := names[m.Label]
		if slices.ContainsFunc(matches[:i], func(better stages.Match) bool { return names[better.Label] == name }) {
			continue // a prompt that comes twice
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = rawjson.AppendFloat(append(rawjson.AppendString(b, name), ':'), m.Score)
	}
	return appendScoring(append(b, '}'), r, took)
}

// firstCharacters cuts text behind n characters.
func firstCharacters(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}
