package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hailoclip/hailo/onnx"
	"hailoclip/stages/clip"
)

// asProgram makes the test binary be hailo-clip: the tests run the program as users do, in
// processes of its own.
const asProgram = "HAILO_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// needONNX skips a test where ONNX Runtime is missing; CI must have it.
func needONNX(t testing.TB) {
	t.Helper()
	if _, err := onnx.Load("", libraryDirs(t.TempDir())...); err != nil {
		if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// command is hailo-clip with args, with a state folder of its own.
func command(t testing.TB, state string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1", "HAILO_CLIP_STATE_DIR="+state)
	return c
}

// result is what a command that ended left.
type result struct {
	code           int
	stdout, stderr string
}

func runProgram(t testing.TB, c *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// running is a service in a process of its own.
type running struct {
	cmd   *exec.Cmd
	url   string
	ended chan struct{} // closed when the process is gone

	mu  sync.Mutex
	log []string
}

// serve starts the service on a free port and waits until it serves.
func serve(t testing.TB, state string, args ...string) *running {
	t.Helper()
	return serveBy(t, nil, state, args...)
}

// serveBy is serve by a program that ends by executing what it is given.
func serveBy(t testing.TB, by []string, state string, args ...string) *running {
	t.Helper()
	needONNX(t)
	r := &running{ended: make(chan struct{})}
	r.cmd = command(t, state, append([]string{"serve", "--host", "127.0.0.1", "--port", "0"}, args...)...)
	if by != nil {
		path := must(exec.LookPath(by[0]))
		r.cmd.Path, r.cmd.Args = path, slices.Concat(by, r.cmd.Args)
	}
	stderr := must(r.cmd.StderrPipe())
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan string, 1)
	go func() {
		defer close(r.ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			r.mu.Lock()
			r.log = append(r.log, lines.Text())
			r.mu.Unlock()
			var line struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				serving <- line.URL
			}
		}
		_ = r.cmd.Wait() // the code is in ProcessState
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // gone already where the test ended it
		<-r.ended
		if t.Failed() {
			t.Log("log of the service:\n" + r.logged())
		}
	})
	select {
	case r.url = <-serving:
	case <-r.ended:
		t.Fatalf("the service ended at its start:\n%s", r.logged())
	}
	return r
}

func (r *running) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.log, "\n")
}

// stop ends the service as systemd does and returns its exit code.
func (r *running) stop(t testing.TB) int {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	return r.cmd.ProcessState.ExitCode()
}

// reply is an answer of the REST interface.
type reply struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (r *running) post(path string, body any) (reply, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	response, err := http.Post(r.url+path, "application/json", bytes.NewReader(text))
	if err != nil {
		return reply{}, err
	}
	return read(response)
}

func (r *running) get(t testing.TB, path string) (a reply) {
	t.Helper()
	response, err := http.Get(r.url + path)
	if err == nil {
		a, err = read(response)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// stats are the counters of the service.
func (r *running) stats(t testing.TB) (s clip.Stats) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.get(t, "/v1/stats").raw), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func read(response *http.Response) (reply, error) {
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	a := reply{status: response.StatusCode, header: response.Header, raw: string(raw)}
	if err := json.Unmarshal(raw, &a.body); err != nil {
		return a, fmt.Errorf("answer %q: %w", raw, err)
	}
	return a, nil
}

// ask is post for tests in which every request is answered.
func (r *running) ask(t testing.TB, path string, body any) reply {
	t.Helper()
	a, err := r.post(path, body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mustPost is ask for tests where everything but 200 is a failure.
func (r *running) mustPost(t testing.TB, path string, body any) reply {
	t.Helper()
	a := r.ask(t, path, body)
	if a.status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, a.status, a.raw)
	}
	return a
}

// sample is an image of the demo model in base64.
func sample(t testing.TB, name string) string {
	t.Helper()
	b := must(os.ReadFile(filepath.Join("..", "..", "hailo", "demo", "samples", name)))
	return base64.StdEncoding.EncodeToString(b)
}

func catRequest(t testing.TB) map[string]any {
	return map[string]any{"image": sample(t, "cat.jpg"), "prompts": []string{"a photo of a dog", "a photo of a cat"}, "top_k": 1}
}

// best is the text of the first classification.
func (a reply) best() string {
	list, _ := a.body["classifications"].([]any)
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	text, _ := first["text"].(string)
	return text
}

// until waits for what must come.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what, ": never")
		}
	}
}

// must is for what cannot fail in a sound test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
