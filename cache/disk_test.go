package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"hailoclip/pipeline/fair"
)

func TestRestartEncodesNothing(t *testing.T) {
	dir := t.TempDir()
	prompts := append(promptList("cat", 300), "a prompt that is so long that the encoder of these tests calls it truncated, which takes 78 bytes")
	for run := range 3 {
		s, log := openStore(t, testConfig(), dir)
		f := newFake("ns")
		mustGet(t, embeddings(t, s, f), prompts...)
		if want := len(prompts) * max(0, 1-run); f.count() != want {
			t.Fatalf("run %d: %d prompts encoded, want %d", run, f.count(), want)
		}
		closeStore(t, s)
		if stats := s.Stats(); stats.Disk.State != DiskOK || stats.Disk.Vectors != int64(len(prompts)) || log.warnings() != 0 {
			t.Fatalf("run %d: %+v, %d warnings", run, stats.Disk, log.warnings())
		}
	}
}

// Vectors are found on disk, and before they are written there, also when memory has no room.
func TestQueuedVectorsAreFound(t *testing.T) {
	config := testConfig()
	config.CacheMaxEntries = 1
	s, _ := openStore(t, config, t.TempDir())
	f := newFake("ns")
	te := embeddings(t, s, f)
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
func usable(t *testing.T, dir string, n int) (*Store, *logBuffer, *fakeEncoder) {
	t.Helper()
	s, log := openStore(t, testConfig(), dir)
	f := newFake("ns")
	te := embeddings(t, s, f)
	mustGet(t, te, promptList("cat", n)...)
	mustGet(t, te, promptList("dog", n)...) // new ones, so that it is written to as well
	closeStore(t, s)
	return s, log, f
}

func TestDamagedFile(t *testing.T) {
	const vectors = 120
	whole, err := os.ReadFile(fill(t, t.TempDir(), vectors))
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	type damage struct {
		name string
		do   func(b []byte) []byte
	}
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
	cases := []damage{
		{"both meta pages zero", zero(0, 2*page)},
		{"one meta page zero", zero(page, 2*page)},
		{"all zero", zero(0, len(whole))},
		{"all garbage", garbage(0, len(whole))},
		{"a text file", func([]byte) []byte { return []byte("this is no database\n") }},
	}
	used := 0 // pages that hold anything
	for n := range len(whole) / page {
		if !bytes.Equal(whole[n*page:(n+1)*page], make([]byte, page)) {
			used = n + 1
		}
	}
	for n := range used + 1 {
		cases = append(cases, damage{fmt.Sprintf("page %d zero", n), zero(n*page, (n+1)*page)},
			damage{fmt.Sprintf("page %d garbage", n), garbage(n*page, (n+1)*page)})
		for _, at := range []int{n * page, n*page + 100} {
			cases = append(cases, damage{fmt.Sprintf("truncated to %d", at), func(b []byte) []byte { return b[:at] }})
		}
	}
	for seed := range 60 {
		cases = append(cases, damage{fmt.Sprintf("bits flipped, seed %d", seed), func(b []byte) []byte {
			random := rand.New(rand.NewPCG(1, uint64(seed)))
			for range 1 + random.IntN(20) {
				b[random.IntN(used*page)] ^= 1 << random.IntN(8)
			}
			return b
		}})
	}
	aside := 0
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, testConfig().CacheFile)
			if err := os.WriteFile(path, tt.do(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			s, log, f := usable(t, dir, vectors)
			found := asides(path)
			if len(found) > 0 {
				aside++
				if s.Stats().Disk.Reason == "" || log.warnings() == 0 || f.count() != 2*vectors {
					t.Errorf("set aside: %+v, %d warnings, %d encoded", s.Stats().Disk, log.warnings(), f.count())
				}
				if s, log, f := usable(t, dir, vectors); f.count() != 0 || log.warnings() != 0 || s.Stats().Disk.State != DiskOK {
					t.Errorf("the file started anew: %+v, %d warnings, %d encoded", s.Stats().Disk, log.warnings(), f.count())
				}
			}
		})
	}
	if aside < used {
		t.Errorf("only %d of %d files were set aside", aside, len(cases))
	}
}

