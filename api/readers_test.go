package api

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/valyala/fasthttp"

	"hailoclip/stages/decode"
)

// rawFrame is imageFile(text) as a raw frame, with gap bytes behind each row, and its X-Frame-Format.
func rawFrame(t testing.TB, text string, gap int) (frame, body string) {
	t.Helper()
	p, err := decode.NewDecoder(decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, 224).DecodeBytes(imageFile(text))
	noError(t, err)
	defer p.Release()
	var b bytes.Buffer
	for y := range p.Height {
		b.Write(p.Pix[3*p.Width*y:][:3*p.Width])
		b.WriteString(strings.Repeat("\xa5", gap))
	}
	return fmt.Sprintf("rgb24; %dx%d; stride=%d", p.Width, p.Height, 3*p.Width+gap), b.String()
}

// TestKindsOfBodies sends the same image in each kind of body, with the options where they may be.
func TestKindsOfBodies(t *testing.T) {
	s := serve(t, nil)
	file := string(imageFile(goodImage))
	query := url.Values{"prompts": threePrompts, "top_k": {"2"}, "threshold": {"0.5"}}.Encode()
	frame, raw := rawFrame(t, goodImage, 0)
	paddedFrame, padded := rawFrame(t, goodImage, 13)
	form, formBody := formOf(t, "prompts", threePrompts[0], "top_k", "2", "prompts", threePrompts[1], "other", "x", "image", file,
		"prompts", threePrompts[2], "threshold", "0.5")
	half, halfBody := formOf(t, "image", file, "threshold", "0.5", "prompt_set", "")
	const multi = "--b\r\nContent-Disposition: form-data; name=image\r\nX-Frame-Format: %s\r\n\r\n%s\r\n--b--"
	for name, c := range map[string]struct {
		query, contentType, body string
		headers                  []string
	}{
		"image/bmp":            {query, "image/bmp", file, nil},
		"another name":         {query, "Image/JPG; q=1", file, nil},
		"any name":             {query, "image/*", file, nil},
		"bytes":                {query, "application/octet-stream", file, nil},
		"no name":              {query, "", file, nil},
		"raw":                  {query, "application/octet-stream", raw, []string{headerFrame, frame}},
		"raw with a stride":    {query, "application/octet-stream", padded, []string{headerFrame, paddedFrame}},
		"form":                 {"", form, formBody, nil},
		"form and query":       {url.Values{"prompts": threePrompts, "top_k": {"2"}, "threshold": {""}}.Encode(), half, halfBody, nil},
		"form with a frame":    {query, "multipart/form-data; boundary=b", fmt.Sprintf(multi, paddedFrame, padded), nil},
		"JSON":                 {"", "application/json", classifyBody(goodImage, `,"top_k":2,"threshold":0.5`, threePrompts...), nil},
		"JSON and query":       {query, "application/json", `{"image":"` + b64(goodImage) + `"}`, nil},
		"JSON, nulls, a query": {query, "", `{"image":"` + b64(goodImage) + `","prompts":null,"top_k":null,"threshold":null,"prompt_set":null}`, nil},
	} {
		r := s.post(t, "/v1/classify?"+c.query, c.body, append(c.headers, "Content-Type", c.contentType)...)
		var a classifyAnswer
		r.into(t, &a)
		if r.status != 200 || !slices.Equal(a.texts(), []string{goodImage}) || a.Classifications[0].Cosine < 0.99999 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		if c.contentType != form {
			s.post(t, "/v1/embed/image", c.body, append(c.headers, "Content-Type", c.contentType)...).wantOK(t)
		}
	}
	s.allReturned(t)
}

