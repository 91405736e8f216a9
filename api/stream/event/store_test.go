package event

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
)

var testConfig = Config{MaxBytes: 1 << 30, MaxAge: 24 * time.Hour}

func openStore(t testing.TB, path string, cfg Config) *Store {
	t.Helper()
	s, err := OpenStore(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "state", FileName) }

func idOf(n int) string { return fmt.Sprintf("%032x", n+1) }

// eventOf makes event n of a stream, with all that one can have.
func eventOf(stream string, n int) *Event {
	seq, ts := uint64(n), int64(-n)
	return &Event{
		ID: idOf(n), Stream: stream, Kind: Enter, Region: "gate", Label: fmt.Sprint("label\n", n), Score: 0.5, Scores: []Score{{"a", 0.5}},
		Time: time.Unix(int64(n), 5).UTC(), Seq: &seq, TS: &ts, Model: "model", Thumbnail: true,
		Vector: []float32{float32(n), -1, 0.25}, JPEG: []byte(strings.Repeat(fmt.Sprint("\n", n), 100)),
	}
}

func mustAdd(t testing.TB, s *Store, e *Event) {
	t.Helper()
	if err := s.Add(context.Background(), e); err != nil {
		t.Fatal(err)
	}
}

// listed returns what List says: the ids as numbers.
func listed(t testing.TB, s *Store, stream, since string, limit int) string {
	t.Helper()
	list, err := s.List(context.Background(), stream, since, limit)
	if err != nil {
		t.Fatal(err)
	}
	all, err1 := s.List(context.Background(), stream, since, MaxList)
	newest, err2 := s.Newest(context.Background(), stream, since, limit)
	slices.Reverse(all)
	if err1 != nil || err2 != nil || len(all) < MaxList && !reflect.DeepEqual(newest, all[:len(list)]) && len(list) > 0 {
		t.Errorf("newest first %+v, %v, of %+v, %v", newest, err2, all, err1)
	}
	var ids []string
	for _, e := range list {
		if e.Vector != nil || e.JPEG != nil {
			t.Errorf("%+v", e)
		}
		b, _ := hex.DecodeString(e.ID)
		ids = append(ids, fmt.Sprint(int(b[15])+256*int(b[14])-1))
	}
	return strings.Join(ids, " ")
}

func TestStore(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	ctx := t.Context()
	if got := listed(t, s, "", "", 10); got != "" {
		t.Errorf("%q", got)
	}
	if _, err := s.Get(ctx, idOf(0)); !errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
	if err := errors.Join(s.DeleteStream(ctx, "a"), s.Close()); err != nil {
		t.Error(err)
	}
	s = openStore(t, path, testConfig)
	if err := s.Delete(ctx, idOf(0)); !errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a file before anything is stored: %v", err)
	}
	plain := eventOf("a", 6)
	plain.Thumbnail, plain.JPEG, plain.Vector, plain.Seq, plain.TS = false, nil, nil, nil, nil
	for n := range 6 {
		mustAdd(t, s, eventOf([]string{"a", "ab"}[n%2], n))
	}
	mustAdd(t, s, plain)
	mustAdd(t, s, eventOf("other", 3)) // is there
	if stat, err := os.Stat(path); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", stat, err)
	}
	check := func() {
		t.Helper()
		for n := range 6 {
			if e, err := s.Get(ctx, idOf(n)); err != nil || !reflect.DeepEqual(&e, eventOf([]string{"a", "ab"}[n%2], n)) {
				t.Errorf("%+v: %v", e, err)
			}
		}
		if e, err := s.Get(ctx, idOf(6)); err != nil || !reflect.DeepEqual(&e, plain) {
			t.Errorf("%+v: %v", e, err)
		}
		for _, tt := range []struct {
			stream, since string
			limit         int
			want          string
		}{
			{"", "", 10, "0 1 2 3 4 5 6"}, {"", "", 2, "0 1"}, {"", idOf(1), 3, "2 3 4"}, {"a", "", 10, "0 2 4 6"}, {"a", idOf(1), 2, "2 4"},
			{"ab", idOf(1), 10, "3 5"}, {"a", idOf(6), 10, ""}, {"b", "", 10, ""}, {"a", "unknown", 1, "0"}, {"a", idOf(99), 1, "0"},
			{"a", "", 0, ""}, {"", "", -1, ""}, {strings.Repeat("a", 300), "", 1, ""}, {"a\x00", "", 10, ""},
		} {
			if got := listed(t, s, tt.stream, tt.since, tt.limit); got != tt.want {
				t.Errorf("%.9q after %q, %d: %q, want %q", tt.stream, tt.since, tt.limit, got, tt.want)
			}
		}
		if st := s.Stats(); st.Events != 7 || st.Bytes < 7*overhead || st.Lost != "" {
			t.Errorf("%+v", st)
		}
	}
	check()
	before := s.Stats()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, testConfig)
	if check(); s.Stats() != before {
		t.Errorf("%+v, was %+v", s.Stats(), before)
	}
	for _, n := range []int{2, 3} {
		if err := s.Delete(ctx, idOf(n)); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, idOf(n)); !errors.Is(err, ErrNoEvent) {
			t.Error(err)
		}
		if _, err := s.Get(ctx, idOf(n)); !errors.Is(err, ErrNoEvent) {
			t.Error(err)
		}
		mustAdd(t, s, eventOf("a", n)) // it was there
	}
	if got := listed(t, s, "", "", 10) + "; " + listed(t, s, "", idOf(3), 10) + "; " + listed(t, s, "a", idOf(2), 1); got != "0 1 4 5 6; 4 5 6; 4" {
		t.Errorf("%q", got)
	}
	if st := s.Stats(); st.Events != 5 {
		t.Errorf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Add(ctx, eventOf("a", 9)); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if _, err := s.Get(ctx, idOf(0)); !errors.Is(err, ErrLost) || errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
}

