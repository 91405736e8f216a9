package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"hailoclip/stages/decode"
)

func TestServiceClassifiesAndEmbeds(t *testing.T) {
	r := serve(t, t.TempDir())
	if a := r.mustPost(t, "/v1/classify", catRequest(t)); a.best() != "a photo of a cat" || a.body["model"] != "demo" {
		t.Errorf("classified as %s", a.raw)
	}
	length := func(a reply) float64 {
		sum := 0.0
		for _, x := range a.body["embedding"].([]any) {
			sum += x.(float64) * x.(float64)
		}
		return sum
	}
	image := r.mustPost(t, "/v1/embed/image", map[string]any{"image": sample(t, "cat.jpg")})
	text := r.mustPost(t, "/v1/embed/text", map[string]any{"text": "a photo of a cat"})
	for _, a := range []reply{image, text} {
		if a.body["dimension"] != 512.0 || math.Abs(length(a)-1) > 1e-5 {
			t.Errorf("dimension %v, squared length %v", a.body["dimension"], length(a))
		}
	}
	health := r.get(t, "/health")
	if health.status != 200 || health.body["status"] != "healthy" || health.body["backend"] != "cpu" || health.body["model"] != "demo" {
		t.Errorf("health %s", health.raw)
	}
	if why, _ := health.body["model_reason"].(string); !strings.Contains(why, "demo model, which knows drawings") {
		t.Errorf("health does not say that this is the demo model: %q", why)
	}
	if !strings.Contains(r.logged(), "knows drawings, not photographs") {
		t.Error("the log does not say that this is the demo model")
	}
	if code := r.stop(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestPromptsAreEncodedOnce reads the counters of the service.
func TestPromptsAreEncodedOnce(t *testing.T) {
	state := t.TempDir()
	r := serve(t, state)
	r.mustPost(t, "/v1/classify", catRequest(t))
	if n := r.stats(t).Cache.Encoded; n != 2 {
		t.Fatalf("%d texts encoded for 2 new prompts", n)
	}
	r.mustPost(t, "/v1/classify", catRequest(t))
	if c := r.stats(t).Cache; c.Encoded != 2 || c.ListHits != 1 {
		t.Errorf("the second request encoded %d texts, %d lists found", c.Encoded-2, c.ListHits)
	}
	r.stop(t)
	r = serve(t, state)
	if a := r.mustPost(t, "/v1/classify", catRequest(t)); a.best() != "a photo of a cat" {
		t.Errorf("from the file: %s", a.raw)
	}
	if c := r.stats(t).Cache; c.Encoded != 0 || c.DiskHits != 2 {
		t.Errorf("the first request after a restart encoded %d texts and found %d on disk", c.Encoded, c.DiskHits)
	}
}

// classifies fails the test unless the service does its main job.
func (r *running) classifies(t *testing.T) {
	t.Helper()
	if a := r.mustPost(t, "/v1/classify", catRequest(t)); a.best() != "a photo of a cat" {
		t.Errorf("classified as %s", a.raw)
	}
}

func TestTroubleWithTheCacheFile(t *testing.T) {
	cacheFile := func(t *testing.T) (state, file string) {
		state = t.TempDir()
		return state, filepath.Join(state, "prompts.db")
	}
	t.Run("folder cannot be written", func(t *testing.T) {
		// A file in the place of the folder stops root too, unlike permissions.
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r := serve(t, filepath.Join(file, "state"))
		r.classifies(t)
		if !strings.Contains(r.logged(), "kept in memory only") {
			t.Error("no warning of the cache in the log")
		}
	})
	t.Run("truncated", func(t *testing.T) {
		state, file := cacheFile(t)
		r := serve(t, state)
		r.classifies(t)
		r.stop(t)
		if err := os.Truncate(file, 10_000); err != nil {
			t.Fatal(err)
		}
		r = serve(t, state)
		r.classifies(t)
		if aside, _ := filepath.Glob(file + ".corrupt-*"); len(aside) != 1 {
			t.Errorf("set aside: %v", aside)
		}
	})
	t.Run("second instance", func(t *testing.T) {
		state, _ := cacheFile(t)
		first := serve(t, state)
		first.classifies(t)
		second := serve(t, state)
		second.classifies(t)
		if !strings.Contains(second.logged(), "locked") {
			t.Error("the second instance does not say that the cache is locked")
		}
		stats := runProgram(t, command(t, state, "cache", "stats"))
		if stats.code != exitOK || !strings.Contains(stats.stdout, "held by a running service") {
			t.Errorf("cache stats: %+v", stats)
		}
	})
	t.Run("killed", func(t *testing.T) {
		state, _ := cacheFile(t)
		r := serve(t, state)
		r.classifies(t)
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-r.ended
		r = serve(t, state)
		r.classifies(t)
		if strings.Contains(r.logged(), "damaged") {
			t.Error("kill -9 damaged the file")
		}
	})
}

// TestWithoutTurboJPEG hides the library from the service, in a mount namespace of its own.
func TestWithoutTurboJPEG(t *testing.T) {
	library, err := decode.FindLibrary()
	if err != nil {
		t.Skip("it is missing anyway, so all tests are this one: ", err)
	}
	hide := []string{"unshare", "--mount", "sh", "-c", `mount --bind /dev/null "$0" && exec "$@"`, library}
	if out, err := exec.Command(hide[0], append(hide[1:], "true")...).CombinedOutput(); err != nil {
		if os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "" && os.Getuid() == 0 {
			t.Fatalf("root must be able to hide a file: %v, %s", err, out)
		}
		t.Skipf("no mount namespaces here: %v, %s", err, out)
	}
	r := serveBy(t, hide, t.TempDir())
	if a := r.mustPost(t, "/v1/classify", catRequest(t)); a.best() != "a photo of a cat" {
		t.Errorf("classified as %s", a.raw)
	}
	if !strings.Contains(r.logged(), "libturbojpeg") {
		t.Error("the log does not say what is slower")
	}
}

func TestStartThatCannotWork(t *testing.T) {
	busy := must(net.Listen("tcp", "127.0.0.1:0"))
	defer busy.Close()
	port := fmt.Sprint(busy.Addr().(*net.TCPAddr).Port)
	config := func(text string) string {
		file := filepath.Join(t.TempDir(), "my.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	noText := filepath.Join(t.TempDir(), "state")
	put(t, noText, map[string]string{"models/mine/manifest.json": minimalManifest, "models/mine/t.json": "{}", "models/mine/i.onnx": "\x08", "models/mine/t.onnx": "\x08"})
	cases := []struct {
		name   string
		args   []string // of serve and of doctor
		server []string // of serve; for doctor they stand in the environment
		code   int
		says   []string
	}{
		{"port in use", nil, []string{"--host", "127.0.0.1", "--port", port}, exitFailed, []string{"address already in use", "--port"}},
		{"wrong key", []string{"--config", config("server:\n  prot: 5000\n")}, nil, exitUsage, []string{"my.yaml", "line 2", `unknown key "prot"`}},
		{"out of bounds", nil, []string{"--port", "70000"}, exitUsage, []string{"70000", "65535"}},
		{"no such flag", []string{"--prot", "1"}, nil, exitUsage, []string{"--prot"}},
		{"no ONNX Runtime", []string{"--config", config("cpu:\n  library: /nowhere/libonnxruntime.so\n")}, []string{"--port", "0"},
			exitMissing, []string{"cpu.library is /nowhere/libonnxruntime.so", "hailo-clip setup"}},
		{"model not installed", []string{"--model", "clip-vit-b-32"}, []string{"--port", "0"}, exitMissing, []string{"hailo-clip models pull clip-vit-b-32"}},
		{"unknown model", []string{"--model", "clip-of-mine"}, []string{"--port", "0"}, exitUsage, []string{"clip-of-mine", "demo"}},
		{"no NPU", []string{"--backend", "npu"}, []string{"--port", "0"}, exitMissing, []string{"for the CPU only", "models pull clip-vit-b-32", "--model clip-vit-b-32"}},
		{"texts on an NPU", []string{"--backend", "cpu", "--config", config("clip:\n  text_encoder: npu\n")}, []string{"--port", "0"}, exitUsage, []string{"text_encoder"}},
		{"vectors of another model", []string{"--backend", "sim", "--model", "mine", "--config", config("sim:\n  vectors: model\n"), "--state-dir", noText},
			[]string{"--port", "0"}, exitFailed, []string{"tokenizer"}},
		{"address of another machine", nil, []string{"--host", "192.0.2.1", "--port", "0"}, exitFailed, []string{"cannot assign"}},
		{"other dimension", []string{"--config", config("clip:\n  embedding_dimension: 640\n")}, []string{"--port", "0"},
			exitUsage, []string{"clip.embedding_dimension", "640", "512"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := runProgram(t, command(t, t.TempDir(), slices.Concat([]string{"serve"}, c.args, c.server)...))
			if r.code != c.code {
				t.Errorf("exit code %d, want %d", r.code, c.code)
			}
			if strings.Contains(r.stderr, "another hailo-clip") != (c.name == "port in use") {
				t.Errorf("wrong advice: %s", r.stderr)
			}
			// What stops serve is a failure of doctor, who finds it by the same functions.
			doctor := command(t, t.TempDir(), slices.Concat([]string{"doctor"}, c.args)...)
			for pair := range slices.Chunk(c.server, 2) {
				doctor.Env = append(doctor.Env, "HAILO_CLIP_SERVER_"+strings.ToUpper(strings.TrimPrefix(pair[0], "--"))+"="+pair[1])
			}
			d := runProgram(t, doctor)
			if d.code != exitFailed && d.code != exitUsage {
				t.Errorf("doctor finds nothing: exit code %d\n%s", d.code, d.stdout)
			}
			for _, s := range c.says {
				if !strings.Contains(r.stderr, s) {
					t.Errorf("no %q in: %s", s, r.stderr)
				}
				if said := strings.Join(strings.Fields(d.stdout+d.stderr), " "); !strings.Contains(said, s) {
					t.Errorf("doctor does not say %q: %s", s, said)
				}
			}
		})
	}
}

// minimalManifest is that of a model with files for the CPU.
const minimalManifest = `{"name": "mine", "description": "d", "license": "l", "embedding_dimension": 16, "image_size": 32, "context_length": 8,
	"logit_scale": 10, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "tokens": {"start": "<a>", "end": "<b>", "pad_id": 0},
	"tokenizer": "t.json", "cpu": {"image": "i.onnx", "text": "t.onnx"}, "files": {"t.json": {}, "i.onnx": {}, "t.onnx": {}}}`

// TestNoRuntimeAnywhere looks for ONNX Runtime where nobody has put it.
func TestNoRuntimeAnywhere(t *testing.T) {
	empty := t.TempDir()
	t.Setenv("HOME", empty)
	t.Setenv("XDG_CACHE_HOME", "")
	r := runProgram(t, command(t, filepath.Join(empty, "state"), "embed", "text", "a cat", "--backend", "cpu"))
	if r.code == exitOK {
		t.Skip("it is installed for the whole system")
	}
	if r.code != exitMissing || !strings.Contains(r.stderr, "\"hailo-clip setup\" fetches one") || !strings.Contains(r.stderr, empty) {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

// slowChip serves on a simulated chip with the demo model's vectors that takes factor times as long
// as it should, from now on.
func slowChip(t *testing.T, factor int) (control, *running) {
	t.Helper()
	// It is slow, it does not hang; and the machine may be slow too.
	chip, config := newControl(t, "  device_timeout_ms: 60000\nsim:\n  vectors: model\n  arguments: CONTROL\n"+
		"performance:\n  request_timeout: 2m\nserver:\n  shutdown_timeout: 2m\n")
	r := serve(t, t.TempDir(), "--config", config)
	chip.tell(t, fmt.Sprintf("slow=%d", factor))
	return chip, r
}

// TestStopUnderLoad ends the service while requests are inside, waiting for a slow chip to encode
// their prompts, with the work on their images still to come: every one of them is answered in
// full, whatever signals follow, and whoever comes later is refused.
func TestStopUnderLoad(t *testing.T) {
	for _, signals := range [][]syscall.Signal{
		{syscall.SIGTERM}, {syscall.SIGHUP}, {syscall.SIGTERM, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT},
	} {
		t.Run(fmt.Sprint(signals), func(t *testing.T) { stopUnderLoad(t, signals) })
	}
}

func stopUnderLoad(t *testing.T, signals []syscall.Signal) {
	_, r := slowChip(t, 30)
	const inside = 8
	replies := make([]reply, inside)
	var clients sync.WaitGroup
	for i := range inside {
		request := catRequest(t)
		request["prompts"] = []string{"a photo of a cat", fmt.Sprint("a photo of pizza number ", i)}
		clients.Go(func() {
			var err error
			if replies[i], err = r.post("/v1/classify", request); err != nil {
				t.Errorf("request %d was cut: %v", i, err)
			}
		})
	}
	until(t, "all are inside", func() bool { // and most are not encoded, unless the machine is slower than the chip
		return r.stats(t).Cache.Requests == inside
	})
	for _, s := range signals {
		if err := r.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		until(t, "it stops", func() bool { return strings.Contains(r.logged(), `"msg":"stopping"`) })
	}
	<-r.ended
	if code := r.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	clients.Wait()
	for i, a := range replies {
		if a.status != http.StatusOK || a.best() != "a photo of a cat" {
			t.Errorf("request %d: %d %s", i, a.status, a.raw)
		}
	}
	if _, err := r.post("/v1/classify", catRequest(t)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a request that came too late: %v", err)
	}
	if !strings.Contains(r.logged(), `"msg":"stopped"`) {
		t.Error("the service did not stop in order")
	}
}

// TestStopDuringTheStart: a service that is told to stop before it serves has not failed, and tells the
// clients that wait for it.
func TestStopDuringTheStart(t *testing.T) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	address := ln.Addr().String()
	ln.Close() // some port that is free
	_, port, _ := net.SplitHostPort(address)
	chip, config := newControl(t, "sim:\n  arguments: CONTROL --fault=refuse=silent\n")
	for _, c := range []struct {
		signal os.Signal
		args   []string
		code   int
		says   string
	}{
		{syscall.SIGTERM, []string{"serve", "--host", "127.0.0.1", "--port", port}, exitOK, "stopped"},
		{os.Interrupt, []string{"classify", samples + "cat.jpg", "-p", "a cat"}, exitInterrupted, "hailo-clip: interrupted\n"},
	} {
		needONNX(t)
		cmd := command(t, t.TempDir(), append(c.args, "--config", config)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		chip.tell(t, "refuse=silent") // it is there, so the program waits for it
		answer := make(chan string, 1)
		if c.signal == syscall.SIGTERM {
			client := must(net.Dial("tcp", address))
			defer client.Close()
			fmt.Fprint(client, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
			go func() { b, err := io.ReadAll(client); answer <- fmt.Sprint(string(b), err) }()
		} else {
			answer <- "HTTP/1.1 503"
		}
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the code is in ProcessState
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(errs.String(), c.says) || strings.Contains(errs.String(), "canceled") {
			t.Errorf("%s: exit code %d\n%s", c.args[0], code, errs.String())
		}
		if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 503") {
			t.Errorf("a client that waited got %q", got)
		}
	}
}

// TestTooManyClients has 64 clients against the default queue of 10, before a chip that does about 17 images a
// second, or as few as it takes on this machine: more than fit come at once.
func TestTooManyClients(t *testing.T) {
	chip, r := slowChip(t, 20)
	request := catRequest(t)
	var mu sync.Mutex
	statuses := map[int]int{}
	for slow := 20; statuses[429] == 0 && slow < 1000; slow *= 4 {
		chip.tell(t, fmt.Sprintf("slow=%d", slow))
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				a, err := r.post("/v1/classify", request)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				statuses[a.status]++
				mu.Unlock()
				switch {
				case a.status == 429 && (a.header.Get("Retry-After") == "" || a.body["code"] != "queue_full"):
					t.Errorf("429 as %v %s", a.header, a.raw)
				case a.status == 200 && a.best() != "a photo of a cat":
					t.Errorf("classified as %s", a.raw)
				case a.status != 200 && a.status != 429:
					t.Errorf("%d %s", a.status, a.raw)
				}
			})
		}
		wg.Wait()
	}
	if statuses[200] == 0 || statuses[429] == 0 {
		t.Errorf("statuses %v", statuses)
	}
	t.Logf("statuses %v", statuses)
	chip.tell(t, "ok")
	r.classifies(t)
}