func TestBadBodies(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxPrompts = 10 })
	file := string(imageFile(goodImage))
	frame, raw := rawFrame(t, goodImage, 0)
	for _, c := range []struct {
		name, query, contentType, body string
		headers                        []string
		status                         int
		code, sentence                 string
	}{
		{"other type", "", "text/plain", file, nil, 415, "unsupported_media_type",
			"send application/json or an image (image/jpeg, png, webp, gif, bmp or tiff) or multipart/form-data or application/octet-stream"},
		{"other image", "prompts=x", "image/avif", file, nil, 415, "unsupported_media_type", "an image (image/jpeg"},
		{"not the image it says", "prompts=x", "image/jpeg", string(imageFile(avifImage)), nil, 415, "unsupported_image", "AVIF"},
		{"no image", "prompts=x", "image/jpeg", "", nil, 400, "invalid_image", "'image' is empty"},
		{"text", "prompts=x", "image/jpeg", "x", nil, 400, "invalid_image", "Not an image"},
		{"no prompts", "", "image/jpeg", file, nil, 400, "invalid_prompts", "Missing or invalid 'prompts'"},
		{"empty prompt", "prompts=a&prompts=+", "image/jpeg", file, nil, 400, "invalid_prompts", "prompts[1] is empty"},
		{"many prompts", strings.Repeat("prompts=a&", s.cfg.MaxPrompts+1), "image/jpeg", file, nil, 400, "invalid_prompts", "Too many prompts"},
		{"prompt not in UTF-8", "prompts=a&prompts=%ff", "image/jpeg", file, nil, 400, "invalid_prompts", "prompts[1] is not valid UTF-8"},
		{"top_k twice", "prompts=x&top_k=1&top_k=1", "image/jpeg", file, nil, 400, "invalid_request", "'top_k' comes twice"},
		{"bad top_k", "prompts=x&top_k=0x1", "image/jpeg", file, nil, 400, "invalid_request", "'top_k': it must be an integer"},
		{"bad threshold", "prompts=x&threshold=%221%22", "image/jpeg", file, nil, 400, "invalid_request", "'threshold': it must be a number"},
		{"address", "prompts=x&image_url=http://x", "image/jpeg", file, nil, 400, "invalid_request", "image_url is not supported"},
		{"set and prompts", "prompts=x&prompt_set=door", "image/jpeg", file, nil, 400, "invalid_request", "'prompts' and 'prompt_set' exclude each other"},
		{"set and prompts in JSON", "prompt_set=door", "application/json", classifyBody(goodImage, "", "x"), nil, 400, "invalid_request", "exclude each other"},
		{"prompts in both", "prompts=x", "application/json", classifyBody(goodImage, "", "x"), nil, 400, "invalid_request", "'prompts' is in the query and in the body"},
		{"top_k in both", "top_k=1", "application/json", classifyBody(goodImage, `,"top_k":1`, "x"), nil, 400, "invalid_request", "'top_k' is in the query and in the body"},
		{"threshold in both", "threshold=1", "application/json", classifyBody(goodImage, `,"threshold":1`, "x"), nil, 400, "invalid_request", "'threshold' is in the query"},
		{"sets in both", "prompt_set=a", "application/json", `{"image":"","prompt_set":"a"}`, nil, 400, "invalid_request", "'prompt_set' is in the query"},
		{"set that is no name", "", "application/json", `{"image":"","prompt_set":["a"]}`, nil, 400, "invalid_request", "Invalid 'prompt_set'"},
		{"unknown format", "prompts=x", "application/octet-stream", raw, []string{headerFrame, "rgb565; 2x2"}, 400, "invalid_request", "X-Frame-Format: the format is \"rgb565\""},
		{"too short", "prompts=x", "application/octet-stream", raw[1:], []string{headerFrame, frame}, 400, "invalid_image", "bytes, and not"},
		{"too long", "prompts=x", "application/octet-stream", raw + "x", []string{headerFrame, frame}, 400, "invalid_image", "bytes, and not"},
		{"nothing", "prompts=x", "application/octet-stream", "", []string{headerFrame, frame}, 400, "invalid_image", "bytes, and not 0"},
		{"too many pixels", "prompts=x", "application/octet-stream", raw, []string{headerFrame, "gray8; 65536x65536"}, 413, "image_too_large", ""},
	} {
		r := s.post(t, "/v1/classify?"+c.query, c.body, append(c.headers, "Content-Type", c.contentType)...)
		t.Run(c.name, func(t *testing.T) { r.wantError(t, c.status, c.code, c.sentence) })
	}
	for _, c := range []struct {
		name           string
		parts          []string
		code, sentence string
	}{
		{"no image", []string{"prompts", "x"}, "invalid_image", "Missing 'image': send a part"},
		{"no parts", nil, "invalid_prompts", "Missing"},
		{"empty image", []string{"prompts", "x", "image", ""}, "invalid_image", "'image' is empty"},
		{"two images", []string{"image", "", "image", file}, "invalid_image", "'image' comes twice"},
		{"two top_k", []string{"image", file, "top_k", "1", "top_k", "2"}, "invalid_request", "'top_k' comes twice"},
		{"prompt not in UTF-8", []string{"image", file, "prompts", "\xff"}, "invalid_prompts", "prompts[0] is not valid UTF-8"},
		{"long prompt", []string{"image", file, "prompts", strings.Repeat("x", s.cfg.MaxPromptBytes+1)}, "invalid_prompts", "prompts[0] is too long"},
	} {
		contentType, body := formOf(t, c.parts...)
		r := s.post(t, "/v1/classify", body, "Content-Type", contentType)
		t.Run("form with "+c.name, func(t *testing.T) { r.wantError(t, 400, c.code, c.sentence) })
	}
	s.post(t, "/v1/classify?prompts=x", "", "Content-Type", "multipart/form-data").wantError(t, 400, "invalid_request", "no boundary")
	only(t, s.send(t, fmt.Sprintf("POST /v1/embed/image HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n"+
		"%s: %s\r\n%s: gray8; 1x1\r\nContent-Length: %d\r\n\r\n%s", headerFrame, frame, headerFrame, len(raw), raw))).wantError(t, 400, "invalid_request", "comes twice")
	s.allReturned(t)
}

