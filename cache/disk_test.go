package cache

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"hailoclip/cache/boltfile"
	"hailoclip/pipeline/fair"
)

const longPrompt = "a prompt that is so long that the encoder of these tests calls it truncated, which takes 78 bytes"

func TestConfigPath(t *testing.T) {
	for name, tt := range map[string]struct {
		enabled              bool
		file, stateDir, want string
	}{
		"in the state folder": {true, "a.db", "/state", "/state/a.db"},
		"absolute":            {true, "/elsewhere/a.db", "/state", "/elsewhere/a.db"},
		"no state folder":     {true, "a.db", "", ""},
		"no file":             {true, "", "/state", ""},
		"disabled":            {false, "/elsewhere/a.db", "/state", ""},
	} {
		if got := (Config{CacheEnabled: tt.enabled, CacheFile: tt.file}).Path(tt.stateDir); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestRestartEncodesNothing(t *testing.T) {
	dir := t.TempDir()
	prompts := append(promptList("cat", 300), longPrompt)
	for run := range 3 {
		s, log := openStore(t, testConfig(), dir)
		f := newFake("ns")
		mustGet(t, embeddings(t, s, f), prompts...)
		if want := len(prompts) * max(0, 1-run); f.count() != want {
			t.Fatalf("run %d: %d prompts encoded, want %d", run, f.count(), want)
		}
		closeStore(t, s)
		if d := s.Stats().Disk; d.State != DiskOK || d.Vectors != int64(len(prompts)) || log.warnings() != 0 {
			t.Fatalf("run %d: %+v, %d warnings", run, d, log.warnings())
		}
	}
}

// The file is as commit 4810cdc left it, with the vectors of two encoders.
func TestFileOfAnOlderVersion(t *testing.T) {
	packed, err := os.Open("testdata/text-embeddings-4810cdc.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, testConfig().CacheFile), file)
	s, log := openStore(t, testConfig(), dir)
	npu, cpu := newFake("npu"), newFake("cpu")
	mustGet(t, embeddings(t, s, npu), promptList("cat", 20)...)
	mustGet(t, embeddings(t, s, cpu), append(promptList("cat", 5), longPrompt)...)
	if d := s.Stats().Disk; npu.count() != 0 || cpu.count() != 0 || d.Vectors != 26 || d.State != DiskOK || log.warnings() != 0 {
		t.Errorf("%d and %d encoded, %d warnings: %+v", npu.count(), cpu.count(), log.warnings(), d)
	}
}

// Vectors are found on disk, and before they are written there, also when memory has no room.
func TestQueuedVectorsAreFound(t *testing.T) {
	config := testConfig()
	config.CacheMaxEntries = 1
	_, te, f := openAll(t, config, t.TempDir())
	prompts := promptList("cat", 100)
	for range 5 {
		for _, prompt := range prompts {
			mustGet(t, te, prompt)
		}
	}
	if f.count() != len(prompts) {
		t.Fatalf("%d prompts encoded, want %d", f.count(), len(prompts))
	}
}

// usable opens the file in dir, whatever was done to it, and checks that the right vectors come
// out, from it or from the encoder.
func usable(t *testing.T, dir string, n int) (DiskStats, *logBuffer, *fakeEncoder) {
	t.Helper()
	s, log := openStore(t, testConfig(), dir)
	f := newFake("ns")
	te := embeddings(t, s, f)
	mustGet(t, te, promptList("cat", n)...)
	mustGet(t, te, promptList("dog", n)...) // new ones, so that it is written to as well
	closeStore(t, s)
	return s.Stats().Disk, log, f
}

func TestDamagedFile(t *testing.T) {
	const vectors = 120
	whole, err := os.ReadFile(fill(t, t.TempDir(), vectors))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	zero := func(from, to int) func(b []byte) []byte {
		return func(b []byte) []byte { clear(b[from:to]); return b }
	}
	garbage := func(from, to int) func(b []byte) []byte {
		return func(b []byte) []byte {
			random := rand.New(rand.NewPCG(uint64(from), uint64(to)))
			for i := from; i < to; i++ {
				b[i] = byte(random.Uint32())
			}
			return b
		}
	}
	each := func(kind uint16, change func(b []byte)) func(b []byte) []byte { // page of the kind
		return func(b []byte) []byte {
			for at := 0; at < len(b); at += page {
				if binary.LittleEndian.Uint16(b[at+8:]) == kind {
					change(b[at:])
				}
			}
			return b
		}
	}
	cases := map[string]func(b []byte) []byte{
		"pages that lie below themselves": each(boltfile.BranchPage, func(b []byte) { copy(b[24:32], b) }),
		"an endless list of free pages":   each(boltfile.FreelistPage, func(b []byte) { copy(b[10:], "\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01") }),
		"both meta pages zero":            zero(0, 2*page),
		"one meta page zero":              zero(page, 2*page),
		"all zero":                        zero(0, len(whole)),
		"all garbage":                     garbage(0, len(whole)),
		"a text file":                     func([]byte) []byte { return []byte("this is no database\n") },
	}
	used := len(bytes.TrimRight(whole, "\x00"))/page + 1 // pages that hold anything
	for n := range used + 1 {
		cases[fmt.Sprintf("page %d zero", n)] = zero(n*page, (n+1)*page)
		cases[fmt.Sprintf("page %d garbage", n)] = garbage(n*page, (n+1)*page)
		for _, at := range []int{n * page, n*page + 100} {
			cases[fmt.Sprintf("truncated to %d", at)] = func(b []byte) []byte { return b[:at] }
		}
	}
	for seed := range 60 {
		cases[fmt.Sprintf("bits flipped, seed %d", seed)] = func(b []byte) []byte {
			random := rand.New(rand.NewPCG(1, uint64(seed)))
			for range 1 + random.IntN(20) {
				b[random.IntN(used*page)] ^= 1 << random.IntN(8)
			}
			return b
		}
	}
	aside := 0
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, testConfig().CacheFile)
			writeFile(t, path, damage(bytes.Clone(whole)))
			stats, log, f := usable(t, dir, vectors)
			if len(asides(path)) == 0 {
				if strings.HasSuffix(name, "selves") || strings.HasPrefix(name, "an endless") {
					t.Error("it is used")
				}
				return
			}
			aside++
			if stats.Reason == "" || log.warnings() == 0 || f.count() != 2*vectors {
				t.Errorf("set aside: %+v, %d warnings, %d encoded", stats, log.warnings(), f.count())
			}
			if stats, log, f := usable(t, dir, vectors); f.count() != 0 || log.warnings() != 0 || stats.State != DiskOK {
				t.Errorf("the file started anew: %+v, %d warnings, %d encoded", stats, log.warnings(), f.count())
			}
		})
	}
	if aside < used {
		t.Errorf("only %d of %d files were set aside", aside, len(cases))
	}
}

