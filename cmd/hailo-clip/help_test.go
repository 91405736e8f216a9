package main

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// newGrammar is the command line, which takes files that are not there.
func newGrammar(t *testing.T) *kong.Kong {
	t.Helper()
	any := rawText(func(text string) (string, error) { return text, nil })
	parser, err := kong.New(&cli{}, append(rawArguments(), kong.Name("hailo-clip"), kong.Exit(func(int) {}), kong.Writers(os.Stderr, os.Stderr),
		kong.Vars{"config_file": "", "state_variable": "HAILO_CLIP_STATE_DIR", "service_state": ""},
		kong.NamedMapper("existingfile", any), kong.NamedMapper("existingdir", any))...)
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// TestHelpHasExamples: the help of every command has an example of that command, and all of them are good command lines.
func TestHelpHasExamples(t *testing.T) {
	var walk func(*kong.Node)
	walk = func(n *kong.Node) {
		if n.Hidden || n.Passthrough { // its help is the simulated chip's
			return
		}
		detail := n.Detail
		if n.Type == kong.ApplicationNode {
			detail = description
		}
		command := strings.TrimSpace(n.FullPath())
		lines, own := exampleLines(detail), false
		for _, line := range lines {
			for _, words := range commandLines(line) {
				own = own || strings.HasPrefix(strings.Join(words, " ")+" ", command+" ") ||
					strings.HasSuffix(command, " bench run") || strings.HasSuffix(command, " index run") // which these stand for
				if _, err := newGrammar(t).Parse(words[1:]); err != nil {
					t.Errorf("%s --help: %s: %v", command, line, err)
				}
			}
		}
		if !own {
			t.Errorf("%s --help has no example of it", command)
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(newGrammar(t).Model.Node)
}

// exampleLines are the indented lines below "Example:" or "Examples:".
func exampleLines(text string) (lines []string) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		command, indented := strings.CutPrefix(line, "  ")
		if inside = inside && indented || line == "Example:" || line == "Examples:"; inside && indented {
			lines = append(lines, command)
		}
	}
	return lines
}

// starters may stand before a command.
var starters = []string{"sudo", "ssh", "pi", "do", "then"}

// commandLines are the command lines of hailo-clip in a line for a shell, cut into words.
func commandLines(line string) (commands [][]string) {
	var words []string
	var word strings.Builder
	started, skip, quote := false, false, rune(0)
	end := func() {
		if started {
			words = append(words, word.String())
		}
		started = false
		word.Reset()
	}
	flush := func() {
		end()
		at := slices.Index(words, "hailo-clip")
		if at >= 0 && !slices.ContainsFunc(words[:at], func(w string) bool { return !slices.Contains(starters, w) && !strings.Contains(w, "=") }) {
			commands = append(commands, words[at:])
		}
		words, skip = nil, false
	}
	for _, r := range line {
		switch {
		case skip && r != '\n': // a comment, or where the output goes
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, started = r, true
		case quote == 0 && r == ' ':
			end()
		case quote == 0 && r == '#' && !started, quote == 0 && (r == '>' || r == '<'):
			skip = true
		case quote == 0 && (r == '|' || r == ';' || r == '\n'):
			flush()
		default:
			started = true
			word.WriteRune(r)
		}
	}
	flush()
	return commands
}

func TestCommandLines(t *testing.T) {
	got := commandLines(`A=1 hailo-clip a "b 'c'|" 'd>"' -e=f#g | sudo hailo-clip h | jq '.x | y' > hailo-clip # hailo-clip
systemctl restart hailo-clip`)
	if want := [][]string{{"hailo-clip", "a", "b 'c'|", `d>"`, "-e=f#g"}, {"hailo-clip", "h"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}
