package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"hailoclip/hailo/demo"
)

// TestNamesOfFiles has file names that are not UTF-8 and that command terminals.
func TestNamesOfFiles(t *testing.T) {
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
			r := runProgram(t, command(t, t.TempDir(), args...))
			if r.code != exitOK || strings.ContainsAny(r.stderr, "\x1b\u202e") {
				t.Errorf("%q: exit code %d: %q %q", args, r.code, r.stdout, r.stderr)
			}
		}
		r := runProgram(t, command(t, t.TempDir(), "classify", path+"\nhailo-clip: forged", "-p", "a cat"))
		if r.code != exitFailed || strings.ContainsAny(r.stderr, "\x1b\u202e") || !utf8.ValidString(r.stderr) || strings.Contains(r.stderr, "\nhailo-clip: forged") {
			t.Errorf("exit code %d: %q", r.code, r.stderr)
		}
	}
}

// TestTerminal prints to a file as if it were a terminal.
func TestTerminal(t *testing.T) {
	for terminal, want := range map[bool]string{false: "\x1b[2J\xff\n", true: `\u001b[2J\xff` + "\n"} {
		f := must(os.Create(filepath.Join(t.TempDir(), "out")))
		defer f.Close()
		n, err := (&output{to: f, terminal: terminal}).Write([]byte("\x1b[2J\xff\n"))
		if got, _ := os.ReadFile(f.Name()); n != 6 || err != nil || string(got) != want {
			t.Errorf("terminal: %v: %q, want %q, %v", terminal, got, want, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"a cat\n\tÄ 猫": "a cat\n\tÄ 猫", "\x1b[2J": `\u001b[2J`, "\u009b\u202e": `\u009b\u202e`, "a\xffb": `a\xffb`, "\U000e0001": `\U000e0001`,
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestImagesThatAreNone(t *testing.T) {
	needONNX(t)
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.jpg")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "a folder: name the files in it", pipe: "read from standard input, as -"} {
		r := runProgram(t, command(t, t.TempDir(), "classify", path, "-p", "a cat"))
		if r.code != exitFailed || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: exit code %d: %s", path, r.code, r.stderr)
		}
	}
	for _, args := range [][]string{{"config", "check", pipe}, {"serve", "--config", pipe}, {"inspect", "tokens", "x", "--tokenizer", pipe}} {
		if r := runProgram(t, command(t, t.TempDir(), args...)); r.code == exitOK || !strings.Contains(r.stderr, "not a file") {
			t.Errorf("%v: exit code %d: %s", args, r.code, r.stderr)
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

func TestTwoImagesOnStandardInput(t *testing.T) {
	needONNX(t)
	cat := must(os.ReadFile(samples + "cat.jpg"))
	for n, said := range map[int]bool{1: false, 2: true} {
		c := command(t, t.TempDir(), "classify", "-", "-p", "a cat")
		c.Stdin = bytes.NewReader(bytes.Repeat(cat, n))
		if r := runProgram(t, c); r.code != exitOK || strings.Contains(r.stderr, "more than one image") != said {
			t.Errorf("%d images: exit code %d: %s", n, r.code, r.stderr)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		has  string
	}{
		{[]string{"help"}, exitOK, "Usage: hailo-clip <command>"},
		{[]string{"help", "models", "pull"}, exitOK, "Usage: hailo-clip models pull <name>"},
		{[]string{"classify", "-p", "\xff", "x.jpg"}, exitUsage, "--prompt number 1 is not UTF-8"},
		{[]string{"embed", "text", "\xff"}, exitUsage, "the text is not UTF-8"},
		{[]string{"bench", "--duration", "5", "--url", "nonsense"}, exitUsage, "nonsense"},
		{[]string{"bench", "--duration", "soon"}, exitUsage, `"soon" is not a duration`},
		{[]string{"models", "pull", "x", "--from-dir", "/dev/null"}, exitUsage, "/dev/null: not a folder"},
	} {
		r := runProgram(t, command(t, t.TempDir(), c.args...))
		if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.has) {
			t.Errorf("%q: exit code %d: %s%s", c.args, r.code, r.stdout, r.stderr)
		}
	}
}
