package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"hailoclip/api/client"
	"hailoclip/api/stream/source"
)

// watchView shows what becomes of frames. Its methods are called by one goroutine at a time.
type watchView interface {
	answer(f watchedFrame, m client.Message) error
	event(m client.Message) error
	trouble(err error) // why there are no frames or answers now; nil: there are
	close()            // before anything else is printed
}

// watchedFrame is a frame on its way.
type watchedFrame struct {
	image  []byte
	format string        // of pixels; "": it is compressed
	name   string        // of its file, in a folder
	time   time.Duration // since the start of a file; -1: live
	seq    uint64
}

// mailbox hands frames from a source to a stream. With wait the source waits until each is taken, otherwise a newer frame takes the
// place of the one that waits.
type mailbox struct {
	wait      bool
	mu        sync.Mutex
	frame     watchedFrame
	full      bool
	closed    bool
	seq, lost uint64
	put, took chan struct{} // with room for one: something was
}

func newMailbox(wait bool) *mailbox {
	return &mailbox{wait: wait, put: make(chan struct{}, 1), took: make(chan struct{}, 1)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add copies a frame of the source.
func (b *mailbox) add(ctx context.Context, f source.Frame) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.full && b.wait {
		b.mu.Unlock()
		select {
		case <-b.took:
		case <-ctx.Done():
		}
		b.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if b.full {
		b.lost++
	}
	b.frame = watchedFrame{append(b.frame.image[:0], f.Image...), f.Raw.String(), f.Name, f.Time, b.seq}
	b.seq++
	b.full = true
	poke(b.put)
	return nil
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	poke(b.put)
}

// take blocks until there is a frame, none is to come, or done is closed. It reuses the memory of f.
func (b *mailbox) take(f *watchedFrame, done <-chan struct{}) bool {
	for {
		b.mu.Lock()
		if b.full {
			b.full = false
			*f, b.frame = b.frame, *f
			b.mu.Unlock()
			poke(b.took)
			return true
		}
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return false
		}
		select {
		case <-b.put:
		case <-done:
			return false
		}
	}
}

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
		w.view = lineView{stdout.color() && !c.NoColor}
	case stdout.terminal:
		w.view = newTableView(c, stdout)
	}
	w.tally.begin = time.Now()
	ctx, stop := context.WithCancel(ctx)
	o.State = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
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

// watchTally counts what became of frames.
type watchTally struct {
	begin            time.Time
	frames, reused   int
	answered, events int
	dropped          map[string]int
	lag, lagMax      float64 // of all answers, milliseconds
}

func (t *watchTally) add(a *client.StreamAnswer) {
	t.frames++
	if a.Dropped != "" {
		if t.dropped == nil {
			t.dropped = map[string]int{}
		}
		t.dropped[a.Dropped]++
		return
	}
	if t.answered++; a.Reused {
		t.reused++
	}
	t.lag += a.LagMS
	t.lagMax = max(t.lagMax, a.LagMS)
}

// summary is a line for people. lost is how many frames were never sent.
func (t *watchTally) summary(lost uint64) string {
	took := time.Since(t.begin).Seconds()
	var b strings.Builder
	fmt.Fprintf(&b, "%d frames in %.1f s (%.1f/s): %d answered", t.frames, took, float64(t.frames)/max(took, 1e-3), t.answered)
	if t.reused > 0 {
		fmt.Fprintf(&b, " (%d as the one before)", t.reused)
	}
	for _, why := range [][2]string{{"superseded", "superseded"}, {"expired", "expired"}, {"bad", "not readable"}, {"rate", "beyond --fps"}} {
		if n := t.dropped[why[0]]; n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, why[1])
		}
	}
	if lost > 0 {
		fmt.Fprintf(&b, ", %d not sent", lost)
	}
	if t.answered > 0 {
		fmt.Fprintf(&b, "; lag %.0f ms, at most %.0f ms", t.lag/float64(t.answered), t.lagMax)
	}
	if t.events > 0 {
		fmt.Fprintf(&b, "; %d events", t.events)
	}
	return b.String()
}

// jsonView writes a JSON object a line.
type jsonView struct{ events bool }

func (v jsonView) answer(f watchedFrame, m client.Message) error {
	if v.events {
		return nil
	}
	where := "" // before the answer
	if f.name != "" {
		where = `"file":` + jsonText(f.name) + ","
	}
	if f.time >= 0 {
		where += fmt.Sprintf(`"time":%s,`, strconv.FormatFloat(f.time.Round(time.Microsecond).Seconds(), 'f', -1, 64))
	}
	_, err := fmt.Fprintf(stdout, "{%s%s\n", where, strings.TrimPrefix(string(m.Text), "{"))
	return err
}

func (v jsonView) event(m client.Message) error {
	if !v.events {
		return nil
	}
	_, err := fmt.Fprintf(stdout, "%s\n", m.Text)
	return err
}

func (jsonView) trouble(err error) {
	if err != nil {
		complain("hailo-clip: %v", err)
	}
}

func (jsonView) close() {}
