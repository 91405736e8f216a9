package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

// TestColumnsLineUp has texts whose characters take one cell, two, and none of their own.
func TestColumnsLineUp(t *testing.T) {
	runewidth.DefaultCondition.EastAsianWidth = false // whatever the language of the machine: there … takes two
	texts := []string{"a photo of a cat", "一张猫的照片", "고양이 사진", "cafe\u0301", strings.Repeat("猫", 40), strings.Repeat("cat ", 20)}
	width := longest(texts...)
	if width != textWidth {
		t.Errorf("a column of %d cells, want %d", width, textWidth)
	}
	for _, text := range texts {
		if cells := runewidth.StringWidth(pad(text, width)); cells != width {
			t.Errorf("%q takes %d cells, want %d", pad(text, width), cells, width)
		}
	}
	if got := longest("猫", "cat"); got != 3 {
		t.Errorf("longest is %d cells, want 3", got)
	}
	if got := pad("猫猫", 3); got != "猫…" {
		t.Errorf("cut to %q", got)
	}
}

func TestWrap(t *testing.T) {
	runewidth.DefaultCondition.EastAsianWidth = false
	for text, want := range map[string]string{
		"": "", "cat": "  cat\n", "a cat, a dog": "  a cat,\n  a dog\n", "猫猫 猫猫": "  猫猫\n  猫猫\n", "a longword": "  a\n  longword\n",
		"longerword a": "  longerword\n  a\n", "ab cde": "  ab cde\n",
	} {
		if got := wrap(text, "  ", 8); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := wrapped(strings.Repeat("cat ", 100), ""); strings.Count(got, "\n") != 1 { // the tests print to no terminal
		t.Errorf("%q is not one line", got)
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

func TestNoColor(t *testing.T) {
	terminal := &output{terminal: true}
	t.Setenv("NO_COLOR", "")
	wanted := terminal.color() && !(&output{}).color()
	t.Setenv("NO_COLOR", "1")
	if !wanted || terminal.color() {
		t.Error("colors only on a terminal, and not with NO_COLOR")
	}
}
