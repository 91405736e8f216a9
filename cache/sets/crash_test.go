package sets

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// childEnv names what a process that a test started from its own binary does.
const childEnv = "HAILO_CLIP_SETS_TEST_CHILD"

// children are these; TestMain calls them.
var children = map[string]func(args []string){"put": childPut, "limit": childLimit, "disk": childDisk}

func startChild(t *testing.T, name string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	if name == "disk" { // where it may mount
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
	}
	c.Env = append(os.Environ(), childEnv+"="+name)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); errors.Is(err, fs.ErrPermission) && c.SysProcAttr != nil {
		t.Skip("no namespaces: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c, bufio.NewScanner(out)
}

const (
	putSets   = 17
	putLabels = 6
)

// put is the set that change n makes.
func put(n int) Record { return recordOf(fmt.Sprint("set", n%putSets), n, putLabels) }

// childPut makes the changes from the second argument on, and says of each that it is made.
func childPut(args []string) {
	s, err := Open(args[0])
	if err != nil {
		panic(err)
	}
	n := 0
	for _, _ = fmt.Sscan(args[1], &n); ; n++ {
		if err := s.Put(context.Background(), put(n), nil, func() { fmt.Println(n) }); err != nil {
			panic(err)
		}
	}
}

// A process that is killed while it makes 1,000 changes: all that it has said to be made is there.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	changes, kills := 1000, 0
	if testing.Short() {
		changes = 100
	}
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]Record{}
	for next := 0; next < changes; kills++ {
		c, lines := startChild(t, "put", path, fmt.Sprint(next))
		for stop := min(next+1+random.IntN(100), changes); next < stop; next++ {
			if !lines.Scan() || lines.Text() != fmt.Sprint(next) {
				t.Fatalf("%q instead of %d", lines.Text(), next)
			}
			want[put(next).Name] = put(next)
		}
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it has said meanwhile
			want[put(next).Name] = put(next)
			next++
		}
		_ = c.Wait()
		s := openStore(t, path)
		got, err := all(t.Context(), s)
		closeStore(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if last := put(next); reflect.DeepEqual(got[last.Name], last) { // made, but not said
			want[last.Name] = last
			next++
		}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("after %d changes: %s", next, difference(want, got))
		}
	}
	t.Logf("%d kills", kills)
}

// childLimit makes writes fail as on a full disk, then not any more, and says what came of each.
func childLimit(args []string) {
	limit := func(n uint64) {
		if err := syscall.Setrlimit(1 /* RLIMIT_FSIZE */, &syscall.Rlimit{Cur: n, Max: 1 << 40}); err != nil {
			panic(err)
		}
	}
	s, err := Open(args[0])
	if err != nil {
		panic(err)
	}
	show := func(r Record) {
		called := false
		err := s.Put(context.Background(), r, nil, func() { called = true })
		names, namesErr := s.Names(context.Background())
		fmt.Println(strings.Contains(fmt.Sprint(err), syscall.EFBIG.Error()), err == nil, called, names, namesErr)
	}
	show(put(0))
	limit(3 << 20)
	show(recordOf("large", 1, 1000))
	show(put(1)) // there is room for it
	show(recordOf("large", 1, 1000))
	limit(1 << 40)
	show(recordOf("large", 2, 1000))
	if err := s.Close(context.Background()); err != nil {
		panic(err)
	}
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	c, lines := startChild(t, "limit", path)
	says(t, c, lines,
		"false true true [set0] <nil>", "true false false [set0] <nil>", "false true true [set0 set1] <nil>",
		"true false false [set0 set1] <nil>", "false true true [large set0 set1] <nil>")
	mustHave(t, openStore(t, path), map[string]Record{"set0": put(0), "set1": put(1), "large": recordOf("large", 2, 1000)})
}

