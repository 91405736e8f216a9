package source

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hailoclip/stages/decode"
)

// ffmpeg reads what only FFmpeg can: RTSP, devices, and video files. It writes each frame as PPM: rgb24 with its size in front,
// which costs what raw video does and can change. Sizes above 1920 pixels, or Limits.FrameBytes, are made smaller.
type ffmpeg struct{ address }

const (
	maxSide   = 1920
	maxStderr = 4 << 10 // bytes that are kept
	waitDelay = 5 * time.Second
)

// Demuxers of files: no playlists, nothing that opens other files or addresses.
const fileFormats = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,nut,h264,hevc,obu,ivf,mjpeg,m4v,mxf,wtv,dv,rm,apng,yuv4mpegpipe"

// arguments are those of the input and of the filters that go with it.
func (f ffmpeg) arguments(ctx context.Context, o Options) (input []string, err error) {
	switch {
	case f.device():
		return []string{"-protocol_whitelist", "file", "-f", "v4l2", "-i", f.text}, nil
	case f.url == nil:
		path, err := filepath.Abs(f.text)
		return []string{"-protocol_whitelist", "file", "-format_whitelist", fileFormats, "-i", "file:" + path}, err
	}
	pinned, err := o.Allowed.Resolve(ctx, f.url.Hostname(), f.port())
	if err != nil {
		return nil, err
	}
	target := *f.url
	target.Host = pinned
	protocols := "rtp,tcp"
	if target.Scheme == "rtsps" {
		protocols += ",tls"
	}
	input = []string{"-protocol_whitelist", protocols, "-rtsp_transport", "tcp", "-timeout", strconv.Itoa(int(10 * time.Second / time.Microsecond)),
		"-fflags", "nobuffer", "-flags", "low_delay"}
	if o.FPS > 0 && o.FPS < 1 {
		input = append(input, "-skip_frame", "nokey")
	}
	return append(input, "-i", target.String()), nil
}

func (f ffmpeg) read(ctx context.Context, d *delivery) error {
	program, err := exec.LookPath("ffmpeg")
	if err != nil {
		return fail(codeNoFFmpeg, "%s needs ffmpeg, which is not installed (Debian: apt install ffmpeg)", Mask(f.text))
	}
	input, err := f.arguments(ctx, d.o)
	if err != nil {
		return &Error{explain(err).Code, hidden{f.scrub(err.Error()), err}}
	}
	side := min(maxSide, int(math.Sqrt(float64(d.o.Limits.FrameBytes/3)))&^1)
	filters := fmt.Sprintf("scale=w='min(%d,iw)':h='min(%d,ih)':force_original_aspect_ratio=decrease", side, side)
	if !d.live { // the time of each frame goes to descriptor 3
		filters = `metadata=mode=add:key=t:value=0,metadata=mode=print:direct=1:file=pipe\\:3,` + filters
	}
	if d.o.FPS > 0 {
		filters = "fps=" + strconv.FormatFloat(d.o.FPS, 'f', 6, 64) + "," + filters
	}
	args := append([]string{"-nostdin", "-hide_banner", "-loglevel", "error"}, input...)
	args = append(args, "-map", "0:v:0", "-an", "-sn", "-dn", "-fps_mode", "passthrough", "-vf", filters,
		"-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-flush_packets", "1", "pipe:1")

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Dir = "/"
	// It must not outlive the service, also where that is killed. The signal comes when the thread that has started it ends, which
	// is this goroutine's until then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	stderr := &tail{max: maxStderr}
	cmd.Stderr = stderr
	frames, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var times *bufio.Reader
	if !d.live {
		r, w, err := os.Pipe()
		if err != nil {
			return errors.Join(err, frames.Close())
		}
		defer r.Close()
		defer w.Close()
		times, cmd.ExtraFiles = bufio.NewReaderSize(r, 4096), []*os.File{w}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, frames.Close())
	}
	for _, w := range cmd.ExtraFiles {
		w.Close()
	}
	watch := time.AfterFunc(2*d.patience, func() { cancel(errSilence) })
	defer watch.Stop()
	n, err := f.frames(d, bufio.NewReaderSize(frames, 64<<10), times, watch)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		cancel(err)
	}
	exit := cmd.Wait()
	switch cause := context.Cause(ctx); {
	case d.failed != nil:
		return d.failed
	case errors.Is(cause, errSilence):
		return errSilence
	case cause != nil:
		return cause
	case exit != nil || n == 0 || errors.Is(err, io.ErrUnexpectedEOF):
		return f.explain(stderr.String(), cmp.Or(exit, err))
	}
	return nil // a file has ended
}

