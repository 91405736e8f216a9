package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"hailoclip/hailo/demo"
)

// slowConfig has the numbers of the former service's file.
const slowConfig = "clip:\n  batch_size: 1\nresource_limits:\n  cpu_quota: 80%\n"

func TestCommands(t *testing.T) {
	t.Parallel()
	state, damaged := t.TempDir(), t.TempDir()
	pipe, seen := filepath.Join(t.TempDir(), "pipe.jpg"), filepath.Join(t.TempDir(), "seen.png")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	good, slow, cat := configFile(t, "server:\n  port: 1234\n"), configFile(t, slowConfig), string(must(os.ReadFile(samples+"cat.jpg")))
	put(t, damaged, map[string]string{"prompts.db": strings.Repeat("no database ", 1000)})
	text := checkpointFile(t, 49408, 4, 512)
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
		{"inspect pixels", false, []string{"inspect", "pixels", samples + "cat.jpg", "-o", seen}, "", 0, []string{"224 x 224 (crop)"}, nil},
		{"inspect tokens", false, []string{"inspect", "tokens", "a photo of a cat"}, "", 0, []string{"7 tokens", "<|startoftext|>", "photo</w>"}, nil},
		{"inspect tokens as JSON", false, []string{"inspect", "tokens", "--json", "cat"}, "", 0, []string{`"piece":"cat</w>"`}, nil},
		{"inspect tokens of standard input", false, []string{"inspect", "tokens", "-"}, `["", "cat"]`, 0, []string{"[[4094,4095],[4094,"}, nil},
		{"inspect tokens of nonsense", false, []string{"inspect", "tokens", "-"}, `{"a": 1}`, exitUsage, nil, []string{"JSON array"}},
		{"inspect model", false, []string{"inspect", "model"}, "", 0, []string{"demo", "224 x 224", "vision_model.onnx", "b62fafc0"}, nil},
		{"models list", false, []string{"models", "list"}, "", 0, []string{"clip-vit-b-32", "tinyclip-vit-8m-16", "complete", "missing"}, nil},
		{"models to choose from", false, []string{"models", "list"}, "", 0, []string{
			"tinyclip-vit-40m-32       missing   missing     495    204   68.0      -     400\n", // 80 columns
			"\ndemo                      complete  -             -      -      -     11       -\n", "about three times faster"}, nil},
		{"models list as JSON", false, []string{"models", "list", "--json"}, "", 0, []string{`"name":"demo"`, `"cpu":"complete","license"`,
			`"rates":{"image":{"batch_1":127,"batch_8":495},"text":{"batch_1":93.7,"batch_8":204},"source"`, `"float":69.7,"chip":68,`,
			`"aliases":["ViT-B-32__openai",`, `"disk_bytes":10496798,"pull_bytes":0,"files"`}, nil},
		{"models build-text", false, []string{"models", "build-text", "tinyclip-vit-40m-32", text}, "", 0,
			[]string{"token_embedding.npy                         790656 bytes", "(unpinned, recorded on "}, nil},
		{"models build-text without need", false, []string{"models", "build-text", "clip-vit-b-32", text}, "", exitFailed, nil, []string{"no text files that are made"}},
		{"models build-text of a pickle", false, []string{"models", "build-text", "tinyclip-vit-40m-32", samples + "cat.jpg"}, "", exitFailed, nil, []string{"bad .safetensors file"}},
		{"models build-text of nothing", false, []string{"models", "build-text", "tinyclip-vit-40m-32", text + "x"}, "", exitUsage, nil, []string{"no such file"}},
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
		{"config show --origin", false, []string{"config", "show", "--origin", "--config", good}, "", 0, []string{"# file: ", "performance.worker_threads: 2  # built-in"}, nil},
		{"config check", false, []string{"config", "check", good}, "", 0, []string{"my.yaml: ok"}, nil},
		{"config unit", false, []string{"config", "unit"}, "", 0, []string{"\nMemoryMax=3G\n", "ExecStart=/usr/bin/hailo-clip serve"}, nil},
		{"config check of nonsense", false, []string{"config", "check", samples + "index.json"}, "", exitUsage, nil, []string{"index.json", "line"}},
		{"doctor", false, []string{"doctor", "--json"}, "", 0, []string{`"findings":[`, `"check":"libturbojpeg"`}, nil},
		{"help of the simulated chip", false, []string{"npu-sim", "--help"}, "", 0, []string{"-fault", "lose=N", "refuse=W", "Example:"}, nil},
		{"the simulated chip by hand", false, []string{"npu-sim"}, "", exitFailed, nil, []string{"started by hailo-clip, not by hand"}},
		{"setup for another machine", false, []string{"setup", "--arch", "s390x"}, "", exitUsage, nil, []string{"--arch", "amd64"}},
		{"help as a command", false, []string{"help"}, "", 0, []string{"Usage: hailo-clip <command>"}, nil},
		{"help of a command of commands", false, []string{"help", "models", "pull"}, "", 0, []string{"Usage: hailo-clip models pull <name>"}, nil},
		{"a prompt that is no text", false, []string{"classify", "-p", "\xff", "x.jpg"}, "", exitUsage, nil, []string{"--prompt number 1 is not UTF-8"}},
		{"a text that is none", false, []string{"embed", "text", "\xff"}, "", exitUsage, nil, []string{"the text is not UTF-8"}},
		{"a duration of seconds", false, []string{"bench", "--duration", "5", "--url", "nonsense"}, "", exitUsage, nil, []string{"nonsense"}},
		{"no duration", false, []string{"bench", "--duration", "soon"}, "", exitUsage, nil, []string{`"soon" is not a duration`}},
		{"no folder", false, []string{"models", "pull", "x", "--from-dir", "/dev/null"}, "", exitUsage, nil, []string{"/dev/null: not a folder"}},
		{"a folder without images", false, []string{"classify", damaged, "-p", "a cat"}, "", exitUsage, nil, []string{"1 files in the folders are not looked at: 1 .db", "no images in "}},
		{"the image of a folder", true, []string{"embed", "image", damaged}, "", exitFailed, nil, []string{"a folder: name a file in it"}},
		{"an image in a pipe", true, []string{"classify", pipe, "-p", "a cat"}, "", exitFailed, nil, []string{"read from standard input, as -"}},
		{"check of a pipe", false, []string{"config", "check", pipe}, "", exitUsage, nil, []string{"not a file"}},
		{"configuration in a pipe", false, []string{"serve", "--config", pipe}, "", exitUsage, nil, []string{"not a file"}},
		{"tokenizer in a pipe", false, []string{"inspect", "tokens", "x", "--tokenizer", pipe}, "", exitFailed, nil, []string{"not a file"}},
		{"two images on standard input", true, []string{"classify", "-", "-p", "a cat"}, cat + cat, 0, []string{"a cat"}, []string{"more than one image"}},
		{"the demo", true, []string{"demo", "--oneshot", "--port", "0"}, "", 0,
			[]string{"10 of 10 images have the right prompt first", "a photo of an airplane", "a photo of a cat"}, nil},
		{"vectors of the bytes", true, []string{"embed", "text", "a cat", "--backend", "sim", "--model", "demo"}, "", 0, nil, []string{"scores are nonsense"}},
		{"slow configuration", false, []string{"config", "check", slow}, "", 0, []string{"ok"}, []string{"my.yaml: line 2: clip.batch_size", "4.7 times", "80%"}},
		{"doctor of a slow configuration", false, []string{"doctor", "--config", slow}, "", 0, []string{"4.7 times", "80% counts one core"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.onnx {
				needONNX(t)
			}
			cmd := command(state, c.args...)
			cmd.Stdin = strings.NewReader(c.stdin)
			r := runProgram(t, cmd)
			r.expect(t, c.code)
			for text, all := range map[string][]string{r.stdout: c.out, r.stderr: c.err} {
				for _, s := range all {
					if !strings.Contains(text, s) {
						t.Errorf("no %q in %.2000q", s, text)
					}
				}
			}
		})
	}
	m, err := png.Decode(bytes.NewReader(must(os.ReadFile(seen))))
	if err != nil || m.Bounds().Dx() != 224 || m.Bounds().Dy() != 224 {
		t.Errorf("wrote %v, %v", m, err)
	}
}

