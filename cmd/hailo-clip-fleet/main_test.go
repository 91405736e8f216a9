package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet/members"
)

// TestMain has the test binary be the program when it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("HAILO_TEST_BROKER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), "HAILO_TEST_BROKER=1")
	return c
}

// start starts a broker on a free port and returns the process and its address when it serves. The test ends it.
func start(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	c := command(append([]string{"--listen=127.0.0.1:0"}, args...)...)
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	urls := make(chan string, 1)
	go func() {
		defer close(urls)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				urls <- line.URL
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case url, ok := <-urls:
		if ok {
			return c, url
		}
		t.Fatal("it has ended")
	case <-time.After(2 * time.Minute):
		t.Fatal("it does not serve")
	}
	return nil, ""
}

func open(t *testing.T, url string, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.NewWithDomain(nc, "hub")
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// Neither SIGTERM nor kill -9 loses what is stored: only a power cut can lose what is not synced yet.
func TestRestartsKeepStreams(t *testing.T) {
	dir := t.TempDir()
	process, url := start(t, "--store="+dir)
	js := open(t, url)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	stored := uint64(0)
	for _, end := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL, os.Interrupt} {
		for range 100 {
			if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
				t.Fatal(err)
			}
			stored++
		}
		if err := process.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := process.Wait(); (err == nil) == (end == syscall.SIGKILL) {
			t.Errorf("%s: %v", end, err)
		}
		process, url = start(t, "--store="+dir)
		js = open(t, url)
		s, err := js.Stream(t.Context(), "S")
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n != stored {
			t.Errorf("after %s it has %d messages of %d", end, n, stored)
		}
	}
}

// A second broker does not touch the folder of a running one.
func TestFolderIsOneBrokers(t *testing.T) {
	dir := t.TempDir()
	start(t, "--store="+dir)
	out, err := command("--listen=127.0.0.1:0", "--store="+dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another broker works in this folder") {
		t.Errorf("%v: %s", err, out)
	}
}

// On an address that others reach, only those with a key get in.
func TestBeyondLoopbackItIsSecure(t *testing.T) {
	dir := t.TempDir()
	_, url := start(t, "--store="+dir, "--listen=0.0.0.0:0", "--advertise=127.0.0.1")
	if !strings.HasPrefix(url, "tls://127.0.0.1:") {
		t.Fatal(url)
	}
	own, err := members.Dir(dir).Add("a", false, "")
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(url, nats.Secure(own.TLS())); err == nil {
		nc.Close()
		t.Error("nobody is let in")
	}
	public, err := own.Public()
	if err != nil {
		t.Fatal(err)
	}
	var nc *nats.Conn
	for end := time.Now().Add(2 * time.Minute); nc == nil; time.Sleep(50 * time.Millisecond) {
		if nc, err = nats.Connect(own.URL, nats.Secure(own.TLS()), nats.Nkey(public, own.Sign)); err != nil && time.Now().After(end) {
			t.Fatal(err)
		}
	}
	nc.Close()
}

func TestWrongFlags(t *testing.T) {
	for _, args := range []string{
		"--listen=4222", "--listen=127.0.0.1:99999", "--sync-interval=0s", "--sync-interval=never", "--max-store=1M", "--max-store=12X",
		"--credentials=/nowhere",
	} {
		c := command(args, "--store="+t.TempDir())
		if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != 2 {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
}

// A cluster of fewer than three brokers does not start, and says how many there must be.
func TestClusterHasThreeBrokers(t *testing.T) {
	for _, routes := range [][]string{nil, {"a:1"}, {"a:1", "b:1"}, {"a:1", "b:1", "a:1"}} {
		args := []string{"--listen=127.0.0.1:0", "--cluster=127.0.0.1:0", "--store=" + t.TempDir()}
		for _, r := range routes {
			args = append(args, "--routes="+r)
		}
		if out, err := command(args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "have one broker or three") {
			t.Errorf("%q: %v: %s", routes, err, out)
		}
	}
}
