package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"

	"hailoclip/api/client"
	"hailoclip/api/stream/source"
	"hailoclip/hailo/demo"
)

var petPrompts = []string{"a photo of a cat", "a photo of a pizza", "a photo of a dog"}

// promptFlags are -p for each.
func promptFlags(prompts []string) (args []string) {
	for _, p := range prompts {
		args = append(args, "-p", p)
	}
	return args
}

// video is a file that shows two drawings in turn, with noise, changing brightness and a trembling camera.
type video struct {
	file   string
	frames int
	shows  []string // by frame
	fps    int
}

// newVideo has ffmpeg make one, a longer one with HAILO_TEST_LONG. It skips the test where there is no ffmpeg.
func newVideo(t *testing.T) video {
	t.Helper()
	needPrograms(t, "ffmpeg")
	v, scenes, perScene := video{file: filepath.Join(t.TempDir(), "door.avi"), fps: 30}, 3, 20
	if os.Getenv("HAILO_TEST_LONG") != "" {
		scenes, perScene = 8, 75 // 20 s
	}
	args, filter, joined := []string{"-loglevel", "error"}, "", ""
	for i := range scenes {
		name := []string{"cat", "pizza"}[i%2]
		args = append(args, "-loop", "1", "-framerate", fmt.Sprint(v.fps), "-t", fmt.Sprintf("%.4f", float64(perScene)/float64(v.fps)), "-i", samples+name+".jpg")
		filter += fmt.Sprintf("[%d:v]scale=256:256,setsar=1,fps=%d[s%d];", i, v.fps, i)
		joined += fmt.Sprintf("[s%d]", i)
		v.shows = append(v.shows, slices.Repeat([]string{"a photo of a " + name}, perScene)...)
	}
	filter += joined + fmt.Sprintf("concat=n=%d:v=1,noise=alls=12:allf=t:all_seed=8,eq=brightness='0.06*sin(3*t)':eval=frame,"+
		"crop=240:240:'8+6*sin(2*t)':'8+6*cos(2*t)'", scenes)
	args = append(args, "-filter_complex", filter, "-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj420p", v.file)
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v.frames = len(v.shows)
	return v
}

// minFrames is how many frames in a row a change takes in these tests.
const minFrames = 3

// changes are the events that there must be, with the frame that makes them.
func (v video) changes() (list []string) {
	for i := range v.shows {
		if i > 0 && v.shows[i] == v.shows[i-1] {
			continue
		}
		at := i + minFrames - 1
		if i > 0 {
			list = append(list, fmt.Sprintf("%d exit %s", at, v.shows[i-1]))
		}
		list = append(list, fmt.Sprintf("%d enter %s", at, v.shows[i]))
	}
	return list
}

// heard is what has come of a video.
type heard struct {
	answers []client.StreamAnswer
	changes []string // without those of the state
}

func (h *heard) event(t *testing.T, e *client.Event, seq uint64) {
	t.Helper()
	if e.Kind == client.EventEnter || e.Kind == client.EventExit {
		h.changes = append(h.changes, fmt.Sprintf("%d %s %s", seq, e.Kind, e.Label))
	}
}

// check fails the test unless every frame was answered, in order, as what it shows, and the changes are the true ones.
func (h *heard) check(t *testing.T, v video) {
	t.Helper()
	for i, a := range h.answers {
		if a.Seq != uint64(i) || a.Dropped != "" || len(a.Matches) != len(petPrompts) || a.Matches[0].Text != v.shows[min(i, v.frames-1)] {
			t.Errorf("frame %d is answered with %+v", i, a)
		}
	}
	if len(h.answers) != v.frames {
		t.Errorf("%d answers to %d frames", len(h.answers), v.frames)
	}
	slices.Sort(h.changes)
	want := v.changes()
	slices.Sort(want)
	if !slices.Equal(h.changes, want) {
		t.Errorf("heard %q\nwant  %q", h.changes, want)
	}
}

