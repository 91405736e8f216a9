package sets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name](os.Args[1:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func openStore(t testing.TB, path string) *File {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func closeStore(t testing.TB, s *File) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// recordOf is a set with examples, whose labels and texts depend on version.
func recordOf(name string, version, labels int) Record {
	r := Record{Name: name, Changed: time.Unix(int64(version), 5).UTC()}
	for i := range labels {
		r.Definition.Labels = append(r.Definition.Labels, Label{
			Name: fmt.Sprintf("%d of %s", i, name), Prompts: []string{fmt.Sprintf("prompt %d of version %d", i, version)},
			Examples: []Example{exampleOf(100*version+i, 50+10*i)},
		})
	}
	r.Definition = r.Definition.Normalized()
	return r
}

// keysOf returns the keys of a record's rows, and rows to go with them.
func keysOf(r Record) (keys []Key, rows map[Key][]float32) {
	rows = map[Key][]float32{}
	for i, e := range r.Definition.Entries(nil) {
		keys = append(keys, e.Key("encoder"))
		rows[keys[i]] = []float32{float32(i), float32(len(e.Name)), -1}
	}
	return keys, rows
}

func mustPut(t testing.TB, s *File, r Record) {
	t.Helper()
	keys, rows := keysOf(r)
	done := false
	if err := s.Put(t.Context(), r, keys, func() { done = true }); err != nil || !done {
		t.Fatalf("%v, %v", err, done)
	}
	if err := s.PutRows(t.Context(), r.Name, rows); err != nil {
		t.Fatal(err)
	}
}

// all returns every set of a store.
func all(ctx context.Context, s *File) (map[string]Record, error) {
	records := map[string]Record{}
	names, err := s.Names(ctx)
	for _, name := range names {
		r, getErr := s.Get(ctx, name)
		err = errors.Join(err, getErr)
		records[name] = r
	}
	return records, err
}

func mustHave(t testing.TB, s *File, want map[string]Record) {
	t.Helper()
	got, err := all(t.Context(), s)
	if !reflect.DeepEqual(want, got) || err != nil {
		t.Fatal(err, difference(want, got))
	}
}

// difference is cmp.Diff, which takes its time, in brief.
func difference(want, got any) string {
	return fmt.Sprintf("%.2000s", cmp.Diff(want, got, cmp.Comparer(func(a, b Bytes) bool { return bytes.Equal(a, b) })))
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", FileName)
	s := openStore(t, path)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is a file before there is a set: %v", err)
	}
	mustHave(t, s, map[string]Record{})
	for what, err := range map[string]error{
		"Delete":  s.Delete(t.Context(), "a", nil),
		"PutRows": s.PutRows(t.Context(), "a", nil),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is a file before there is a set: %v", err)
	}
	want := map[string]Record{}
	for i, name := range []string{"b", "a", "c-1.X_", "d"} {
		want[name] = recordOf(name, i+1, 5*i)
		mustPut(t, s, want[name])
	}
	want["b"] = Record{Name: "b", Definition: full(), Changed: time.Unix(7, 0).UTC()}
	mustPut(t, s, want["b"])
	want["d"] = recordOf("d", 9, 3)
	mustPut(t, s, want["d"])
	delete(want, "c-1.X_")
	if err := s.Delete(t.Context(), "c-1.X_", nil); err != nil {
		t.Fatal(err)
	}
	mustHave(t, s, want)
	closeStore(t, s)
	if _, err := s.Names(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	s = openStore(t, path)
	mustHave(t, s, want)
	for name, r := range want {
		_, rows := keysOf(r)
		if got, err := s.Rows(t.Context(), name); err != nil || cmp.Diff(rows, got) != "" {
			t.Errorf("%s: %v %v", name, err, cmp.Diff(rows, got))
		}
	}
	if _, err := s.Get(t.Context(), "c-1.X_"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	for _, name := range []string{"", Shared, "../a"} {
		if err := s.Put(t.Context(), Record{Name: name}, nil, nil); err == nil {
			t.Errorf("%q may be a name", name)
		}
		if _, err := s.Get(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for what, d := range map[string]Definition{
		"no vector":  {Labels: []Label{{Name: "a", Examples: []Example{{ID: ExampleID(nil)}}}}},
		"kept as ex": {Labels: []Label{{Name: "a", Images: []string{"x"}}}},
	} {
		if err := s.Put(t.Context(), Record{Name: "x", Definition: d}, nil, nil); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Mode() != 0o600 {
		t.Errorf("%v, %v", stat.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 1 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
}

// TestSharedExample: what two labels have in common is kept once, with the thumbnail that one of them has.
func TestSharedExample(t *testing.T) {
	vector := Bytes{0, 0, 128, 63}
	whole, bare := Example{ID: ExampleID(vector), Model: "m", Vector: vector, Thumbnail: Bytes("jpeg")}, Example{ID: ExampleID(vector), Model: "m", Vector: vector}
	for _, examples := range [][2]Example{{whole, bare}, {bare, whole}} {
		d := Definition{Labels: []Label{{Name: "a", Examples: examples[:1]}, {Name: "b", Examples: examples[1:]}}}.Normalized()
		items, err := Record{Name: "a", Definition: d}.items()
		if err != nil {
			t.Fatal(err)
		}
		got, err := assemble("a", items)
		if err != nil || !bytes.Equal(got.Definition.Labels[0].Examples[0].Thumbnail, whole.Thumbnail) {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

// Rows go with the last label that needs them, in the same change.
func TestRowsGoWithTheirLabels(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), FileName))
	r := recordOf("a", 1, 3)
	mustPut(t, s, r)
	_, rows := keysOf(r)
	r.Definition.Labels = r.Definition.Labels[1:]
	keys, kept := keysOf(r)
	if err := s.Put(t.Context(), r, keys, nil); err != nil {
		t.Fatal(err)
	}
	for key := range kept {
		kept[key] = rows[key]
	}
	if got, err := s.Rows(t.Context(), "a"); err != nil || len(got) != 2 || cmp.Diff(kept, got) != "" {
		t.Errorf("%v %v", err, cmp.Diff(kept, got))
	}
}

// A change writes little more than what has changed.
func TestSmallChangesAreSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	r := recordOf("a", 1, 1000)
	mustPut(t, s, r)
	before := read(t, path)
	r.Definition.Labels = slices.Clone(r.Definition.Labels)
	r.Definition.Labels[500].Prompts = []string{"another prompt"}
	keys, rows := keysOf(r)
	if err := s.Put(t.Context(), r, keys, nil); err != nil {
		t.Fatal(err)
	}
	after := read(t, path)
	put, size := changed(before, after), os.Getpagesize()
	if err := s.PutRows(t.Context(), "a", map[Key][]float32{keys[500]: rows[keys[500]]}); err != nil {
		t.Fatal(err)
	}
	row := changed(after, read(t, path))
	if t.Logf("%d and %d of %d pages were written", len(put), len(row), len(before)/size); len(put) > 20 || len(row) > 20 {
		t.Error("that is too much")
	}
	mustHave(t, s, map[string]Record{"a": r})
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changed returns the numbers of the pages in which after differs from before.
func changed(before, after []byte) (pages []int) {
	size := os.Getpagesize()
	for at := 0; at < len(after); at += size {
		old := make([]byte, size)
		copy(old, before[min(at, len(before)):])
		if string(old) != string(after[at:at+size]) {
			pages = append(pages, at/size)
		}
	}
	return pages
}

func TestTooMany(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), FileName))
	for i := range MaxSets {
		if err := s.Put(t.Context(), recordOf(fmt.Sprint(i), 1, 0), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), recordOf("more", 1, 0), nil, nil); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "5", nil); err != nil {
		t.Error(err)
	}
	if err := s.Put(t.Context(), recordOf("more", 1, 0), nil, nil); err != nil {
		t.Error(err)
	}
}

func TestFullFile(t *testing.T) {
	defer func(limit int64) { maxFileBytes = limit }(maxFileBytes)
	maxFileBytes = 256 << 10
	s := openStore(t, filepath.Join(t.TempDir(), FileName))
	want := map[string]Record{}
	for i := 0; ; i++ {
		r, called := recordOf(fmt.Sprint("set", i), i, 20), false
		err := s.Put(t.Context(), r, nil, func() { called = true })
		if errors.Is(err, ErrFull) && !called {
			break
		} else if err != nil || !called {
			t.Fatal(err)
		}
		want[r.Name] = r
	}
	mustHave(t, s, want)
	less := want["set0"]
	less.Definition.Labels = less.Definition.Labels[:10]
	mustPut(t, s, less)
	want["set0"] = less
	if err := s.Delete(t.Context(), "set1", nil); err != nil {
		t.Fatal(err)
	}
	delete(want, "set1")
	mustPut(t, s, recordOf("last", 1, 15))
	want["last"] = recordOf("last", 1, 15)
	mustHave(t, s, want)
}

func TestFileOfAnother(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	s := openStore(t, path)
	mustPut(t, s, recordOf("a", 1, 2))
	for range 2 {
		if _, err := Open(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path+": locked by a running service") {
			t.Fatal(err)
		}
		if _, err := OpenReadOnly(path); !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	first, err := OpenReadOnly(path)
	second, err2 := OpenReadOnly(path)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	mustHave(t, first, map[string]Record{"a": recordOf("a", 1, 2)})
	if err := second.Put(t.Context(), recordOf("b", 1, 1), nil, nil); err == nil || err.Error() != "the prompt sets were opened to be read only" {
		t.Error(err)
	}
	closeStore(t, first)
	closeStore(t, second)
	if _, err := OpenReadOnly(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}

	// Two that have found no file: one of them makes it.
	path += "2"
	one, two := openStore(t, path), openStore(t, path)
	mustPut(t, one, recordOf("a", 1, 2))
	for range 2 {
		if err := two.Put(t.Context(), recordOf("b", 1, 1), nil, nil); !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
		mustHave(t, two, map[string]Record{})
	}
	mustHave(t, one, map[string]Record{"a": recordOf("a", 1, 2)})

	// A file that was deleted keeps nothing.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := one.Put(t.Context(), recordOf("b", 1, 1), nil, nil); err == nil || !strings.Contains(err.Error(), "was deleted or replaced") {
		t.Error(err)
	}
}

func TestWhatIsNoFileOfOurs(t *testing.T) {
	dir := t.TempDir()
	mustPut(t, openStore(t, filepath.Join(dir, "real")), recordOf("a", 1, 2))
	for name, make := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"text":      func(path string) error { return os.WriteFile(path, []byte("text"), 0o600) },
		"zeros":     func(path string) error { return os.WriteFile(path, make([]byte, 1<<16), 0o600) },
		"a folder":  func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link":    func(path string) error { return os.Symlink("real", path) },
		"a loop":    func(path string) error { return os.Symlink(filepath.Base(path), path) },
		"unlinked":  func(path string) error { return os.Symlink("nowhere", path) },
		"of bbolt":  func(path string) error { return os.WriteFile(path, otherBolt(t), 0o600) },
		"no folder": func(path string) error { return os.WriteFile(filepath.Dir(path)+"-x", nil, 0o600) },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if name == "no folder" {
			path = filepath.Dir(path) + "-x/file"
		}
		contents := func() (b []byte) {
			if stat, err := os.Stat(path); err == nil && stat.Mode().IsRegular() {
				b = read(t, path)
			}
			return b
		}
		before := contents()
		for range 2 {
			if s, err := Open(path); err == nil {
				t.Errorf("%s: was opened", name)
				closeStore(t, s)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: does not name the file: %v", name, err)
			}
		}
		if string(contents()) != string(before) {
			t.Errorf("%s: was changed", name)
		}
	}
}

// otherBolt is a file of bbolt with other content.
func otherBolt(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	mustPut(t, s, recordOf("a", 1, 1))
	if err := s.kept.Change(t.Context(), nil, nil, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(Shared)) }); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	return read(t, path)
}

// While the disk hangs callers get errors by their deadlines, and what is written in the end is told in order.
func TestSlowDisk(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), FileName))
	mustPut(t, s, recordOf("a", 1, 1))
	inside, release := make(chan struct{}), make(chan struct{})
	told := make(chan string, 2)
	ctx, cancel := context.WithCancelCause(t.Context())
	impatient := errors.New("impatient")
	go func() {
		<-inside
		cancel(impatient)
	}()
	err := s.kept.Do(ctx, func() error { close(inside); <-release; return nil }, func() { told <- "first" })
	if !errors.Is(err, impatient) {
		t.Error(err)
	}
	if err := s.Put(ctx, recordOf("b", 1, 1), nil, func() { told <- "never" }); !errors.Is(err, impatient) {
		t.Error(err)
	}
	if err := s.Close(ctx); !errors.Is(err, impatient) {
		t.Error(err)
	}
	close(release)
	if err := s.Put(t.Context(), recordOf("c", 1, 1), nil, func() { told <- "second" }); err != nil {
		t.Error(err)
	}
	if got := <-told + " " + <-told; got != "first second" {
		t.Error(got)
	}
	mustHave(t, s, map[string]Record{"a": recordOf("a", 1, 1), "c": recordOf("c", 1, 1)})
}

