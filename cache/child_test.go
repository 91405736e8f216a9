package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hailoclip/pipeline/fair"
)

// children are what a process does that a test started from its own binary; TestMain calls them.
var children = map[string]func(args []string){
	"hold":  childHold,
	"write": childWrite,
	"limit": childLimit,
}

// child is a running process of children.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func startChild(t *testing.T, name string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], args...)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+name)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	c.lines = bufio.NewScanner(out)
	in, err2 := c.cmd.StdinPipe()
	c.stdin = in
	if err := errors.Join(err, err2, c.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); _ = c.cmd.Wait() })
	return c
}

// line is the next line that the child prints.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("the child ended: %v", c.cmd.Wait())
	}
	return c.lines.Text()
}

// childStore opens the store in dir.
func childStore(config Config, dir string) (*Store, *TextEmbeddings) {
	s := OpenStore(config, dir, slog.New(slog.DiscardHandler))
	te, err := s.Embeddings(Encoder{Namespace: "ns", Dim: testDim, Batch: 8, Calls: 1, Encode: newFake("ns").encode})
	if err != nil {
		panic(err)
	}
	return s, te
}

// childHold holds the store until its input ends.
func childHold(args []string) {
	s, _ := childStore(testConfig(), args[0])
	fmt.Println(s.Stats().Disk.State)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close()
}

func TestSecondInstance(t *testing.T) {
	dir := t.TempDir()
	path := fill(t, dir, 50)
	first := startChild(t, "hold", dir)
	if state := first.line(t); state != DiskOK {
		t.Fatalf("the first instance: %s", state)
	}
	stats, log, f := usable(t, dir, 50)
	if stats.State != DiskOff || stats.Reason != "the cache file is "+ErrLocked.Error() || log.warnings() != 1 || f.count() != 100 {
		t.Errorf("the second instance: %d warnings, %d encoded, %+v", log.warnings(), f.count(), stats)
	}
	if info, err := Inspect(path); err != nil || !info.Locked || info.Bytes == 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := ClearFile(path); !errors.Is(err, ErrLocked) {
		t.Errorf("clearing: %v", err)
	}
	_ = first.stdin.Close()
	if err := first.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if info, err := Inspect(path); err != nil || info.Locked || info.Namespaces[0].Vectors != 50 {
		t.Errorf("after the first has ended: %+v, %v", info, err)
	}
	if err := ClearFile(path); err != nil {
		t.Errorf("clearing after the first has ended: %v", err)
	}
}

// childWrite asks for one new prompt after another and tells how many were written, for ever.
func childWrite(args []string) {
	s, te := childStore(testConfig(), args[0])
	from, _ := strconv.Atoi(args[1])
	for n := from; ; n++ {
		if _, err := te.Get(context.Background(), fair.Caller{}, []string{fmt.Sprint("prompt ", n)}); err != nil {
			panic(err)
		}
		fmt.Println(s.Stats().Disk.Vectors)
	}
}

func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, testConfig().CacheFile)
	written := 0 // what some child has told
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		c := startChild(t, "write", dir, strconv.Itoa(round*1_000_000))
		target := written + 1 + 700*round%2000
		for n := written; n < target; {
			var err error
			if n, err = strconv.Atoi(c.line(t)); err != nil {
				t.Fatal(err)
			}
			written = max(written, n)
		}
		if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = c.cmd.Wait()
		info, err := Inspect(path)
		if err != nil || len(info.SetAside) > 0 || len(info.Namespaces) != 1 || info.Namespaces[0].Damaged > 0 {
			t.Fatalf("round %d: %+v, %v", round, info, err)
		}
		if n := info.Namespaces[0].Vectors; n < written {
			t.Fatalf("round %d: %d vectors, but %d had been written", round, n, written)
		}
		written = info.Namespaces[0].Vectors
	}
	stats, log, _ := usable(t, dir, 50)
	if stats.State != DiskOK || stats.Reason != "" || log.warnings() != 0 {
		t.Errorf("%d warnings: %+v", log.warnings(), stats)
	}
	t.Logf("%d vectors after %d kills", written, rounds)
}

// childLimit makes writes fail by a limit on the size of files, then lifts it, and prints the
// state of the disk each time.
func childLimit(args []string) {
	retryAfter = time.Millisecond
	limit := func(n uint64) {
		if err := syscall.Setrlimit(1 /* RLIMIT_FSIZE */, &syscall.Rlimit{Cur: n, Max: 1 << 40}); err != nil {
			panic(err)
		}
	}
	s, te := childStore(testConfig(), args[0])
	get := func(name string, n int) {
		prompts := promptList(name, n)
		p, err := te.Get(context.Background(), fair.Caller{}, prompts)
		if err != nil {
			panic(err)
		}
		for i, prompt := range prompts {
			if p.Rows[i].Embedding[3] != vectorOf("ns", prompt, testDim).Embedding[3] {
				panic("wrong vector")
			}
		}
		waitWritten(s)
	}
	show := func() {
		d := s.Stats().Disk
		fmt.Println(d.State, d.Failures > 0, d.Dropped > 0, strings.Contains(d.Reason, syscall.EFBIG.Error()))
	}
	get("cat", 300)
	show()
	limit(64 << 10)
	get("dog", 2000)
	show()
	get("cat", 300)
	limit(1 << 40)
	time.Sleep(2 * retryAfter)
	get("owl", 300)
	show()
	if err := s.Close(); err != nil {
		panic(err)
	}
}

func TestWritesFailAndRecover(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "limit", dir)
	for _, want := range []string{"ok false false false", "paused true true true", "ok true true false"} {
		if got := c.line(t); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	info, err := Inspect(filepath.Join(dir, testConfig().CacheFile))
	if err != nil || info.Namespaces[0].Vectors < 600 {
		t.Fatalf("%+v, %v", info, err)
	}
}