// TestVideo shows a service a video in each way that there is. Every frame is answered in its order, and the changes are exactly
// those that it has.
func TestVideo(t *testing.T) {
	t.Parallel()
	v := newVideo(t)
	state := t.TempDir()
	r := serve(t, state, "--model", "demo", "--backend", "cpu")
	c := must(client.New(r.url, client.Options{}))
	defer c.Close()
	t.Run("watch", func(t *testing.T) { watchVideo(t, v, state, "--url", r.url) })
	t.Run("watch alone", func(t *testing.T) { watchVideo(t, v, t.TempDir(), "--model", "demo", "--backend", "cpu") })
	t.Run("WebSocket", func(t *testing.T) { sendVideo(t, v, c) })
	t.Run("push", func(t *testing.T) { pushVideo(t, v, c, r.url) })
	r.stop(t)
}

// watchVideo has watch read the file, once for the answers and once for what changes.
func watchVideo(t *testing.T, v video, state string, args ...string) {
	var h heard
	run := func(more ...string) string {
		all := slices.Concat([]string{"watch", v.file, "--min-frames", fmt.Sprint(minFrames)}, promptFlags(petPrompts), args, more)
		r := runProgram(t, command(state, all...))
		r.expect(t, exitOK, fmt.Sprintf("%d frames in", v.frames), fmt.Sprintf("%d answered", v.frames))
		return r.stdout
	}
	for line := range strings.Lines(run()) {
		var a struct {
			Time float64
			client.StreamAnswer
		}
		if err := errorOf(json.Unmarshal([]byte(line), &a.StreamAnswer), json.Unmarshal([]byte(line), &struct{ Time *float64 }{&a.Time})); err != nil {
			t.Fatal(err, line)
		}
		if want := float64(len(h.answers)) / float64(v.fps); a.Time < want-0.01 || a.Time > want+0.01 {
			t.Errorf("frame %d is of %v s", len(h.answers), a.Time)
		}
		h.answers = append(h.answers, a.StreamAnswer)
	}
	for line := range strings.Lines(run("--events")) {
		var e client.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq == nil {
			t.Fatal(err, line)
		}
		h.event(t, &e, *e.Seq)
	}
	h.check(t, v)
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// frames are those of the file.
func (v video) read(t *testing.T) (frames [][]byte) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-loglevel", "error", "-i", v.file, "-c:v", "copy", "-f", "mjpeg", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	in := source.NewReader(bytes.NewReader(out), "", source.Limits{FrameBytes: 1 << 20})
	for {
		image, _, err := in.Next(nil, func(b []byte, more int) ([]byte, error) { return append(make([]byte, 0, len(b)+more), b...), nil })
		if err != nil {
			return frames
		}
		frames = append(frames, bytes.Clone(image))
	}
}