// TestFileIsNotCopied: the image of every kind of body lies in it, and has no capacity beyond.
func TestFileIsNotCopied(t *testing.T) {
	s := handlerOnly(t)
	file := string(imageFile(goodImage))
	contentType, form := formOf(t, "image", file, "prompts", "x")
	for contentType, body := range map[string]string{"image/png": file, "application/octet-stream": file, contentType: form} {
		r := s.requests.New().(*request)
		r.ctx = requestFor(contentType)
		r.body = append(make([]byte, 0, 1<<20), body...)
		at := bytes.Index(r.body, []byte(file))
		for _, b := range s.imageBodies(readImage) {
			if b.accepts([]byte(strings.Split(contentType, ";")[0])) {
				noError(t, b.read(r))
			}
		}
		if len(r.ask.Image) != len(file) || &r.ask.Image[0] != &r.body[at] || cap(r.ask.Image) != len(file) {
			t.Errorf("%s: %d bytes of %d with room for %d, or a copy", contentType, len(r.ask.Image), len(file), cap(r.ask.Image))
		}
	}
}

// requestFor is the head of a request with a body of that kind.
func requestFor(contentType string) *fasthttp.RequestCtx {
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI("/v1/embed/image")
	ctx.Request.Header.SetContentType(contentType)
	return &ctx
}

// TestKindsSideBySide: everybody gets the answer to his own image, in memory that others have just given back. The tests'
// poison shows what is read after that.
func TestKindsSideBySide(t *testing.T) {
	s := serve(t, nil)
	var clients sync.WaitGroup
	for client := range testQueue {
		clients.Go(func() {
			for n := range 30 {
				mine := fmt.Sprint("image ", client, " of ", n)
				query := "/v1/classify?" + url.Values{"prompts": {"another", mine}, "top_k": {"1"}}.Encode()
				frame, raw := rawFrame(t, mine, n%7)
				contentType, form := formOf(t, "image", string(imageFile(mine)))
				var r reply
				switch n % 4 {
				case 0:
					r = s.post(t, query, raw, "Content-Type", "application/octet-stream", headerFrame, frame)
				case 1:
					r = s.post(t, query, string(imageFile(mine)), "Content-Type", "image/bmp")
				case 2:
					r = s.post(t, query, form, "Content-Type", contentType)
				default:
					r = s.post(t, query, `{"image":"`+b64(mine)+`"}`)
				}
				var a classifyAnswer
				r.into(t, &a)
				if len(a.Classifications) != 1 || a.Classifications[0].Text != mine || a.Classifications[0].Cosine < 0.99999 {
					t.Errorf("%s: %d %s", mine, r.status, r.body)
				}
			}
		})
	}
	clients.Wait()
}

// TestRawFrameIsGivenBackEarly: the body of a raw frame goes back when the device has its pixels, or when it has waited for
// that in vain, and that of a compressed image when the line has let go of it.
func TestRawFrameIsGivenBackEarly(t *testing.T) {
	post := func(s *service, text string, raw bool) {
		frame, body := rawFrame(t, text, 1)
		headers := []string{"Content-Type", "application/octet-stream", headerTimeout, "20", headerFrame, frame}
		if !raw {
			headers, body = headers[:4], string(imageFile(text))
		}
		s.post(t, "/v1/embed/image", body, headers...).wantError(t, 504, "deadline_exceeded", "")
	}
	returned := func(s *service) bool { return s.bodies.available() == int64(s.cfg.MaxBodyMemoryBytes) }
	s := serve(t, nil)
	post(s, heldImage, true)
	<-s.entered
	s.allReturned(t) // though the device goes on
	post(s, goodImage, true)
	s.allReturned(t)
	s.release()

	s = serve(t, nil)
	post(s, heldImage, false)
	<-s.entered
	if returned(s) {
		t.Error("the memory of a compressed image has been given back before the line is done with it")
	}
	s.release()
	s.allReturned(t)
}
