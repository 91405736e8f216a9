package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sampleGrammar has all kinds of commands, flags and arguments, and what has to be quoted.
type sampleGrammar struct {
	Level string `short:"l" enum:"low,high" default:"low" help:"How it's done. Not in completions."`
	Run   struct {
		Dir   string   `type:"existingdir" placeholder:"DIR" help:"A folder: \"here\" or there."`
		Out   string   `short:"o" placeholder:"FILE" help:".dots and 'quotes'"`
		Quiet bool     `help:"Say $nothing."`
		Files []string `arg:"" optional:"" help:"Files."`
	} `cmd:"" help:"Run it; don't wait."`
	Model struct {
		Pull struct {
			Name string `arg:"" help:"A name of models list."`
		} `cmd:"" help:"Fetch one."`
		Show struct {
			Deep   bool   `help:"All of it."`
			Secret string `hidden:"" help:"Not for you."`
			Text   string `arg:"" help:"Anything."`
		} `cmd:"" default:"withargs" help:"Show one."`
	} `cmd:"" help:"Models."`
	Hidden struct{} `cmd:"" hidden:"" help:"Not for you."`
}

func sampleProgram(t *testing.T) entry {
	t.Helper()
	k := must(kong.New(&sampleGrammar{}, kong.Name("hailo-clip"), kong.Description("Does it.\n\nExamples:\n  hailo-clip run -o 'a\\b'\n  hailo-clip model")))
	return grammar(k.Model.Node)
}

func TestCompletionAndManualOfASample(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"bash", "zsh", "fish", "1"} {
		var b strings.Builder
		if kind == "1" {
			manual{&b}.page(sampleProgram(t), "1.2-3")
		} else if err := writeCompletion(&b, kind, sampleProgram(t)); err != nil {
			t.Fatal(err)
		}
		golden := "testdata/completion/sample." + kind
		if *update {
			put(t, ".", map[string]string{golden: b.String()})
		}
		if want := string(must(os.ReadFile(golden))); want != b.String() {
			t.Errorf("%s differs (go test -run Sample -update writes it); now:\n%s", golden, b.String())
		}
	}
}

// completionScript is the script of the real program in a file.
func completionScript(t *testing.T, shell string) string {
	t.Helper()
	needPrograms(t, shell)
	r := hailoClip(t, "completion", shell)
	r.expect(t, exitOK)
	path := filepath.Join(t.TempDir(), "script")
	put(t, filepath.Dir(path), map[string]string{"script": r.stdout, "files/cat.jpg": "", "files/folder/x": ""})
	return path
}

// completionCases are command lines up to the cursor, and what may follow: all of want, nothing of not.
var completionCases = []struct {
	line      string
	want, not []string
}{
	{"hailo-clip ", []string{"serve", "models", "classify"}, []string{"man", "bare"}},
	{"hailo-clip --model demo mo", []string{"models"}, []string{"demo"}},
	{"hailo-clip models ", []string{"list", "pull", "build-text"}, []string{"serve"}},
	{"hailo-clip models pull tiny", []string{"tinyclip-vit-40m-32"}, []string{"clip-vit-b-32"}},
	{"hailo-clip models pull --part ", []string{"auto", "npu"}, []string{"cat.jpg"}},
	{"hailo-clip models pull --pa", []string{"--part"}, []string{"--revision"}},
	{"hailo-clip models pull --ba", []string{"--backend"}, []string{"--part"}},
	{"hailo-clip serve --backend ", []string{"sim"}, []string{"cat.jpg"}},
	{"hailo-clip classify ", []string{"cat.jpg"}, []string{"serve"}},
	{"hailo-clip classify -p serve c", []string{"cat.jpg"}, []string{"cache"}},
	{"hailo-clip models pull x --from-dir ", []string{"folder"}, []string{"cat.jpg"}},
	{"hailo-clip serve --po", []string{"--port"}, []string{"--policy"}},
}

// judge compares what a shell offers, a line each, with a case.
func judge(t *testing.T, line string, offered []string, want, not []string) {
	t.Helper()
	for i := range offered {
		offered[i], _, _ = strings.Cut(strings.TrimSuffix(strings.TrimSpace(offered[i]), "/"), "\t") // fish adds what it is
		offered[i] = strings.TrimSuffix(offered[i], "/")
	}
	for _, w := range want {
		if !slices.Contains(offered, w) {
			t.Errorf("%q: no %q among %q", line, w, offered)
		}
	}
	for _, n := range not {
		if slices.Contains(offered, n) {
			t.Errorf("%q: %q among %q", line, n, offered)
		}
	}
}