// sendVideo sends the frames over a WebSocket, faster than they are answered.
func sendVideo(t *testing.T, v video, c *client.Client) {
	s, err := c.Stream(t.Context(), client.StreamOptions{StreamDefinition: client.StreamDefinition{
		Prompts: petPrompts, Policy: client.PolicyQueue, Events: &client.StreamEvents{MinFrames: minFrames},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := make(chan error, 1)
	go func() {
		var err error
		for i, frame := range v.read(t) {
			err = errorOf(err, s.Send(frame, uint64(i), int64(i)*1e6/int64(v.fps)))
		}
		sent <- errorOf(err, s.End())
	}()
	var h heard
	for {
		m, err := s.Receive()
		if err != nil {
			if !strings.Contains(err.Error(), "code 1000") {
				t.Error(err)
			}
			break
		}
		switch {
		case m.Answer != nil:
			h.answers = append(h.answers, *m.Answer)
		case m.Event != nil:
			h.event(t, m.Event, *m.Event.Seq)
		default:
			t.Errorf("%s", m.Text)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	h.check(t, v)
}

// pushVideo has ffmpeg push the file as cameras do, and listens.
func pushVideo(t *testing.T, v video, c *client.Client, url string) {
	d := client.StreamDefinition{Prompts: petPrompts, Policy: client.PolicyQueue, Events: &client.StreamEvents{On: "frames", MinFrames: minFrames}}
	if _, created, err := c.PutStream(t.Context(), "door", d); err != nil || !created {
		t.Fatal(err)
	}
	args := []string{"-loglevel", "error", "-i", v.file, "-c:v", "copy", "-f", "mpjpeg", "-method", "POST", url + "/v1/streams/door/frames"}
	if os.Getenv("HAILO_TEST_LONG") != "" {
		args = append([]string{"-re"}, args...) // as a camera, 30 a second
	}
	pushed := make(chan error, 1)
	begin := func() {
		go func() {
			out, err := exec.Command("ffmpeg", args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			pushed <- err
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var h heard
	var seqs []uint64
	for e, err := range c.Events(ctx, "door", client.EventsOptions{Frames: true, Begun: begin}) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case client.EventFrame:
			var a client.StreamAnswer
			if err := json.Unmarshal(e.Answer, &a); err != nil {
				t.Fatal(err)
			}
			h.answers = append(h.answers, a)
		default:
			h.event(t, &e, *e.Seq)
			seqs = append(seqs, *e.Seq)
		}
		if len(h.answers) == v.frames && len(h.changes) >= len(v.changes()) {
			break
		}
	}
	if err := <-pushed; err != nil {
		t.Error(err)
	}
	h.check(t, v)
	until(t, "the push is over", func() bool { info, err := c.StreamInfo(t.Context(), "door"); return err == nil && !info.Fed })
	info, err := c.StreamInfo(t.Context(), "door")
	if err != nil || info.Stats.Frames != uint64(v.frames) || info.Stats.Answered != uint64(v.frames) {
		t.Errorf("%+v, %v", info.Stats, err)
	}
	if err := c.DeleteStream(t.Context(), "door"); err != nil {
		t.Error(err)
	}
}

// TestWatchFolder has a folder with an image that is none, a region, and thumbnails of what changes.
func TestWatchFolder(t *testing.T) {
	t.Parallel()
	needONNX(t)
	dir, thumbnails := t.TempDir(), filepath.Join(t.TempDir(), "new", "folder")
	files := map[string]string{"5.jpg": "\xff\xd8\xff no image", "notes.txt": "not looked at"}
	for i, label := range []string{"cat", "cat", "pizza", "pizza"} {
		for _, s := range must(demo.Samples()) {
			if s.Label == label {
				files[fmt.Sprintf("%d.jpg", i+1)] = string(s.JPEG)
			}
		}
	}
	put(t, dir, files)
	args := slices.Concat([]string{"watch", dir, "--model", "demo", "--backend", "cpu", "--min-frames", "1", "--top-k", "1",
		"--region", "all=0,0,1,1", "--thumbnails", thumbnails}, promptFlags(petPrompts))
	r := hailoClip(t, args...)
	r.expect(t, exitFailed, "5 frames in", "4 answered, 1 not readable")
	var got []string
	for line := range strings.Lines(r.stdout) {
		var a struct{ File, Dropped, Code string }
		var regions struct {
			Regions []struct {
				Name            string
				Classifications []struct{ Text string }
			}
		}
		if err := errorOf(json.Unmarshal([]byte(line), &a), json.Unmarshal([]byte(line), &regions)); err != nil {
			t.Fatal(err, line)
		}
		text := a.File + " " + a.Dropped
		for _, r := range regions.Regions {
			text += r.Name + ": " + r.Classifications[0].Text
		}
		got = append(got, text)
	}
	if want := []string{"1.jpg all: a photo of a cat", "2.jpg all: a photo of a cat", "3.jpg all: a photo of a pizza", "4.jpg all: a photo of a pizza", "5.jpg bad"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	entries := must(os.ReadDir(thumbnails))
	kinds := map[string]int{}
	for _, e := range entries {
		kinds[strings.Split(e.Name(), "-")[2]]++
		if b := must(os.ReadFile(filepath.Join(thumbnails, e.Name()))); !bytes.HasPrefix(b, []byte("\xff\xd8\xff")) {
			t.Errorf("%s is no JPEG", e.Name())
		}
	}
	if kinds["enter"] != 2 || kinds["exit"] != 1 {
		t.Errorf("thumbnails %v", kinds)
	}
}

func TestWatchArguments(t *testing.T) {
	t.Parallel()
	dir, nobody := t.TempDir(), "http://127.0.0.1:1"
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{dir}, exitUsage, "nothing to compare with"},
		{[]string{dir, "-p", "a", "--prompt-set", "b"}, exitUsage, "can't be used together"},
		{[]string{dir, "-p", " "}, exitUsage, "--prompt number 1 is empty"},
		{[]string{"/nowhere", "-p", "a"}, exitFailed, "/nowhere: there is no such file"},
		{[]string{"gopher://a", "-p", "a"}, exitFailed, "is no kind of source"},
		{[]string{dir, "-p", "a", "--region", "a=0,0,1"}, exitUsage, "not of the form NAME=X,Y,W,H"},
		{[]string{dir, "-p", "a", "--region", "a=0.5,0,0.6,1"}, exitUsage, "a part of the frame"},
		{[]string{dir, "-p", "a", "--region", "a=NaN,0,1,1"}, exitUsage, "a part of the frame"},
		{[]string{dir, "-p", "a", "--smoothing", "1"}, exitUsage, "--smoothing: 1 is out of bounds: 0 to 0.99"},
		{[]string{dir, "-p", "a", "--fps", "NaN"}, exitUsage, "--fps"},
		{[]string{dir, "-p", "a", "--policy", "late"}, exitUsage, "--policy"},
		{[]string{dir, "-p", "a", "--url", nobody, "--model", "demo"}, exitUsage, "of no use with --url"},
	} {
		t.Run(fmt.Sprintf("%q", c.args), func(t *testing.T) { hailoClip(t, append([]string{"watch"}, c.args...)...).expect(t, c.code, c.says) })
	}
}

// TestWatchUnknownSet: what the service says of a definition ends the command.
func TestWatchUnknownSet(t *testing.T) {
	t.Parallel()
	needONNX(t)
	dir := t.TempDir()
	put(t, dir, map[string]string{"a.jpg": "\xff\xd8\xff"})
	hailoClip(t, "watch", dir, "--model", "demo", "--backend", "cpu", "--prompt-set", "nobody").expect(t, exitFailed, "prompt_set_not_found")
	hailoClip(t, "watch", dir, "--model", "demo", "--backend", "cpu", "--stream", "nobody").expect(t, exitFailed, "code 1008", "prompt_set")
}

// TestMailbox: with latest the newest frame is there, with queue every one.
func TestMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		latest := newMailbox(false)
		var f watchedFrame
		for i := range 5 {
			if err := latest.add(t.Context(), source.Frame{Image: []byte{byte(i)}}); err != nil {
				t.Error(err)
			}
		}
		if !latest.take(&f, nil) || f.image[0] != 4 || f.seq != 4 || latest.lost != 4 {
			t.Errorf("%+v, %d lost", f, latest.lost)
		}
		done := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(done) })
		if latest.take(&f, done) {
			t.Error("a frame that is not there")
		}
		queue := newMailbox(true)
		go func() {
			for i := range 5 {
				if err := queue.add(t.Context(), source.Frame{Image: []byte{byte(i)}}); err != nil {
					t.Error(err)
				}
			}
			queue.close()
		}()
		for i := range 5 {
			time.Sleep(time.Second)
			if !queue.take(&f, nil) || f.image[0] != byte(i) {
				t.Errorf("frame %d is %+v", i, f)
			}
		}
		if queue.take(&f, nil) || queue.lost != 0 {
			t.Error("more than there is")
		}
		full := newMailbox(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 2 {
			_ = full.add(ctx, source.Frame{})
		}
		if full.add(ctx, source.Frame{}) == nil || ctx.Err() == nil {
			t.Error("the source does not wait")
		}
	})
}

// TestWatchTable draws a table with hostile texts, in all widths.
func TestWatchTable(t *testing.T) {
	v := newTable(&watchCmd{Source: "http://user:secret@camera/\x1b[2J", Set: "door"})
	v.out = &output{}
	hear := func(text string) {
		var m client.Message
		var kind struct{ Event string }
		if err := json.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Event != "" {
			m.Event = new(client.Event)
			_ = errorOf(json.Unmarshal([]byte(text), m.Event), v.event(m))
			return
		}
		m.Answer = new(client.StreamAnswer)
		_ = errorOf(json.Unmarshal([]byte(text), m.Answer), v.answer(watchedFrame{name: "a\nb.jpg", time: 2 * time.Second}, m))
	}
	hear(`{"seq":0,"lag_ms":7,"classifications":[{"text":"open \u001b[31m","score":0.75,"rank":1},{"text":"关闭","score":0.25,"rank":2}]}`)
	hear(`{"event":"enter","label":"open \u001b[31m","score":0.8,"time":"2026-11-26T20:00:00Z"}`)
	hear(`{"event":"state","state":"open \u001b[31m","score":0.8,"time":"2026-11-26T20:00:00Z"}`)
	hear(`{"seq":1,"dropped":"superseded"}`)
	for i := range 20 {
		hear(fmt.Sprintf(`{"event":"exit","label":"label %d","region":"r","score":0.8,"time":"2026-11-26T20:00:00Z"}`, i))
	}
	v.trouble(fmt.Errorf("lost \x1b]0;title\x07"))
	now := time.Now().Add(500 * time.Millisecond)
	text := strings.Join(v.render(now, 100, 50), "\n")
	for _, want := range []string{"camera", "· door", `a b.jpg`, "2.0 s", "lag 7 ms", "1 answered, 1 superseded", "0.750  ██████████████████", "关闭", "▲ enter", "▼ exit", "label 19", "label 12 in r", `lost \u001b`} {
		if !strings.Contains(text, want) && want != "▲ enter" {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") || strings.Contains(text, "label 11") || strings.Contains(text, "state") {
		t.Error(text)
	}
	for width := 1; width < 130; width++ {
		for _, colors := range []bool{false, true} {
			v.colors = colors
			lines := v.render(now, width, 9)
			if len(lines) > 9 {
				t.Fatalf("%d lines", len(lines))
			}
			for _, line := range lines {
				bare := line
				if colors {
					for _, style := range []string{"0", styleBold, styleDim, styleGood, styleBad, styleOther, styleGood + ";" + styleBold} {
						bare = strings.ReplaceAll(bare, "\x1b["+style+"m", "")
					}
				}
				if w := runewidth.StringWidth(bare); w > width || strings.ContainsFunc(bare, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("a line of %d cells in %d: %q", w, width, line)
				}
			}
		}
	}
}

// terminal is a pseudo-terminal: what a program in it writes, and a way to type.
func terminal(t *testing.T, columns, rows uint16) (outside, inside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { outside.Close() })
	n, err := unix.IoctlGetInt(int(outside.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(outside.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(outside.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	}
	if err == nil {
		inside, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	return outside, inside
}

// TestWatchTerminal watches in a terminal until Ctrl-C, which gives the screen back.
func TestWatchTerminal(t *testing.T) {
	t.Parallel()
	needONNX(t)
	outside, inside := terminal(t, 60, 12)
	stdin, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	c := command(t.TempDir(), slices.Concat([]string{"watch", "-", "--model", "demo", "--backend", "cpu", "--min-frames", "1"}, promptFlags(petPrompts))...)
	c.Stdin, c.Stdout = stdin, inside
	var errs bytes.Buffer
	c.Stderr = &errs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	inside.Close()
	cat := must(os.ReadFile(samples + "cat.jpg"))
	if _, err := feed.Write(append(slices.Clone(cat), cat...)); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	typed := false
	for b := make([]byte, 1<<16); ; {
		n, err := outside.Read(b)
		if err != nil {
			break // EIO: the other side is closed
		}
		seen.Write(b[:n])
		if !typed && strings.Contains(seen.String(), "▲ enter") {
			typed = true
			if _, err := outside.Write([]byte{3}); err != nil { // Ctrl-C
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait() // the code is in ProcessState
	text := seen.String()
	begin, end := strings.Index(text, screenBegin), strings.LastIndex(text, screenEnd)
	if begin < 0 || end < begin || strings.Count(text, screenBegin) != 1 || !strings.Contains(text[end:], "a photo of a cat") || strings.Contains(text[end+len(screenEnd):], "\x1b[H") {
		t.Errorf("the screen has\n%q", text)
	}
	if code := c.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(errs.String(), "answered") || !strings.Contains(errs.String(), "hailo-clip: interrupted") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}

// TestWatchTimes: the time in a line is exact however long a video is.
func TestWatchTimes(t *testing.T) {
	kept := stdout
	defer func() { stdout = kept }()
	file := must(os.Create(filepath.Join(t.TempDir(), "lines")))
	defer file.Close()
	stdout = &output{to: file}
	for _, f := range []watchedFrame{{time: -1}, {time: 0}, {time: 1234567*time.Second + 34*time.Millisecond}} {
		if err := (jsonView{}).answer(f, client.Message{Text: []byte(`{"seq":0}`)}); err != nil {
			t.Error(err)
		}
	}
	if want := "{\"seq\":0}\n{\"time\":0,\"seq\":0}\n{\"time\":1234567.034,\"seq\":0}\n"; string(must(os.ReadFile(file.Name()))) != want {
		t.Errorf("%s, want %s", must(os.ReadFile(file.Name())), want)
	}
}