// A file of another program is set aside as it is.
func TestForeignFile(t *testing.T) {
	put := func(tx *bbolt.Tx, name, key string, value []byte) error {
		b, err := tx.CreateBucketIfNotExists([]byte(name))
		return errors.Join(err, b.Put([]byte(key), value))
	}
	key := keyOf("ns", "a cat")
	for name, make := range map[string]func(tx *bbolt.Tx) error{
		"settings": func(tx *bbolt.Tx) error { return put(tx, "settings", "colour", []byte("red")) },
		"hashes":   func(tx *bbolt.Tx) error { return put(tx, "objects", string(key[:]), []byte("content")) },
		"nested": func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte("outer"))
			_, innerErr := b.CreateBucket(key[:])
			return errors.Join(err, innerErr)
		},
		"a long name": func(tx *bbolt.Tx) error {
			return put(tx, strings.Repeat("x", maxNamespace+1), string(key[:]), formatValue(key, vectorOf("ns", "a cat", testDim)))
		},
		"beside ours": func(tx *bbolt.Tx) error {
			return errors.Join(put(tx, "settings", "colour", nil),
				put(tx, "ns", string(key[:]), formatValue(key, vectorOf("ns", "a cat", testDim))))
		},
	} {
		for _, noFreelist := range []bool{false, true} { // bbolt reads all of a file without a list in a goroutine of its own
			t.Run(fmt.Sprint(name, ", without a list of free pages ", noFreelist), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, testConfig().CacheFile)
				db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: noFreelist})
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(db.Update(make), db.Close()); err != nil {
					t.Fatal(err)
				}
				before, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				stats, log, _ := usable(t, dir, 10)
				aside := asides(path)
				if stats.State != DiskOK || log.warnings() != 1 || len(aside) != 1 {
					t.Fatalf("%d warnings, set aside %q: %+v", log.warnings(), aside, stats)
				}
				if after, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(before, after) {
					t.Errorf("it was changed, %v", err)
				}
			})
		}
	}
}

