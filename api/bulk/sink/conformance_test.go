package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"hailoclip/api/bulk"
)

func TestMain(m *testing.M) {
	patience.first, patience.most = time.Millisecond, 10*time.Millisecond
	if address := os.Getenv("HAILO_TEST_SINK_CHILD"); address != "" {
		child(address)
	}
	goleak.VerifyTestMain(m)
}

const dimension = 8

// kind of sink that the conformance test is for.
type kind struct {
	file    bool // only one process may have it open
	append  bool // it is a bulk.Appender: what is put twice is there twice
	rounded bool // vectors come back normalised
	outside bool // what it keeps is in this process, so that its memory says nothing
	many    int  // rows of the large test
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func says(t testing.TB, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("the error is %v, want %q in it", err, w)
		}
	}
}

func openSink(t testing.TB, address string) bulk.Sink {
	t.Helper()
	return must[bulk.Sink](t)(Open(t.Context(), address, Options{Dimension: dimension, Model: "m"}))
}

// vector is one of unit length.
func vector(seed int) []float32 {
	random := rand.New(rand.NewPCG(1, uint64(seed)))
	v, sum := make([]float32, dimension), 0.0
	for i := range v {
		v[i] = float32(random.NormFloat64())
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

func keyOf(i int) string { return fmt.Sprintf("%032x.0a1b2c3d.p1", i) }

func rowOf(i int) bulk.Row {
	return bulk.Row{Key: keyOf(i), Path: fmt.Sprintf("folder/image-%d.jpg", i), Model: "ViT-B-32", Embedding: vector(i)}
}

// contents are the paths of each key that the sink tells, in order.
func contents(t testing.TB, s bulk.Sink) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	noError(t, s.Each(t.Context(), func(key, path string) error {
		all[key] = append(all[key], path)
		return nil
	}))
	for _, paths := range all {
		slices.Sort(paths)
	}
	return all
}

func rowsOf(rows ...bulk.Row) map[string][]string {
	all := map[string][]string{}
	for _, r := range rows {
		if !slices.Contains(all[r.Key], r.Path) {
			all[r.Key] = append(all[r.Key], r.Path)
		}
	}
	for _, paths := range all {
		slices.Sort(paths)
	}
	return all
}

func (k kind) found(t testing.TB, s bulk.Sink, want bulk.Row) {
	t.Helper()
	got, ok, err := s.Find(t.Context(), want.Key)
	if err != nil || !ok {
		t.Fatalf("Find(%q): %v, %v", want.Key, ok, err)
	}
	compare := cmp.Options{cmpopts.EquateEmpty()}
	if k.rounded {
		compare = append(compare, cmpopts.EquateApprox(0, 1e-6))
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("Find(%q): %s", want.Key, diff)
	}
}

// hostile are paths that are hard to keep as they are.
var hostile = []string{
	"ünï/日本語/🐈.jpg", "it's; DROP TABLE vectors; --", `a"b\c`, "a\nb\r\tc", "{a,b}", `\N`, `\.`, "$1", "%00", "NULL", " ", "../../etc/passwd",
	"\x01\x7f", "\u202egpj.exe", "a\u0301", "á", "\ufeff", "\U0010FFFF", strings.Repeat("ä", maxPath/2), strings.Repeat("x", maxPath),
	"A", "a", "ａ", `","path":"forged`, "line\u2028separator", "</script>",
}

// conform runs the conformance test on new, empty sinks.
func conform(t *testing.T, k kind, address func(t *testing.T) string) {
	run := func(name string, test func(t *testing.T, address string)) {
		t.Run(name, func(t *testing.T) { test(t, address(t)) })
	}

	run("Empty", func(t *testing.T, address string) {
		s := openSink(t, address)
		defer s.Close()
		noError(t, s.Put(t.Context(), nil))
		if all := contents(t, s); len(all) != 0 {
			t.Errorf("an empty sink has %v", all)
		}
		if _, found, err := s.Find(t.Context(), keyOf(1)); found || err != nil {
			t.Errorf("Find in an empty sink: %v, %v", found, err)
		}
		noError(t, s.Finish(t.Context()))
	})

	run("PutFindEach", func(t *testing.T, address string) {
		s := openSink(t, address)
		same := rowOf(1)
		same.Path = "copy.jpg"
		scored := bulk.Row{Key: keyOf(3), Path: "scored.jpg", Model: "ViT-B-32", Matches: []bulk.Match{
			{Label: "a \"cat\"\n日本", Score: 0.1, Probability: 1e-300, Cosine: -0.25}, {Label: "", Score: 1, Probability: 1 / 3.0, Cosine: 1}}}
		both := rowOf(4)
		both.Matches = scored.Matches
		failed := bulk.Row{Key: keyOf(5), Path: "bad.jpg", Model: "ViT-B-32", Error: "not an image: 'x'\n\"y\""}
		rows := []bulk.Row{rowOf(1), rowOf(2), same, scored, both, failed}
		noError(t, s.Put(t.Context(), rows))
		check := func() {
			t.Helper()
			for _, i := range []int{1, 3, 4, 5} {
				k.found(t, s, rows[i])
			}
			if diff := cmp.Diff(rowsOf(rows...), contents(t, s)); diff != "" {
				t.Error(diff)
			}
			if row, found, err := s.Find(t.Context(), keyOf(1)); !found || err != nil || row.Path != "copy.jpg" && row.Path != rowOf(1).Path {
				t.Errorf("Find of a key with two paths: %v, %v, %v", row, found, err)
			}
			if _, found, err := s.Find(t.Context(), keyOf(1)[:20]); found || err != nil {
				t.Errorf("Find of the beginning of a key: %v, %v", found, err)
			}
		}
		check()
		noError(t, s.Finish(t.Context()))
		check()
		noError(t, s.Close())
		s = openSink(t, address)
		check()
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(6)}))
		rows = append(rows, rowOf(6))
		noError(t, s.Finish(t.Context()))
		check()
		noError(t, s.Close())
	})

	if !k.append {
		run("Replace", func(t *testing.T, address string) {
			s := openSink(t, address)
			defer func() { s.Close() }()
			older, newer, last := rowOf(1), rowOf(1), rowOf(1)
			newer.Embedding, newer.Error = nil, "no longer an image"
			last.Embedding, last.Model = vector(99), "another"
			noError(t, s.Put(t.Context(), []bulk.Row{older}))
			noError(t, s.Put(t.Context(), []bulk.Row{newer}))
			k.found(t, s, newer)
			noError(t, s.Put(t.Context(), []bulk.Row{older, newer, last})) // the last of a batch counts
			k.found(t, s, last)
			noError(t, s.Close())
			s = openSink(t, address)
			k.found(t, s, last)
			if diff := cmp.Diff(rowsOf(last), contents(t, s)); diff != "" {
				t.Error(diff)
			}
		})
	}

	run("HostilePaths", func(t *testing.T, address string) {
		s := openSink(t, address)
		defer func() { s.Close() }()
		var rows []bulk.Row
		for i, path := range hostile {
			row := rowOf(1000)
			if i%2 == 0 {
				row = rowOf(i)
			}
			row.Path = path
			rows = append(rows, row)
		}
		noError(t, s.Put(t.Context(), rows))
		noError(t, s.Finish(t.Context()))
		if !k.append {
			noError(t, s.Put(t.Context(), rows))
		}
		noError(t, s.Close())
		s = openSink(t, address)
		if diff := cmp.Diff(rowsOf(rows...), contents(t, s)); diff != "" {
			t.Error(diff)
		}
		k.found(t, s, rows[4])
	})

	run("HostileKeysAreFoundByNobody", func(t *testing.T, address string) {
		s := openSink(t, address)
		defer s.Close()
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
		for _, key := range []string{"", "' OR 1=1 --", "%", "*", `"`, "\\", "{}", "\n"} {
			if row, found, err := s.Find(t.Context(), key); found || err != nil {
				t.Errorf("Find(%q): %v, %v, %v", key, row, found, err)
			}
		}
	})

	if !k.append {
		run("RefusesWhatItCouldNotGiveBack", func(t *testing.T, address string) {
			s := openSink(t, address)
			defer s.Close()
			for _, r := range []bulk.Row{
				{Path: "a"}, {Key: keyOf(1)}, {Key: "a\x00b", Path: "a"}, {Key: strings.Repeat("k", maxKey+1), Path: "a"}, {Key: "\xff", Path: "a"},
				{Key: keyOf(1), Path: "a\x00b"}, {Key: keyOf(1), Path: "\xff\xfe"}, {Key: keyOf(1), Path: strings.Repeat("p", maxPath+1)},
			} {
				if err := s.Put(t.Context(), []bulk.Row{rowOf(1), r}); err == nil || len(err.Error()) > 1000 {
					t.Errorf("Put of %.40q, %.40q: %v", r.Key, r.Path, err)
				}
			}
			wrong := rowOf(2)
			wrong.Embedding = wrong.Embedding[:7]
			says(t, s.Put(t.Context(), []bulk.Row{wrong}), "vectors of 7 numbers", "vectors of 8")
			if all := contents(t, s); len(all) != 0 {
				t.Errorf("it has %v", all)
			}
		})

		run("NoNumbers", func(t *testing.T, address string) {
			s := openSink(t, address)
			defer s.Close()
			var rows []bulk.Row
			for i, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				bad, scored := rowOf(10*i), rowOf(10*i+1)
				bad.Embedding[3] = float32(v)
				scored.Matches = []bulk.Match{{Label: "a", Score: v}}
				rows = append(rows, bad, scored)
			}
			text := rowOf(100)
			text.Error, text.Embedding = "a\x00b\xff", nil
			noError(t, s.Put(t.Context(), append(rows, text)))
			for _, r := range rows {
				r.Embedding, r.Matches, r.Error = nil, nil, "the model gave a vector or score that is not a number"
				k.found(t, s, r)
			}
			text.Error = "a\uFFFDb\uFFFD"
			k.found(t, s, text)
		})
		run("AnotherDimension", func(t *testing.T, address string) {
			s := openSink(t, address)
			noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
			noError(t, s.Close())
			_, err := Open(t.Context(), address, Options{Dimension: dimension + 1})
			says(t, err, "vectors of 9 numbers", "vectors of 8")
			s = must[bulk.Sink](t)(Open(t.Context(), address, Options{})) // such as to verify it
			defer s.Close()
			if diff := cmp.Diff(rowsOf(rowOf(1)), contents(t, s)); diff != "" {
				t.Error(diff)
			}
		})
	}

	run("EachEndsWithItsCaller", func(t *testing.T, address string) {
		s := openSink(t, address)
		defer s.Close()
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1), rowOf(2), rowOf(3)}))
		n, enough := 0, errors.New("enough")
		err := s.Each(t.Context(), func(string, string) error { n++; return enough })
		if !errors.Is(err, enough) || n != 1 {
			t.Errorf("Each went on to %d rows and returned %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Each(ctx, func(string, string) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Each with a context that has ended: %v", err)
		}
	})

	run("Killed", func(t *testing.T, address string) {
		// A process puts batches until it is killed. Those that it told of are there, and nothing is half there.
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "HAILO_TEST_SINK_CHILD="+address)
		var told bytes.Buffer
		out := must[interface{ Read([]byte) (int, error) }](t)(cmd.StdoutPipe())
		cmd.Stderr = &told
		noError(t, cmd.Start())
		batches := 0
		for b := make([]byte, 1); batches < 20; {
			if n, err := out.Read(b); err != nil {
				t.Fatalf("the process ended by itself: %v, %s", err, told.Bytes())
			} else {
				batches += n
			}
		}
		noError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		s := openSink(t, address)
		defer s.Close()
		if a, ok := s.(bulk.Appender); ok { // of which the journal cuts off what it does not know of
			same := openSink(t, filepath.Join(t.TempDir(), "same.ndjson")).(bulk.Appender)
			defer same.Close()
			for i := range batches {
				noError(t, same.Put(t.Context(), childRows(i)))
			}
			noError(t, a.Rewind(same.Mark()))
		}
		all := contents(t, s)
		for i := range batches * childBatch {
			if len(all[keyOf(i)]) != 1 {
				t.Fatalf("row %d of batch %d is there %d times", i, i/childBatch, len(all[keyOf(i)]))
			}
		}
		for _, i := range []int{0, batches*childBatch - 1} {
			k.found(t, s, rowOf(i))
		}
		noError(t, s.Put(t.Context(), []bulk.Row{{Key: "after", Path: "p", Error: "e"}}))
		noError(t, s.Finish(t.Context()))
	})

	run("Remove", func(t *testing.T, address string) {
		s := openSink(t, address)
		copied := rowOf(2)
		copied.Path = "copy.jpg"
		rows := []bulk.Row{rowOf(1), rowOf(2), copied, rowOf(3)}
		noError(t, s.Put(t.Context(), rows))
		noError(t, s.Finish(t.Context()))
		id := func(r bulk.Row) bulk.ID { return bulk.ID{Key: r.Key, Path: r.Path} }
		gone := []bulk.ID{id(rowOf(1)), id(copied), id(copied), id(rowOf(9)), {Key: keyOf(3), Path: copied.Path}, {Key: "' OR 1=1 --", Path: "%"}}
		for range 2 {
			noError(t, s.(bulk.Remover).Remove(t.Context(), gone))
			noError(t, s.(bulk.Remover).Remove(t.Context(), nil))
			noError(t, s.Finish(t.Context()))
		}
		noError(t, s.Close())
		s = openSink(t, address)
		defer s.Close()
		if diff := cmp.Diff(rowsOf(rows[1], rows[3]), contents(t, s)); diff != "" {
			t.Error(diff)
		}
		k.found(t, s, rows[1])
		if _, found, err := s.Find(t.Context(), keyOf(1)); found || err != nil {
			t.Errorf("Find of what was removed: %v, %v", found, err)
		}
	})

	if k.file {
		run("OneProcess", func(t *testing.T, address string) {
			s := openSink(t, address)
			_, err := Open(t.Context(), address, Options{Dimension: dimension})
			says(t, err, "another process")
			noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
			noError(t, s.Close())
			s = openSink(t, address)
			k.found(t, s, rowOf(1))
			noError(t, s.Close())
		})
	}

	run("Many", func(t *testing.T, address string) {
		s := openSink(t, address)
		defer s.Close()
		many := k.many
		if testing.Short() {
			many = min(many, 5000)
		}
		before, batch := heap(), make([]bulk.Row, 0, 4096)
		var most uint64
		for i := range many {
			if batch = append(batch, rowOf(i)); len(batch) == cap(batch) || i == many-1 {
				noError(t, s.Put(t.Context(), batch))
				batch = batch[:0]
			}
			if i%(many/4) == 0 {
				most = max(most, heap())
			}
		}
		noError(t, s.Finish(t.Context()))
		seen := make([]bool, many)
		n := 0
		noError(t, s.Each(t.Context(), func(key, path string) error {
			var i int
			if _, err := fmt.Sscanf(path, "folder/image-%d.jpg", &i); err != nil || i >= many || seen[i] || key != keyOf(i) {
				return fmt.Errorf("%s, %s is told twice or never put", key, path)
			}
			if seen[i] = true; n == many/2 {
				most = max(most, heap())
			}
			n++
			return nil
		}))
		if n != many {
			t.Errorf("Each told %d of %d rows", n, many)
		}
		k.found(t, s, rowOf(many-1))
		k.found(t, s, rowOf(many/2))
		// All rows take far more, and so do their names.
		if grown := int64(most) - int64(before); !k.outside && grown > 8<<20 {
			t.Errorf("%d rows take %d bytes of memory", many, grown)
		}
	})
}

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what is in pools goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const childBatch = 16

