package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// items is a source that is whatever a test says.
type items []Item

func (s items) Name() string { return "items" }
func (s items) Each(_ context.Context, found func(Item) error) error {
	for _, i := range s {
		if err := found(i); err != nil {
			return err
		}
	}
	return nil
}

// text is an item that holds a text.
func text(path, text string, at time.Time) Item {
	return Item{Path: path, Size: int64(len(text)), Modified: at, Open: func(context.Context) ([]byte, error) { return []byte(text), nil }}
}

// broken is an item that cannot be read.
func broken(path string) Item {
	return Item{Path: path, Size: -1, Open: func(context.Context) ([]byte, error) { return nil, errors.New("away") }}
}

// upserts is a sink like a database: rows by key and path.
type upserts struct {
	rows map[ID]Row
	put  func(rows []Row) error // told after rows are there; nil: nobody is
}

func newUpserts() *upserts { return &upserts{rows: map[ID]Row{}} }

func (s *upserts) Put(_ context.Context, rows []Row) error {
	for _, r := range rows {
		s.rows[ID{r.Key, r.Path}] = r
	}
	if s.put != nil {
		return s.put(rows)
	}
	return nil
}

func (s *upserts) Find(_ context.Context, key string) (Row, bool, error) {
	for id, r := range s.rows {
		if id.Key == key {
			return r, true, nil
		}
	}
	return Row{}, false, nil
}

func (s *upserts) Each(_ context.Context, row func(key, path string) error) error {
	for id := range s.rows {
		if err := row(id.Key, id.Path); err != nil {
			return err
		}
	}
	return nil
}

func (s *upserts) Remove(_ context.Context, rows []ID) error {
	for _, id := range rows {
		delete(s.rows, id)
	}
	return nil
}

func (s *upserts) Finish(context.Context) error { return nil }
func (s *upserts) Close() error                 { return nil }

// has compares the rows with what paths should hold: one row each.
func (s *upserts) has(t *testing.T, want map[string]string) {
	t.Helper()
	for id, r := range s.rows {
		if text, ok := want[id.Path]; !ok || id.Key != Key([]byte(text), testDigest) || !slices.Equal(r.Embedding, vectorOf([]byte(text))) {
			t.Errorf("%q has the row %.60s, %+v", id.Path, id.Key, r)
		}
	}
	if len(s.rows) != len(want) {
		t.Errorf("%d rows, not %d", len(s.rows), len(want))
	}
}

// into has a job use a sink.
func into(s Sink) func(*Job) { return func(j *Job) { j.Sink = s } }

// TestPruneAfterTrouble: what could not be read once, and is not there any more, does not keep rows from being taken away for ever.
func TestPruneAfterTrouble(t *testing.T) {
	b, at := newBench(t), time.Unix(1e9, 0)
	b.job.Prune = true
	b.job.Source = items{text("a", "one", at), text("b", "two", at), broken("folder")}
	b.mustRun(nil)
	b.job.Source = items{text("b", "two", at), broken("c")}
	if s := b.mustRun(nil); s.Vanished != 2 || len(b.rows()) != 4 {
		t.Errorf("with trouble: %+v", s)
	}
	b.job.Source = items{text("b", "two", at)}
	if s := b.mustRun(nil); s.Vanished != 0 || s.Unreadable != 0 || len(b.rows()) != 1 {
		t.Errorf("without: %+v, %d rows", s, len(b.rows()))
	}
}

// TestSizesThatLie: a source that says of large images that they are small has no more of them in memory.
func TestSizesThatLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, images = 4 << 20, 60
		b := newBench(t)
		var opened atomic.Int64
		var source items
		for i := range images {
			source = append(source, Item{Path: fmt.Sprint(i), Size: 1, Modified: time.Unix(1e9, 0), Open: func(context.Context) ([]byte, error) {
				opened.Add(1)
				return append(bytes.Repeat([]byte{1}, size-1), byte(i)), nil
			}})
		}
		b.job.Source = source
		goOn := make(chan struct{})
		b.job.Encoder = NewDirect("model", testDigest, 1, func(_ context.Context, image []byte) ([]float32, []Match, error) {
			<-goOn
			return vectorOf(image), nil, nil
		})
		defer b.job.Encoder.Close(t.Context())
		done := make(chan error)
		go func() {
			_, err := b.run(nil)
			done <- err
		}()
		synctest.Wait()
		if n := opened.Load(); n > memory/size+8+2 {
			t.Errorf("%d images of %d MiB are in memory", n, size>>20)
		}
		close(goOn)
		if err := <-done; err != nil || len(b.rows()) != images {
			t.Errorf("%v, %d rows", err, len(b.rows()))
		}
	})
}