// Whatever the bytes are, reading them ends, and what is found whole is usable.
func FuzzReadPages(f *testing.F) {
	whole, err := os.ReadFile(fill(f, f.TempDir(), 40))
	if err != nil {
		f.Fatal(err)
	}
	whole = bytes.TrimRight(whole, "\x00")
	f.Add(whole, uint16(0), byte(0))
	for i := 8; i < len(whole); i += 61 {
		f.Add(whole, uint16(i), byte(0x80>>(i%8)))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		if b = bytes.Clone(b); len(b) > 0 {
			b[int(at)%len(b)] ^= flip
		}
		var namespaces []NamespaceInfo
		err := guard(func() error { namespaces, _ = readNamespaces(b); return nil })
		if err != nil && !errors.Is(err, ErrDamaged) || err == nil && len(namespaces) > len(b)/16 {
			t.Errorf("%v, %v", namespaces, err)
		}
	})
}

// A bad value among good ones costs one encode and no more.
func TestBadValueIsReplaced(t *testing.T) {
	key := keyOf("ns", promptList("cat", 1)[0])
	for name, tt := range map[string]struct {
		value   []byte
		damaged int
	}{
		"short":                 {[]byte{1}, 1},
		"empty":                 {[]byte{}, 1},
		"of another prompt":     {formatValue(keyOf("ns", "another"), vectorOf("ns", "another", testDim)), 1},
		"of another dimension":  {formatValue(key, vectorOf("ns", "a cat", 2*testDim)), 1},
		"of another version":    {append([]byte{9}, make([]byte, 79)...), 1},
		"the right one, intact": {formatValue(key, vectorOf("ns", promptList("cat", 1)[0], testDim)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, err := bbolt.Open(fill(t, dir, 50), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("ns")).Put(key[:], tt.value) })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			for start := range 3 { // nobody asks for it at the first
				s, log := openStore(t, testConfig(), dir)
				f := newFake("ns")
				te := embeddings(t, s, f)
				warnings, encode, damaged := 0, 0, 0
				if start == 1 {
					encode = tt.damaged
				}
				if name == "of another dimension" { // it is sound
					damaged = encode
				} else if start == 0 {
					warnings, damaged = tt.damaged, tt.damaged
				}
				if start > 0 {
					mustGet(t, te, promptList("cat", 50)...)
				}
				stats := s.Stats().Disk
				if f.count() != encode || log.warnings() != warnings || stats.Damaged != uint64(damaged) || stats.State != DiskOK {
					t.Fatalf("start %d: %d encoded, %d warnings, want %d, %d and %d damaged: %+v",
						start, f.count(), log.warnings(), encode, warnings, damaged, stats)
				}
				closeStore(t, s)
			}
		})
	}
}