// frames reads frames until there are no more (io.EOF) and says how many there were.
func (f ffmpeg) frames(d *delivery, r, times *bufio.Reader, watch *time.Timer) (n int, err error) {
	var (
		width, height int
		raw           decode.Raw
		last          time.Duration
	)
	for ; ; n++ {
		w, h, err := readPPM(r)
		if err != nil {
			return n, err
		}
		if w != width || h != height {
			if raw, err = decode.ParseRaw(fmt.Sprintf("rgb24; %dx%d", w, h)); err != nil {
				return n, err
			}
			width, height = w, h
		}
		size := raw.Bytes()
		if size > d.o.Limits.FrameBytes {
			return n, fail(codeCodec, "ffmpeg sends a frame of %d x %d pixels", w, h)
		}
		frame := Frame{Raw: raw, Time: -1}
		buf, err := d.get(size)
		if err != nil && d.ctx.Err() != nil {
			return n, d.ctx.Err()
		}
		if err != nil { // there is no memory
			d.skipped(1)
			if _, err := r.Discard(size); err != nil {
				return n, err
			}
		} else if frame.Image = buf[:size]; true {
			if _, err := io.ReadFull(r, frame.Image); err != nil {
				d.put(buf)
				return n, err
			}
		}
		if times != nil {
			last, err = readTime(times, last)
			if frame.Time = last; err != nil {
				d.put(buf)
				return n, err
			}
		}
		if !watch.Stop() {
			d.put(buf)
			return n, errSilence
		}
		if frame.Image != nil {
			if err := d.deliver(frame); err != nil {
				return n, err
			}
		}
		watch.Reset(d.patience)
	}
}

// readPPM reads the header of a frame as FFmpeg writes it, "P6\n640 480\n255\n". io.EOF: there is no frame any more.
func readPPM(r *bufio.Reader) (w, h int, err error) {
	if _, err := r.Peek(1); err != nil {
		return 0, 0, err
	}
	highest := 0
	_, err = fmt.Fscanf(r, "P6\n%5d %5d\n%3d\n", &w, &h, &highest)
	if err == nil && w > 0 && h > 0 && highest == 255 {
		return w, h, nil
	} else if err != nil {
		if _, end := r.Peek(1); end != nil {
			return 0, 0, io.ErrUnexpectedEOF
		}
	}
	return 0, 0, errFrame
}

var errFrame = fail(codeCodec, "ffmpeg sends something else than frames")

// readTime reads what the filter "metadata" prints of a frame, "frame:1 pts:1024 pts_time:0.1" and a line of the value. A frame
// without a time has the one before it.
func readTime(r *bufio.Reader, last time.Duration) (time.Duration, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return last, io.ErrUnexpectedEOF
	}
	_, text, found := bytes.Cut(bytes.TrimSpace(line), []byte("pts_time:"))
	if seconds, err := strconv.ParseFloat(string(text), 64); found && err == nil && math.Abs(seconds) < 1e9 {
		last = time.Duration(math.Round(seconds*1e6)) * time.Microsecond
	}
	if _, err := r.ReadSlice('\n'); err != nil {
		return last, io.ErrUnexpectedEOF
	}
	return last, nil
}

// said maps what ffmpeg says to codes; the first that is found counts.
var said = []struct{ words, code string }{
	{"401 Unauthorized", codeAuth}, {"403 Forbidden", codeAuth}, {"authorization failed", codeAuth},
	{"404 Not Found", codeNotFound}, {"No such file", codeNotFound}, {"No such device", codeNotFound},
	{"whitelist", codeNotAllowed}, {"Permission denied", codeNotAllowed},
	{"timed out", codeTimeout},
	{"Connection refused", codeUnavailable}, {"No route to host", codeUnavailable}, {"unreachable", codeUnavailable},
	{"Device or resource busy", codeUnavailable}, {"Connection reset", codeUnavailable},
	{"Invalid data", codeCodec}, {"matches no streams", codeCodec}, {"ecoder", codeCodec}, {"moov atom not found", codeCodec},
	{"does not contain any stream", codeCodec},
}

// explain makes an error of what ffmpeg said last.
func (f ffmpeg) explain(stderr string, exit error) error {
	code := codeUnavailable
	for _, s := range said {
		if strings.Contains(stderr, s.words) {
			code = s.code
			break
		}
	}
	lines := strings.FieldsFunc(stderr, func(c rune) bool { return c == '\n' || c == '\r' })
	text := "no frame came"
	if len(lines) > 0 {
		text = lines[len(lines)-1]
	} else if exit != nil && !errors.Is(exit, io.EOF) {
		text = exit.Error()
	}
	return &Error{code, errors.New(f.scrub("ffmpeg: " + strings.TrimPrefix(text, "file:")))}
}

// tail keeps the last bytes that are written to it. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	max int
	b   []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[max(0, len(b)-t.max):]...)
	t.b = append(t.b[:0], t.b[max(0, len(t.b)-t.max):]...)
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