// TestChangedWithinTheClock: a file that was read right after it was written may change again without getting another time.
func TestChangedWithinTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, at := newBench(t), time.Now()
		b.job.Source = items{text("a", "one", at), text("old", "three", at.Add(-time.Hour))}
		b.mustRun(nil)
		b.job.Source = items{text("a", "two", at), mustRead(text("old", "three", at.Add(-time.Hour)))}
		b.mustRun(nil)
		if rows := b.rows(); len(rows) != 2 || !slices.ContainsFunc(rows, func(r Row) bool { return r.Key == Key([]byte("two"), testDigest) }) {
			t.Errorf("%+v", rows)
		}
		time.Sleep(time.Hour)
		b.mustRun(nil)
		b.job.Source = items{mustRead(text("a", "two", at)), mustRead(text("old", "three", at.Add(-time.Hour)))}
		b.mustRun(nil) // it is known by now
	})
}

// mustRead is an item that must not be opened.
func mustRead(i Item) Item {
	i.Open = func(context.Context) ([]byte, error) { panic(i.Path + " is opened") }
	return i
}

// TestPathTwice: of what an archive has twice the last one counts, as when it is unpacked, whatever takes how long.
func TestPathTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, at := newBench(t), time.Unix(1e9, 0)
		slow := func(i Item) Item {
			open := i.Open
			i.Open = func(ctx context.Context) ([]byte, error) {
				time.Sleep(10 * time.Second)
				return open(ctx)
			}
			return i
		}
		b.job.Source = items{slow(text("a", "one", at)), text("b", "two", at), text("a", "three", at.Add(time.Second)), text("b", "two", at)}
		for range 3 {
			b.mustRun(nil)
			want := []string{Key([]byte("three"), testDigest), Key([]byte("two"), testDigest)}
			var got []string
			for _, r := range b.rows() {
				got = append(got, r.Key)
			}
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%+v", b.rows())
			}
		}
	})
}

// TestPathTwiceUnreadable: what could not be read of a path does not stand for what an archive has of it later.
func TestPathTwiceUnreadable(t *testing.T) {
	b, at := newBench(t), time.Unix(1e9, 0)
	tries := 0
	counted := broken("a")
	away := counted.Open
	counted.Open = func(ctx context.Context) ([]byte, error) {
		tries++
		return away(ctx)
	}
	b.job.Source = items{counted, text("a", "one", at)}
	for i := range 2 {
		if s := b.mustRun(nil); s.Stored != 1 || s.Unreadable != 0 || tries != i+1 {
			t.Errorf("%+v, %d tries", s, tries)
		}
		if rows := b.rows(); len(rows) != 1 || rows[0].Key != Key([]byte("one"), testDigest) {
			t.Errorf("%+v", rows)
		}
	}
}

// TestLongPaths are errors of their own each.
func TestLongPaths(t *testing.T) {
	b := newBench(t)
	for i := range 3 {
		b.job.Source = append(itemsOf(b.job.Source), text(strings.Repeat("x", maxPath)+fmt.Sprint(i), "one", time.Unix(1e9, 0)))
	}
	if s := b.mustRun(nil); s.Unreadable != 3 || len(b.rows()) != 3 {
		t.Errorf("%+v", s)
	}
}

func itemsOf(s Source) items {
	i, _ := s.(items)
	return i
}

