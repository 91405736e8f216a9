package bulk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRun: images, equal ones, broken ones, and a second pass that opens nothing.
func TestRun(t *testing.T) {
	b := newBench(t)
	for i := range 1000 {
		b.write(fmt.Sprintf("%02d/%d.jpg", i%7, i), fmt.Sprint("image ", i%900)) // 100 are there twice
	}
	b.write("bad.jpg", "bad")
	b.write("worse/bad.jpg", "bad")
	s := b.mustRun(nil)
	b.check()
	want := Counts{Stored: 1000, Failed: 2, Images: 901, Passes: 1, Complete: true}
	if s.Counts != want || s.Rows != 1002 || s.Encoded != 901 || s.Seen != 1002 || !s.Enumerated {
		t.Errorf("%+v", s)
	}
	if n := b.calls.Load(); n != 901 {
		t.Errorf("%d images are encoded, not 901", n)
	}
	before := b.rows()
	b.job.Source = mustNotOpen{folder(b.dir)}
	s = b.mustRun(nil)
	if want.Passes++; s.Counts != want || s.Unchanged != 1002 || s.Rows != 0 || len(b.rows()) != len(before) {
		t.Errorf("second pass: %+v", s)
	}
	if v := b.verified(false); !v.Good(false) || v.Rows != 1002 {
		t.Errorf("%+v", v)
	}
}

// mustNotOpen is a source whose items cannot be opened.
type mustNotOpen struct{ folder }

func (s mustNotOpen) Each(ctx context.Context, found func(Item) error) error {
	return s.folder.Each(ctx, func(i Item) error {
		i.Open = func(context.Context) ([]byte, error) { panic(i.Path + " is opened") }
		return found(i)
	})
}

// TestEqualContentLater: what was stored in a former run is not encoded again for another path.
func TestEqualContentLater(t *testing.T) {
	b := newBench(t)
	for i := range 600 {
		b.write(fmt.Sprint("a/", i), fmt.Sprint(i))
	}
	b.write("a/bad", "bad")
	b.mustRun(nil)
	for i := range 600 {
		b.write(fmt.Sprint("b/", i), fmt.Sprint(i))
	}
	b.write("b/bad", "bad")
	b.calls.Store(0)
	if s := b.mustRun(nil); s.Encoded != 0 || s.Rows != 601 || b.calls.Load() != 0 {
		t.Errorf("%+v", s)
	}
	b.check()
}

// TestChangedAndVanished: the row of what was is replaced; that of what is gone stays, unless it is to be pruned.
func TestChangedAndVanished(t *testing.T) {
	b := newBench(t)
	for i := range 300 {
		b.write(fmt.Sprint(i), fmt.Sprint("image ", i))
	}
	b.mustRun(nil)
	b.write("7", "image 7, changed")
	b.write("8", "bad now")
	b.write("9", "image 10") // as another one
	for i := range 3 {
		b.later(fmt.Sprint(7+i), i)
	}
	b.later("20", 5) // only its time
	s := b.mustRun(nil)
	b.check()
	if s.Rows != 3 || s.Replaced != 0 || s.Paths() != 300 || s.Failed != 1 || s.Unchanged != 296 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"7", "8", "30", "31"} {
		if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if s = b.mustRun(nil); s.Vanished != 4 || s.Rows != 0 || len(b.rows()) != 300 {
		t.Errorf("vanished: %+v", s)
	}
	s = b.mustRun(func(j *Job) { j.Prune = true })
	b.check()
	if s.Vanished != 0 || s.Paths() != 296 || len(b.rows()) != 296 {
		t.Errorf("pruned: %+v", s)
	}
	b.calls.Store(0)
	b.write("new", "image 99") // whose row has moved
	b.mustRun(nil)
	b.check()
	if b.calls.Load() != 0 {
		t.Error("what is stored is encoded again after rows were cut out")
	}
}

// TestThereAndBack: a file that is changed back before its old row is taken away.
func TestThereAndBack(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.write("b", "other")
	b.mustRun(nil)
	b.write("a", "two")
	b.later("a", 1)
	fail := errors.New("no finish")
	if _, err := b.run(func(j *Job) { j.Sink = &failing{NDJSON: j.Sink.(*NDJSON), finish: fail} }); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	b.write("a", "one")
	b.later("a", 2)
	b.mustRun(nil)
	b.check()
}

