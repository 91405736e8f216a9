package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

func readRecords(dir string) (records, error) {
	r := records{}
	path := filepath.Join(dir, recordsFile)
	data, err := safefile.ReadFile(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, path, err)
	}
	for name, rec := range r {
		if !hexSHA256.MatchString(rec.SHA256) || rec.Bytes <= 0 {
			return nil, fmt.Errorf("%w: %s: %q has no size and digest", ErrFile, path, name)
		}
	}
	if r == nil { // the file holds null
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
	return safefile.Replace(filepath.Join(dir, recordsFile), bytes.NewReader(append(data, '\n')))
}

// add writes down what the file at path is, or is about to be.
func (r records) add(path string, info fs.FileInfo, url, sum string) error {
	dir, name := filepath.Split(path)
	r.put(name, info, url, sum)
	return r.write(dir)
}

// put is add without writing it down.
func (r records) put(name string, info fs.FileInfo, url, sum string) {
	r[name] = record{URL: url, Bytes: info.Size(), SHA256: sum, ModTime: info.ModTime(), Recorded: time.Now().UTC().Truncate(time.Second)}
}

// want returns the size and digest that a file is held to; 0 and "" where none is known. since is not
// zero where the digest is not the manifest's: then it is when that was recorded.
func (r records) want(name string, f File) (bytes int64, sum string, since time.Time) {
	rec, ok := r[name]
	if !ok || rec.URL == f.URL && f.SHA256 != "" {
		return f.Bytes, f.SHA256, since
	}
	// Of another release of the model zoo, or pinned by the first pull.
	since = rec.Recorded
	if since.IsZero() {
		since = rec.ModTime // an older version wrote it: the file has not been written since
	}
	return rec.Bytes, rec.SHA256, since
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

// check checks an installed file and returns the digest that it was checked against, "" where none is known. It hashes
// the file only if its modification time differs from the recorded one; if the file is unchanged, the record gets the
// new time.
func (r records) check(ctx context.Context, path string, info fs.FileInfo, f File) (string, error) {
	name := filepath.Base(path)
	if err := checkKind(path); err != nil {
		return "", err
	}
	bytes, sum, _ := r.want(name, f)
	if bytes != 0 && info.Size() != bytes {
		return "", fmt.Errorf("%w: %s has %d bytes, want %d", ErrFile, path, info.Size(), bytes)
	}
	rec, ok := r[name]
	recorded := ok && rec.SHA256 == sum
	if sum == "" || recorded && info.ModTime().Equal(rec.ModTime) {
		return sum, nil
	}
	got, err := safefile.SHA256(ctx, path)
	if err == nil && got != sum {
		err = fmt.Errorf("%w: %s has SHA-256 %s, want %s", ErrFile, path, got, sum)
	}
	if err == nil && recorded {
		rec.ModTime = info.ModTime()
		r[name] = rec
	}
	return sum, err
}

// saveTimes writes down the new times in fresh, of files that were read and are what their records say,
// so that the next start need not read them again. Where that cannot be done it will read them.
func (c *Catalog) saveTimes(name string, fresh records) {
	unlock, err := c.lock(name)
	if err != nil {
		return
	}
	defer unlock()
	dir := filepath.Join(c.Dir, name)
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

// firstBytes are those that a file of a kind begins with: a saved error page or an empty file is no model.
// An .onnx file is a protobuf message whose first field is number 1, ir_version, a varint.
var firstBytes = map[string]string{".hef": "\x01HEF", ".npy": npyMagic, ".json": "{", ".onnx": "\x08"}

// checkKind looks at the first bytes of a file.
func checkKind(path string) error {
	f, err := safefile.OpenRegular(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if n == 0 {
		return fmt.Errorf("%w: %s is empty: %w", ErrFile, path, err)
	}
	head = head[:n]
	extension := filepath.Ext(strings.TrimSuffix(path, partSuffix))
	if extension == ".json" {
		head = bytes.TrimSpace(head)
	}
	if !bytes.HasPrefix(head, []byte(firstBytes[extension])) {
		return fmt.Errorf("%w: %s is not a %s file: it begins with %.16q", ErrFile, path, extension, head)
	}
	return nil
}