// TestLostOutput: a sink that was emptied behind the journal's back is not taken for complete.
func TestLostOutput(t *testing.T) {
	b, s, at := newBench(t), newUpserts(), time.Unix(1e9, 0)
	b.job.Source = items{text("a", "one", at), text("b", "bad", at), broken("c")}
	b.mustRun(into(s))
	b.mustRun(into(s))
	clear(s.rows)
	for _, source := range []items{{text("a", "one", at)}, {text("a", "one", at), text("d", "two", at)}} {
		b.job.Source = source
		if status, err := b.run(into(s)); err == nil || !strings.Contains(err.Error(), "verify --repair") || len(s.rows) > 0 {
			t.Errorf("%+v, %v", status, err)
		}
	}
	j := must(OpenJournal(b.out+".journal", false))
	v, err := Verify(t.Context(), j, s, true)
	if err := errors.Join(err, j.Close()); err != nil || v.Missing != 3 {
		t.Errorf("%+v, %v", v, err)
	}
	b.job.Source = items{text("a", "one", at), text("b", "two", at)}
	b.mustRun(into(s))
	s.has(t, map[string]string{"a": "one", "b": "two"})
}

// TestBackWithoutAPlace: a path that gets a former content back, of which no row is found any more, has one row.
func TestBackWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, at := newBench(t), time.Unix(1e9, 0)
		b.job.Encoder = NewDirect("model", testDigest, 4, func(_ context.Context, image []byte) ([]float32, []Match, error) {
			time.Sleep(10 * time.Second) // until all is found
			return vectorOf(image), nil, nil
		})
		defer b.job.Encoder.Close(t.Context())
		b.job.Source = items{text("a", "one", at), text("b", "one", at)}
		b.mustRun(nil)
		fail := errors.New("no finish")
		b.job.Source = items{text("a", "two", at.Add(time.Second)), text("b", "one", at)}
		if _, err := b.run(func(j *Job) { j.Sink = &failing{NDJSON: j.Sink.(*NDJSON), finish: fail} }); !errors.Is(err, fail) {
			t.Fatal(err)
		}
		j := must(OpenJournal(b.out+".journal", false)) // as a process leaves it that is killed before it has told where rows have moved
		h, _ := (&keeper{suffix: Key(nil, testDigest)[32:]}).parse(Key([]byte("one"), testDigest))
		j.finishing = false
		if err := errors.Join(j.setOutcome(h, &outcome{place: 1}, false), j.commit(), j.Close()); err != nil {
			t.Fatal(err)
		}
		b.job.Source = items{text("0", "one", at), text("a", "one", at.Add(2*time.Second)), text("b", "one", at)}
		b.mustRun(func(j *Job) { j.Readers = 1 })
		seen := map[string]int{}
		for _, r := range b.rows() {
			if seen[r.Path]++; r.Key != Key([]byte("one"), testDigest) || len(r.Embedding) == 0 {
				t.Errorf("%+v", r)
			}
		}
		if len(seen) != 3 || len(b.rows()) != 3 {
			t.Errorf("%v", seen)
		}
		if v := b.verified(false); !v.Good(false) {
			t.Errorf("%+v", v)
		}
	})
}

// TestKilledAfterPut: rows that a database has, and of which a process that was killed could not note that, are not left behind
// when their files change before the next run.
func TestKilledAfterPut(t *testing.T) {
	at := time.Unix(1e9, 0)
	for name, next := range map[string]struct {
		source items
		want   map[string]string
	}{
		"unchanged": {items{text("a", "one", at), text("b", "two", at), text("c", "one", at)}, map[string]string{"a": "one", "b": "two", "c": "one"}},
		"changed": {items{text("a", "three", at.Add(time.Second)), text("b", "two", at.Add(time.Second)), text("c", "two", at)},
			map[string]string{"a": "three", "b": "two", "c": "two"}},
		"gone":     {items{text("b", "two", at)}, map[string]string{"b": "two"}},
		"readable": {items{text("a", "one", at), text("b", "two", at), text("d", "one", at)}, map[string]string{"a": "one", "b": "two", "d": "one"}},
	} {
		for _, stored := range []bool{true, false} {
			t.Run(fmt.Sprint(name, stored), func(t *testing.T) {
				b, s := newBench(t), newUpserts()
				b.job.Source = items{text("a", "one", at), text("b", "two", at), text("c", "one", at), broken("d")}
				s.put = func([]Row) error {
					if !stored {
						clear(s.rows)
					}
					return errKilled
				}
				for range 2 {
					if _, err := b.run(into(s)); !errors.Is(err, errKilled) {
						t.Fatal(err)
					}
				}
				s.put = nil
				b.job.Source, b.job.Prune = next.source, true
				b.mustRun(into(s))
				s.has(t, next.want)
			})
		}
	}
}