// A bad value among good ones costs one encode and no more.
func TestBadValueIsReplaced(t *testing.T) {
	key := keyOf("ns", promptList("cat", 1)[0])
	other := formatValue(keyOf("ns", "another"), vectorOf("ns", "another", testDim))
	wide := formatValue(key, vectorOf("ns", "a cat", 2*testDim))
	for name, tt := range map[string]struct {
		value   []byte
		damaged uint64
	}{
		"short":                 {[]byte{1}, 1},
		"empty":                 {[]byte{}, 1},
		"of another prompt":     {other, 1},
		"of another dimension":  {wide, 1},
		"of another version":    {append([]byte{9}, make([]byte, 79)...), 1},
		"the right one, intact": {formatValue(key, vectorOf("ns", promptList("cat", 1)[0], testDim)), 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := fill(t, dir, 50)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("ns")).Put(key[:], tt.value) }); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for _, encode := range []uint64{tt.damaged, 0} {
				s, _ := openStore(t, testConfig(), dir)
				f := newFake("ns")
				mustGet(t, embeddings(t, s, f), promptList("cat", 50)...)
				if stats := s.Stats().Disk; uint64(f.count()) != encode || stats.Damaged != encode || stats.State != DiskOK {
					t.Fatalf("%d encoded, want %d: %+v", f.count(), encode, stats)
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
			stat, err := os.Stat(path)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(bytes.Repeat([]byte{b}, int(stat.Size())))
			return errors.Join(err, f.Close())
		}
	}
	for _, tt := range []struct {
		name string
		do   func(path string) error
	}{
		{"truncated to nothing", truncate(0)},
		{"truncated to one page", truncate(page)},
		{"truncated to two pages", truncate(2 * page)},
		{"truncated to five pages", truncate(5 * page)},
		{"truncated inside a page", truncate(6*page + 10)},
		{"zeroed", overwrite(0)},
		{"garbled", overwrite(0xa5)},
	} {
		for _, first := range []string{"read", "write"} {
			t.Run(tt.name+", then "+first, func(t *testing.T) {
				dir := t.TempDir()
				path := fill(t, dir, 300)
				s, log := openStore(t, testConfig(), dir)
				te := embeddings(t, s, newFake("ns"))
				mustGet(t, te, promptList("cat", 5)...)
				if err := tt.do(path); err != nil {
					t.Fatal(err)
				}
				if first == "write" {
					mustGet(t, te, promptList("owl", 300)...)
					for s.Stats().Disk.Queued > 0 {
						time.Sleep(time.Millisecond)
					}
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
				if s, log, _ := usable(t, dir, 300); s.Stats().Disk.State != DiskOK {
					t.Errorf("the next start: %s", log.b.String())
				}
			})
		}
	}
}

func TestUnusablePlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, testConfig().CacheFile), 0o700); err != nil {
		t.Fatal(err)
	}
	pipe := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(pipe, testConfig().CacheFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"below a file":              file,
		"a folder that cannot be":   "/proc/hailo-clip/cache",
		"a folder in the way":       folder,
		"a pipe in the way":         pipe,
		"a name that is too long":   filepath.Join(t.TempDir(), string(bytes.Repeat([]byte("x"), 300))),
		"a name with a zero byte":   filepath.Join(t.TempDir(), "a\x00b"),
		"a read-only file system":   readOnlyFolder(t),
		"a full file system":        fullFolder(t),
		"a folder without a permit": noPermitFolder(t),
	} {
		t.Run(name, func(t *testing.T) {
			if dir == "" && name != "a folder without a permit" { // which root cannot have
				needMount(t)
			}
			if dir == "" {
				t.Skip("cannot be made here: needs the right to mount, or not to be root")
			}
			s, log, f := usable(t, dir, 50)
			stats := s.Stats().Disk
			if stats.State == DiskOK || stats.Reason == "" || log.warnings() != 1 || f.count() != 100 || stats.Dropped != 100 {
				t.Fatalf("%d warnings, %d encoded: %+v", log.warnings(), f.count(), stats)
			}
			t.Log(stats.Reason)
		})
	}
}

