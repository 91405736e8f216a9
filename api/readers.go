package api

import (
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
	"hailoclip/stages/decode"
)

// imageTypes are the media types of the formats that are read, and other names that clients have for them. Which one it is,
// the bytes of the image say.
var imageTypes = []string{
	"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff",
	"image/jpg", "image/pjpeg", "image/apng", "image/x-png", "image/x-ms-bmp", "image/x-bmp", "image/tif", "image/*",
}

// isImage accepts the file of an image.
func isImage(media []byte) bool { return slices.Contains(imageTypes, string(media)) }

// isMultipart accepts forms.
func isMultipart(media []byte) bool { return string(media) == "multipart/form-data" }

// anyMedia accepts any kind of body.
func anyMedia([]byte) bool { return true }

// isBytes accepts bytes of any kind.
func isBytes(media []byte) bool { return string(media) == "application/octet-stream" }

// imageBodies are the bodies in which an image may come. With each of them the options may be in the query.
func (s *Server) imageBodies(read func(*request, *input) error) []reader {
	limit := s.cfg.MaxBodyBytes
	return []reader{
		{"application/json", isJSON, limit, unnamedReader(fileReader(read), jsonReader(read))},
		{"an image (image/jpeg, png, webp, gif, bmp or tiff)", isImage, limit, fileReader(read)},
		{"multipart/form-data", isMultipart, limit, formReader(read, func(r *request, p part) error { return r.input.addPart(p) })},
		{"application/octet-stream", isBytes, limit, frameReader(read)},
	}
}

// fileReader takes the body for the file of an image.
func fileReader(read func(*request, *input) error) func(*request) error {
	return func(r *request) error {
		r.input = input{file: r.body, binary: true}
		return r.readInput(read)
	}
}

// unnamedReader takes a body without a Content-Type for the file of an image where it begins as one, and for JSON elsewhere.
func unnamedReader(file, json func(*request) error) func(*request) error {
	return func(r *request) error {
		if len(r.ctx.Request.Header.ContentType()) == 0 {
			if _, err := decode.Format(r.body); !errors.Is(err, decode.ErrNotImage) {
				return file(r)
			}
		}
		return json(r)
	}
}

// frameReader takes the body for a raw frame, as X-Frame-Format has it, or without that for the file of an image.
func frameReader(read func(*request, *input) error) func(*request) error {
	return func(r *request) error {
		frames := r.ctx.Request.Header.PeekAll(headerFrame)
		if len(frames) > 1 {
			return fail(errInvalidRequest, headerFrame+" comes twice")
		}
		r.input = input{file: r.body, binary: true}
		if len(frames) == 1 {
			r.input.frame = frames[0]
		}
		return r.readInput(read)
	}
}

// formReader reads a form, of which add takes each part.
func formReader(read func(*request, *input) error, add func(*request, part) error) func(*request) error {
	return func(r *request) error {
		r.input = input{binary: true}
		if err := eachPart(r.ctx.Request.Header.ContentType(), r.body, func(p part) error { return add(r, p) }); err != nil {
			return err
		}
		return r.readInput(read)
	}
}

// readInput adds the query to what the body has, and makes of both what is asked.
func (r *request) readInput(read func(*request, *input) error) (err error) {
	if r.timings, err = r.flag("timings"); err != nil {
		return err
	}
	if err := r.input.addQuery(r.ctx.QueryArgs()); err != nil {
		return err
	}
	return read(r, &r.input)
}

// addPart takes what a part of a form has. Other names than those of the fields of JSON are ignored, as there.
func (in *input) addPart(p part) error {
	if string(p.name) != "image" {
		return in.addText(p.name, p.data)
	}
	if in.file != nil {
		return fail(errInvalidImage, "'image' comes twice")
	}
	in.file, in.frame = p.data, p.frame
	if in.file == nil {
		in.file = []byte{}
	}
	return nil
}

// addText takes an option of a form or a query. Prompts may come again, the others may not; empty ones are as missing.
func (in *input) addText(name, value []byte) error {
	var field *[]byte
	switch string(name) {
	case "prompts", "labels":
		list := &in.texts
		if name[0] == 'l' {
			list = &in.labels
		}
		if !utf8.Valid(value) {
			return fail(errInvalidPrompts, "%s[%d] is not valid UTF-8", name, len(*list))
		}
		*list = append(*list, string(value))
		return nil
	case "prompt_set":
		field = &in.set
	case "label":
		field = &in.label
	case "top_k":
		field = (*[]byte)(&in.TopK)
	case "threshold":
		field = (*[]byte)(&in.Threshold)
	case "image_url":
		field = &in.address
	default:
		return nil
	}
	if len(value) == 0 {
		return nil
	}
	if *field != nil {
		return fail(errInvalidRequest, "'%s' comes twice", name)
	}
	*field = value
	return nil
}

// addQuery takes the options that the query has. What the body has too is an error.
func (in *input) addQuery(args *fasthttp.Args) error {
	if args.Len() == 0 {
		return nil
	}
	var query input
	for name, value := range args.All() {
		if err := query.addText(name, value); err != nil {
			return err
		}
	}
	if query.texts != nil {
		if in.texts != nil || rawjson.Given(in.Prompts) {
			return inBoth("prompts")
		}
		in.texts = query.texts
	}
	if query.labels != nil {
		if in.labels != nil || rawjson.Given(in.Labels) {
			return inBoth("labels")
		}
		in.labels = query.labels
	}
	for _, option := range [...]struct {
		name        string
		query, body *[]byte
		inJSON      []byte
	}{
		{"prompt_set", &query.set, &in.set, in.PromptSet},
		{"label", &query.label, &in.label, in.Label},
		{"image_url", &query.address, &in.address, in.ImageURL},
		{"top_k", (*[]byte)(&query.TopK), (*[]byte)(&in.TopK), nil},
		{"threshold", (*[]byte)(&query.Threshold), (*[]byte)(&in.Threshold), nil},
	} {
		switch {
		case *option.query == nil:
		case rawjson.Given(*option.body), rawjson.Given(option.inJSON):
			return inBoth(option.name)
		default:
			*option.body = *option.query
		}
	}
	return nil
}

func inBoth(name string) error {
	return fail(errInvalidRequest, "'%s' is in the query and in the body", name)
}

// image gives the engine the image and says what it is, unless r.address is to be fetched. The input is used up.
func (in *input) image(r *request) (err error) {
	switch {
	case r.address != "":
		*in = input{}
		return nil
	case !in.binary:
		r.ask.Image, err = in.decodeImage(r.body, r.scratch)
		return err
	case in.file == nil:
		return fail(errInvalidImage, "Missing 'image': send a part of that name with the file of the image")
	case len(in.frame) > 0:
		if r.ask.Raw, err = decode.ParseRaw(string(in.frame)); err != nil {
			return fail(errInvalidRequest, headerFrame+": %v", err)
		}
	case len(in.file) == 0:
		return fail(errInvalidImage, "'image' is empty")
	}
	r.ask.Image = slices.Clip(in.file)
	return nil
}
