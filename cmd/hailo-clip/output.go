package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// stdout is what the commands print to. It is not buffered: what a long-running command says is
// seen at once, and nothing is lost at a panic.
var stdout = &output{to: os.Stdout, terminal: term.IsTerminal(int(os.Stdout.Fd()))}

// output remembers that something could not be written, so that no command need look at the
// result of each print and none ends with 0 when what it printed was lost. On a terminal, names and
// errors among what is printed cannot command it.
type output struct {
	to       *os.File
	terminal bool
	lost     error // the first failure
}

func (o *output) Write(b []byte) (int, error) {
	if !o.terminal {
		return o.raw(b)
	}
	_, err := o.raw([]byte(plain(string(b))))
	return len(b), err
}

// color says whether those who read want colors, see no-color.org.
func (o *output) color() bool { return o.terminal && os.Getenv("NO_COLOR") == "" }

// raw writes b as it is.
func (o *output) raw(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if o.lost == nil {
		o.lost = err
	}
	return n, err
}

// styled is an output for text with colors, whose writer escapes what comes from outside.
type styled struct{ *output }

func (s styled) Write(b []byte) (int, error) { return s.raw(b) }

// complain prints a message for people on standard error. What is in it of names and of other
// programs cannot command a terminal, nor look like a message of its own: lines after the first are
// indented. It is there before anything that is printed later, unless nobody reads for a second.
func complain(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	fmt.Fprintln(stderr, plain(strings.ReplaceAll(text, "\n", "\n  ")))
	stderr.flush(flushTimeout)
}

// plain escapes all of a text but its lines and tabs that is not printable: controls, changes of the
// direction of writing, bytes that are no UTF-8.
func plain(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unicode.IsPrint(r), r == '\n', r == '\t':
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		text = text[size:]
	}
	return b.String()
}

// surviveLostReaders makes a write to standard output or error whose reader is gone an error instead
// of the end of the process. The signal is caught and not ignored: programs that this one starts
// would inherit that.
func surviveLostReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

const (
	barWidth  = 24
	textWidth = 44 // a longer prompt is cut in tables
)

// printJSON writes v on one line, with <, > and & as they are: this is no HTML.
func printJSON(v any) error {
	e := json.NewEncoder(stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// row is a line of a table: a prompt, its score and a bar.
func row(text string, score float64, width int) string {
	return fmt.Sprintf("%s  %6.3f  %s", pad(text, width), score, bar(score))
}

// bar draws 0..1 in eighths of a character.
func bar(score float64) string {
	eighths := int(math.Round(min(max(score, 0), 1) * barWidth * 8))
	full, rest := eighths/8, eighths%8
	if rest == 0 {
		return strings.Repeat("█", full)
	}
	return strings.Repeat("█", full) + string([]rune("▏▎▍▌▋▊▉")[rest-1])
}

// printable is text with what could command a terminal escaped.
func printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// wrapped breaks a text between words into lines of the terminal's width, all indented. Where it is not read on a terminal
// it is one line, for programs.
func wrapped(text, indent string) string {
	width := math.MaxInt
	if stdout.terminal {
		if columns, _, err := term.GetSize(int(stdout.to.Fd())); err == nil && columns > 0 {
			width = columns
		}
	}
	return wrap(text, indent, width)
}

func wrap(text, indent string, width int) string {
	var b strings.Builder
	used := 0
	for word := range strings.FieldsSeq(text) {
		n := runewidth.StringWidth(word)
		switch {
		case used == 0:
			b.WriteString(indent)
			used = len(indent)
		case used+1+n > width:
			b.WriteString("\n" + indent)
			used = len(indent)
		default:
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += n
	}
	if used > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}

// pad cuts or fills text to width cells of a terminal, of which Chinese takes two a character.
func pad(text string, width int) string {
	return runewidth.FillRight(runewidth.Truncate(printable(text), width, "…"), width)
}

// longest is the width of a column of texts, in cells.
func longest(texts ...string) int {
	width := 1
	for _, text := range texts {
		width = max(width, runewidth.StringWidth(printable(text)))
	}
	return min(width, textWidth)
}