// needMount fails a test that could not mount, where CI says that root can.
func needMount(t *testing.T) {
	t.Helper()
	if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "" && os.Getuid() == 0 {
		t.Fatal("root must be able to mount a file system here")
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

func readOnlyFolder(t *testing.T) string {
	dir := mounted(t, "size=8m")
	if dir != "" {
		fill(t, dir, 50)
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func fullFolder(t *testing.T) string {
	dir := mounted(t, "size=64k")
	if dir != "" {
		err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return dir
}

func noPermitFolder(t *testing.T) string {
	if os.Getuid() == 0 {
		return ""
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The disk fills up while the store is open: what is there is still read.
func TestDiskFillsUp(t *testing.T) {
	dir := mounted(t, "size=2m")
	if dir == "" {
		needMount(t)
		t.Skip("no right to mount; TestWritesFailAndRecover has the same with a limit on the size of files")
	}
	fill(t, dir, 300)
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	s, log := openStore(t, testConfig(), dir)
	f := newFake("ns")
	te := embeddings(t, s, f)
	mustGet(t, te, promptList("cat", 150)...)
	for _, name := range []string{"dog", "owl", "eel"} { // more than the free pages of the file hold
		mustGet(t, te, promptList(name, 1000)...)
	}
	for s.Stats().Disk.Queued > 0 {
		time.Sleep(time.Millisecond)
	}
	stats := s.Stats().Disk
	if stats.State != DiskPaused || stats.Failures != 1 || stats.Dropped == 0 || log.warnings() != 1 {
		t.Fatalf("%d warnings: %+v", log.warnings(), stats)
	}
	mustGet(t, te, promptList("cat", 300)...)
	if f.count() != 3000 {
		t.Fatalf("%d encoded: what is on disk was not read", f.count())
	}
	closeStore(t, s)
	if _, err := Inspect(s.disk.path); err != nil {
		t.Fatal(err)
	}
}

func TestRepeatedDamageTurnsTheDiskOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, testConfig().CacheFile)
	for n := range maxAside + 2 {
		if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, _ := usable(t, dir, 10)
		if state := s.Stats().Disk.State; (state == DiskOff) != (n >= maxAside) || len(asides(path)) != min(n+1, maxAside) {
			t.Fatalf("round %d: %s, %d set aside", n, state, len(asides(path)))
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

	s, f, te = open()
	mustGet(t, te, hot...)
	if f.count() > len(hot)/2 {
		t.Errorf("%d of %d prompts that were asked for often were lost", f.count(), len(hot))
	}
	closeStore(t, s)
}

func TestQueueIsBounded(t *testing.T) {
	d := &disk{queued: make(map[diskKey]*entry), wake: make(chan struct{}, 1), full: make(chan struct{}, 1)} // and no keeper
	const n = maxQueued + 100
	keys, entries := make([]diskKey, n), make([]*entry, n)
	for i := range keys {
		entries[i] = &entry{namespace: "ns", prompt: fmt.Sprint(i)}
		keys[i] = keyOf("ns", entries[i].prompt)
	}
	d.put(keys, entries)
	d.put(keys[:10], entries[:10]) // those that are queued already need no room
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
	for name, content := range map[string]string{"garbage": "garbage", "empty": ""} {
		other := filepath.Join(dir, name)
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(other); errors.Is(err, ErrDamaged) != (content != "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Inspect(dir); err == nil {
		t.Error("a folder is no cache file")
	}
	if err := os.WriteFile(path+corruptMark+"x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
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
	for name, do := range map[string]func(dir, path string) error{
		"deleted":            func(_, path string) error { return os.Remove(path) },
		"with its folder":    func(dir, _ string) error { return os.RemoveAll(dir) },
		"replaced":           func(_, path string) error { return os.Rename(fill(t, t.TempDir(), 5), path) },
		"replaced by a link": func(_, path string) error { return errors.Join(os.Remove(path), os.Symlink("/nowhere", path)) },
	} {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, idle %v", name, idle), func(t *testing.T) {
				if idle {
					defer func(d time.Duration) { lookEvery = d }(lookEvery)
					lookEvery = time.Millisecond
				}
				dir := filepath.Join(t.TempDir(), "state")
				s, log := openStore(t, testConfig(), dir)
				te := embeddings(t, s, newFake("ns"))
				mustGet(t, te, promptList("cat", 20)...)
				for s.Stats().Disk.Queued > 0 {
					time.Sleep(time.Millisecond)
				}
				path := s.Stats().Disk.Path
				if err := do(dir, path); err != nil {
					t.Fatal(err)
				}
				if idle {
					for log.warnings() == 0 {
						time.Sleep(time.Millisecond)
					}
				} else {
					mustGet(t, te, promptList("owl", 20)...)
				}
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
				s, _ = openStore(t, testConfig(), dir)
				f := newFake("ns")
				mustGet(t, embeddings(t, s, f), promptList("cat", 20)...)
				if !idle {
					mustGet(t, embeddings(t, s, f), promptList("owl", 20)...)
				}
				if f.count() != 0 {
					t.Errorf("%d prompts were lost", f.count())
				}
				closeStore(t, s)
			})
		}
	}
}
