package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
	"hailoclip/api/stream"
	"hailoclip/api/stream/source"
	"hailoclip/stages/decode"
)

// pushed is the body of a request that pushes frames, and what has come of it.
type pushed struct {
	id         string
	definition []byte // JSON of what the query says of the stream; nil: nothing
	whole      bool   // that says by what the frames are classified
	boundary   string // of the parts that the frames come in; "": unknown
	ended      error  // why no more frames were read; nil: there were no more

	Stream string `json:"stream"`
	stream.Counts
	Skipped int `json:"skipped"` // parts that were no image, and images that were cut or too large
}

// isFrames accepts what cameras and ffmpeg call a body of frames, and bodies without a name.
func isFrames(media []byte) bool {
	return len(media) == 0 || string(media) == "multipart/x-mixed-replace" || isBytes(media) || isImage(media) ||
		string(media) == "video/x-motion-jpeg" || string(media) == "video/mjpeg"
}

// readFrames reads of the head what the frames are, and what is to be done with them.
func readFrames(r *request) (err error) {
	a := &pushed{}
	if a.id, err = r.streamID(); err != nil {
		return err
	}
	if _, params, err := mime.ParseMediaType(string(r.ctx.Request.Header.ContentType())); err == nil {
		a.boundary = params["boundary"]
	}
	r.pushed = a
	return a.query(r.ctx.QueryArgs(), string(r.ctx.Request.Header.Peek(headerFrame)))
}

// numbersOfStreams and textsOfStreams are the fields of a definition that the query may have.
var (
	numbersOfStreams = []string{"top_k", "max_in_flight", "fps", "interval_ms"}
	textsOfStreams   = []string{"prompt_set", "policy", "clock", "format"}
)

// query makes the definition of what the query says, and of the format of raw frames, if any.
func (p *pushed) query(q *fasthttp.Args, format string) (err error) {
	fields := map[string]any{}
	if format != "" {
		fields["format"] = format
	}
	var prompts []string
	for _, prompt := range q.PeekMulti("prompts") {
		prompts = append(prompts, string(prompt))
	}
	if prompts != nil {
		fields["prompts"] = prompts
	}
	for _, name := range textsOfStreams {
		if sent := q.Peek(name); len(sent) > 0 {
			fields[name] = string(sent)
		}
	}
	for _, name := range numbersOfStreams {
		sent := q.Peek(name)
		if len(sent) == 0 {
			continue
		}
		n, ok := rawjson.Number(sent)
		if !ok {
			return fail(errInvalidRequest, "Invalid '%s': it must be a number", name)
		}
		fields[name] = n
	}
	if on := q.Peek("events"); len(on) > 0 {
		fields["events"] = map[string]string{"on": string(on)}
	}
	if p.whole = prompts != nil || fields["prompt_set"] != nil; len(fields) > 0 {
		p.definition, err = json.Marshal(fields)
	}
	return err
}

// pushFrames opens a feed and gives it the frames of the body, until that ends or the feed does. It returns when all are answered.
func (r *request) pushFrames() error {
	a, hub := r.pushed, r.server.svc.Hub
	if _, err := hub.Get(a.id); err != nil && !a.whole {
		return err // rather than what the query lacks
	}
	feed, err := hub.Open(r.work, stream.Opening{ID: a.id, Definition: a.definition, Caller: r.caller})
	if err != nil {
		return err
	}
	reading, end := context.WithCancelCause(r.work) // its cause is why no more frames are read
	defer end(nil)
	defer context.AfterFunc(r.server.live, func() { end(errStopping) })()
	defer context.AfterFunc(r.grant.Revoked(), func() { end(errRevoked) })()
	go func() {
		select {
		case <-feed.Done():
			end(feed.Err())
		case <-reading.Done():
		}
	}()
	body := &framesBody{reads: patience{conn: r.conn}, request: r, from: r.ctx.RequestBodyStream()}
	defer context.AfterFunc(reading, body.reads.interrupt)()
	if a.ended = r.push(feed, body.frames(feed.Definition().Format)); reading.Err() != nil {
		a.ended = context.Cause(reading)
	}
	if feed.Close(); a.ended == nil && r.size > 0 && feed.Counts().Frames == 0 && a.Skipped == 0 {
		a.ended = source.ErrNoImages
	}
	a.Stream, a.Counts = a.id, feed.Counts()
	return nil
}

// push gives the feed frame after frame. Where there is no memory for one, it goes by.
func (r *request) push(feed *stream.Feed, next func(*lent) (skipped int, err error)) error {
	size := 0
	for n := uint64(0); ; n++ {
		memory := r.server.lend(r.caller.Address, size)
		skipped, err := next(memory)
		r.pushed.Skipped += skipped
		f := stream.Frame{Image: slices.Clip(memory.b), Seq: n, Received: time.Now(), Release: memory.release}
		switch {
		case err == nil:
			size = len(f.Image)
			err = feed.Push(f)
		case errors.Is(err, errBodyMemory):
			err = feed.Drop(f, stream.Bad, err)
		default:
			f.Release()
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// framesBody is a body that may last for ever, while there is no read_timeout between two of its bytes.
type framesBody struct {
	reads   patience
	request *request
	from    io.Reader // nil: there is no body
}

// Read fails with errors that are for the client.
func (f *framesBody) Read(b []byte) (int, error) {
	r := f.request
	if f.from == nil {
		r.state = received
		return 0, io.EOF
	}
	f.reads.until(time.Now().Add(r.server.cfg.ReadTimeout))
	n, err := f.from.Read(b)
	r.size += n
	switch {
	case errors.Is(err, io.EOF) && r.size < r.ctx.Request.Header.ContentLength():
		err = r.conn.readError(io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		r.state = received
	case err != nil:
		err = r.conn.readError(err)
	}
	return n, err
}

// frames returns what reads the next frame of the body: an image, or as many bytes as a raw one has. Its errors are io.EOF, those of
// Read, source.ErrNoImages, and errBodyMemory for a frame that has gone by.
func (f *framesBody) frames(format string) func(*lent) (skipped int, err error) {
	if raw, err := decode.ParseRaw(format); format != "" && err == nil { // the hub has checked it
		return func(l *lent) (skipped int, err error) {
			noRoom, err := l.receive(io.LimitReader(f, int64(raw.Bytes())), raw.Bytes())
			switch {
			case err != nil || noRoom != nil:
				return 0, cmp.Or(err, noRoom)
			case len(l.b) == 0:
				return 0, io.EOF
			case len(l.b) < raw.Bytes():
				return 1, io.EOF
			}
			return 0, nil
		}
	}
	images := source.NewReader(f, f.request.pushed.boundary, source.Limits{FrameBytes: f.request.server.cfg.MaxBodyBytes})
	return func(l *lent) (skipped int, err error) {
		l.b, skipped, err = images.Next(l.b, l.grow)
		return skipped, err
	}
}

// answerFrames answers with the counters of the feed, which come with an error, too.
func (r *request) answerFrames() error {
	counters, err := json.Marshal(r.pushed)
	if err != nil {
		return err
	}
	if r.pushed.ended == nil {
		return r.answerJSON(json.RawMessage(counters))
	}
	r.answerError(r.pushed.ended)
	text := r.ctx.Response.Body()
	r.ctx.Response.SetBodyRaw(append(append(slices.Clone(text[:len(text)-1]), ','), counters[1:]...))
	return nil
}