// TestJournalOfBefore: a journal of the version that announced no rows goes on.
func TestJournalOfBefore(t *testing.T) {
	b, s, at := newBench(t), newUpserts(), time.Unix(1e9, 0)
	b.job.Source = items{text("a", "one", at)}
	b.mustRun(into(s))
	j := must(OpenJournal(b.out+".journal", false))
	if err := errors.Join(j.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketPutting) }), j.Close()); err != nil {
		t.Fatal(err)
	}
	b.job.Source = items{mustRead(text("a", "one", at)), text("b", "two", at)}
	b.mustRun(into(s))
	s.has(t, map[string]string{"a": "one", "b": "two"})
}

// shouting is an encoder whose results have keys in capitals.
type shouting struct{ *former }

func (s shouting) Send(_ context.Context, key string, image []byte) error {
	s.results <- Result{Key: strings.ToUpper(key[:32]) + key[32:], Vector: vectorOf(image)}
	return nil
}

// TestKeysAreOurs: a row has the key of its image, however the result writes it.
func TestKeysAreOurs(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.mustRun(func(j *Job) { j.Encoder = shouting{&former{testEncoder(t, &b.calls), make(chan Result, 4)}} })
	b.check()
}

// TestWrongVectors: an encoder whose vectors cannot be those of the index ends it, and it is said what is wrong with them.
func TestWrongVectors(t *testing.T) {
	for says, vector := range map[string][]float32{
		"3 numbers, not 8": {1, 0, 0}, "length 2": {2, 0, 0, 0, 0, 0, 0, 0}, "length NaN": {float32(math.NaN()), 0, 0, 0, 0, 0, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.write("a", "one")
			b.job.Encoder = NewDirect("model", testDigest, 1, func(context.Context, []byte) ([]float32, []Match, error) { return vector, nil, nil })
			defer b.job.Encoder.Close(t.Context())
			if _, err := b.run(nil); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %v", says, err)
			}
		})
	}
}

// TestLongErrors are cut, so that rows can be read again.
func TestLongErrors(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.job.Encoder = NewDirect("model", testDigest, 1, func(context.Context, []byte) ([]float32, []Match, error) {
		return nil, nil, fmt.Errorf("%w: %s", ErrImage, strings.Repeat("ä", maxLine))
	})
	defer b.job.Encoder.Close(t.Context())
	b.mustRun(nil)
	if rows := b.rows(); len(rows) != 1 || len(rows[0].Error) > 1<<10 || !strings.HasPrefix(rows[0].Error, ErrImage.Error()) {
		t.Errorf("%.100v", rows)
	}
	s := must(OpenNDJSON(b.out))
	defer s.Close()
	if err := s.Put(t.Context(), []Row{{Key: "k", Path: "p", Matches: []Match{{Label: strings.Repeat("x", maxLine)}}}}); err == nil {
		t.Error("a row is put that cannot be read")
	}
}

// TestOutputIsALink: rows stay where a link leads to, also when others are cut out.
func TestOutputIsALink(t *testing.T) {
	b := newBench(t)
	target := filepath.Join(t.TempDir(), "elsewhere.ndjson")
	if err := errors.Join(os.WriteFile(target, nil, 0o644), os.Symlink(target, b.out)); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		b.write("a", fmt.Sprint("content ", i))
		b.mustRun(nil)
		b.check()
		if to, err := os.Readlink(b.out); err != nil || to != target {
			t.Errorf("%q, %v", to, err)
		}
	}
}
