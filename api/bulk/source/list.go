package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hailoclip/api/bulk"
	"hailoclip/hailo/safefile"
)

const maxLine = 8 << 10 // bytes of a line of a list

func isList(path string) bool {
	ext := kindOf(path)
	return ext == ".txt" || ext == ".list"
}

// list is a list of paths and addresses. Lines end with LF or CRLF; empty ones are nothing. Where there is a NUL in what is read
// first, each path ends with one instead. Paths are relative to the folder of the list, those of standard input to the working
// folder. They are those of images, whatever their suffix, and may be links.
type list struct {
	o          Options
	path, name string
	kept       *os.File // what was read of standard input, for another Each
}

func (l *list) Name() string { return l.name }

func (l *list) Each(ctx context.Context, found func(bulk.Item) error) error {
	r, err := l.open()
	if err != nil {
		return found(failing(l.path, err))
	}
	defer r.Close()
	if f, ok := l.o.Stdin.(interface{ SetReadDeadline(time.Time) error }); ok && l.path == "-" {
		defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })() // ends a read that waits
	}
	hosts := newHosts(l.o, l.o.Listed)
	base := filepath.Dir(l.path)
	if l.path == "-" {
		base = ""
	}
	err = eachLine(ctx, r, func(line string, err error) error {
		switch {
		case err != nil:
			return found(failing(line, err))
		case strings.HasPrefix(line, "http://"), strings.HasPrefix(line, "https://"):
			return found(hosts.item(line))
		}
		path := line
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		return found(fileItem(path, line, l.o))
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed, ok := errors.AsType[*readError](err); ok {
		return found(failing(l.path, failed.err))
	}
	return err
}

// open returns the list from its beginning. Standard input is copied to a file without a name as it is read.
func (l *list) open() (io.ReadCloser, error) {
	if l.path != "-" {
		return safefile.OpenRegular(l.path)
	}
	if l.kept != nil {
		if _, err := l.kept.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		rest := io.MultiReader(l.kept, io.TeeReader(l.o.Stdin, l.kept))
		return io.NopCloser(rest), nil
	}
	kept, err := os.CreateTemp("", "hailo-clip-list-*")
	if err != nil {
		return nil, err
	}
	l.kept = kept
	return io.NopCloser(io.TeeReader(l.o.Stdin, kept)), os.Remove(kept.Name())
}

// readError is an error of a list's reader, unlike one of the function that is told its lines.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// eachLine tells the lines of r, or what is wrong with one, of which line is then the beginning.
func eachLine(ctx context.Context, r io.Reader, tell func(line string, err error) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	if _, err := b.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return &readError{err}
	}
	begin, _ := b.Peek(b.Buffered())
	end := byte('\n')
	if bytes.IndexByte(begin, 0) >= 0 {
		end = 0
	}
	if bytes.HasPrefix(begin, []byte("\xef\xbb\xbf")) {
		_, _ = b.Discard(3)
	}
	for ctx.Err() == nil {
		line, err := b.ReadSlice(end) // at most the size of the buffer
		long := len(line) > maxLine
		text := string(bytes.TrimSuffix(line[:min(len(line), maxLine)], []byte{end}))
		for errors.Is(err, bufio.ErrBufferFull) && ctx.Err() == nil {
			_, err = b.ReadSlice(end)
		}
		if end == '\n' {
			text = strings.TrimSuffix(text, "\r")
		}
		var told error
		switch {
		case long:
			told = tell(strings.ToValidUTF8(text[:80], "")+"...", fmt.Errorf("a line has more than %d bytes", maxLine))
		case strings.Contains(text, "\x00"):
			told = tell(text, errors.New("there is a NUL in the line"))
		case text != "":
			told = tell(text, nil)
		}
		switch {
		case told != nil:
			return told
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &readError{err}
		}
	}
	return context.Cause(ctx)
}
