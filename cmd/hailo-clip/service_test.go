package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hailoclip/stages/decode"
)

func TestServiceClassifiesAndEmbeds(t *testing.T) {
	t.Parallel()
	r := serve(t, t.TempDir())
	if a := r.classifies(t); a.body["model"] != "demo" {
		t.Errorf("classified as %s", a.raw)
	}
	for path, body := range map[string]map[string]any{
		"/v1/embed/image": {"image": sample(t, "cat.jpg")}, "/v1/embed/text": {"text": "a photo of a cat"},
	} {
		a, sum := r.mustPost(t, path, body), 0.0
		for _, x := range a.body["embedding"].([]any) {
			sum += x.(float64) * x.(float64)
		}
		if a.body["dimension"] != 512.0 || math.Abs(sum-1) > 1e-5 {
			t.Errorf("%s: dimension %v, squared length %v", path, a.body["dimension"], sum)
		}
	}
	health := r.get(t, "/health")
	if health.status != 200 || health.body["status"] != "healthy" || health.body["backend"] != "cpu" || health.body["model"] != "demo" {
		t.Errorf("health %s", health.raw)
	}
	if why, _ := health.body["model_reason"].(string); !strings.Contains(why, "demo model, which knows drawings") {
		t.Errorf("health does not say that this is the demo model: %q", why)
	}
	r.logs(t, "knows drawings, not photographs")
	r.stop(t)
}

// TestSimulatedChip: answers say what vectors made of the input's bytes are worth, unless the chip computes a real
// model's. With text_encoder cpu prompts are encoded there; on the demo model their vectors are the same on both.
func TestSimulatedChip(t *testing.T) {
	t.Parallel()
	for settings, warning := range map[string]string{
		"sim:\n  vectors: hash\n": "simulated-vectors", "sim:\n  vectors: model\n": "", "  text_encoder: cpu\nsim:\n  vectors: model\n": "",
	} {
		_, r := serveSim(t, settings)
		health := r.get(t, "/health")
		if health.body["backend"] != "sim" || health.body["runtime_mode"] != "simulated" || health.body["status"] != "healthy" {
			t.Errorf("health %s", health.raw)
		}
		first, second := r.mustPost(t, "/v1/classify", catRequest(t)), r.mustPost(t, "/v1/classify", catRequest(t))
		if !reflect.DeepEqual(first.body["classifications"], second.body["classifications"]) {
			t.Errorf("equal input, other output: %s and %s", first.raw, second.raw)
		}
		for _, a := range []reply{health, first} {
			if got := a.header.Get("X-Clip-Warning"); got != warning {
				t.Errorf("%s: warning %q", settings, got)
			}
		}
		if warned := strings.Contains(r.logged(), "nonsense"); warned != (warning != "") {
			t.Errorf("%s: warned in the log %v", settings, warned)
		}
		onCPU := strings.Contains(settings, "text_encoder: cpu")
		if npu := r.stats(t).NPU; npu.Images == 0 || (npu.Texts == 0) != onCPU {
			t.Errorf("%s: the chip encoded %v texts and %v images", settings, npu.Texts, npu.Images)
		}
		if warning == "" {
			r.classifies(t)
		}
		r.stop(t)
	}
}

// TestPromptsAreEncodedOnce reads the counters of the service.
func TestPromptsAreEncodedOnce(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	r := serve(t, state)
	for n, hits := range []uint64{0, 1} {
		r.classifies(t)
		if c := r.stats(t).Cache; c.Encoded != 2 || c.ListHits != hits {
			t.Errorf("request %d: %d texts encoded for 2 new prompts, %d lists found", n, c.Encoded, c.ListHits)
		}
	}
	r.stop(t)
	r = serve(t, state)
	r.classifies(t)
	if c := r.stats(t).Cache; c.Encoded != 0 || c.DiskHits != 2 {
		t.Errorf("the first request after a restart encoded %d texts and found %d on disk", c.Encoded, c.DiskHits)
	}
}

