package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"hailoclip/api/client"
	"hailoclip/api/stream/source"
)

// watching is a source on its way into a stream.
type watching struct {
	*watchCmd
	service    *client.Client
	definition client.StreamDefinition
	live       bool
	box        *mailbox
	next       watchedFrame // that is to be sent
	ready      bool         // next is one
	view       watchView

	mu      sync.Mutex     // of what follows, and of view
	sent    []watchedFrame // and not answered, without their images
	tally   watchTally
	printed error
}

// watch feeds the stream with the source until that ends, or ctx.
func (c *watchCmd) watch(ctx context.Context, s *client.Client, d client.StreamDefinition, o source.Options) (err error) {
	w := &watching{watchCmd: c, service: s, definition: d, live: source.Live(c.Source), view: jsonView{events: c.Events}}
	w.box = newMailbox(!w.live || d.Policy == client.PolicyQueue)
	switch {
	case stdout.terminal && c.Events:
		w.view = lineView{colors: stdout.color() && !c.NoColor}
	case stdout.terminal:
		w.view = newTableView(c, stdout)
	}
	w.tally.begin = time.Now()
	ctx, stop := context.WithCancel(ctx)
	o.State = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("the source %s: %w", source.Mask(c.Source), err)
		}
		w.view.trouble(err)
	}
	if c.Source == "-" {
		o.Stdin = interruptible(ctx, o.Stdin)
	}
	read := make(chan error, 1)
	go func() {
		err := source.Run(ctx, c.Source, o, func(f source.Frame) error { return w.box.add(ctx, f) })
		w.box.close()
		read <- err
	}()
	err = w.feed(ctx)
	stop()
	ofSource := <-read
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.close()
	if w.box.seq > 0 {
		complain("%s", w.tally.summary(w.box.lost))
	}
	switch {
	case err != nil:
		return err
	case ofSource != nil:
		return watchError(ofSource)
	case w.printed != nil:
		return w.printed
	case w.tally.dropped["bad"] > 0:
		return exitError(exitFailed)
	}
	return nil
}

// interruptible is r until ctx ends, also while r blocks, which goes on until the end of the process then.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}

// Pauses before a service that was lost is asked again, which is done for what is live.
const (
	watchFirstPause = 500 * time.Millisecond
	watchMaxPause   = 10 * time.Second
)

// feed sends frames until there are no more and all are answered.
func (w *watching) feed(ctx context.Context) error {
	pause := watchFirstPause
	for {
		if !w.ready && !w.take(ctx.Done()) {
			return context.Cause(ctx)
		}
		answered := w.tally.frames
		err := w.connection(ctx)
		var closed *client.CloseError
		var said *client.Error
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil, !w.live, w.printed != nil:
			return err
		case errors.As(err, &closed) && closed.Code != 1001 && closed.Code != 1006, errors.As(err, &said) && said.Status/100 == 4 && said.Status != 429:
			return err
		}
		if w.tally.frames > answered {
			pause = watchFirstPause
		}
		w.mu.Lock()
		w.view.trouble(fmt.Errorf("the service is lost: %w", err))
		w.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, watchMaxPause)
	}
}

func (w *watching) take(done <-chan struct{}) bool {
	w.ready = w.box.take(&w.next, done)
	return w.ready
}

// connection sends frames over one connection. nil: there are no more, and all are answered.
func (w *watching) connection(ctx context.Context) error {
	o := client.StreamOptions{ID: w.Stream, StreamDefinition: w.definition}
	o.Format = w.next.format
	s, err := w.service.Stream(ctx, o)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- w.receive(s)
	}()
	for format := w.next.format; w.ready; {
		if w.next.format != format {
			format = w.next.format
			err = s.Change(map[string]string{"format": format})
		}
		if err == nil {
			err = w.send(s)
		}
		if err != nil || !w.take(done) {
			break
		}
	}
	if err == nil {
		err = s.End()
	}
	if err != nil {
		s.Close() // and so ends receive
	}
	err = <-ended
	s.Close()
	w.sent = nil
	var closed *client.CloseError
	if errors.As(err, &closed) && closed.Code == 1000 && !w.ready {
		return nil
	}
	return err
}

// send sends the next frame.
func (w *watching) send(s *client.Stream) error {
	f := w.next
	ts := time.Now().UnixMicro()
	if f.time >= 0 {
		ts = f.time.Microseconds()
	}
	w.mu.Lock()
	noted := f
	noted.image = nil
	w.sent = append(w.sent, noted)
	w.mu.Unlock()
	return s.Send(f.image, f.seq, ts)
}

// receive shows what the service says until the stream ends.
func (w *watching) receive(s *client.Stream) error {
	for {
		m, err := s.Receive()
		if err != nil {
			return err
		}
		w.mu.Lock()
		err = w.hear(m)
		w.mu.Unlock()
		if err != nil {
			s.Close()
			return err
		}
	}
}

// hear shows a message. Errors are those of standard output.
func (w *watching) hear(m client.Message) error {
	switch {
	case m.Err != nil:
		w.view.trouble(m.Err)
	case m.Missed != nil:
		w.view.trouble(m.Missed)
	case m.Event != nil:
		w.tally.events++
		w.thumbnail(m.Event)
		w.printed = w.view.event(m)
	case m.Answer != nil:
		if len(w.sent) == 0 || w.sent[0].seq != m.Answer.Seq {
			return fmt.Errorf("%w: it answers frame %d, which was not sent or not yet due", client.ErrAnswer, m.Answer.Seq)
		}
		f := w.sent[0]
		w.sent = w.sent[1:]
		w.tally.add(m.Answer)
		w.printed = w.view.answer(f, m)
	}
	return w.printed
}

var eventID = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// thumbnail writes the thumbnail of an event.
func (w *watching) thumbnail(e *client.Event) {
	if w.Thumbnails == "" || !e.Thumbnail || !eventID.MatchString(e.ID) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	image, err := w.service.Thumbnail(ctx, e.ID)
	if err == nil {
		name := e.Time.UTC().Format("20060102-150405.000") + "-" + e.Kind + "-" + e.ID + ".jpg"
		err = os.WriteFile(filepath.Join(w.Thumbnails, name), image, 0o666)
	}
	if err != nil {
		w.view.trouble(fmt.Errorf("a thumbnail is lost: %w", err))
	}
}