// Somebody truncates or overwrites the file while it is mapped.
func TestFileChangesWhileOpen(t *testing.T) {
	page := int64(os.Getpagesize())
	truncate := func(size int64) func(string) error {
		return func(path string) error { return os.Truncate(path, size) }
	}
	overwrite := func(b byte) func(string) error {
		return func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			size, _ := f.Seek(0, io.SeekEnd)
			_, err = f.WriteAt(bytes.Repeat([]byte{b}, int(size)), 0)
			return errors.Join(err, f.Close())
		}
	}
	for name, do := range map[string]func(path string) error{
		"truncated to nothing":    truncate(0),
		"truncated to one page":   truncate(page),
		"truncated to two pages":  truncate(2 * page),
		"truncated to five pages": truncate(5 * page),
		"truncated inside a page": truncate(6*page + 10),
		"zeroed":                  overwrite(0),
		"garbled":                 overwrite(0xa5),
	} {
		for _, first := range []string{"read", "write"} {
			t.Run(name+", then "+first, func(t *testing.T) {
				dir := t.TempDir()
				path := fill(t, dir, 300)
				s, log := openStore(t, testConfig(), dir)
				te := embeddings(t, s, newFake("ns"))
				mustGet(t, te, promptList("cat", 5)...)
				if err := do(path); err != nil {
					t.Fatal(err)
				}
				if first == "write" {
					mustGet(t, te, promptList("owl", 300)...)
					waitWritten(s)
				}
				var group sync.WaitGroup
				for i := range 8 {
					group.Go(func() {
						prompts := append(promptList("cat", 300)[i*30:], promptList("dog", 300)[i*30:]...)
						p, err := te.Get(t.Context(), fair.Caller{}, prompts)
						if err != nil {
							t.Error(err)
							return
						}
						checkPrompts(t, te, p, prompts)
					})
				}
				group.Wait()
				closeStore(t, s)
				if stats := s.Stats().Disk; strings.Contains(stats.Reason, "runtime error") ||
					stats.State == DiskOff && (stats.Reason == "" || log.warnings() != 1) {
					t.Errorf("%d warnings: %+v", log.warnings(), stats)
				}
				if stats, log, _ := usable(t, dir, 300); stats.State != DiskOK {
					t.Errorf("the next start: %s", log.b.String())
				}
			})
		}
	}
}

// A look-up does not wait for a write that takes long, such as one that syncs.
func TestLookUpBesideAWrite(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 100)
	s, te, f := openAll(t, testConfig(), dir)
	s.disk.writing.Lock()
	tx, err := s.disk.file.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, te, promptList("cat", 100)...)
	if stats := s.Stats(); f.count() != 0 || stats.DiskHits != 100 {
		t.Errorf("%d encoded: %+v", f.count(), stats)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.disk.writing.Unlock()
	mustGet(t, te, promptList("dog", 100)...)
	waitWritten(s)
	s.singles.cache.Clear()
	mustGet(t, te, promptList("dog", 100)...)
	if f.count() != 100 {
		t.Errorf("%d encoded: what was written is not found", f.count())
	}
}

// A look-up that hangs holds nobody past his time, and no other goroutine; what a caller leaves behind is gone at once.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, te, f := openAll(t, testConfig(), t.TempDir())
		s.disk.reading <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), lookUpTimeout/2)
		defer cancel()
		before := runtime.NumGoroutine()
		var gone []<-chan error
		for range 50 {
			gone = append(gone, goGet(ctx, te, "greedy", promptList("cat", 1000)...))
		}
		if n := runtime.NumGoroutine() - before; n > 50 {
			t.Errorf("50 requests hold %d goroutines", n)
		}
		ends(t, context.DeadlineExceeded, gone...)
		mustGet(t, te, "a") // goes to the encoder
		if stats := s.Stats(); stats.Pending != 0 || f.count() != 1 {
			t.Errorf("%d encoded, want the one that somebody waits for: %+v", f.count(), stats)
		}
		<-s.disk.reading
		closeStore(t, s)
	})
}