// TestTroubleWithTheCacheFile has a service that cannot have the file, because another has it or there is no folder.
func TestTroubleWithTheCacheFile(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	serve(t, state).classifies(t)
	second := serve(t, state)
	second.classifies(t)
	second.logs(t, "locked")
	runProgram(t, command(state, "cache", "stats")).expect(t, exitOK, "held by a running service")

	// A file in the place of the folder stops root too, unlike permissions.
	r := serve(t, filepath.Join(configFile(t, ""), "state"))
	r.classifies(t)
	r.logs(t, "kept in memory only")
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
	r := start(t, by(serveCommand(t.TempDir()), hide...)).serving(t)
	r.classifies(t)
	r.logs(t, "libturbojpeg")
}

// TestImageBeyondMemory sends an image that is larger than memory_max leaves room for, and one that is not.
func TestImageBeyondMemory(t *testing.T) {
	t.Setenv("HAILO_CLIP_RESOURCE_LIMITS_MEMORY_MAX", "256M")
	r := serve(t, t.TempDir())
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, 7000, 7000), []color.Color{color.Black, color.White})); err != nil {
		t.Fatal(err)
	}
	a := r.ask(t, "/v1/embed/image", map[string]any{"image": base64.StdEncoding.EncodeToString(b.Bytes())})
	if said, _ := a.body["error"].(string); a.status != 413 || a.body["code"] != "image_too_large" || !strings.Contains(said, "resource_limits.memory_max") {
		t.Errorf("%d %s", a.status, a.raw)
	}
	r.classifies(t)
}

func TestStartThatCannotWork(t *testing.T) {
	t.Parallel()
	busy := must(net.Listen("tcp", "127.0.0.1:0"))
	defer busy.Close()
	port := fmt.Sprint(busy.Addr().(*net.TCPAddr).Port)
	config := func(text string) string { return configFile(t, text) }
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
			r := hailoClip(t, slices.Concat([]string{"serve"}, c.args, c.server)...)
			r.expect(t, c.code, c.says...)
			if strings.Contains(r.stderr, "another hailo-clip") != (c.name == "port in use") {
				t.Errorf("wrong advice: %s", r.stderr)
			}
			// What stops serve is a failure of doctor, who finds it by the same functions.
			doctor := command(t.TempDir(), slices.Concat([]string{"doctor"}, c.args)...)
			for pair := range slices.Chunk(c.server, 2) {
				doctor.Env = append(doctor.Env, "HAILO_CLIP_SERVER_"+strings.ToUpper(strings.TrimPrefix(pair[0], "--"))+"="+pair[1])
			}
			d := runProgram(t, doctor)
			if d.code != exitFailed && d.code != exitUsage {
				t.Errorf("doctor finds nothing: exit code %d", d.code)
			}
			d.expect(t, d.code, c.says...)
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
	r := runProgram(t, command(filepath.Join(empty, "state"), "embed", "text", "a cat", "--backend", "cpu"))
	if r.code == exitOK {
		t.Skip("it is installed for the whole system")
	}
	r.expect(t, exitMissing, `"hailo-clip setup" fetches one`, empty)
}

// slowChip serves on a simulated chip with the demo model's vectors that takes factor times as long
// as it should, from now on.
func slowChip(t *testing.T, factor int) (chip, *running) {
	t.Helper()
	// It is slow, it does not hang; and the machine may be slow too.
	c, r := serveSim(t, "  device_timeout_ms: 60000\nsim:\n  vectors: model\n  arguments: CONTROL\n"+
		"performance:\n  request_timeout: 2m\nserver:\n  shutdown_timeout: 2m\n")
	c.tell(t, fmt.Sprintf("slow=%d", factor))
	return c, r
}

