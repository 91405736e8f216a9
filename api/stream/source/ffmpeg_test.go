package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hailoclip/stages/decode"
)

// makeVideo has ffmpeg make one; the arguments end with the name of the file.
func makeVideo(t testing.TB, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	args = append([]string{"-nostdin", "-v", "error", "-y"}, args...)
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A file loses no frame, however slow they are taken, and each has its time; also where the times are uneven.
func TestVideoFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "it's 100%, [a] video.mp4")
	makeVideo(t, "-f", "lavfi", "-i", "testsrc=s=320x240:r=10:d=6", "-vf", "select='not(mod(n,7))+lt(n,30)',scale=320:180",
		"-fps_mode", "passthrough", "-c:v", "libx264", "-bf", "2", file)
	o := options()
	o.Local = true
	n := 0
	err := Run(t.Context(), file, o, func(f Frame) error {
		want := time.Duration(n) * 100 * time.Millisecond
		if n >= 30 {
			want = time.Duration(35+7*(n-30)) * 100 * time.Millisecond
		}
		if f.Time != want || len(f.Image) != 3*320*180 || f.Raw.Bytes() != len(f.Image) {
			t.Errorf("frame %d: %v, want %v; %d bytes", n, f.Time, want, len(f.Image))
		}
		if n%10 == 0 {
			time.Sleep(time.Millisecond) // slower than ffmpeg
		}
		n++
		return nil
	})
	if err != nil || n != 34 {
		t.Errorf("%d frames, %v", n, err)
	}

	o.FPS = 2
	var times []time.Duration
	err = Run(t.Context(), file, o, func(f Frame) error { times = append(times, f.Time); return nil })
	if err != nil || len(times) < 11 || times[1]-times[0] != 500*time.Millisecond {
		t.Errorf("%v, %v", times, err)
	}

	err = Run(t.Context(), file, o, func(f Frame) error { return errEnough })
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Run(ctx, file, o, func(f Frame) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A frame is made smaller to fit; one that is turned stands upright; the size may change.
func TestVideoSizes(t *testing.T) {
	dir := t.TempDir()
	large, turned, both := filepath.Join(dir, "large.mkv"), filepath.Join(dir, "turned.mp4"), filepath.Join(dir, "both.mpg")
	makeVideo(t, "-f", "lavfi", "-i", "testsrc=s=2000x500:r=1:d=2", "-c:v", "mjpeg", large)
	makeVideo(t, "-f", "lavfi", "-i", "testsrc=s=64x48:r=1:d=2", "-c:v", "libx264", turned+".mp4")
	if exec.Command("ffmpeg", "-v", "error", "-display_rotation", "90", "-i", turned+".mp4", "-c", "copy", turned).Run() != nil {
		makeVideo(t, "-i", turned+".mp4", "-c", "copy", "-metadata:s:v:0", "rotate=90", turned) // before FFmpeg 6
	}
	for i, size := range []string{"64x48", "96x64"} {
		makeVideo(t, "-f", "lavfi", "-i", "testsrc=s="+size+":r=25:d=1", "-c:v", "mpeg1video", fmt.Sprint(both, i, ".m1v"))
	}
	one, _ := os.ReadFile(both + "0.m1v")
	two, _ := os.ReadFile(both + "1.m1v")
	if err := os.WriteFile(both, append(one, two...), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{large: "1920x480", turned: "48x64", both: "64x48 96x64"} {
		o := options()
		o.Local, o.Limits.FrameBytes = true, 16<<20
		sizes := map[int]bool{}
		err := Run(t.Context(), file, o, func(f Frame) error { sizes[len(f.Image)] = true; return nil })
		for size := range strings.FieldsSeq(want) {
			w, h, _ := strings.Cut(size, "x")
			x, _ := strconv.Atoi(w)
			y, _ := strconv.Atoi(h)
			if delete(sizes, 3*x*y); err != nil {
				t.Error(file, err)
			}
		}
		if len(sizes) > 0 {
			t.Errorf("%s: %v besides %s", file, sizes, want)
		}
	}
	o := options()
	o.Local, o.Limits.FrameBytes = true, 100_000
	if err := Run(t.Context(), large, o, func(f Frame) error {
		if len(f.Image) > 100_000 || len(f.Image) < 20_000 {
			t.Errorf("%d bytes", len(f.Image))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// What is no video, or would open something else, is refused; and so is everything without ffmpeg.
func TestVideoTrouble(t *testing.T) {
	dir := t.TempDir()
	makeVideo(t, "-f", "lavfi", "-i", "testsrc=s=64x48:r=5:d=1", filepath.Join(dir, "a.ts"))
	files := map[string]string{
		"list.m3u8":  "#EXTM3U\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n",
		"list.ffcat": "ffconcat version 1.0\nfile a.ts\n",
		"list.sdp":   "v=0\nm=video 1234 RTP/AVP 26\n",
		"text.mp4":   "hello",
		"empty.mp4":  "",
		"-i":         "hello",
	}
	o := options()
	o.Local = true
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), file, o, func(Frame) error { t.Errorf("%s has a frame", name); return nil })
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != "codec" && e.Code != "not_allowed" {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("PATH", dir)
	err := Run(t.Context(), filepath.Join(dir, "a.ts"), o, func(Frame) error { return nil })
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "no_ffmpeg" || !strings.Contains(e.Error(), "apt install ffmpeg") {
		t.Error(err)
	}
	if err := Run(t.Context(), "rtsp://u:secretpass@127.0.0.1:1/", o, nil); err == nil || strings.Contains(err.Error(), "secretpass") {
		t.Error(err)
	}
}

// relay is an RTSP server (RFC 2326): what one client records, others play, all over their own connections. With a user, who plays
// must be that one.
type relay struct {
	user     string
	mu       sync.Mutex
	sdp      []byte
	players  map[net.Conn]bool
	recorded chan struct{}
}

func (s *relay) serve(conn net.Conn) {
	defer conn.Close()
	r := textproto.NewReader(bufio.NewReader(conn))
	for {
		if first, err := r.R.Peek(1); err != nil {
			s.mu.Lock()
			delete(s.players, conn)
			s.mu.Unlock()
			return
		} else if first[0] == '$' {
			head, err := r.R.Peek(4)
			if err != nil {
				return
			}
			packet := make([]byte, 4+int(head[2])<<8+int(head[3]))
			if _, err := io.ReadFull(r.R, packet); err != nil {
				return
			}
			s.mu.Lock()
			for p := range s.players {
				if p != conn {
					p.Write(packet)
				}
			}
			s.mu.Unlock()
			continue
		}
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		header, err := r.ReadMIMEHeader()
		if err != nil {
			return
		}
		body := make([]byte, 64<<10)
		n, _ := strconv.Atoi(header.Get("Content-Length"))
		if _, err := io.ReadFull(r.R, body[:n]); err != nil {
			return
		}
		method, _, _ := strings.Cut(line, " ")
		status, more, sdp := "200 OK", "", []byte(nil)
		switch method {
		case "ANNOUNCE":
			s.mu.Lock()
			s.sdp = body[:n]
			s.mu.Unlock()
		case "DESCRIBE":
			if s.user != "" && header.Get("Authorization") != s.user {
				status, more = "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n"
				break
			}
			s.mu.Lock()
			sdp = s.sdp
			s.mu.Unlock()
			more = "Content-Type: application/sdp\r\n"
		case "SETUP":
			more = "Transport: " + header.Get("Transport") + "\r\n"
		}
		reply := fmt.Sprintf("RTSP/1.0 %s\r\nCSeq: %s\r\nSession: 1\r\n%sContent-Length: %d\r\n\r\n%s", status, header.Get("Cseq"), more, len(sdp), sdp)
		s.mu.Lock()
		io.WriteString(conn, reply)
		if method == "PLAY" {
			s.players[conn] = true
		}
		s.mu.Unlock()
		if method == "RECORD" {
			close(s.recorded)
		}
	}
}

func TestRTSP(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &relay{user: "Basic dTpzZWNyZXRwYXNz", players: map[net.Conn]bool{}, recorded: make(chan struct{})}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { server.serve(conn) })
		}
	})
	address := "rtsp://127.0.0.1:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port) + "/cam"
	publish := exec.Command("ffmpeg", "-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc=s=320x240:r=20",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-f", "rtsp", "-rtsp_transport", "tcp", address)
	var said bytes.Buffer
	publish.Stderr = &said
	if err := publish.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		publish.Process.Kill()
		publish.Wait()
		l.Close()
		all.Wait()
	}()
	select {
	case <-server.recorded:
	case <-time.After(2 * time.Minute):
		t.Fatal("the camera does not begin: " + said.String())
	}
	got, err := collect(t, strings.Replace(address, "://", "://u:secretpass@", 1), Options{Allowed: local, Limits: Limits{1 << 20}}, 25)
	if !errors.Is(err, errEnough) || len(got) != 25 || len(got[0]) != 3*320*240 || bytes.Equal(got[0], got[24]) {
		t.Error(len(got), err)
	}
	e := trouble(t, strings.Replace(address, "://", "://u:wrongpass@", 1), Options{Allowed: local, Limits: Limits{1 << 20}})
	if e.Code != "auth" || strings.Contains(e.Error(), "wrongpass") {
		t.Errorf("%s: %v", e.Code, e)
	}
	e = trouble(t, "rtsp://u:secretpass@127.0.0.1:1/cam", Options{Allowed: local, Limits: Limits{1 << 20}})
	if e.Code != "unavailable" || strings.Contains(e.Error(), "secretpass") {
		t.Errorf("%s: %v", e.Code, e)
	}
}

// However ffmpeg behaves, Run ends, and with it all of its processes.
func TestProcessesEnd(t *testing.T) {
	dir := t.TempDir()
	video := filepath.Join(dir, "x.mp4")
	if err := os.WriteFile(video, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	const frame = `printf 'P6\n2 1\n255\n123456'; printf 'frame:0 pts:0 pts_time:0.5\nt=0\n' >&3; `
	for name, c := range map[string]struct{ script, want string }{
		"silent":            {"sleep 1000", "no frame came for"},
		"silent, forking":   {frame + "sleep 1000 & echo $! >pid; sleep 1000", "no frame came for"},
		"in a frame":        {frame + "printf 'P6\n2 1\n255\n123'; sleep 1000", "no frame came for"},
		"cut":               {frame + "printf 'P6\n2 1\n255\n123'", "unexpected EOF"},
		"garbage":           {frame + "yes", "something else than frames"},
		"huge":              {"printf 'P6\n60000 60000\n255\n'; sleep 1000", "60000 x 60000"},
		"empty":             {"printf 'P6\n0 0\n255\n'; sleep 1000", "something else than frames"},
		"digits":            {"printf 'P6\n'; while :; do printf 000; done", "something else than frames"},
		"no times":          {"printf 'P6\n2 1\n255\n123456'; exec 3>&-; exec >&-; sleep 1000", "no frame came for"},
		"talkative":         {"yes 'a long line of trouble' | head -n 10000 >&2; exit 3", "trouble"},
		"fails":             {frame + "echo 'x: Invalid data found when processing input' >&2; exit 1", "Invalid data"},
		"frames and an end": {frame + frame, ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, "ffmpeg"), []byte("#!/bin/sh\ncd "+dir+"\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, "pid"))
		frames, files := 0, openFiles(t)
		o := options()
		o.Local = true
		a, err := parse(video, o)
		if err != nil {
			t.Fatal(err)
		}
		d := newDelivery(t.Context(), o, false, func(f Frame) error {
			if string(f.Image) != "123456" || f.Time != 500*time.Millisecond {
				t.Errorf("%s: %q at %v", name, f.Image, f.Time)
			}
			frames++
			return nil
		})
		if strings.HasPrefix(c.want, "no frame came") {
			d.patience = 200 * time.Millisecond
		}
		err = d.ended(a.opener(o)(t.Context(), d))
		if c.want == "" && (err != nil || frames != 2) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d frames, %v; want %s", name, frames, err, c.want)
		}
		if n := openFiles(t); n > files {
			t.Errorf("%s: %d descriptors, and then %d", name, files, n)
		}
		if pid, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			for { // it is killed, but may not be gone yet
				stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
				if err != nil || strings.Contains(string(stat), ") Z ") {
					break
				}
				runtime.Gosched()
			}
		}
	}
}

func TestTail(t *testing.T) {
	k := &tail{max: 10}
	for _, s := range []string{"abc", "defghijkl", strings.Repeat("x", 100) + "0123456789", "!"} {
		fmt.Fprint(k, s)
	}
	if k.String() != "123456789!" {
		t.Error(k.String())
	}
}

// What ffmpeg -f mpjpeg and -f mjpeg write is found frame by frame, and decoders read each.
func TestReaderOfFFmpeg(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	decoder := decode.NewDecoder(decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, 224)
	for _, args := range []string{
		"-pix_fmt yuvj420p -f mpjpeg", "-pix_fmt yuvj422p -f mjpeg", "-pix_fmt yuvj420p -f mpjpeg -huffman optimal -q:v 1",
		"-f image2pipe -c:v png", "-f image2pipe -c:v libwebp",
	} {
		all := "-nostdin -v error -f lavfi -i testsrc2=s=160x120:r=10:d=3 " + args + " pipe:1"
		out, err := exec.Command("ffmpeg", strings.Fields(all)...).Output()
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		got, skipped, _ := frames(t, bytes.NewReader(out), "", Limits{testFrame})
		for _, m := range got {
			image, err := decoder.DecodeBytes(m)
			if err != nil || image.Width != 160 || image.Height != 120 {
				t.Errorf("%s: %d x %d, %v", args, image.Width, image.Height, err)
			}
			image.Release()
		}
		if len(got) != 30 || skipped != 0 {
			t.Errorf("%s: %d frames, %d skipped", args, len(got), skipped)
		}
	}
}

// TestReadPPM: pixels begin right behind the header, whatever they look like.
func TestReadPPM(t *testing.T) {
	for text, want := range map[string]string{
		"P6\n1 2\n255\n\n \r\t12": `1 2 "\n \r\t12" <nil>`, "P6\n99999 1\n255\n": `99999 1 "" <nil>`, "": `0 0 "" EOF`, "P6\n1": `0 0 "" unexpected EOF`,
		"P": `0 0 "" unexpected EOF`, "P6\n1 -2\n255\n1": `0 0 "1" ` + errFrame.Error(), "P6\n999999 1\n255\n": `0 0 " 1\n255\n" ` + errFrame.Error(),
		"P6\n1 2\n254\n1": `0 0 "1" ` + errFrame.Error(), "P5\n1 2\n": `0 0 "5\n1 2\n" ` + errFrame.Error(),
	} {
		r := bufio.NewReader(strings.NewReader(text))
		w, h, err := readPPM(r)
		rest, _ := io.ReadAll(r)
		if got := fmt.Sprintf("%d %d %q %v", w, h, rest, err); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestFFmpegDoesNotOutlive: where the service is killed, ffmpeg ends, too, whatever the camera sends.
func TestFFmpegDoesNotOutlive(t *testing.T) {
	if dir := os.Getenv("HAILO_TEST_KILLED"); dir != "" { // the one that is killed
		o := options()
		o.Local = true
		t.Error(Run(t.Context(), filepath.Join(dir, "video.mp4"), o, func(Frame) error { return nil }))
		return
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"ffmpeg": "#!/bin/sh\necho $$ > " + dir + "/made\nmv " + dir + "/made " + dir + "/pid\nexec sleep 60\n", "video.mp4": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFFmpegDoesNotOutlive$")
	cmd.Env = append(os.Environ(), "HAILO_TEST_KILLED="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	within(t, func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	within(t, func() bool { // it may be left as a zombie where nobody waits for it
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(text), ") Z ")
	})
}

func within(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