func TestUnusablePlaces(t *testing.T) {
	places := map[string]string{
		"below a file":              filepath.Join(t.TempDir(), "file"),
		"a folder that cannot be":   "/proc/hailo-clip/cache",
		"a folder in the way":       t.TempDir(),
		"a pipe in the way":         t.TempDir(),
		"a name that is too long":   filepath.Join(t.TempDir(), strings.Repeat("x", 300)),
		"a name with a zero byte":   filepath.Join(t.TempDir(), "a\x00b"),
		"a read-only file system":   mounted(t, "size=8m"),
		"a full file system":        mounted(t, "size=64k"),
		"a folder without a permit": t.TempDir(),
	}
	writeFile(t, places["below a file"], nil)
	file := testConfig().CacheFile
	err := errors.Join(os.Mkdir(filepath.Join(places["a folder in the way"], file), 0o700),
		syscall.Mkfifo(filepath.Join(places["a pipe in the way"], file), 0o600), os.Chmod(places["a folder without a permit"], 0o500))
	if dir := places["a read-only file system"]; dir != "" {
		fill(t, dir, 50)
		err = errors.Join(err, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	fillDisk(t, places["a full file system"])
	for name, dir := range places {
		t.Run(name, func(t *testing.T) {
			needMount(t, dir)
			if name == "a folder without a permit" && os.Getuid() == 0 {
				t.Skip("root has it")
			}
			stats, log, f := usable(t, dir, 50)
			if stats.State == DiskOK || stats.Reason == "" || log.warnings() != 1 || f.count() != 100 || stats.Dropped != 100 {
				t.Fatalf("%d warnings, %d encoded: %+v", log.warnings(), f.count(), stats)
			}
			t.Log(stats.Reason)
		})
	}
}

// mounted mounts a small file system in memory, or returns "".
func mounted(t *testing.T, options string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// needMount skips a test that could not mount dir, or fails it where CI says that root can.
func needMount(t *testing.T, dir string) {
	t.Helper()
	if dir == "" && os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "" && os.Getuid() == 0 {
		t.Fatal("root must be able to mount a file system here")
	}
	if dir == "" {
		t.Skip("needs the right to mount; TestWritesFailAndRecover has a full disk by a limit on the size of files")
	}
}

// fillDisk leaves no room in a file system that was mounted.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// The disk fills up while the store is open: what is there is still read.
func TestDiskFillsUp(t *testing.T) {
	dir := mounted(t, "size=2m")
	needMount(t, dir)
	path := fill(t, dir, 300)
	fillDisk(t, dir)
	s, log := openStore(t, testConfig(), dir)
	f := newFake("ns")
	te := embeddings(t, s, f)
	mustGet(t, te, promptList("cat", 150)...)
	for _, name := range []string{"dog", "owl", "eel"} { // more than the free pages of the file hold
		mustGet(t, te, promptList(name, 1000)...)
	}
	waitWritten(s)
	stats := s.Stats().Disk
	if stats.State != DiskPaused || stats.Failures != 1 || stats.Dropped == 0 || log.warnings() != 1 {
		t.Fatalf("%d warnings: %+v", log.warnings(), stats)
	}
	mustGet(t, te, promptList("cat", 300)...)
	if f.count() != 3000 {
		t.Fatalf("%d encoded: what is on disk was not read", f.count())
	}
	closeStore(t, s)
	if _, err := Inspect(path); err != nil {
		t.Fatal(err)
	}
}

func TestRepeatedDamageTurnsTheDiskOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, testConfig().CacheFile)
	for n := range maxAside + 2 {
		writeFile(t, path, []byte("garbage"))
		stats, _, _ := usable(t, dir, 10)
		if (stats.State == DiskOff) != (n >= maxAside) || len(asides(path)) != min(n+1, maxAside) {
			t.Fatalf("round %d: %s, %d set aside", n, stats.State, len(asides(path)))
		}
	}
}

func TestFullFileIsStartedAnew(t *testing.T) {
	config := testConfig()
	config.CacheFileMaxBytes = 4 << 20
	config.CacheMaxEntries = 200
	dir := t.TempDir()
	const dim = 512
	open := func() (*Store, *fakeEncoder, *TextEmbeddings) {
		s, _ := openStore(t, config, dir)
		f := newFake("ns")
		return s, f, embeddingsOf(t, s, Encoder{Namespace: "ns", Dim: dim, Batch: 64, Calls: 1, Encode: wideEncode(f, dim)})
	}
	s, f, te := open()
	hot := promptList("hot", 50)
	get := func(prompts ...string) { // without comparing: vectorOf is slow
		t.Helper()
		if _, err := te.Get(t.Context(), fair.Caller{}, prompts); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 40 {
		get(promptList(fmt.Sprintf("cold %d", n), 64)...)
		for range 10 {
			for _, prompt := range hot {
				get(prompt)
			}
		}
	}
	closeStore(t, s)
	stats := s.Stats().Disk
	if stats.Restarts == 0 || stats.State != DiskOK || stats.Failures != 0 || stats.Bytes > config.CacheFileMaxBytes || stats.Vectors == 0 {
		t.Fatalf("%+v", stats)
	}
	t.Logf("%d encoded, %+v", f.count(), stats)

	_, f, te = open()
	mustGet(t, te, hot...)
	if f.count() > len(hot)/2 {
		t.Errorf("%d of %d prompts that were asked for often were lost", f.count(), len(hot))
	}
}

func TestQueueIsBounded(t *testing.T) {
	d := &disk{path: "none", queued: make(map[diskKey]*Prompts)} // which nobody writes
	singles := make([]*Prompts, maxQueued+100)
	for i := range singles {
		singles[i] = single("ns", fmt.Sprint(i), Vector{})
	}
	d.put(singles)
	d.put(singles[:10]) // those that are queued already need no room
	if stats := d.stats(); stats.Queued != maxQueued || stats.Dropped != 100 {
		t.Fatalf("%+v", stats)
	}
}

func TestInspectAndClearFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, testConfig().CacheFile)
	if _, err := Inspect(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := ClearFile(path); err != nil {
		t.Errorf("clearing no file: %v", err)
	}
	fill(t, dir, 50)
	info, err := Inspect(path)
	want := NamespaceInfo{Namespace: "ns", Vectors: 50}
	if err != nil || info.Bytes == 0 || info.Modified.IsZero() || info.Locked || len(info.Namespaces) != 1 || info.Namespaces[0] != want {
		t.Errorf("%+v, %v", info, err)
	}
	for _, content := range []string{"garbage", ""} {
		other := filepath.Join(dir, "other")
		writeFile(t, other, []byte(content))
		if _, err := Inspect(other); errors.Is(err, ErrDamaged) != (content != "") {
			t.Errorf("%q: %v", content, err)
		}
	}
	for _, do := range []func(string) error{ClearFile, func(path string) error { _, err := Inspect(path); return err }} {
		if err := do(t.TempDir()); err == nil {
			t.Error("a folder is no cache file")
		}
	}
	writeFile(t, path+corruptMark+"x", nil)
	if info, _ := Inspect(path); len(info.SetAside) != 1 {
		t.Errorf("%+v", info)
	}
	if err := ClearFile(path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// TestFileIsDeletedWhileOpen has the file deleted or replaced below a running service: what memory holds
// and what comes after are in the file that is there at the end.
func TestFileIsDeletedWhileOpen(t *testing.T) {
	defer func(d time.Duration) { writeEvery = d }(writeEvery)
	for name, do := range map[string]func(dir, path string) error{
		"deleted":            func(_, path string) error { return os.Remove(path) },
		"with its folder":    func(dir, _ string) error { return os.RemoveAll(dir) },
		"replaced":           func(_, path string) error { return os.Rename(fill(t, t.TempDir(), 5), path) },
		"replaced by a link": func(_, path string) error { return errors.Join(os.Remove(path), os.Symlink("/nowhere", path)) },
	} {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, idle %v", name, idle), func(t *testing.T) {
				writeEvery = time.Millisecond
				dir := filepath.Join(t.TempDir(), "state")
				s, log := openStore(t, testConfig(), dir)
				te := embeddings(t, s, newFake("ns"))
				mustGet(t, te, promptList("cat", 20)...)
				waitWritten(s)
				if err := do(dir, s.Stats().Disk.Path); err != nil {
					t.Fatal(err)
				}
				for idle && log.warnings() == 0 {
					time.Sleep(time.Millisecond)
				}
				owls := promptList("owl", 20)
				if idle {
					owls = nil
				}
				mustGet(t, te, owls...)
				closeStore(t, s)
				if strings.Contains(name, "link") {
					if s.Stats().Disk.State != DiskOff {
						t.Errorf("%+v", s.Stats().Disk)
					}
					return
				}
				if log.warnings() != 1 || s.Stats().Disk.State != DiskOK {
					t.Errorf("%d warnings: %s", log.warnings(), log.b.String())
				}
				_, te, f := openAll(t, testConfig(), dir)
				mustGet(t, te, append(promptList("cat", 20), owls...)...)
				if f.count() != 0 {
					t.Errorf("%d prompts were lost", f.count())
				}
			})
		}
	}
}
