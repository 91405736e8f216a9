package bulk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childRun(os.Args[1:])
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	testDigest = "0123456789abcdef"
	testDim    = 8
)

// folder is a source: the files of a folder, in order.
type folder string

func (f folder) Name() string { return string(f) }

func (f folder) Each(ctx context.Context, found func(Item) error) error {
	return filepath.WalkDir(string(f), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(string(f), path)
		return found(Item{Path: name, Size: info.Size(), Modified: info.ModTime(), Open: func(context.Context) ([]byte, error) {
			return os.ReadFile(path)
		}})
	})
}

// vectorOf is what the encoder of the tests makes of an image.
func vectorOf(image []byte) []float32 {
	v, sum := make([]float32, testDim), 0.0
	for i, c := range Key(image, testDigest)[:testDim] {
		v[i] = float32(c) - 80.5
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// testEncoder counts what it encodes; what begins with "bad" is no image.
func testEncoder(t testing.TB, calls *atomic.Int64) *Direct {
	d := NewDirect("model", testDigest, 8, func(_ context.Context, image []byte) ([]float32, []Match, error) {
		calls.Add(1)
		if strings.HasPrefix(string(image), "bad") {
			return nil, nil, fmt.Errorf("%w: it is bad", ErrImage)
		}
		return vectorOf(image), nil, nil
	})
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

// bench is a folder of images and what is made of it.
type bench struct {
	t     testing.TB
	dir   string // of images
	out   string
	calls atomic.Int64
	job   Job // is used by run
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, dir: t.TempDir(), out: filepath.Join(t.TempDir(), "vectors.ndjson")}
	b.job = Job{Source: folder(b.dir), Dimension: testDim}
	return b
}

// write makes a file that is older than what justNow asks for.
func (b *bench) write(name, text string) {
	b.t.Helper()
	path, at := filepath.Join(b.dir, name), time.Now().Add(-time.Hour)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, at, at))
	if err != nil {
		b.t.Fatal(err)
	}
}

// later gives a file a time of its own.
func (b *bench) later(name string, seconds int) {
	at := time.Unix(1_700_000_000+int64(seconds), 0)
	if err := os.Chtimes(filepath.Join(b.dir, name), at, at); err != nil {
		b.t.Fatal(err)
	}
}

// run runs the job, or what change makes of it, with files opened and closed.
func (b *bench) run(change func(*Job)) (Status, error) {
	b.t.Helper()
	j, err := OpenJournal(b.out+".journal", true)
	if err != nil {
		return Status{}, err
	}
	s, err := OpenNDJSON(b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	job := b.job
	job.Journal, job.Sink, job.Name = j, s, "out"
	if job.Encoder == nil {
		job.Encoder = testEncoder(b.t, &b.calls)
	}
	if change != nil {
		change(&job)
	}
	status, err := Run(b.t.Context(), job)
	if e := errors.Join(s.Close(), j.Close()); e != nil {
		b.t.Fatal(e)
	}
	return status, err
}

func (b *bench) mustRun(change func(*Job)) Status {
	b.t.Helper()
	s, err := b.run(change)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// rows are those in the output, in order.
func (b *bench) rows() (rows []Row) {
	b.t.Helper()
	f, err := os.Open(b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r Row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			b.t.Fatalf("%v: %s", err, lines.Text())
		}
		rows = append(rows, r)
	}
	return rows
}

// check compares the output with the files: one row for each, and the vector that it should have.
func (b *bench) check() {
	b.t.Helper()
	left := map[string]string{}
	if err := folder(b.dir).Each(context.Background(), func(i Item) error {
		text, err := i.Open(context.Background())
		left[i.Path] = string(text)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	for _, r := range b.rows() {
		text, ok := left[r.Path]
		if !ok {
			b.t.Errorf("%s: a row too many", r.Path)
			continue
		}
		delete(left, r.Path)
		switch {
		case r.Key != Key([]byte(text), testDigest) || r.Model != "model":
			b.t.Errorf("%s: key %s, model %s", r.Path, r.Key, r.Model)
		case strings.HasPrefix(text, "bad") != (r.Error != ""), r.Error == "" && !slices.Equal(r.Embedding, vectorOf([]byte(text))):
			b.t.Errorf("%s: %+v", r.Path, r)
		}
	}
	for path := range left {
		b.t.Errorf("%s: no row", path)
	}
}

// verified is what Verify finds.
func (b *bench) verified(repair bool) Verification {
	b.t.Helper()
	j, err := OpenJournal(b.out+".journal", false)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := OpenNDJSON(b.out)
	if err != nil {
		b.t.Fatal(err)
	}
	v, err := Verify(b.t.Context(), j, s, repair)
	if err := errors.Join(err, s.Close(), j.Close()); err != nil {
		b.t.Fatal(err)
	}
	return v
}
