package model

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hailoclip/hailo/safefile"
)

// records is digests.json of a model folder: what each file was when it was installed. It holds a
// file to the digest of its first pull where the manifest has none, and saves reading files that
// did not change since.
type records map[string]record

type record struct {
	URL     string    `json:"url,omitempty"` // where it is from; another URL is another file
	Bytes   int64     `json:"bytes"`
	SHA256  string    `json:"sha256"`
	ModTime time.Time `json:"mtime"`

	Recorded time.Time `json:"recorded,omitzero"` // when it was installed; not in records of older versions
}

// since is when the record was made.
func (r record) since() time.Time {
	if r.Recorded.IsZero() {
		return r.ModTime // an older version: the file has not been written since
	}
	return r.Recorded
}

func readRecords(dir string) (records, error) {
	path := filepath.Join(dir, recordsFile)
	data, err := readLimited(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return records{}, nil
	}
	if err != nil {
		return nil, err
	}
	var r records
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, path, err)
	}
	for name, rec := range r {
		if !hexSHA256.MatchString(rec.SHA256) || rec.Bytes <= 0 {
			return nil, fmt.Errorf("%w: %s: %q has no size and digest", ErrFile, path, name)
		}
	}
	if r == nil {
		r = records{}
	}
	return r, nil
}

// write replaces digests.json; after a crash it is the old one or the new one.
func (r records) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordsFile)
	f, err := os.CreateTemp(dir, recordsFile+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(f.Name(), path), syncDir(dir))
}

// want returns the size and digest that a file is held to; 0 and "" where none is known.
func (r records) want(name string, f File) (bytes int64, sum string) {
	rec, ok := r[name]
	if !ok {
		return f.Bytes, f.SHA256
	}
	if rec.URL != f.URL || f.SHA256 == "" { // of another release of the model zoo, or pinned by the first pull
		return rec.Bytes, rec.SHA256
	}
	return f.Bytes, f.SHA256
}

// unpinned returns when the digest was recorded that a file is held to because the manifest has none for it;
// zero where it has.
func (r records) unpinned(name string, f File) time.Time {
	rec, ok := r[name]
	if !ok || rec.URL == f.URL && f.SHA256 != "" {
		return time.Time{}
	}
	return rec.since()
}

// zoo returns the release of the model zoo that a file was pulled from, by its address; "" if it was
// not, or that is not known.
func (r records) zoo(name string, m Manifest) string {
	if m.NPU == nil || m.NPU.Zoo == "" {
		return ""
	}
	before, after, ok := strings.Cut(m.Files[name].URL, m.NPU.Zoo)
	release, hasPrefix := strings.CutPrefix(r[name].URL, before)
	release, hasSuffix := strings.CutSuffix(release, after)
	if !ok || !hasPrefix || !hasSuffix || !zooName.MatchString(release) {
		return ""
	}
	return release
}

// check checks an installed file and returns the digest that it was checked against, "" where none
// is known. It reads the file only where its time is not that of the record, which then gets the new
// time if the file is still the same.
func (r records) check(ctx context.Context, path string, info fs.FileInfo, f File) (string, error) {
	name := filepath.Base(path)
	if err := checkKindOfFile(path, info); err != nil {
		return "", err
	}
	bytes, sum := r.want(name, f)
	if bytes != 0 && info.Size() != bytes {
		return "", fmt.Errorf("%w: %s has %d bytes, want %d", ErrFile, path, info.Size(), bytes)
	}
	rec, ok := r[name]
	recorded := ok && rec.SHA256 == sum
	if sum == "" || recorded && info.ModTime().Equal(rec.ModTime) {
		return sum, nil
	}
	if err := checkSHA256(ctx, path, sum); err != nil {
		return sum, err
	}
	if recorded {
		rec.ModTime = info.ModTime()
		r[name] = rec
	}
	return sum, nil
}

// note writes down the new times in fresh, of files that were read and are what their records say, so
// that the next start need not read them again. Where that cannot be done it will read them.
func (s *Catalog) note(name string, fresh records) {
	unlock, err := s.lock(name)
	if err != nil {
		return
	}
	defer unlock()
	dir := filepath.Join(s.Dir, name)
	recs, err := readRecords(dir)
	if err != nil {
		return
	}
	for file, rec := range fresh {
		if have, ok := recs[file]; ok && have.SHA256 == rec.SHA256 { // else a pull came between
			have.ModTime = rec.ModTime
			recs[file] = have
		}
	}
	_ = recs.write(dir)
}

func checkSHA256(ctx context.Context, path, want string) error {
	got, err := hashFile(ctx, path)
	if err == nil && got != want {
		err = fmt.Errorf("%w: %s has SHA-256 %s, want %s", ErrFile, path, got, want)
	}
	return err
}

// checkKindOfFile looks at the first bytes: a saved error page or an empty file is no model.
func checkKindOfFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("%w: %s is empty or not a file", ErrFile, path)
	}
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %s: %w", ErrFile, path, err)
	}
	head = head[:n]
	var ok bool
	extension := filepath.Ext(strings.TrimSuffix(path, partSuffix))
	switch extension {
	case ".hef":
		ok = bytes.HasPrefix(head, []byte("\x01HEF"))
	case ".npy":
		ok = bytes.HasPrefix(head, []byte(npyMagic))
	case ".json":
		ok = bytes.HasPrefix(bytes.TrimSpace(head), []byte("{"))
	case ".onnx": // a protobuf message; its first field is number 1, ir_version, a varint
		ok = head[0] == 0x08
	default:
		ok = true
	}
	if !ok {
		return fmt.Errorf("%w: %s is not a %s file: it begins with %.16q", ErrFile, path, extension, head)
	}
	return nil
}

// hashFile returns the hex SHA-256 of a file. It ends early with the cause of ctx.
func hashFile(ctx context.Context, path string) (string, error) {
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