// childDisk mounts a disk of 2 MB, fills it, and makes it read-only.
func childDisk(args []string) {
	if err := syscall.Mount("none", args[0], "tmpfs", 0, "size=2m"); err != nil {
		fmt.Println("no mounts:", err)
		return
	}
	ctx := context.Background()
	open := func() *File {
		s, err := Open(filepath.Join(args[0], FileName))
		if err != nil {
			panic(err)
		}
		return s
	}
	s := open()
	try := func(r Record) {
		err := s.Put(ctx, r, nil, nil)
		names, namesErr := s.Names(ctx)
		fmt.Println(errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS), err == nil, names, namesErr)
	}
	try(put(0))
	try(recordOf("large", 1, 1000))
	try(put(1))
	if err := errors.Join(s.Close(ctx), syscall.Mount("none", args[0], "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")); err != nil {
		panic(err)
	}
	s = open()
	try(recordOf("more", 1, 1))
	if records, err := all(ctx, s); err != nil || !reflect.DeepEqual(records, map[string]Record{"set0": put(0), "set1": put(1)}) {
		panic(err)
	}
	none, err := Open(filepath.Join(args[0], "none"))
	if err != nil {
		panic(err)
	}
	s = none
	try(recordOf("more", 1, 1))
}

func TestFullAndReadOnlyDisk(t *testing.T) {
	c, lines := startChild(t, "disk", t.TempDir())
	says(t, c, lines,
		"false false true [set0] <nil>", "true false false [set0] <nil>", "false false true [set0 set1] <nil>",
		"false true false [set0 set1] <nil>", "false true false [] <nil>")
}

// says reads what a child says until its end; one that may not mount skips the test.
func says(t *testing.T, c *exec.Cmd, lines *bufio.Scanner, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if lines.Scan(); strings.HasPrefix(lines.Text(), "no mounts") {
			t.Skip(lines.Text())
		} else if lines.Text() != want {
			t.Fatalf("%q, want %q", lines.Text(), want)
		}
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

// opened is what the file of these bytes opens with; nil and an error if it does not.
func opened(t *testing.T, image []byte) (map[string]Record, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if after := read(t, path); string(after) != string(image) {
			t.Fatal("the damaged file was changed")
		}
		return nil, err
	}
	defer closeStore(t, s)
	records, err := all(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return records, os.Remove(path)
}

// history makes changes of all kinds and returns the file and the sets after each.
func history(t *testing.T) (images [][]byte, states []map[string]Record) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	state := map[string]Record{}
	take := func() {
		images = append(images, read(t, path))
		copied, err := all(t.Context(), s)
		if !reflect.DeepEqual(state, copied) || err != nil {
			t.Fatal(err, difference(state, copied))
		}
		states = append(states, copied)
	}
	for n := range 12 {
		r := recordOf(fmt.Sprint("set", n%5), n, 1+n*n%40)
		keys, rows := keysOf(r)
		if err := s.Put(t.Context(), r, keys, nil); err != nil {
			t.Fatal(err)
		}
		state[r.Name] = r
		take()
		if err := s.PutRows(t.Context(), r.Name, rows); err != nil {
			t.Fatal(err)
		}
		take()
		if n%4 == 3 {
			if err := s.Delete(t.Context(), "set1", nil); err != nil {
				t.Fatal(err)
			}
			delete(state, "set1")
			take()
		}
	}
	return images, states
}

// The power fails during a change. bbolt makes the file longer and syncs it; writes pages that nothing refers to yet and
// syncs them; writes one of the two heads and syncs it. Of what was written since the last sync any subset of the pages
// may be missing. The file opens with the state before the change, or if the head was written with that after it.
func TestPowerCut(t *testing.T) {
	images, states := history(t)
	size, tried := os.Getpagesize(), 0
	random := rand.New(rand.NewPCG(3, 4))
	for i := 1; i < len(images); i++ {
		before, after := images[i-1], images[i]
		var heads, pages []int
		for _, page := range changed(before, after) {
			if page < 2 {
				heads = append(heads, page)
			} else {
				pages = append(pages, page)
			}
		}
		if len(heads) != 1 {
			t.Fatalf("change %d has written the heads %v", i, heads)
		}
		longer := append(append([]byte{}, before...), make([]byte, max(0, len(after)-len(before)))...)
		with := func(written func(i int) bool, head bool) []byte {
			image := append([]byte{}, longer...)
			for j, page := range pages {
				if written(j) {
					copy(image[page*size:], after[page*size:][:size])
				}
			}
			if head {
				copy(image[heads[0]*size:], after[heads[0]*size:][:size])
			}
			return image
		}
		must := func(image []byte, want map[string]Record, what string) {
			tried++
			if got, err := opened(t, image); err != nil || !reflect.DeepEqual(want, got) {
				t.Fatalf("change %d, %s: %v, %s", i, what, err, difference(want, got))
			}
		}
		must(before, states[i-1], "not begun")
		must(with(func(int) bool { return true }, true), states[i], "done")
		must(with(func(int) bool { return true }, false), states[i-1], "without the head")
		if len(pages) <= 6 {
			for subset := range 1 << len(pages) {
				must(with(func(j int) bool { return subset>>j&1 == 1 }, false), states[i-1], fmt.Sprintf("pages %b of %v", subset, pages))
			}
			continue
		}
		for range 60 {
			share := random.Float64()
			must(with(func(int) bool { return random.Float64() < share }, false), states[i-1], fmt.Sprintf("some of the pages %v", pages))
		}
	}
	t.Logf("%d changes, %d files", len(images)-1, tried)
}

