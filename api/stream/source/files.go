package source

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// timeAt is the time of an image by its number; -1 where there is no rate.
func timeAt(n int, fps float64) time.Duration {
	if fps <= 0 {
		return -1
	}
	return time.Duration(math.Round(float64(n) / fps * float64(time.Second)))
}

// readStdin reads a stream of images until it ends. Where Stdin is a pipe or a terminal, ctx ends a read that waits.
func readStdin(ctx context.Context, d *delivery) error {
	if d.o.Stdin == nil {
		return fail(codeUnavailable, "there is no standard input")
	}
	if f, ok := d.o.Stdin.(interface{ SetReadDeadline(time.Time) error }); ok {
		defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	}
	return d.readImages(d.o.Stdin, d.o.FPS)
}

// readMJPEG reads a file of JPEGs, one behind the other.
func (a address) readMJPEG(ctx context.Context, d *delivery) error {
	f, err := os.Open(a.text)
	if err != nil {
		return err
	}
	defer f.Close()
	const usual = 25 // what ffmpeg takes such files for
	fps := d.o.FPS
	if fps <= 0 {
		fps = usual
	}
	return d.readImages(f, fps)
}

func (d *delivery) readImages(r io.Reader, fps float64) error {
	reader := NewReader(r, "", d.o.Limits)
	for n := 0; ; n++ {
		image, err := d.next(reader)
		switch {
		case errors.Is(err, io.EOF) && n == 0, errors.Is(err, ErrNoImages):
			return fail(codeCodec, "there are no images: streams of JPEG, PNG and WebP are read")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := d.deliver(Frame{Image: image, Time: timeAt(n, fps)}); err != nil {
			return err
		}
	}
}

// readFolder reads the images of a folder, not of those in it, by name: img2 before img10.
func (a address) readFolder(ctx context.Context, d *delivery) error {
	entries, err := os.ReadDir(a.text)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && IsImage(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return fail(codeNotFound, "%s has no images", a.text)
	}
	slices.SortFunc(names, Natural)
	fps := d.o.FPS
	if fps <= 0 {
		fps = 1
	}
	for n, name := range names {
		if err := d.readFile(filepath.Join(a.text, name), Frame{Name: name, Time: timeAt(n, fps)}); err != nil {
			return err
		}
	}
	return nil
}

func (a address) readImage(ctx context.Context, d *delivery) error {
	return d.readFile(a.text, Frame{Name: filepath.Base(a.text), Time: 0})
}

// readFile reads an image whole. One that is too large, or no file, is skipped.
func (d *delivery) readFile(path string, f Frame) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(d.o.Limits.FrameBytes) {
		d.o.Log.Warn("file skipped: no file, or too large", "file", path, "bytes", info.Size(), "max", d.o.Limits.FrameBytes)
		d.skipped(1)
		return d.ctx.Err()
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buf, err := d.get(int(info.Size()))
	if err != nil {
		return err
	}
	n, err := io.ReadFull(file, buf[:info.Size()])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		d.put(buf)
		return err
	}
	f.Image = buf[:n]
	return d.deliver(f)
}

// Natural compares names with the numbers in them as numbers.
func Natural(a, b string) int {
	digits := func(s string) int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		return n
	}
	x, y := a, b
	for x != "" && y != "" {
		if n, m := digits(x), digits(y); n > 0 && m > 0 {
			u, v := strings.TrimLeft(x[:n], "0"), strings.TrimLeft(y[:m], "0")
			if c := cmp.Or(cmp.Compare(len(u), len(v)), strings.Compare(u, v)); c != 0 {
				return c
			}
			x, y = x[n:], y[m:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}
