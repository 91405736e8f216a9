package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// PushOptions say into which stream frames are pushed.
type PushOptions struct {
	PromptSet   string // of a stream that is not defined: then it is there for as long as it is fed, and a little longer
	ContentType string // of PushBody: multipart/x-mixed-replace, with its boundary, or "", and the service finds out
}

// PushResult is what became of the frames of a push.
type PushResult struct {
	Stream string `json:"stream"`
	StreamCounts
	Skipped uint64 `json:"skipped"` // what was in the body and was no frame
}

// PushBody sends frames to a stream as cameras do, for as long as body lasts: multipart/x-mixed-replace, or JPEG after JPEG, such
// as what "ffmpeg -f mpjpeg" writes. There are no answers: Events, or a Stream, have them. A body that is an io.Closer is closed.
func (c *Client) PushBody(ctx context.Context, id string, body io.Reader, o PushOptions) (result PushResult, err error) {
	r := call{method: http.MethodPost, path: pathOfStream(id) + "/frames", query: url.Values{}, header: map[string]string{}}
	if o.PromptSet != "" {
		r.query.Set("prompt_set", o.PromptSet)
	}
	if o.ContentType != "" {
		r.header["Content-Type"] = o.ContentType
	}
	request, err := c.request(ctx, r, body)
	if err != nil {
		return result, err
	}
	request.ContentLength = -1 // nobody knows; net/http would look into readers that it knows
	response, err := c.long.Do(request)
	if err != nil {
		return result, err
	}
	a, err := c.read(r, response)
	if err == nil && a.status/100 != 2 {
		err = a.fault()
	}
	if err == nil {
		err = a.read(&result)
	}
	return result, err
}

// boundary is that of the parts of a Push. A frame may have it inside: its length is told.
const boundary = "hailo-clip-frame"

// Push is a stream that frames are pushed into one by one; see PushBody. Not for concurrent use.
type Push struct {
	pipe   *io.PipeWriter
	part   []byte
	begun  bool
	ended  chan struct{}
	result PushResult // after ended
	err    error      // likewise
}

// Push begins to push frames into a stream, until Close or the end of ctx.
func (c *Client) Push(ctx context.Context, id string, o PushOptions) *Push {
	o.ContentType = "multipart/x-mixed-replace; boundary=" + boundary
	body, pipe := io.Pipe()
	p := &Push{pipe: pipe, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.result, p.err = c.PushBody(ctx, id, body, o)
		err := p.err
		if err == nil {
			err = io.ErrClosedPipe
		}
		body.CloseWithError(err) // before the end the service has answered early
	}()
	return p
}

// Send sends a compressed image, and the beginning of the next part, so that the service knows its end. It blocks while the service
// does not take it. The image is the caller's again when it returns. An error says that the push has ended, and why.
func (p *Push) Send(image []byte) error {
	p.part = p.part[:0]
	if !p.begun {
		p.begun, p.part = true, append(p.part, "--"+boundary+"\r\n"...)
	}
	p.part = fmt.Appendf(p.part, "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", Image{Data: image}.media(), len(image))
	p.part = append(append(p.part, image...), "\r\n--"+boundary+"\r\n"...)
	_, err := p.pipe.Write(p.part)
	if err == io.ErrClosedPipe { //nolint:errorlint // the pipe's own
		<-p.ended
		if p.err != nil {
			err = p.err
		}
	}
	return err
}

// Close ends the push and returns what became of its frames. It may be called more than once.
func (p *Push) Close() (PushResult, error) {
	_ = p.pipe.Close() // it never fails
	<-p.ended
	return p.result, p.err
}