// TestWhatCannotBeKept is an error that is not of the file, and makes none.
func TestWhatCannotBeKept(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	for name, change := range map[string]func(e *Event){
		"no id":       func(e *Event) { e.ID = "" },
		"another id":  func(e *Event) { e.ID = strings.Repeat("A", 32) },
		"no stream":   func(e *Event) { e.Stream = "" },
		"bad stream":  func(e *Event) { e.Stream = "a\x00b" },
		"long stream": func(e *Event) { e.Stream = strings.Repeat("a", 256) },
		"frame":       func(e *Event) { e.Kind = Frame },
		"no number":   func(e *Event) { e.Score = math.NaN() },
		"large":       func(e *Event) { e.JPEG = make([]byte, maxRecord) },
	} {
		e := eventOf("a", 1)
		change(e)
		if err := s.Add(t.Context(), e); err == nil || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range []error{
		s.PutStream(t.Context(), "", nil), s.PutStream(t.Context(), strings.Repeat("a", 300), nil),
		s.PutStream(t.Context(), "a", make([]byte, maxRecord+1)),
	} {
		if err == nil || errors.Is(err, ErrLost) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestDefinitions(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	ctx := t.Context()
	if all, err := s.Streams(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	err := errors.Join(s.PutStream(ctx, "a", []byte("1")), s.PutStream(ctx, "b", []byte("2")), s.PutStream(ctx, "a", []byte("3")),
		s.PutStream(ctx, "c", nil), s.DeleteStream(ctx, "b"), s.DeleteStream(ctx, "d"), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, testConfig)
	all, err := s.Streams()
	if err != nil || len(all) != 2 || string(all["a"]) != "3" || all["c"] == nil || len(all["c"]) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	if st := s.Stats(); st.Events != 0 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

// TestMaxBytes: the oldest events make room, also those of a store whose limit was lowered, and the file stays near it.
func TestMaxBytes(t *testing.T) {
	path := newPath(t)
	cfg := Config{MaxBytes: 1 << 20, MaxAge: time.Hour}
	s := openStore(t, path, cfg)
	n := 0
	for range 800 {
		e := eventOf("a", n)
		e.JPEG = make([]byte, 500+n%7*1000)
		mustAdd(t, s, e)
		if n++; n%50 == 0 {
			if err := s.Delete(t.Context(), e.ID); err != nil {
				t.Fatal(err)
			}
		}
		if st := s.Stats(); st.Bytes > cfg.MaxBytes {
			t.Fatalf("%+v", st)
		}
	}
	list, err := s.List(t.Context(), "a", "", MaxList)
	st := s.Stats()
	if err != nil || len(list) != st.Events || st.Bytes < cfg.MaxBytes*9/10 || list[len(list)-1].ID != idOf(n-2) {
		t.Fatalf("%d events, %+v, %v", len(list), st, err)
	}
	if stat, err := os.Stat(path); err != nil || stat.Size() > 3*cfg.MaxBytes {
		t.Errorf("a file of %d bytes for %d: %v", stat.Size(), cfg.MaxBytes, err)
	}
	if _, err := s.Get(t.Context(), idOf(0)); !errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
	if got, want := listed(t, s, "", idOf(0), 1), listed(t, s, "", "", 1); got != want || want == "" || want == "0" {
		t.Errorf("after one that has made room: %q, the oldest is %q", got, want)
	}
	ids := map[string]int{}
	must(t, s, func(tx *bbolt.Tx) {
		for _, name := range []string{buckets.events, buckets.ids, buckets.streams} {
			ids[name] = tx.Bucket([]byte(name)).Stats().KeyN
		}
	})
	if ids[buckets.events] != ids[buckets.ids] || ids[buckets.streams] != st.Events {
		t.Errorf("%v, %+v", ids, st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, Config{MaxBytes: 100_000, MaxAge: time.Hour})
	await(t, s, func(st Stats) bool { return st.Bytes <= 100_000 })
	if _, err := s.Get(t.Context(), list[len(list)-1].ID); err != nil {
		t.Error(err)
	}
}

// must reads the file of a store.
func must(t testing.TB, s *Store, read func(tx *bbolt.Tx)) {
	t.Helper()
	if _, err := view(t.Context(), s, func(tx *bbolt.Tx) bool { read(tx); return true }); err != nil {
		t.Fatal(err)
	}
}

// await waits until the store has written something that makes ok true.
func await(t testing.TB, s *Store, ok func(Stats) bool) {
	t.Helper()
	for !ok(s.Stats()) {
		if err := s.DeleteStream(t.Context(), "none"); err != nil { // waits its turn
			t.Fatal(err)
		}
	}
}

// TestMaxAge removes while it runs, much in several transactions.
func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		s := openStore(t, path, Config{MaxBytes: 1 << 30, MaxAge: time.Hour})
		var adding sync.WaitGroup
		for n := range 2*maxTrim + 10 {
			adding.Go(func() { mustAdd(t, s, eventOf("a", n)) })
		}
		adding.Wait()
		time.Sleep(30 * time.Minute) // of synctest
		mustAdd(t, s, eventOf("a", 5000))
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Events != 2*maxTrim+11 {
			t.Errorf("%+v", st)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Events != 1 {
			t.Errorf("%+v", st)
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if st := s.Stats(); st != (Stats{}) {
			t.Errorf("%+v", st)
		}
		mustAdd(t, s, eventOf("a", 5001))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		s = openStore(t, path, Config{MaxBytes: 1 << 30, MaxAge: time.Hour})
		synctest.Wait()
		if st := s.Stats(); st != (Stats{}) {
			t.Errorf("%+v", st)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestClock: events are in the order in which they came, whatever the clock does.
func TestClock(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	for n := range 3 {
		mustAdd(t, s, eventOf("a", n))
	}
	s.mu.Lock()
	s.totals.last += uint64(time.Hour) // as if the clock had been set back by an hour
	s.mu.Unlock()
	mustAdd(t, s, eventOf("a", 3))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, testConfig)
	mustAdd(t, s, eventOf("a", 4))
	if got := listed(t, s, "a", idOf(2), 10); got != "3 4" {
		t.Errorf("%q", got)
	}
}

// TestBurst: what comes while the disk is at work is written together.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, newPath(t), testConfig)
		mustAdd(t, s, eventOf("a", 0))
		transaction := func() (id int) {
			must(t, s, func(tx *bbolt.Tx) { id = tx.ID() })
			return id
		}
		before := transaction()
		inside, release := make(chan struct{}), make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() {
			_ = s.kept.Do(context.Background(), func() error { close(inside); <-release; return nil }, nil)
		})
		<-inside
		for n := range 64 {
			running.Go(func() { mustAdd(t, s, eventOf(fmt.Sprint("s", n), n+1)) })
		}
		synctest.Wait()
		close(release)
		running.Wait()
		if got := transaction() - before; got > 2 || s.Stats().Events != 65 {
			t.Errorf("%d transactions, %+v", got, s.Stats())
		}
	})
}

// TestStoreUnderLoad: while several add, read and delete, one that asks for what is newer than the last event it was told is told of
// each exactly once.
func TestStoreUnderLoad(t *testing.T) {
	const workers, each = 8, 40
	s := openStore(t, newPath(t), testConfig)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for i := range each {
				stream := []string{"a", "b"}[i%2]
				e := eventOf(stream, each*w+i)
				mustAdd(t, s, e)
				if got, err := s.Get(t.Context(), e.ID); err != nil || !reflect.DeepEqual(&got, e) {
					t.Errorf("%+v: %v", got, err)
				}
				if other := eventOf("other", 1000+each*w+i); i%10 == 0 {
					mustAdd(t, s, other)
					if err := errors.Join(s.Delete(t.Context(), other.ID), s.PutStream(t.Context(), stream, []byte(e.ID))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	told := map[string]bool{}
	for last := ""; len(told) < workers*each/2; {
		list, err := s.List(t.Context(), "a", last, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if last = e.ID; told[e.ID] || e.Stream != "a" {
				t.Fatalf("%s twice, or of %s", e.ID, e.Stream)
			}
			told[e.ID] = true
		}
	}
	running.Wait()
	if st := s.Stats(); st.Events != workers*each || st.Lost != "" {
		t.Errorf("%+v", st)
	}
}

// TestSlowDisk: callers get errors by their deadlines; what has not begun by then is not made.
func TestSlowDisk(t *testing.T) {
	s := openStore(t, newPath(t), testConfig)
	mustAdd(t, s, eventOf("a", 0))
	inside, release := make(chan struct{}), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		_ = s.kept.Do(context.Background(), func() error { close(inside); <-release; return nil }, nil)
	})
	<-inside
	impatient := errors.New("impatient")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(impatient)
	for n := range 3 {
		if err := s.Add(ended, eventOf("a", n+1)); !errors.Is(err, impatient) || !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	}
	if _, err := s.Get(ended, idOf(0)); !errors.Is(err, impatient) || !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	close(release)
	running.Wait()
	mustAdd(t, s, eventOf("a", 9))
	got := listed(t, s, "", "", 10)
	if begun := strings.TrimSuffix(strings.TrimPrefix(got, "0 "), "9"); begun != "" && !slices.Contains([]string{"1 ", "2 ", "3 "}, begun) {
		t.Errorf("%q, want one at most of those that did not wait, which had begun", got)
	}
}

// TestDamagedEvent costs only itself; a damaged definition is not to be overwritten.
func TestDamagedEvent(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	for n := range 5 {
		mustAdd(t, s, eventOf("a", n))
	}
	if err := errors.Join(s.PutStream(t.Context(), "a", []byte("the definition")), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole := read(t, path)
	write := func(old, changed string) {
		b := []byte(strings.ReplaceAll(string(whole), old, changed))
		if string(b) == string(whole) {
			t.Fatalf("no %q", old)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`"label\n2"`, `"label\n7"`)
	s = openStore(t, path, testConfig)
	if _, err := s.Get(t.Context(), idOf(2)); !errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), idOf(2)); !errors.Is(err, ErrNoEvent) {
		t.Error(err)
	}
	mustAdd(t, s, eventOf("a", 5))
	if got := listed(t, s, "a", idOf(2), 10) + "; " + listed(t, s, "", "", 10); got != "3 4 5; 0 1 3 4 5" {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path, Config{MaxBytes: 1 << 20, MaxAge: time.Nanosecond})
	await(t, s, func(st Stats) bool { return st == Stats{} })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write("the definition", "the definitiom")
	lost := read(t, path)
	if _, err := OpenStore(path, testConfig); !errors.Is(err, ErrLost) || !errors.Is(err, boltfile.ErrDamaged) || !strings.Contains(err.Error(), `"a"`) {
		t.Error(err)
	}
	if string(read(t, path)) != string(lost) {
		t.Error("it was changed")
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFilesThatCannotBeUsed stay as they are.
func TestFilesThatCannotBeUsed(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	for n := range 50 {
		mustAdd(t, s, eventOf("a", n))
	}
	if _, err := OpenStore(path, testConfig); !errors.Is(err, ErrLost) || !errors.Is(err, boltfile.ErrLocked) {
		t.Errorf("a locked file: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole := read(t, path)
	for name, b := range map[string][]byte{
		"text": []byte("text"), "empty": {}, "cut": whole[:len(whole)/2], "noise": append(slices.Repeat([]byte{7}, 4096), whole[4096:]...),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(path, testConfig); !errors.Is(err, ErrLost) || !errors.Is(err, boltfile.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if string(read(t, path)) != string(b) {
			t.Errorf("%s: it was changed", name)
		}
	}
}

// TestReplacedFile: nothing is written to a file that nobody will find again.
func TestReplacedFile(t *testing.T) {
	path := newPath(t)
	s := openStore(t, path, testConfig)
	mustAdd(t, s, eventOf("a", 0))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), eventOf("a", 1)); !errors.Is(err, ErrLost) || s.Stats().Lost == "" {
		t.Errorf("%v, %+v", err, s.Stats())
	}
	if got := listed(t, s, "", "", 10); got != "0" {
		t.Errorf("%q", got)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, together := range []int{1, 64} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			s := openStore(b, filepath.Join(b.TempDir(), FileName), Config{MaxBytes: 64 << 20, MaxAge: time.Hour})
			e := eventOf("a", 0)
			e.Vector, e.JPEG = make([]float32, 512), make([]byte, 3000)
			b.ReportAllocs()
			for b.Loop() {
				var adding sync.WaitGroup
				for range together {
					adding.Go(func() {
						e := *e
						e.ID = NewID()
						mustAdd(b, s, &e)
					})
				}
				adding.Wait()
			}
		})
	}
}
