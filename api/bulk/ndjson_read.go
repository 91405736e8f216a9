package bulk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Each implements Sink.
func (s *NDJSON) Each(ctx context.Context, row func(key, path string) error) error {
	return s.lines(ctx, func(_ int64, _ []byte, r *Row) error { return row(r.Key, r.Path) })
}

// Moved implements Placer.
func (s *NDJSON) Moved(ctx context.Context, row func(key string, place int64) error) error {
	return s.lines(ctx, func(place int64, _ []byte, r *Row) error { return row(r.Key, place) })
}

// errFound ends a search.
var errFound = errors.New("found")

// Find implements Sink: it reads the file from its beginning. See At.
func (s *NDJSON) Find(ctx context.Context, key string) (found Row, ok bool, err error) {
	err = s.lines(ctx, func(_ int64, line []byte, r *Row) error {
		if r.Key != key {
			return nil
		}
		if err := json.Unmarshal(line, &found); err != nil {
			return err
		}
		return errFound
	})
	if errors.Is(err, errFound) {
		return found, true, nil
	}
	return Row{}, false, err
}

// At implements Placer.
func (s *NDJSON) At(place int64) (r Row, err error) {
	if place < 0 || place >= s.end {
		return r, io.EOF
	}
	line, err := readLine(bufio.NewReaderSize(io.NewSectionReader(s.file, place, s.end-place), 16<<10), nil)
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	return r, err
}

// cutError says that the last line has no end.
type cutError struct {
	place int64
	line  int
}

func (e *cutError) Error() string { return fmt.Sprintf("line %d, the last one, has no end", e.line) }

// lines tells each line with its place, and key and path of its row.
func (s *NDJSON) lines(ctx context.Context, tell func(place int64, line []byte, r *Row) error) error {
	from, place := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, s.end), 1<<20), int64(0)
	var line []byte
	for n := 1; ; n++ {
		var err error
		if line, err = readLine(from, line[:0]); errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		} else if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%s: %w", s.path, &cutError{place, n})
		}
		var head struct {
			Key, Path string
			Embedding json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal(line, &head)
		}
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", s.path, n, err)
		}
		if err := tell(place, line, &Row{Key: head.Key, Path: head.Path}); err != nil {
			return err
		}
		if place += int64(len(line)); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// readLine appends a line with its end to b.
func readLine(from *bufio.Reader, b []byte) ([]byte, error) {
	for {
		part, err := from.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > maxLine:
			return b, fmt.Errorf("longer than %d bytes", maxLine)
		case err == io.EOF && len(b) > 0:
			return b, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return b, err
		}
	}
}