// A file that was cut off opens with all that was acknowledged, or not at all.
func TestCutFile(t *testing.T) {
	images, states := history(t)
	whole := 0
	for i, image := range images {
		for at := 0; at < len(image); at += os.Getpagesize() {
			got, err := opened(t, image[:at])
			if err == nil {
				whole++
				if !reflect.DeepEqual(states[i], got) {
					t.Fatalf("change %d, cut at %d: %s", i, at, difference(states[i], got))
				}
			}
		}
	}
	t.Logf("%d of the cut files had only free pages cut off", whole)
}

// A file in which bits have flipped opens with all that was acknowledged, or not at all; and pages that are lost or old.
func TestDamagedFile(t *testing.T) {
	images, states := history(t)
	last := len(images) - 1
	image, want, size := images[last], states[last], os.Getpagesize()
	random := rand.New(rand.NewPCG(5, 6))
	refused, tried := 0, 0
	try := func(what string, change func(b []byte)) {
		b := append([]byte{}, image...)
		change(b)
		tried++
		if got, err := opened(t, b); err != nil {
			refused++
		} else if !reflect.DeepEqual(want, got) {
			t.Fatalf("%s: %s", what, difference(want, got))
		}
	}
	flips := 2000
	if testing.Short() {
		flips = 200
	}
	for n := range flips {
		at := random.IntN(len(image))
		if n%2 == 0 { // in the heads and the elements of a page
			at = at/size*size + random.IntN(128)
		}
		bit := byte(1) << random.IntN(8)
		try(fmt.Sprintf("bit %#x at %d", bit, at), func(b []byte) { b[at] ^= bit })
	}
	for at := 0; at < len(image); at += size {
		try(fmt.Sprintf("zeros at %d", at), func(b []byte) { clear(b[at:][:size]) })
		try(fmt.Sprintf("noise at %d", at), func(b []byte) {
			for i := range size {
				b[at+i] = byte(random.Uint32())
			}
		})
		for other := 0; other < len(image); other += 5 * size {
			try(fmt.Sprintf("the page of %d at %d", other, at), func(b []byte) { copy(b[at:], image[other:][:size]) })
		}
	}
	if refused == 0 || refused == tried {
		t.Errorf("%d of %d files were refused", refused, tried)
	}
	t.Logf("%d of %d files were refused", refused, tried)
}

// A file that has no set yet is what a power cut leaves of the first change. One without its name is none.
func TestFileWithoutSets(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s := openStore(t, path)
	never := errors.New("never")
	if err := s.kept.Change(t.Context(), nil, nil, func(*bbolt.Tx) error { return never }); !errors.Is(err, never) {
		t.Fatal(err)
	}
	image := read(t, path)
	mustPut(t, s, put(0))
	if heads := changed(image, read(t, path))[:2]; !slices.Equal(heads, []int{0, 1}) { // Put, PutRows
		t.Errorf("%v", heads)
	}
	closeStore(t, s)
	if got, err := opened(t, image); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	for at := 0; at < len(image); at += os.Getpagesize() {
		if got, err := opened(t, image[:at]); err == nil {
			t.Errorf("cut at %d: %v", at, got)
		}
	}
}