func childRows(batch int) []bulk.Row {
	rows := make([]bulk.Row, childBatch)
	for i := range rows {
		rows[i] = rowOf(batch*childBatch + i)
	}
	return rows
}

// child puts rows until it is killed, and writes a byte for each batch.
func child(address string) {
	ctx := context.Background()
	s, err := Open(ctx, address, Options{Dimension: dimension})
	for i := 0; err == nil; i++ {
		if err = s.Put(ctx, childRows(i)); err == nil {
			_, err = os.Stdout.Write([]byte{'.'})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestNDJSON(t *testing.T) {
	conform(t, kind{file: true, append: true, many: 100_000}, func(t *testing.T) string { return filepath.Join(t.TempDir(), "out.ndjson") })
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for address, words := range map[string]string{
		"":                                     "suffix",
		dir:                                    "suffix",
		dir + "/a.csv":                         "suffix",
		"mysql://u:secret@h/d":                 "mysql://",
		"postgres://u:secret@h:port/d?table=t": "not an address",
		"postgres://u:sec%ret@h/d":             "not an address",
		"postgres://u:sec/secret@h/d":          "not an address",
		dir + "/none/a.db":                     "no such file",
	} {
		_, err := Open(t.Context(), address, Options{Dimension: dimension})
		says(t, err, words)
		if err != nil && strings.Contains(err.Error(), "sec") {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestName(t *testing.T) {
	for address, want := range map[string]string{
		"out/a b.db": "out/a b.db",
		"postgres://user:secret@host:5432/db?table=t&password=secret&sslmode=disable": "postgres://user@host:5432/db?table=t",
		"postgres:///db?host=/run/postgresql&sslpassword=secret":                      "postgres:///db?host=%2Frun%2Fpostgresql",
		"qdrant://host:6333/c?api_key=secret":                                         "qdrant://host:6333/c",
		"postgres://u:sec%ret@h/d":                                                    "postgres://...",
	} {
		if got := Name(address); got != want {
			t.Errorf("Name(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestForms(t *testing.T) {
	for word := range maps.Keys(openers) {
		if word != "postgresql" && word != "qdrants" && !strings.Contains(Forms, word+"://") {
			t.Errorf("Forms does not tell %s", word)
		}
	}
	for suffix := range files {
		if !strings.Contains(Forms, suffix) {
			t.Errorf("Forms does not tell %s", suffix)
		}
	}
}
