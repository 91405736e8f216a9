package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/parquet-go/parquet-go"

	"hailoclip/api/bulk"
)

func TestParquet(t *testing.T) {
	conform(t, kind{file: true, many: 100_000}, func(t *testing.T) string { return filepath.Join(t.TempDir(), "out.parquet") })
}

// samples are rows of every kind, in the order of a file.
func samples() []bulk.Row {
	rows := []bulk.Row{rowOf(1), rowOf(2), rowOf(3), rowOf(4)}
	rows[1].Embedding, rows[1].Error = nil, "not an image: \"日本\"\n"
	rows[2].Embedding, rows[2].Matches = nil, []bulk.Match{{Label: "ä", Score: 0.5, Probability: 1e-300, Cosine: -1}, {Label: "", Score: 1}}
	rows[3].Matches, rows[3].Path = rows[2].Matches, hostile[0]
	return rows
}

func readParquet(t *testing.T, path string) (rows []bulk.Row) {
	t.Helper()
	read, err := parquet.ReadFile[parquetRow](path)
	noError(t, err)
	for _, r := range read {
		row := bulk.Row{Key: r.Key, Path: r.Path, Model: r.Model, Embedding: r.Embedding}
		for _, m := range r.Matches {
			row.Matches = append(row.Matches, bulk.Match(m))
		}
		if r.Error != nil {
			row.Error = *r.Error
		}
		rows = append(rows, row)
	}
	return rows
}

// TestParquetFinish: the file has all rows after each Finish, is never half there, and is not written when nothing has changed.
func TestParquetFinish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.parquet")
	s := openSink(t, path)
	rows := samples()
	noError(t, s.Put(t.Context(), rows[:3]))
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file before Finish")
	}
	noError(t, os.WriteFile(path+".new", []byte("left by a process that was killed"), 0o600))
	noError(t, s.Finish(t.Context()))
	check := func(want ...bulk.Row) {
		t.Helper()
		if diff := cmp.Diff(want, readParquet(t, path), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		if left, _ := filepath.Glob(path + ".*"); len(left) != 1 {
			t.Errorf("beside it are %q", left)
		}
	}
	check(rows[:3]...)
	before := must[os.FileInfo](t)(os.Stat(path))
	noError(t, s.Finish(t.Context()))
	noError(t, s.Close())
	s = openSink(t, path)
	defer s.Close()
	noError(t, s.Finish(t.Context()))
	if !os.SameFile(before, must[os.FileInfo](t)(os.Stat(path))) {
		t.Error("it was written again, though nothing has changed")
	}
	noError(t, s.Put(t.Context(), rows))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Finish(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Finish with a context that has ended: %v", err)
	}
	check(rows[:3]...)
	noError(t, s.Finish(t.Context()))
	check(rows...)
	noError(t, s.(bulk.Remover).Remove(t.Context(), []bulk.ID{{Key: rows[0].Key, Path: rows[0].Path}}))
	noError(t, s.Finish(t.Context()))
	check(rows[1:]...)
	noError(t, os.Remove(path))
	noError(t, s.Finish(t.Context()))
	check(rows[1:]...)
}

// TestParquetForeign: a file that this sink has not written is not replaced.
func TestParquetForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.parquet")
	noError(t, os.WriteFile(path, []byte("PAR1"), 0o600))
	_, err := Open(t.Context(), path, Options{})
	says(t, err, "name another file")
	noError(t, os.Remove(path))
	noError(t, os.Mkdir(path, 0o700))
	_, err = Open(t.Context(), path, Options{})
	says(t, err, "not a file")
}

// TestParquetMemory writes vectors of a real size in several row groups.
func TestParquetMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.parquet")
	s := must[bulk.Sink](t)(Open(t.Context(), path, Options{Dimension: 512}))
	defer s.Close()
	const many = 2*groupRows + 100
	for i := 0; i < many; {
		var rows []bulk.Row
		for range 2048 {
			row := rowOf(i)
			row.Embedding = make([]float32, 512)
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for j := range row.Embedding {
				row.Embedding[j] = random.Float32()
			}
			if rows = append(rows, row); i == many-1 {
				i++
				break
			}
			i++
		}
		noError(t, s.Put(t.Context(), rows))
	}
	before := heap()
	asked := &samplingContext{Context: t.Context()}
	noError(t, s.Finish(asked))
	if asked.n < 8 || int64(asked.most)-int64(before) > 3*groupRows*512*4 {
		t.Errorf("writing %d rows takes %d bytes", many, asked.most-before)
	}
	f := must[*os.File](t)(os.Open(path))
	defer f.Close()
	file := must[*parquet.File](t)(parquet.OpenFile(f, must[os.FileInfo](t)(f.Stat()).Size()))
	if n := len(file.RowGroups()); n != 3 || file.NumRows() != many {
		t.Errorf("%d row groups, %d rows", n, file.NumRows())
	}
}

// samplingContext looks at the memory in use whenever it is asked whether it has ended, which is once a page.
type samplingContext struct {
	context.Context
	n    int
	most uint64
}

func (c *samplingContext) Err() error {
	if c.n++; c.n%4 == 0 {
		c.most = max(c.most, heap())
	}
	return c.Context.Err()
}

// TestParquetReaders has DuckDB, which shares no code with what writes, read the file.
func TestParquetReaders(t *testing.T) {
	modules := os.Getenv("HAILO_TEST_SINKS_NPM")
	if modules == "" {
		t.Skip("make sinks-test")
	}
	path := filepath.Join(t.TempDir(), "out.parquet")
	s := openSink(t, path)
	defer s.Close()
	noError(t, s.Put(t.Context(), samples()))
	noError(t, s.Finish(t.Context()))
	cmd := exec.Command("node", must[string](t)(filepath.Abs("testdata/duckdb.mjs")), path)
	cmd.Env = append(os.Environ(), "MODULES="+modules)
	cmd.Stderr = os.Stderr
	lines := bufio.NewReader(strings.NewReader(string(must[[]byte](t)(cmd.Output()))))
	var types map[string]string
	noError(t, json.Unmarshal(must[[]byte](t)(lines.ReadBytes('\n')), &types))
	want := map[string]string{"key": "VARCHAR", "path": "VARCHAR", "model": "VARCHAR", "embedding": "FLOAT[]", "error": "VARCHAR",
		"classifications": `STRUCT("label" VARCHAR, score DOUBLE, probability DOUBLE, cosine DOUBLE)[]`}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Error(diff, slices.Collect(maps.Keys(types)))
	}
	var rows []bulk.Row
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		var row bulk.Row
		noError(t, json.Unmarshal(line, &row))
		rows = append(rows, row)
	}
	if diff := cmp.Diff(samples(), rows, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}
