package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/hailo/safefile"
)

// ErrNoModel says that nobody has shared a model, or not those files of it.
var ErrNoModel = errors.New("the fleet does not have the model: share it on a node that has it, with models share")

const (
	modelBytes   = 4 << 30 // of a file
	modelFiles   = 64
	modelList    = "model." // + name: names an object with the list of files
	maxModelList = 64 << 10
	modelTime    = 6 * time.Hour // for all files of a model
)

// ModelFile is a file of a model. The broker has it under its SHA-256.
type ModelFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	Path   string `json:"-"` // on disk
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (f ModelFile) check() error {
	if f.Name == "" || f.Name != filepath.Base(f.Name) || f.Name[0] == '.' || !hexDigest.MatchString(f.SHA256) || f.Bytes < 1 || f.Bytes > modelBytes {
		return fmt.Errorf("%.80q is no file of a model: a name, 1 to %d bytes and a SHA-256", f.Name, int64(modelBytes))
	}
	return nil
}

// ShareModel gives the files of a model to the fleet; those that it has are not sent again. Files that were shared of the model before,
// and are not among them, stay. progress is told the bytes of a file that are there. Errors: of the disk, of the broker, and where a
// file is not what it is said to be.
func (c *Conn) ShareModel(ctx context.Context, model string, files []ModelFile, progress func(file string, done, total int64)) (err error) {
	if err := c.ready(ctx); err != nil {
		return err
	}
	ctx, end := c.ask(ctx, modelTime)
	defer end(&err)
	objects, err := c.js.ObjectStore(ctx, ModelStore)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := f.check(); err != nil {
			return err
		}
		if info, err := objects.GetInfo(ctx, f.SHA256); err == nil && info.Size == uint64(f.Bytes) {
			progress(f.Name, f.Bytes, f.Bytes)
			continue
		}
		if err := sendFile(ctx, objects, f, progress); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	all, err := readModelList(ctx, objects, model)
	if err != nil && !errors.Is(err, ErrNoModel) {
		return err
	}
	for _, f := range files {
		all = append(slices.DeleteFunc(all, func(old ModelFile) bool { return old.Name == f.Name }), f)
	}
	text, err := json.Marshal(all)
	if err == nil {
		_, err = objects.PutBytes(ctx, modelList+model, text)
	}
	return err
}

// sendFile sends a file, and takes it back where it was another one.
func sendFile(ctx context.Context, objects jetstream.ObjectStore, f ModelFile, progress func(file string, done, total int64)) error {
	file, err := safefile.OpenRegular(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum, done := sha256.New(), int64(0)
	reader := io.TeeReader(io.LimitReader(file, f.Bytes+1), writerFunc(func(p []byte) (int, error) {
		done += int64(len(p))
		progress(f.Name, min(done, f.Bytes), f.Bytes)
		return sum.Write(p)
	}))
	if _, err := objects.Put(ctx, jetstream.ObjectMeta{Name: f.SHA256, Description: f.Name}, reader); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 || done != f.Bytes {
		return errors.Join(fmt.Errorf("%s has SHA-256 %s, want %s: it has changed meanwhile", f.Path, got, f.SHA256), objects.Delete(ctx, f.SHA256))
	}
	return nil
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// FetchModel writes files of a model into dir, each under its name, and returns those that it has written: of the files that wanted
// says yes to. Size and SHA-256 are those that the fleet tells; whether they are the right ones is to be checked by the manifest. A
// file that broke off is fetched as a whole again. Errors: ErrNoModel, of the disk, of the broker.
func (c *Conn) FetchModel(
	ctx context.Context, model, dir string, wanted func(file string) bool, progress func(file string, done, total int64),
) (fetched []ModelFile, err error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	ctx, end := c.ask(ctx, modelTime)
	defer end(&err)
	objects, err := c.js.ObjectStore(ctx, ModelStore)
	if err != nil {
		return nil, err
	}
	all, err := readModelList(ctx, objects, model)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if !wanted(f.Name) {
			continue
		}
		if f.Path, err = fetchFile(ctx, objects, f, dir, progress); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		fetched = append(fetched, f)
	}
	return fetched, nil
}

// fetchFile returns the path of a file that it has fetched. What is not whole is removed.
func fetchFile(
	ctx context.Context, objects jetstream.ObjectStore, f ModelFile, dir string, progress func(file string, done, total int64),
) (path string, err error) {
	object, err := objects.Get(ctx, f.SHA256)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return "", fmt.Errorf("%w: %w", ErrNoModel, err)
	} else if err != nil {
		return "", err
	}
	defer object.Close()
	path = filepath.Join(dir, f.Name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	sum, done := sha256.New(), int64(0)
	_, err = io.Copy(writerFunc(func(p []byte) (int, error) {
		done += int64(len(p))
		progress(f.Name, min(done, f.Bytes), f.Bytes)
		_, _ = sum.Write(p) // never fails
		return file.Write(p)
	}), io.LimitReader(object, f.Bytes+1))
	if got := hex.EncodeToString(sum.Sum(nil)); err == nil && (done != f.Bytes || got != f.SHA256) {
		err = fmt.Errorf("it came with %d bytes and SHA-256 %s, want %d and %s", done, got, f.Bytes, f.SHA256)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// readModelList returns the files of a model that were shared. Error: ErrNoModel.
func readModelList(ctx context.Context, objects jetstream.ObjectStore, model string) (all []ModelFile, err error) {
	text, err := readObject(ctx, objects, modelList+model, maxModelList)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, fmt.Errorf("%w: %.64q", ErrNoModel, model)
	} else if err != nil {
		return nil, fmt.Errorf("the list of files of %.64q: %w", model, err)
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&all); err != nil {
		return nil, fmt.Errorf("the list of files of %.64q cannot be read: %w", model, err)
	} else if len(all) > modelFiles {
		return nil, fmt.Errorf("the list of files of %.64q has %d, at most %d", model, len(all), modelFiles)
	}
	for _, f := range all {
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("the list of files of %.64q: %w", model, err)
		}
	}
	return all, nil
}
