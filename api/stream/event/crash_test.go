package event

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// childEnv names what a process that a test started from its own binary does.
const childEnv = "HAILO_CLIP_EVENTS_TEST_CHILD"

// children are these.
var children = map[string]func(args []string){"add": childAdd, "limit": childLimit}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name](os.Args[1:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func startChild(t *testing.T, name string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), childEnv+"="+name)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c, bufio.NewScanner(out)
}

// childAdd adds the events from the second argument on, several at once, and says of each that it is kept.
func childAdd(args []string) {
	s, err := OpenStore(args[0], testConfig)
	if err != nil {
		panic(err)
	}
	first := 0
	_, _ = fmt.Sscan(args[1], &first)
	var adding sync.WaitGroup
	for worker := range 4 {
		adding.Go(func() {
			for n := first + worker; ; n += 4 {
				if err := s.Add(context.Background(), eventOf("a", n)); err != nil {
					panic(err)
				}
				fmt.Println(n)
			}
		})
	}
	adding.Wait()
}

// A process that is killed while it stores events: all that it has said to be kept are there, with vector and thumbnail.
func TestKilledWhileAdding(t *testing.T) {
	path := newPath(t)
	rounds, random := 30, rand.New(rand.NewPCG(1, 2))
	if testing.Short() {
		rounds = 5
	}
	kept, next := map[int]bool{}, 0
	for range rounds {
		c, lines := startChild(t, "add", path, fmt.Sprint(next))
		hear := func() {
			n := -1
			if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
				t.Fatal(err)
			}
			kept[n], next = true, max(next, n+1)
		}
		for range 1 + random.IntN(60) {
			if !lines.Scan() {
				t.Fatal("it has ended")
			}
			hear()
		}
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it has said meanwhile
			hear()
		}
		_ = c.Wait()
		next += 8 // what it may have begun
		s := openStore(t, path, testConfig)
		for n := range kept {
			if e, err := s.Get(t.Context(), idOf(n)); err != nil || !reflect.DeepEqual(&e, eventOf("a", n)) {
				t.Fatalf("event %d: %+v: %v", n, e, err)
			}
		}
		list, err := s.List(t.Context(), "a", "", MaxList)
		if st := s.Stats(); err != nil || st.Events < len(kept) || st.Events > len(kept)+8*rounds || len(list) != min(st.Events, MaxList) {
			t.Fatalf("%d events of %d, %+v: %v", len(list), len(kept), st, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d events", len(kept))
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// childLimit makes writes fail as on a full disk, then not any more, and says what came of each.
func childLimit(args []string) {
	limit := func(n uint64) {
		if err := syscall.Setrlimit(1 /* RLIMIT_FSIZE */, &syscall.Rlimit{Cur: n, Max: 1 << 40}); err != nil {
			panic(err)
		}
	}
	s, err := OpenStore(args[0], testConfig)
	if err != nil {
		panic(err)
	}
	add := func(n, size int) error {
		e := eventOf("a", n)
		e.JPEG = make([]byte, size)
		return s.Add(context.Background(), e)
	}
	say := func(err error, added int) {
		list, listErr := s.List(context.Background(), "a", "", MaxList)
		st := s.Stats()
		fmt.Println(errors.Is(err, ErrLost) && strings.Contains(err.Error(), syscall.EFBIG.Error()), err == nil,
			st.Events-added, len(list)-added, st.Lost != "", listErr)
	}
	added := 0
	limit(1 << 20)
	for err == nil && added < 1000 {
		if err = add(added, 10_000); err == nil {
			added++
		}
	}
	say(err, added)
	say(add(1000, 500_000), added)
	limit(1 << 40)
	say(add(added, 10_000), added)
	if err := s.Close(); err != nil {
		panic(err)
	}
	fmt.Println(added)
}

func TestFullDisk(t *testing.T) {
	path, added := newPath(t), 0
	c, lines := startChild(t, "limit", path)
	for i, want := range []string{"true false 0 0 true <nil>", "true false 0 0 true <nil>", "false true 1 1 false <nil>"} {
		if lines.Scan(); lines.Text() != want {
			t.Errorf("%d: %q, want %q", i, lines.Text(), want)
		}
	}
	if lines.Scan(); c.Wait() != nil {
		t.Fatal("it has failed")
	}
	if _, err := fmt.Sscan(lines.Text(), &added); err != nil || added < 20 {
		t.Fatalf("%d events: %v", added, err)
	}
	s := openStore(t, path, testConfig)
	for n := range added + 1 {
		if e, err := s.Get(t.Context(), idOf(n)); err != nil || len(e.JPEG) != 10_000 {
			t.Errorf("event %d: %v", n, err)
		}
	}
}