// checkpointFile is a checkpoint in the layout of Hugging Face with nothing but zeros for the two matrices around a text
// encoder.
func checkpointFile(t *testing.T, vocabulary, width, dimension int) string {
	t.Helper()
	table, all := 4*vocabulary*width, 4*(vocabulary+dimension)*width
	header := fmt.Sprintf(`{"text_model.embeddings.token_embedding.weight": {"dtype": "F32", "shape": [%d, %d], "data_offsets": [0, %d]},
		"text_projection.weight": {"dtype": "F32", "shape": [%d, %d], "data_offsets": [%d, %d]}}`, vocabulary, width, table, dimension, width, table, all)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	if err := os.WriteFile(path, append(file, make([]byte, all)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOutputThatIsLost has every command that prints print to a full disk, and to a reader that has left already, as
// "hailo-clip ... | head -1" may have.
func TestOutputThatIsLost(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	damaged := filepath.Join(state, "models", "clip-vit-b-32", "tokenizer.json")
	put(t, state, map[string]string{"models/clip-vit-b-32/tokenizer.json": "not it"})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	in, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	defer pipe.Close()
	cases := []struct {
		onnx, left bool
		args       []string
		err        string // as well
	}{
		{false, true, []string{"--help"}, ""},
		{false, false, []string{"--version"}, ""},
		{false, false, []string{"version"}, ""},
		{true, false, []string{"classify", samples + "cat.jpg", "-p", "a cat"}, ""},
		{true, false, []string{"classify", samples + "no.jpg", samples + "cat.jpg", "-p", "a cat"}, "no.jpg: no such file"},
		{true, false, []string{"embed", "text", "a cat"}, ""},
		{false, false, []string{"inspect", "pixels", samples + "cat.jpg", "-o", filepath.Join(t.TempDir(), "seen.png")}, ""},
		{false, false, []string{"inspect", "tokens", "a cat"}, ""},
		{false, false, []string{"inspect", "model"}, ""},
		{false, true, []string{"models", "list"}, ""},
		{false, true, []string{"models", "list", "--json"}, ""},
		{false, false, []string{"models", "verify", "demo"}, ""},
		{false, false, []string{"models", "build-text", "tinyclip-vit-61m-32", checkpointFile(t, 49408, 1, 512)}, ""},
		{false, false, []string{"models", "rm", "clip-vit-b-32"}, ""},
		{false, false, []string{"cache", "stats"}, ""},
		{false, false, []string{"cache", "clear"}, ""},
		{true, false, []string{"prompt-sets", "list"}, ""},
		{false, false, []string{"config", "show"}, ""},
		{false, true, []string{"config", "show", "--default"}, ""},
		{false, true, []string{"doctor"}, ""},
		{false, true, []string{"completion", "bash"}, ""},
		{false, true, []string{"man"}, ""},
	}
	for _, c := range cases {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if c.onnx {
				needONNX(t)
			}
			cmd := command(state, c.args...)
			cmd.Stdout = full
			r := runProgram(t, cmd)
			r.expect(t, exitFailed, c.err)
			if strings.Count(r.stderr, "no space left") != 1 {
				t.Error(r.stderr)
			}
			if c.left {
				cmd = command(state, c.args...)
				cmd.Stdout = pipe
				if r := runProgram(t, cmd); r.code != exitPipe || r.stderr != "" {
					t.Errorf("exit code %d: %s", r.code, r.stderr)
				}
			}
		})
	}
	if _, err := os.Stat(damaged); err == nil {
		t.Error("models rm has removed nothing")
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
	r := runProgram(t, command(state, "models", "list"))
	r.expect(t, exitOK, "embedding_dimension is 0, want 1 to 8192; files[")
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, "forged") || strings.HasPrefix(line, "files[") {
			t.Errorf("a line %q", line)
		}
	}
}

