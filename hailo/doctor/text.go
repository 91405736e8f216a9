package doctor

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	columns = 80
	indent  = 8 // of remedies, and what level and gaps take beside the name of a check

	remedyColor = "\x1b[36m"
	noColor     = "\x1b[0m"
)

// colors of the levels, as terminal sequences.
var colors = map[Level]string{OK: "\x1b[32m", Info: "\x1b[2m", Warn: "\x1b[33m", Fail: "\x1b[1;31m"}

// WriteText writes the report for people, 80 columns wide; only commands may be longer, so that they can be pasted. Text
// from outside cannot move the cursor.
func (r Report) WriteText(w io.Writer, color bool) error {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return code + s + noColor
	}
	names := 0
	for _, f := range r.Findings {
		names = min(max(names, utf8.RuneCountInString(printable(f.Check))), 20)
	}
	b := bufio.NewWriter(w)
	for _, f := range r.Findings {
		level := fmt.Sprintf("%-4s", strings.Replace(string(f.Level), "fail", "FAIL", 1))
		what := strings.Join(wrap(f.What, columns-names-indent), "\n"+strings.Repeat(" ", names+indent))
		fmt.Fprintf(b, "%s  %-*s  %s\n", paint(colors[f.Level], level), names, printable(f.Check), what)
		for line := range strings.Lines(f.Remedy) {
			b.WriteString(strings.Repeat(" ", indent) + paint(remedyColor, printable(strings.TrimSuffix(line, "\n"))) + "\n")
		}
	}
	for _, line := range wrap(r.Summary, columns) {
		b.WriteString("\n" + paint(colors[r.Level], line))
	}
	b.WriteString("\n")
	return b.Flush()
}

// wrap breaks a text at spaces; a word that is longer than a line gets a line of its own.
func wrap(s string, width int) (lines []string) {
	for _, word := range strings.Fields(printable(s)) {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last])+1+utf8.RuneCountInString(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
