// Package conformance has real clients of other services ask hailo-clip. It is a module of its own, so that the
// program's module requires none of them.
//
// The tests build the program, or take that of HAILO_TEST_SERVICE_BINARY, and start it with the demo model. Whatever a
// client is told is compared with what /v1/embed/text and /v1/embed/image of the same service say.
package conformance

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	root  = "../../../.."
	alias = "clip-of-tests" // of the demo model

	manyWords = 200 // of a text that is longer than the model reads
)

// program is hailo-clip, built once.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("HAILO_TEST_SERVICE_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(folder, "hailo-clip")
	build := exec.Command("go", "build", "-o", path, "./cmd/hailo-clip")
	build.Dir = root
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return path, nil
})

// folder is for what all tests share; TestMain removes it.
var folder string

func TestMain(m *testing.M) {
	folder = must(os.MkdirTemp("", "hailo-clip-conformance-"))
	code := m.Run()
	_ = os.RemoveAll(folder) // nobody can be told
	os.Exit(code)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// service is the program in a process of its own, which ends with the test.
type service struct{ url string }

// serve starts the service with these flags. Where ONNX Runtime is missing the test is skipped, unless
// HAILO_TEST_REQUIRE_NATIVE is set.
func serve(t *testing.T, flags ...string) *service {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, append([]string{"serve", "--host", "127.0.0.1", "--port", "0", "--model", "demo", "--log-format", "json",
		"--set", "compat.aliases=" + alias}, flags...)...)
	c.Env = append(os.Environ(), "HAILO_CLIP_STATE_DIR="+t.TempDir(), "HAILO_CLIP_ADMIN_LISTEN=127.0.0.1:0")
	log := must(c.StderrPipe())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	url, read := make(chan string, 1), make(chan struct{})
	go func() { // until the process has ended
		defer close(read)
		defer close(url)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			said = append(said, lines.Text())
			var line struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				url <- line.URL
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may have ended
		<-read
		_ = c.Wait()
		if slices.ContainsFunc(said, func(line string) bool { return strings.Contains(line, "DATA RACE") }) { // of make race
			t.Error("the service has a data race")
		}
		if t.Failed() {
			t.Log("log of the service:\n" + strings.Join(said, "\n"))
		}
	})
	s := &service{<-url}
	if s.url == "" {
		<-read
		if why := strings.Join(said, "\n"); strings.Contains(why, "ONNX Runtime") && os.Getenv("HAILO_TEST_REQUIRE_NATIVE") == "" {
			t.Skip(why)
		}
		t.Fatal("the service ended at its start")
	}
	return s
}

// native is what the service's own interface says.
func (s *service) native(t *testing.T, path string, body any) []float32 {
	t.Helper()
	req := must(http.NewRequest("POST", s.url+path, bytes.NewReader(must(json.Marshal(body)))))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/octet-stream")
	resp := must(http.DefaultClient.Do(req))
	defer resp.Body.Close()
	b := must(io.ReadAll(resp.Body))
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
	}
	v := make([]float32, len(b)/4)
	must(binary.Decode(b, binary.LittleEndian, v))
	return v
}

func (s *service) text(t *testing.T, text string) []float32 {
	t.Helper()
	return s.native(t, "/v1/embed/text", map[string]string{"text": text})
}

func (s *service) image(t *testing.T, file []byte) []float32 {
	t.Helper()
	return s.native(t, "/v1/embed/image", map[string][]byte{"image": file})
}

// same fails the test unless got is the vector that want is. A client may have read it as float64.
func same[N float32 | float64](t *testing.T, what string, got []N, want []float32) {
	t.Helper()
	if len(got) != len(want) || len(got) == 0 {
		t.Errorf("%s: %d numbers, want %d", what, len(got), len(want))
		return
	}
	for i, v := range got {
		if math.Abs(float64(v)-float64(want[i])) > 1e-6 { // the encoder may have computed them with others
			t.Errorf("%s: number %d is %v, want %v", what, i, v, want[i])
			return
		}
	}
}

// says fails the test unless the error's text has all of these.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

// file is an image of the main module's.
func file(name string) []byte { return must(os.ReadFile(filepath.Join(root, name))) }

var (
	cat  = file("hailo/demo/samples/cat.jpg")
	dog  = file("hailo/demo/samples/dog.jpg")
	png  = file("stages/decode/testdata/pixels/square224.png")
	webp = file("stages/decode/testdata/pixels/lossy.webp")
)

func dataURI(kind string, image []byte) string {
	return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(image)
}

// serveWithKey starts the service so that it wants a key, and returns one.
func serveWithKey(t *testing.T) (*service, string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var key, file bytes.Buffer // the lines for the configuration come on standard error
	made := exec.Command(path, "keys", "new", "conformance")
	made.Stdout, made.Stderr = &key, &file
	if err := made.Run(); err != nil {
		t.Fatal(err, file.String())
	}
	_, lines, _ := strings.Cut(file.String(), "\n\n")
	config := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return serve(t, "--config", config), strings.TrimSpace(key.String())
}
