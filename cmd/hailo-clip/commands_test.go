package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const samples = "../../hailo/demo/samples/"

func TestCommands(t *testing.T) {
	state := t.TempDir()
	png := filepath.Join(t.TempDir(), "seen.png")
	good := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(good, []byte("server:\n  port: 1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	put(t, damaged, map[string]string{"prompts.db": strings.Repeat("no database ", 1000)})
	cases := []struct {
		name  string
		onnx  bool // needs ONNX Runtime
		args  []string
		stdin string
		code  int
		out   []string // in standard output
		err   []string // in standard error
	}{
		{"help", false, []string{"--help"}, "", 0, []string{"Examples:", "hailo-clip classify", "Exit codes"}, nil},
		{"help of a command", false, []string{"classify", "--help"}, "", 0, []string{"--json", "Examples:"}, nil},
		{"no command", false, nil, "", exitUsage, nil, []string{"--help"}},
		{"unknown command", false, []string{"clasify"}, "", exitUsage, nil, []string{"clasify"}},
		{"version", false, []string{"version"}, "", 0, []string{"hailo-clip "}, nil},
		{"version as a flag", false, []string{"--version"}, "", 0, []string{"hailo-clip "}, nil},
		{"classify", true, []string{"classify", samples + "cat.jpg", "-p", "a photo of a dog", "-p", "a photo of a cat", "-k", "1"}, "",
			0, []string{"cat.jpg\n  a photo of a cat", "█"}, []string{"drawings"}},
		{"classify to JSON", true, []string{"classify", "--json", samples + "cat.jpg", samples + "dog.jpg", "-p", "a photo of a dog", "-p", "a photo of a cat"}, "",
			0, []string{`{"image":"../../hailo/demo/samples/cat.jpg","classifications":[{"text":"a photo of a cat"`, `"rank":2`}, nil},
		{"classify with a bad one", true, []string{"classify", samples + "cat.jpg", samples + "index.json", samples + "no.jpg", "-p", "a cat"}, "",
			exitFailed, []string{"cat.jpg"}, []string{"index.json: not an image", "no.jpg: no such file"}},
		{"an empty prompt", false, []string{"classify", samples + "cat.jpg", "-p", " "}, "", exitUsage, nil, []string{"empty"}},
		{"a prompt that commands the terminal", true, []string{"classify", samples + "cat.jpg", "-p", "a\x1b[2Jcat"}, "", 0, []string{`"a\x1b[2Jcat"`}, nil},
		{"classify standard input twice", false, []string{"classify", "-", samples + "cat.jpg", "-", "-p", "a cat"}, "", exitUsage, nil, []string{"- is given twice"}},
		{"classify with a negative top-k", false, []string{"classify", samples + "cat.jpg", "-p", "a cat", "--top-k=-1"}, "", exitUsage, nil, []string{"--top-k", "-1"}},
		{"classify with a long prompt", true, []string{"classify", "--json", samples + "cat.jpg", "-p", "a cat", "-p", strings.Repeat("cat ", 80)}, "",
			0, []string{`"truncated":true}`}, []string{"--prompt number 2 is longer"}},
		{"classify without prompts", false, []string{"classify", samples + "cat.jpg"}, "", exitUsage, nil, []string{"--prompt", "hailo-clip classify --help"}},
		{"a prompt with a comma", true, []string{"classify", samples + "cat.jpg", "-p", "cats, dogs"}, "", 0, []string{"cats, dogs"}, nil},
		{"embed text", true, []string{"embed", "text", "a photo of a cat"}, "", 0, []string{`{"embedding":[`, `"dimension":512`, `"tokens":7`}, nil},
		{"embed image", true, []string{"embed", "image", samples + "cat.jpg"}, "", 0, []string{`"dimension":512,"model":"demo"`}, nil},
		{"embed something else", true, []string{"embed", "image", samples + "index.json"}, "", exitFailed, nil, []string{"index.json", "not an image"}},
		{"inspect pixels", false, []string{"inspect", "pixels", samples + "cat.jpg", "-o", png}, "", 0, []string{"224 x 224 (crop)"}, nil},
		{"inspect tokens", false, []string{"inspect", "tokens", "a photo of a cat"}, "", 0, []string{"7 tokens", "<|startoftext|>", "photo</w>"}, nil},
		{"inspect tokens as JSON", false, []string{"inspect", "tokens", "--json", "cat"}, "", 0, []string{`"piece":"cat</w>"`}, nil},
		{"inspect tokens of standard input", false, []string{"inspect", "tokens", "-"}, `["", "cat"]`, 0, []string{"[[4094,4095],[4094,"}, nil},
		{"inspect tokens of nonsense", false, []string{"inspect", "tokens", "-"}, `{"a": 1}`, exitUsage, nil, []string{"JSON array"}},
		{"inspect model", false, []string{"inspect", "model"}, "", 0, []string{"demo", "224 x 224", "vision_model.onnx", "b62fafc0"}, nil},
		{"models list", false, []string{"models", "list"}, "", 0, []string{"clip-vit-b-32", "tinyclip-vit-8m-16", "complete", "missing"}, nil},
		{"models list as JSON", false, []string{"models", "list", "--json"}, "", 0, []string{`"name":"demo"`, `"cpu":"complete","files"`}, nil},
		{"models pull from an empty folder", false, []string{"models", "pull", "clip-vit-b-32", "--from-dir", state}, "", exitFailed, nil, []string{"_model.onnx", "no such file"}},
		{"models pull of a stranger", false, []string{"models", "pull", "resnet"}, "", exitUsage, nil, []string{"resnet", "known are"}},
		{"models verify", false, []string{"models", "verify", "demo"}, "", 0, []string{"vision_model.onnx"}, nil},
		{"models verify of nothing", false, []string{"models", "verify", "clip-vit-b-32"}, "", exitMissing, []string{"missing"}, []string{"models pull"}},
		{"cache stats", false, []string{"cache", "stats"}, "", 0, []string{"prompts.db"}, nil},
		{"cache stats of a damaged file", false, []string{"cache", "stats", "--state-dir", damaged}, "", exitFailed, nil, []string{"prompts.db: the cache file is damaged", "hailo-clip cache clear"}},
		{"cache clear", false, []string{"cache", "clear"}, "", 0, []string{"prompts.db: empty"}, nil},
		{"cache stats of nothing", false, []string{"cache", "stats"}, "", 0, []string{"not there yet"}, nil},
		{"cache stats of nothing as JSON", false, []string{"cache", "stats", "--json"}, "", 0, []string{`"bytes":0,"locked":false,"namespaces":[],"set_aside":[]}`}, nil},
		{"config show", false, []string{"config", "show", "--backend", "cpu"}, "", 0, []string{"backend: cpu", "port: 5000"}, nil},
		{"config default", false, []string{"config", "show", "--default"}, "", 0, []string{"# hailo-clip: every setting"}, nil},
		{"config check", false, []string{"config", "check", good}, "", 0, []string{"good.yaml: ok"}, nil},
		{"config unit", false, []string{"config", "unit"}, "", 0, []string{"\nMemoryMax=3G\n", "ExecStart=/usr/bin/hailo-clip serve"}, nil},
		{"config check of nonsense", false, []string{"config", "check", samples + "index.json"}, "", exitUsage, nil, []string{"index.json", "line"}},
		{"doctor", false, []string{"doctor", "--json"}, "", 0, []string{`"findings":[`, `"check":"libturbojpeg"`}, nil},
		{"help of the simulated chip", false, []string{"npu-sim", "--help"}, "", 0, []string{"-fault", "lose=N", "refuse=W"}, nil},
		{"the simulated chip by hand", false, []string{"npu-sim"}, "", exitFailed, nil, []string{"started by hailo-clip, not by hand"}},
		{"setup for another machine", false, []string{"setup", "--arch", "s390x"}, "", exitUsage, nil, []string{"--arch", "amd64"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.onnx {
				needONNX(t)
			}
			cmd := command(t, state, c.args...)
			cmd.Stdin = strings.NewReader(c.stdin)
			r := runProgram(t, cmd)
			if r.code != c.code {
				t.Errorf("exit code %d, want %d", r.code, c.code)
			}
			for _, s := range c.out {
				if !strings.Contains(r.stdout, s) {
					t.Errorf("no %q in standard output", s)
				}
			}
			for _, s := range c.err {
				if !strings.Contains(r.stderr, s) {
					t.Errorf("no %q in standard error", s)
				}
			}
			if t.Failed() {
				t.Logf("standard output:\n%.2000s\nstandard error:\n%.2000s", r.stdout, r.stderr)
			}
		})
	}
	checkPNG(t, png)
}

// TestOutputThatIsLost has every command that prints print to a full disk.
func TestOutputThatIsLost(t *testing.T) {
	state := t.TempDir()
	png := filepath.Join(t.TempDir(), "seen.png")
	damaged := filepath.Join(state, "models", "clip-vit-b-32", "tokenizer.json")
	put(t, state, map[string]string{"models/clip-vit-b-32/tokenizer.json": "not it"})
	cases := []struct {
		onnx bool
		args []string
		err  string // as well
	}{
		{false, []string{"--help"}, ""},
		{false, []string{"--version"}, ""},
		{false, []string{"version"}, ""},
		{true, []string{"classify", samples + "cat.jpg", "-p", "a cat"}, ""},
		{true, []string{"classify", samples + "cat.jpg", samples + "no.jpg", "-p", "a cat"}, "no.jpg: no such file"},
		{true, []string{"embed", "text", "a cat"}, ""},
		{false, []string{"inspect", "pixels", samples + "cat.jpg", "-o", png}, ""},
		{false, []string{"inspect", "tokens", "a cat"}, ""},
		{false, []string{"inspect", "model"}, ""},
		{false, []string{"models", "list"}, ""},
		{false, []string{"models", "verify", "demo"}, ""},
		{false, []string{"models", "rm", "clip-vit-b-32"}, ""},
		{false, []string{"cache", "stats"}, ""},
		{false, []string{"cache", "clear"}, ""},
		{false, []string{"config", "show"}, ""},
		{false, []string{"doctor"}, ""},
	}
	for _, c := range cases {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if c.onnx {
				needONNX(t)
			}
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Skip(err)
			}
			defer full.Close()
			var errs bytes.Buffer
			cmd := command(t, state, c.args...)
			cmd.Stdout, cmd.Stderr = full, &errs
			_ = cmd.Run() // the code is in ProcessState
			if code := cmd.ProcessState.ExitCode(); code != exitFailed || strings.Count(errs.String(), "no space left") != 1 ||
				!strings.Contains(errs.String(), c.err) {
				t.Errorf("exit code %d: %s", code, errs.String())
			}
		})
	}
	if _, err := os.Stat(damaged); err == nil {
		t.Error("models rm has removed nothing")
	}
}