func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	script := completionScript(t, "bash")
	for _, c := range append(completionCases, struct {
		line      string
		want, not []string
	}{"hailo-clip serve --backend = s", []string{"sim"}, []string{"npu"}}) { // as bash divides --backend=s
		words := strings.Split(c.line, " ")
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, quoteShell(w))
		}
		cmd := exec.Command("bash", "--norc", "-c", fmt.Sprintf(`compopt() { :; }; . %s; COMP_WORDS=(%s); COMP_CWORD=%d; _hailo_clip; printf '%%s\n' "${COMPREPLY[@]}"`,
			script, strings.Join(quoted, " "), len(words)-1))
		cmd.Dir = filepath.Join(filepath.Dir(script), "files")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		judge(t, c.line, strings.Split(string(out), "\n"), c.want, c.not)
	}
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	script := completionScript(t, "fish")
	for _, c := range append(completionCases, struct {
		line      string
		want, not []string
	}{"hailo-clip serve --backend=s", []string{"--backend=sim"}, []string{"--backend=npu"}}) {
		cmd := exec.Command("fish", "--no-config", "-c", "source "+script+"; complete -C "+quoteFish(c.line))
		cmd.Dir, cmd.Env = filepath.Join(filepath.Dir(script), "files"), append(os.Environ(), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		judge(t, c.line, strings.Split(string(out), "\n"), c.want, c.not)
	}
}

// TestCompletionInZsh types into an interactive zsh, in which hailo-clip prints what it is given.
func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	script := completionScript(t, "zsh")
	for typed, want := range map[string]string{
		`hailo-clip evalu\t`: "evaluate", `hailo-clip --model demo mod\tpul\ttinyclip-vit-61\t`: "--model demo models pull tinyclip-vit-61m-32",
		`hailo-clip models pull --par\tnp\t`: "models pull --part npu", `hailo-clip serve --backend=si\t`: "serve --backend=sim",
		`hailo-clip classify -p serve ca\t`: "classify -p serve cat.jpg", `hailo-clip models pull x --from-dir f\t`: "models pull x --from-dir folder",
	} {
		driver := `zmodload zsh/zpty; zpty z zsh -f -i
zpty -w z 'PS1=; autoload -Uz compinit; compinit -u -D; source ` + script + `; hailo-clip() { print -r -- "<$*>" }; print RE""ADY'
zpty -r -m z out '*READY*'
zpty -w -n z $'` + typed + `\n'
zpty -r -m z out '*<*>*'; print -r -- "$out"; zpty -d z`
		cmd := exec.Command("zsh", "-f", "-c", driver)
		cmd.Dir, cmd.Env = filepath.Join(filepath.Dir(script), "files"), append(os.Environ(), "HOME="+t.TempDir(), "TERM=dumb")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, got, _ := strings.Cut(string(out), "<")
		if got, _, _ = strings.Cut(got, ">"); strings.TrimSpace(got) != want {
			t.Errorf("%q became %q, want %q", typed, got, want)
		}
	}
}

// TestManualRenders: man finds nothing wrong, and every command is there.
func TestManualRenders(t *testing.T) {
	t.Parallel()
	needPrograms(t, "groff")
	r := hailoClip(t, "man")
	r.expect(t, exitOK)
	cmd := exec.Command("groff", "-ww", "-man", "-K", "utf8", "-T", "utf8", "-P", "-cbou") // without colors and overstriking
	cmd.Stdin = strings.NewReader(r.stdout)
	page := runProgram(t, cmd)
	page.expect(t, 0)
	if page.stderr != "" {
		t.Error(page.stderr)
	}
	for _, s := range []string{"hailo-clip models pull <name>", "--prompt=TEXT", "hailo-clip classify cat.jpg dog.jpg -p \"a photo of a cat\"", "/etc/hailo/hailo-clip.yaml"} {
		if !strings.Contains(page.stdout, s) {
			t.Errorf("no %q in the manual", s)
		}
	}
}