// TestStopUnderLoad ends the service while requests are inside, waiting for a slow chip to encode
// their prompts, with the work on their images still to come: every one of them is answered in
// full, whatever signals follow, and whoever comes later is refused.
func TestStopUnderLoad(t *testing.T) {
	for _, signals := range [][]syscall.Signal{
		{syscall.SIGTERM}, {syscall.SIGTERM, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT},
	} {
		t.Run(fmt.Sprint(signals), func(t *testing.T) { t.Parallel(); stopUnderLoad(t, signals) })
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
	clients.Wait()
	<-r.ended
	if code := r.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for i, a := range replies {
		if a.status != http.StatusOK || a.best() != "a photo of a cat" {
			t.Errorf("request %d: %d %s", i, a.status, a.raw)
		}
	}
	if _, err := r.post("/v1/classify", catRequest(t)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a request that came too late: %v", err)
	}
	r.logs(t, `"msg":"stopped"`)
}

// TestStopDuringTheStart: a service that is told to stop before it serves has not failed, and tells the
// clients that wait for it.
func TestStopDuringTheStart(t *testing.T) {
	t.Parallel()
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	address := ln.Addr().String()
	ln.Close() // some port that is free
	_, port, _ := net.SplitHostPort(address)
	c := newChip(t, "sim:\n  arguments: CONTROL --fault=refuse=silent\n")
	started := func(args ...string) *running {
		r := start(t, command(t.TempDir(), append(args, "--config", c.config)...))
		c.tell(t, "refuse=silent") // it is there, so the program waits for it
		return r
	}
	r := started("serve", "--host", "127.0.0.1", "--port", port)
	client := must(net.Dial("tcp", address))
	defer client.Close()
	fmt.Fprint(client, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	answer := make(chan string, 1)
	go func() { b, err := io.ReadAll(client); answer <- fmt.Sprint(string(b), err) }()
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		a := must(http.Get("http://" + address + path))
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("during the start %s: %d", path, a.StatusCode)
		}
	}
	r.end(t, syscall.SIGTERM, exitOK)
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 503") {
		t.Errorf("a client that waited got %q", got)
	}
	r.logs(t, "stopped")
	classify := started("classify", samples+"cat.jpg", "-p", "a cat")
	classify.end(t, os.Interrupt, exitInterrupted)
	classify.logs(t, "hailo-clip: interrupted")
	if said := r.logged() + classify.logged(); strings.Contains(said, "canceled") {
		t.Error(said)
	}
}

// TestLogReaderMayStopOrLeave has a service whose log nobody reads any more.
func TestLogReaderMayStopOrLeave(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		r := serve(t, t.TempDir(), "--backend", "cpu", "--model", "demo")
		if _, err := unix.FcntlInt(r.stderr.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil { // full after some lines
			t.Fatal(err)
		}
		r.deaf.Store(true) // after one more line
		if gone {
			r.stderr.Close()
		}
		for range 200 {
			r.get(t, "/no-such-path")
		}
		if a := r.get(t, "/health"); a.status != http.StatusOK {
			t.Error(a.raw)
		}
		r.stop(t)
	}
}

// TestTooManyClients has 64 clients against the default queue of 10, before a chip that does about 17 images a
// second, or as few as it takes on this machine: more than fit come at once.
func TestTooManyClients(t *testing.T) {
	t.Parallel()
	chip, r := slowChip(t, 20)
	request := catRequest(t)
	var statuses counts
	for slow := 20; statuses.of[429] == 0 && slow < 1000; slow *= 4 {
		chip.tell(t, fmt.Sprintf("slow=%d", slow))
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				a, err := r.post("/v1/classify", request)
				if err != nil {
					t.Error(err)
					return
				}
				statuses.add(a.status)
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
	if statuses.of[200] == 0 || statuses.of[429] == 0 {
		t.Errorf("statuses %v", statuses.of)
	}
	chip.tell(t, "ok")
	r.classifies(t)
}