// checkPNG looks at what "inspect pixels" wrote.
func checkPNG(t *testing.T, name string) {
	t.Helper()
	b := must(os.ReadFile(name))
	m, err := png.Decode(bytes.NewReader(b))
	if err != nil || m.Bounds().Dx() != 224 || m.Bounds().Dy() != 224 {
		t.Errorf("wrote %v, %v", m, err)
	}
}

func TestDemo(t *testing.T) {
	needONNX(t)
	r := runProgram(t, command(t, t.TempDir(), "demo", "--oneshot", "--port", "0"))
	if r.code != exitOK || !strings.Contains(r.stdout, "10 of 10 images have the right prompt first") ||
		!strings.Contains(r.stdout, "a photo of an airplane") || !strings.Contains(r.stdout, "a photo of a cat") {
		t.Errorf("exit code %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
}

func TestSimulatedChip(t *testing.T) {
	r := serve(t, t.TempDir(), "--backend", "sim")
	health := r.get(t, "/health")
	if health.body["backend"] != "sim" || health.body["runtime_mode"] != "simulated" || health.body["status"] != "healthy" {
		t.Errorf("health %s", health.raw)
	}
	first := r.mustPost(t, "/v1/classify", catRequest(t))
	second := r.mustPost(t, "/v1/classify", catRequest(t))
	one, _ := json.Marshal(first.body["classifications"])
	two, _ := json.Marshal(second.body["classifications"])
	if !bytes.Equal(one, two) {
		t.Errorf("equal input, other output: %s and %s", one, two)
	}
	if code := r.stop(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestModelsListIsATable: what a manifest says, or is wrong with it, cannot look like another model.
func TestModelsListIsATable(t *testing.T) {
	state := t.TempDir()
	const rest = `"embedding_dimension":16,"image_size":32,"context_length":8,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],
		"tokens":{"start":"<a>","end":"<b>"},"cpu":{"image":"a.onnx","text":"a.onnx"},"files":{"tokenizer.json":{},"a.onnx":{"bytes":-1}}}`
	put(t, state, map[string]string{
		"models/broken/manifest.json":  `{"name":"broken","license":"x",` + strings.Replace(rest, "16", "0", 1),
		"models/strange/manifest.json": `{"name":"strange","description":"x\nforged   complete",` + strings.Replace(rest, "-1", "1", 1),
	})
	r := runProgram(t, command(t, state, "models", "list"))
	if r.code != exitOK || !strings.Contains(r.stdout, "embedding_dimension is 0, want 1 to 8192; files[") {
		t.Errorf("exit code %d: %s", r.code, r.stdout)
	}
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, "forged") || strings.HasPrefix(line, "files[") {
			t.Errorf("a line %q", line)
		}
	}
}
