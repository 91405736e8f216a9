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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hailoclip/hailo/onnx"
	"hailoclip/stages/clip"
)

// asProgram makes the test binary be hailo-clip: the tests run the program as users do, in
// processes of its own.
const asProgram = "HAILO_TEST_AS_PROGRAM"

const samples = "../../hailo/demo/samples/"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asBroker); dir != "" {
		os.Exit(runBroker(dir))
	}
	if os.Getenv(asProgram) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// must is for what cannot fail in a sound test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// put writes files below a folder.
func put(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

// configFile is my.yaml in a folder of its own.
func configFile(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{"my.yaml": text})
	return filepath.Join(dir, "my.yaml")
}

// patience is how long a test waits for what must come. Only a test that fails waits for so long: nothing is
// decided by how fast the machine is.
const patience = 2 * time.Minute

// until waits for what must come.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what, ": never")
		}
	}
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

// needPrograms skips a test where one of these programs is missing. It returns the first.
func needPrograms(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	return names[0]
}

// command is hailo-clip with args, with a state folder of its own.
func command(state string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1", "HAILO_CLIP_STATE_DIR="+state, "HAILO_CLIP_ADMIN_LISTEN=127.0.0.1:0", "HAILO_CLIP_LOGGING_REQUESTS=1")
	return c
}

// by has a program start c: one that ends by executing what it is given.
func by(c *exec.Cmd, program ...string) *exec.Cmd {
	c.Args = append(program, c.Args...)
	c.Path = must(exec.LookPath(program[0]))
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
	if c.Stderr = &errs; c.Stdout == nil {
		c.Stdout = &out
	}
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// hailoClip runs a command with an empty state folder.
func hailoClip(t testing.TB, args ...string) result {
	t.Helper()
	return runProgram(t, command(t.TempDir(), args...))
}

// expect fails the test unless the command ended with that code and said all of these, on whatever lines.
func (r result) expect(t testing.TB, code int, says ...string) {
	t.Helper()
	said := strings.Join(strings.Fields(r.stdout+r.stderr), " ")
	for _, s := range says {
		if !strings.Contains(said, s) {
			t.Errorf("no %q", s)
		}
	}
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if t.Failed() {
		t.Logf("standard output:\n%.2000s\nstandard error:\n%.2000s", r.stdout, r.stderr)
	}
}

// running is the program in a process of its own, as a rule a service.
type running struct {
	cmd    *exec.Cmd
	url    string
	ended  chan struct{} // closed when the process is gone
	stderr *os.File      // whose other end it writes to
	deaf   atomic.Bool   // nobody reads on

	mu  sync.Mutex
	log []string
}

// start starts the program, and kills it at the end of the test.
func start(t testing.TB, c *exec.Cmd) *running {
	t.Helper()
	needONNX(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{cmd: c, ended: make(chan struct{}), stderr: in}
	c.Stderr = out
	if err := errors.Join(c.Start(), out.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		for lines := bufio.NewScanner(in); !r.deaf.Load() && lines.Scan(); {
			r.mu.Lock()
			r.log = append(r.log, lines.Text())
			r.mu.Unlock()
		}
		_ = c.Wait() // the code is in ProcessState
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill() // gone already where the test ended it
		<-r.ended
		in.Close()
		if t.Failed() {
			t.Log("log of the program:\n" + r.logged())
		}
	})
	return r
}

// serve starts the service on a free port and waits until it serves.
func serve(t testing.TB, state string, args ...string) *running {
	t.Helper()
	return start(t, serveCommand(state, args...)).serving(t)
}

func serveCommand(state string, args ...string) *exec.Cmd {
	return command(state, append([]string{"serve", "--host", "127.0.0.1", "--port", "0"}, args...)...)
}

// serving waits until the service serves.
func (r *running) serving(t testing.TB) *running {
	t.Helper()
	r.url = r.urlOf(t, "serving")
	return r
}

// urlOf waits for the line of the log with that message, and returns its url.
func (r *running) urlOf(t testing.TB, msg string) (url string) {
	t.Helper()
	until(t, msg, func() bool {
		select {
		case <-r.ended:
			t.Fatal("the service ended at its start")
		default:
		}
		var line struct{ Msg, URL string }
		for text := range strings.Lines(r.logged()) {
			if json.Unmarshal([]byte(text), &line) == nil && line.Msg == msg {
				url = line.URL
			}
		}
		return url != ""
	})
	return url
}

// adminURL is where the service has its metrics and its reload.
func (r *running) adminURL(t testing.TB) string {
	t.Helper()
	return strings.TrimSuffix(r.urlOf(t, "metrics and profiles"), "/metrics")
}

func (r *running) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.log, "\n")
}

// end signals the program, waits until it has ended, and fails the test unless its exit code is that.
func (r *running) end(t testing.TB, signal os.Signal, code int) {
	t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// stop ends the service as systemd does.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.end(t, syscall.SIGTERM, exitOK)
}

// reply is an answer of the REST interface.
type reply struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
	last   bool // on its connection
}

func read(response *http.Response, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	a := reply{status: response.StatusCode, header: response.Header, raw: string(raw), last: response.Close}
	if err := json.Unmarshal(raw, &a.body); err != nil {
		return a, fmt.Errorf("answer %q: %w", raw, err)
	}
	return a, nil
}

func (r *running) post(path string, body any) (reply, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	return read(http.Post(r.url+path, "application/json", bytes.NewReader(text)))
}

func (r *running) get(t testing.TB, path string) reply {
	t.Helper()
	a, err := read(http.Get(r.url + path))
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

// classifies fails the test unless the service does its main job. It returns the answer.
func (r *running) classifies(t testing.TB) reply {
	t.Helper()
	a := r.mustPost(t, "/v1/classify", catRequest(t))
	if a.best() != "a photo of a cat" {
		t.Errorf("classified as %s", a.raw)
	}
	return a
}

// logs fails the test unless all of these are in the log.
func (r *running) logs(t testing.TB, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !strings.Contains(r.logged(), s) {
			t.Errorf("no %q in the log", s)
		}
	}
}

// sample is an image of the demo model in base64.
func sample(t testing.TB, name string) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString(must(os.ReadFile(samples + name)))
}

func catRequest(t testing.TB) map[string]any {
	return map[string]any{"image": sample(t, "cat.jpg"), "prompts": []string{"a photo of a dog", "a photo of a cat"}, "top_k": 1}
}

// best is the text of the first classification.
func (a reply) best() string {
	var answer struct{ Classifications []struct{ Text string } }
	if err := json.Unmarshal([]byte(a.raw), &answer); err != nil || len(answer.Classifications) == 0 {
		return ""
	}
	return answer.Classifications[0].Text
}