// TestNamesOfFiles has file names that are not UTF-8 and that command terminals.
func TestNamesOfFiles(t *testing.T) {
	t.Parallel()
	needONNX(t)
	cat := must(os.ReadFile(samples + "cat.jpg"))
	dir := t.TempDir()
	for _, name := range []string{"\xff.jpg", "a,b\x1b[31m.jpg", "\u202egpj.jpg"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, cat, 0o600); err != nil {
			t.Skip("no such names here: ", err)
		}
		for _, args := range [][]string{
			{"classify", path, "-p", "a cat"}, {"embed", "image", path}, {"inspect", "pixels", path, "-o", path + ".png"},
			{"bench", "profile", "--image", path, "-d", "0.01"},
		} {
			r := hailoClip(t, args...)
			if r.code != exitOK || strings.ContainsAny(r.stderr, "\x1b\u202e") {
				t.Errorf("%q: exit code %d: %q %q", args, r.code, r.stdout, r.stderr)
			}
		}
		r := hailoClip(t, "classify", path+"\nhailo-clip: forged", "-p", "a cat")
		if r.code != exitFailed || strings.ContainsAny(r.stderr, "\x1b\u202e") || !utf8.ValidString(r.stderr) || strings.Contains(r.stderr, "\nhailo-clip: forged") {
			t.Errorf("exit code %d: %q", r.code, r.stderr)
		}
	}
}

func TestFirstImage(t *testing.T) {
	all := must(demo.Samples())
	png := []byte("\x89PNG\r\n\x1a\nIEND\xaeB`\x82")
	for _, first := range [][]byte{all[0].JPEG, png} {
		if got := firstImage(first); !bytes.Equal(got, first) {
			t.Errorf("%d of %d bytes of the only image", len(got), len(first))
		}
		other := slices.Concat([]byte("II*\x00"), first, first)
		if got := firstImage(other); !bytes.Equal(got, other) {
			t.Errorf("%d of %d bytes of a TIFF that holds others", len(got), len(other))
		}
		for _, second := range [][]byte{all[1].JPEG, png} {
			if got := firstImage(slices.Concat(first, second, first)); !bytes.Equal(got, first) {
				t.Errorf("%d bytes, want %d", len(got), len(first))
			}
		}
	}
}
