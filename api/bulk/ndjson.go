package bulk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// NDJSON is a sink that writes a line of JSON for each row, in one file. Rows with the same key and path are not looked for: see
// Appender. Lines that were removed are cut out by Finish, in a new file that takes the place of the old one.
type NDJSON struct {
	path   string
	file   *os.File
	end    int64 // where the next row will be
	places []int64
	buffer bytes.Buffer
	gone   map[ID]struct{} // rows to be cut out
}

// maxLine is how long a line may be that is read.
const maxLine = 32 << 20

// OpenNDJSON opens a file, or makes it. Nobody else can open it so until it is closed.
func OpenNDJSON(path string) (*NDJSON, error) {
	s := &NDJSON{path: path, gone: map[ID]struct{}{}}
	var err error
	if s.file, err = openSink(path, 0); err != nil {
		return nil, err
	}
	stat, err := s.file.Stat()
	if err == nil {
		s.end = stat.Size()
		err = syncFolder(path)
	}
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// openSink opens and locks a regular file.
func openSink(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK|flag, 0o666)
	if err != nil {
		return nil, err
	}
	stat, err := f.Stat()
	switch {
	case err != nil:
	case !stat.Mode().IsRegular():
		err = fmt.Errorf("%s: not a regular file", path)
	case unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil:
		err = fmt.Errorf("%s: another process writes it", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncFolder makes the names in the folder of path durable.
func syncFolder(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Put implements Sink.
func (s *NDJSON) Put(_ context.Context, rows []Row) error {
	s.buffer.Reset()
	s.places = s.places[:0]
	for i := range rows {
		s.places = append(s.places, s.end+int64(s.buffer.Len()))
		if err := writeRow(&s.buffer, &rows[i]); err != nil {
			return fmt.Errorf("%s: %w", rows[i].Path, err)
		}
	}
	if _, err := s.file.WriteAt(s.buffer.Bytes(), s.end); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.end += int64(s.buffer.Len())
	return nil
}

// writeRow writes a line: as encoding/json does, but numbers of vectors faster.
func writeRow(b *bytes.Buffer, r *Row) error {
	head := *r
	head.Embedding = nil
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(&head); err != nil || r.Embedding == nil {
		return err
	}
	b.Truncate(b.Len() - len("}\n"))
	b.WriteString(`,"embedding":[`)
	for i, x := range r.Embedding {
		if i > 0 {
			b.WriteByte(',')
		}
		if x-x != 0 { // not finite
			return fmt.Errorf("number %d of the vector is %v", i, x)
		}
		b.Write(strconv.AppendFloat(b.AvailableBuffer(), float64(x), 'g', -1, 32))
	}
	b.WriteString("]}\n")
	return nil
}

// Places implements Placer.
func (s *NDJSON) Places() []int64 { return s.places }

// Mark implements Appender. Every Put is durable when it returns.
func (s *NDJSON) Mark() int64 { return s.end }

// Rewind implements Appender.
func (s *NDJSON) Rewind(mark int64) error {
	stat, err := s.file.Stat()
	if err != nil {
		return err
	}
	var last [1]byte
	switch {
	case mark < 0 || mark > stat.Size():
		return fmt.Errorf("%s has %d bytes, less than the %d that were written: %w", s.path, stat.Size(), mark, ErrChanged)
	case mark > 0:
		if _, err := s.file.ReadAt(last[:], mark-1); err != nil {
			return err
		} else if last[0] != '\n' {
			return fmt.Errorf("%s: no line ends at byte %d, where rows were written: %w", s.path, mark, ErrChanged)
		}
	}
	if s.end = mark; stat.Size() == mark {
		return nil
	}
	return errors.Join(s.file.Truncate(mark), s.file.Sync())
}

// Remove implements Remover.
func (s *NDJSON) Remove(_ context.Context, rows []ID) error {
	for _, id := range rows {
		s.gone[id] = struct{}{}
	}
	return nil
}

// Finish implements Sink. A process that ends meanwhile leaves the file as it was before, or as it is afterwards.
func (s *NDJSON) Finish(ctx context.Context) error {
	if len(s.gone) == 0 {
		return nil
	}
	path := s.path + ".new"
	to, err := openSink(path, os.O_TRUNC)
	if err != nil {
		return err
	}
	w, end := bufio.NewWriterSize(to, 1<<20), int64(0)
	err = s.lines(ctx, func(_ int64, line []byte, r *Row) error {
		if _, gone := s.gone[ID{r.Key, r.Path}]; gone {
			return nil
		}
		end += int64(len(line))
		_, err := w.Write(line)
		return err
	})
	if err == nil {
		err = errors.Join(w.Flush(), s.likeIt(to), to.Sync())
	}
	if err == nil {
		err = os.Rename(path, s.path)
	}
	if err != nil {
		return errors.Join(err, to.Close(), os.Remove(path))
	}
	err = s.file.Close()
	s.file, s.end = to, end
	clear(s.gone)
	return errors.Join(err, syncFolder(s.path))
}

// likeIt gives another file the permissions of this one.
func (s *NDJSON) likeIt(to *os.File) error {
	stat, err := s.file.Stat()
	if err != nil {
		return err
	}
	return to.Chmod(stat.Mode().Perm())
}

// Close implements Sink.
func (s *NDJSON) Close() error { return s.file.Close() }