func TestPanicOfTheCaller(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), FileName))
	if err := s.Put(t.Context(), recordOf("a", 1, 1), nil, func() { panic("oops") }); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Error(err)
	}
	mustHave(t, s, map[string]Record{"a": recordOf("a", 1, 1)})
}

// A file that is cut off while it is in use is an error, and not the end of the process.
func TestCutWhileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	mustPut(t, s, recordOf("a", 1, 100))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if err := s.Put(t.Context(), recordOf("b", 1, 1), nil, nil); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	closeStore(t, s)
}

// A set that is damaged spoils the file, but the others can be read for an export.
func TestDamagedSet(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	want := map[string]Record{}
	for i := range 5 {
		name := fmt.Sprint("set", i)
		want[name] = recordOf(name, i, 4)
		mustPut(t, s, want[name])
	}
	closeStore(t, s)
	b := read(t, path)
	at := strings.LastIndex(string(b), "prompt 2 of version 3")
	b[at]++
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrDamaged) || !strings.HasSuffix(err.Error(), "damaged: prompt set set3: label 2 is lost") {
		t.Fatal(err)
	}
	s, err := OpenReadOnly(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(t.Context(), s)
	if !errors.Is(err, ErrDamaged) || !strings.HasSuffix(err.Error(), "damaged: prompt set set3: label 2 is lost") {
		t.Error(err)
	}
	delete(want, "set3")
	maps.DeleteFunc(got, func(_ string, r Record) bool { return r.Name == "" })
	if !reflect.DeepEqual(want, got) {
		t.Error(difference(want, got))
	}
	closeStore(t, s)
}

// TestSharedRows come back after a restart, beside sets and without any, and go when nobody wants them.
func TestSharedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := Key{1}, Key{2}
	s := openStore(t, path)
	must(s.KeepRows(t.Context(), nil))
	must(s.PutRows(t.Context(), Shared, map[Key][]float32{a: {1, 2}}))
	closeStore(t, s)
	s = openStore(t, path)
	d := Definition{Labels: []Label{{Name: "x"}}}.Normalized()
	must(s.Put(t.Context(), Record{Name: "x", Definition: d}, nil, nil))
	must(s.PutRows(t.Context(), Shared, map[Key][]float32{b: {3}}))
	closeStore(t, s)
	s = openStore(t, path)
	if names, err := s.Names(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"x"}) {
		t.Errorf("%q: %v", names, err)
	}
	if rows, err := s.Rows(t.Context(), Shared); err != nil || !reflect.DeepEqual(rows, map[Key][]float32{a: {1, 2}, b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
	must(s.KeepRows(t.Context(), []Key{b}))
	must(s.Delete(t.Context(), "x", nil))
	closeStore(t, s)
	s = openStore(t, path)
	if rows, err := s.Rows(t.Context(), Shared); err != nil || !reflect.DeepEqual(rows, map[Key][]float32{b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
}