// failing is a sink that fails.
type failing struct {
	*NDJSON
	put    func(rows []Row) error
	finish error
}

func (f *failing) Put(ctx context.Context, rows []Row) error {
	if f.put != nil {
		if err := f.put(rows); err != nil {
			return err
		}
	}
	return f.NDJSON.Put(ctx, rows)
}

func (f *failing) Finish(ctx context.Context) error {
	if f.finish != nil {
		return f.finish
	}
	return f.NDJSON.Finish(ctx)
}

// TestSinkFails: before, in the midst of, and after it has taken rows. The next run completes.
func TestSinkFails(t *testing.T) {
	full := errors.New("no space left")
	for name, put := range map[string]func(b *bench, n int) func(*NDJSON, []Row) error{
		"before": func(_ *bench, n int) func(*NDJSON, []Row) error {
			return func(*NDJSON, []Row) error {
				if n--; n < 0 {
					return full
				}
				return nil
			}
		},
		"half": func(b *bench, n int) func(*NDJSON, []Row) error {
			return func(s *NDJSON, rows []Row) error {
				if n--; n < 0 {
					_ = s.Put(context.Background(), rows[:len(rows)/2])
					return full
				}
				return nil
			}
		},
		"after": func(b *bench, n int) func(*NDJSON, []Row) error {
			return func(s *NDJSON, rows []Row) error {
				if n--; n < 0 {
					_ = s.Put(context.Background(), rows)
					return full
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for i := range 1500 {
				b.write(fmt.Sprint(i), fmt.Sprint("image ", i%1400))
			}
			for n := range 3 {
				fail := put(b, n)
				if _, err := b.run(func(j *Job) {
					s := j.Sink.(*NDJSON)
					j.Sink = &failing{NDJSON: s, put: func(rows []Row) error { return fail(s, rows) }}
				}); !errors.Is(err, full) {
					t.Fatal(n, err)
				}
			}
			b.mustRun(nil)
			b.check()
		})
	}
}

// TestOtherJob: a journal does not go on with another model, output or kind of rows.
func TestOtherJob(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.mustRun(nil)
	for says, change := range map[string]func(*Job){
		"model":   func(j *Job) { j.Encoder = named{j.Encoder.(*Direct), "other", testDigest} },
		"version": func(j *Job) { j.Encoder = named{j.Encoder.(*Direct), "model", "fedcba9876543210"} },
		"source":  func(j *Job) { j.Source = folder(t.TempDir()) },
		"sink":    func(j *Job) { j.Name = "elsewhere" },
		"rows":    func(j *Job) { j.What = "prompts" },
	} {
		if _, err := b.run(change); !errors.Is(err, ErrOtherJob) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	b.mustRun(nil)
	b.check()
}

type named struct {
	*Direct
	model, digest string
}

func (n named) Model() string  { return n.model }
func (n named) Digest() string { return n.digest }

// TestOutputAndJournalDisagree: nothing is overwritten that the journal does not know, and what is lost is said.
func TestOutputAndJournalDisagree(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	if err := os.WriteFile(b.out, []byte("precious\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run(nil); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Error(err)
	}
	if text, _ := os.ReadFile(b.out); string(text) != "precious\n" {
		t.Errorf("%q", text)
	}
	_ = os.Remove(b.out)
	_ = os.Remove(b.out + ".journal")
	b.mustRun(nil)
	if err := os.Truncate(b.out, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run(nil); err == nil || !strings.Contains(err.Error(), "others have changed it") {
		t.Error(err)
	}
}

// TestVerify finds what is missing, double and foreign, and has the missing ones made again.
func TestVerify(t *testing.T) {
	b := newBench(t)
	for i := range 50 {
		b.write(fmt.Sprint(i), fmt.Sprint(i))
	}
	b.mustRun(nil)
	lines := strings.SplitAfter(strings.TrimSuffix(string(must(os.ReadFile(b.out))), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	lines[3] = lines[5] // one double, one missing
	lines = append(lines, `{"key":"k","path":"elsewhere","model":"m"}`+"\n")
	if err := os.WriteFile(b.out, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	v := b.verified(false)
	if v.Rows != 51 || v.Expected != 50 || v.Missing != 1 || v.Double != 1 || v.Foreign != 1 || v.Good(false) || len(v.Examples) != 3 {
		t.Errorf("%+v", v)
	}
}

// TestRepair: whatever has happened to rows in a file, a repair and a run make them again, and only those.
func TestRepair(t *testing.T) {
	for name, damage := range map[string]func(lines []string) []string{
		"a lost one":      func(l []string) []string { return slices.Delete(l, 7, 8) },
		"many lost ones":  func(l []string) []string { return l[:3] },
		"all lost":        func([]string) []string { return nil },
		"a double one":    func(l []string) []string { return append(l, l[5]) },
		"one first, too":  func(l []string) []string { return append([]string{l[5]}, l...) },
		"three of one":    func(l []string) []string { return append(l, l[5], l[5]) },
		"one for another": func(l []string) []string { l[3] = l[5]; return l },
		"no end":          func(l []string) []string { l[42] = l[42][:20]; return l },
		"no end of few":   func(l []string) []string { return append(slices.Delete(l, 2, 4), l[9][:20]) },
		"of equal images": func(l []string) []string {
			return slices.DeleteFunc(l, func(s string) bool { return strings.Contains(s, `"again`) })
		},
		"turned": func(l []string) []string { slices.Reverse(l); return l },
		"with an error": func(l []string) []string {
			return slices.DeleteFunc(l, func(s string) bool { return strings.Contains(s, `"error"`) })
		},
	} {
		for _, classified := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, classified), func(t *testing.T) {
				b := newBench(t)
				for i := range 40 {
					b.write(fmt.Sprint(i), fmt.Sprint(i))
				}
				b.write("again1", "7")
				b.write("again2", "7")
				b.write("none", "bad")
				if classified {
					b.job.What, b.job.Score = "labels", func(v []float32) []Match { return []Match{{Label: "first", Score: float64(v[0])}} }
				}
				b.mustRun(nil)
				byPath := func() map[string]Row {
					all := map[string]Row{}
					for _, r := range b.rows() {
						all[r.Path] = r
					}
					return all
				}
				before := byPath()
				lines := slices.Collect(strings.Lines(string(must(os.ReadFile(b.out)))))
				if err := os.WriteFile(b.out, []byte(strings.Join(damage(lines), "")), 0o644); err != nil {
					t.Fatal(err)
				}
				found := b.verified(false)
				if found.Good(false) != (name == "turned") || found.Cut != strings.HasPrefix(name, "no end") {
					t.Errorf("%+v", found)
				}
				if again := b.verified(true); !reflect.DeepEqual(again, found) {
					t.Errorf("%+v, and at the repair %+v", found, again)
				}
				calls := b.calls.Load()
				b.mustRun(nil)
				if v := b.verified(false); !v.Good(false) || len(b.rows()) != 43 || !reflect.DeepEqual(before, byPath()) {
					t.Errorf("%+v, %d rows", v, len(b.rows()))
				}
				most := found.Missing + found.Double
				if name == "one first, too" { // the last row is cut off, where that is as long
					most++
				}
				if n := b.calls.Load() - calls; n > most {
					t.Errorf("%d images encoded, %+v", n, found)
				}
				b.write("41", "more") // rows are where the journal thinks
				b.write("again3", "7")
				calls = b.calls.Load()
				if b.mustRun(nil); b.calls.Load() != calls+1 || !b.verified(false).Good(false) {
					t.Errorf("%d more calls", b.calls.Load()-calls)
				}
			})
		}
	}
}

// TestVerifyStale: rows of what has changed or vanished are no others' while they wait to be taken away, and a repair takes them away at once.
func TestVerifyStale(t *testing.T) {
	b := newBench(t)
	for i := range 10 {
		b.write(fmt.Sprint(i), fmt.Sprint(i))
	}
	b.mustRun(nil)
	b.write("3", "changed")
	if err := os.Remove(filepath.Join(b.dir, "4")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := b.run(func(j *Job) { j.Prune, j.Sink = true, &failing{NDJSON: j.Sink.(*NDJSON), finish: broken} }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	for _, repair := range []bool{false, true} {
		if v := b.verified(repair); v.Rows != 11 || v.Expected != 9 || v.Stale != 2 || v.Missing+v.Double+v.Foreign+v.Waiting != 0 || v.Good(true) {
			t.Errorf("%+v", v)
		}
	}
	b.check()
	b.mustRun(nil)
	if v := b.verified(false); !v.Good(false) || v.Rows != 9 {
		t.Errorf("%+v", v)
	}
	b.check()
}

// losing is an encoder that loses what is sent to it for the first time, but says when it is idle.
type losing struct {
	*Direct
	sent map[string]bool
	lost atomic.Int64
}

func (l *losing) Send(ctx context.Context, key string, image []byte) error {
	if !l.sent[key] {
		l.sent[key] = true
		l.lost.Add(1)
		return nil
	}
	return l.Direct.Send(ctx, key, image)
}

// TestLostImages are sent again, also when more are lost than may be under way.
func TestLostImages(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.write(fmt.Sprint(i), fmt.Sprint(i))
	}
	s := b.mustRun(func(j *Job) {
		j.Window = 15
		j.Encoder = &losing{Direct: j.Encoder.(*Direct), sent: map[string]bool{}}
	})
	b.check()
	if s.Passes != 2 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// former is an encoder that has results of a former process.
type former struct {
	*Direct
	results chan Result
}

func (f *former) Results() <-chan Result { return f.results }
func (f *former) Send(ctx context.Context, key string, image []byte) error {
	f.results <- Result{Key: key, Vector: vectorOf(image), Stored: func() {}}
	return nil
}

// TestForeignAndDoubleResults: what is not of this job, comes twice or makes no sense is let go, and told so.
func TestForeignAndDoubleResults(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	let := 0
	key := Key([]byte("one"), testDigest)
	f := &former{testEncoder(t, &b.calls), make(chan Result, 16)}
	for _, r := range []Result{
		{Key: "", Vector: vectorOf([]byte("one"))}, {Key: strings.Repeat("x", len(key)), Error: "bad"},
		{Key: key, Vector: []float32{1, 2}}, {Key: key, Vector: make([]float32, testDim)}, {Key: Key([]byte("other"), testDigest), Vector: vectorOf(nil)},
	} {
		r.Stored = func() { let++ }
		f.results <- r
	}
	b.mustRun(func(j *Job) { j.Encoder = f })
	b.check()
	if let != 5 {
		t.Errorf("%d of 5 results are let go", let)
	}
}

// TestUnreadable is a row with an error, which is tried again in the next run and then replaced.
func TestUnreadable(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.write("b", "two")
	refuse := func(j *Job) { j.Source = refusing{folder(b.dir)} }
	for range 2 {
		if s := b.mustRun(refuse); s.Unreadable != 1 || s.Stored != 1 || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		rows := b.rows()
		if i := slices.IndexFunc(rows, func(r Row) bool { return r.Path == "a" }); len(rows) != 2 || rows[i].Error != "refused" || !strings.HasPrefix(rows[i].Key, strings.Repeat("0", 32)+".") {
			t.Errorf("%+v", rows)
		}
	}
	b.mustRun(nil)
	b.check()
}

// dead is an encoder that gives up "a", though it may be none of the image's fault.
type dead struct{ *former }

func (d dead) Send(ctx context.Context, key string, image []byte) error {
	if key == Key([]byte("one"), testDigest) {
		d.results <- Result{Key: key, Error: "not encoded", Again: true}
		return nil
	}
	return d.former.Send(ctx, key, image)
}

// TestNotEncoded is a row with an error for each path of the image, and they are tried again in the next run and then replaced.
func TestNotEncoded(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.write("b", "two")
	b.write("c", "one")
	for range 2 {
		s := b.mustRun(func(j *Job) { j.Encoder = dead{&former{testEncoder(t, &b.calls), make(chan Result, 16)}} })
		if s.Unreadable != 2 || s.Stored != 1 || s.Failed != 0 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		bad := 0
		rows := b.rows()
		for _, r := range rows {
			if r.Error == "not encoded" && strings.HasPrefix(r.Key, strings.Repeat("0", 32)+".") {
				bad++
			}
		}
		if len(rows) != 3 || bad != 2 {
			t.Errorf("%+v", rows)
		}
	}
	b.mustRun(nil)
	b.check()
}

// refusing does not open "a".
type refusing struct{ folder }

func (s refusing) Each(ctx context.Context, found func(Item) error) error {
	return s.folder.Each(ctx, func(i Item) error {
		if i.Path == "a" {
			i.Open = func(context.Context) ([]byte, error) { return nil, errors.New("refused") }
		}
		return found(i)
	})
}

// TestCanceled: what is ready is stored, and the next run goes on.
func TestCanceled(t *testing.T) {
	b := newBench(t)
	for i := range 1000 {
		b.write(fmt.Sprint(i), fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stop")
	j, s := must(OpenJournal(b.out+".journal", true)), must(OpenNDJSON(b.out))
	job := b.job
	job.Journal, job.Sink, job.Name, job.Encoder = j, s, "out", testEncoder(t, &b.calls)
	job.Progress = func(s Status) {
		if s.Rows > 0 {
			cancel(stop)
		}
	}
	status, err := Run(ctx, job)
	if !errors.Is(err, stop) || status.Rows == 0 || status.Rows == 1000 {
		t.Fatal(status, err)
	}
	if err := errors.Join(s.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if got := int64(len(b.rows())); got != status.Rows {
		t.Errorf("%d rows, not %d", got, status.Rows)
	}
	b.calls.Store(0)
	b.mustRun(nil)
	b.check()
	if n := b.calls.Load(); n != 1000-status.Rows {
		t.Errorf("%d are encoded again, not %d", n, 1000-status.Rows)
	}
}

// TestPanics end one item each.
func TestPanics(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a", "b", "c"} {
		b.write(name, name)
	}
	s := b.mustRun(func(j *Job) {
		j.Source = panicking{folder(b.dir)}
		j.Encoder = NewDirect("model", testDigest, 2, func(_ context.Context, image []byte) ([]float32, []Match, error) {
			if string(image) == "b" {
				panic("b")
			}
			return vectorOf(image), nil, nil
		})
		t.Cleanup(func() { _ = j.Encoder.Close(context.Background()) })
	})
	if s.Stored != 1 || s.Failed != 1 || s.Unreadable != 1 {
		t.Errorf("%+v", s)
	}
}

type panicking struct{ folder }

func (s panicking) Each(ctx context.Context, found func(Item) error) error {
	return s.folder.Each(ctx, func(i Item) error {
		if i.Path == "a" {
			i.Open = func(context.Context) ([]byte, error) { panic("a") }
		}
		return found(i)
	})
}

// TestPrepare: the encoder gets what is made of an image, whose key and row stay its own. What is wrong with it is its error, or tried again.
func TestPrepare(t *testing.T) {
	b := newBench(t)
	for name, text := range map[string]string{"a": "one", "b": "two", "c": "one", "d": "bad", "e": "panic", "f": "away", "g": "wrong"} {
		b.write(name, text)
	}
	var away atomic.Bool
	away.Store(true)
	prepare := func(j *Job) {
		j.Prepare = func(_ context.Context, image []byte) ([]byte, error) {
			switch string(image) {
			case "wrong":
				return nil, fmt.Errorf("%w: it is wrong", ErrImage)
			case "panic":
				panic("what an image can do")
			case "away":
				if away.Load() {
					return nil, errors.New("no memory")
				}
			}
			return append([]byte(string(image[:3])), " smaller"...), nil
		}
	}
	if s := b.mustRun(prepare); s.Stored != 3 || s.Failed != 3 || s.Unreadable != 1 || s.Encoded != 5 || b.calls.Load() != 3 {
		t.Errorf("%+v, %d calls", s, b.calls.Load())
	}
	why := map[string]string{}
	j := must(OpenJournal(b.out+".journal", false))
	err := errors.Join(j.Failures(9, func(path, text string) { why[path] = text }), j.Close())
	if err != nil || len(why) != 4 || !strings.Contains(why["f"], "read or encoded") || !strings.Contains(why["g"], "it is wrong") {
		t.Errorf("%v, %q", err, why)
	}
	away.Store(false)
	if s := b.mustRun(prepare); s.Stored != 4 || s.Failed != 3 || s.Unreadable != 0 {
		t.Errorf("%+v", s)
	}
	for _, r := range b.rows() {
		text := string(must(os.ReadFile(filepath.Join(b.dir, r.Path))))
		wrong := map[string]string{"bad": "it is bad", "panic": "panic: what an image can do", "wrong": "it is wrong"}[text]
		switch {
		case r.Key != Key([]byte(text), testDigest), (r.Error != "") != (wrong != ""), !strings.Contains(r.Error, wrong):
			t.Errorf("%+v", r)
		case wrong == "" && !slices.Equal(r.Embedding, vectorOf([]byte(text[:3]+" smaller"))):
			t.Errorf("%s: the vector of another image", r.Path)
		}
	}
	if v := b.verified(false); !v.Good(false) {
		t.Errorf("%+v", v)
	}
}
