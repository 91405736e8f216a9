package doctor

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	columns = 80
	indent  = 8 // of remedies, and what level and gaps take beside the name of a check
)

// colors of the levels, and of remedies, as terminal sequences.
var colors = map[Level]string{OK: "\x1b[32m", Info: "\x1b[2m", Warn: "\x1b[33m", Fail: "\x1b[1;31m"}

const (
	remedyColor = "\x1b[36m"
	noColor     = "\x1b[0m"
)

// WriteText writes the report for people, 80 columns wide; only commands may be longer, so that
// they can be pasted. Text from outside cannot move the cursor.
func (r Report) WriteText(w io.Writer, color bool) error {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return code + s + noColor
	}
	names := 0
	for _, f := range r.Findings {
		names = max(names, utf8.RuneCountInString(printable(f.Check)))
	}
	names = min(names, 20)
	b := bufio.NewWriter(w)
	for _, f := range r.Findings {
		level := string(f.Level)
		if f.Level == Fail {
			level = "FAIL"
		}
		check := printable(f.Check)
		b.WriteString(paint(colors[f.Level], pad(level, 4)) + "  " + pad(check, names) + "  ")
		for i, line := range wrap(printable(f.What), columns-names-indent) {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", names+indent))
			}
			b.WriteString(line + "\n")
		}
		if f.Remedy == "" {
			continue
		}
		for line := range strings.SplitSeq(f.Remedy, "\n") {
			b.WriteString(strings.Repeat(" ", indent) + paint(remedyColor, printable(line)) + "\n")
		}
	}
	b.WriteString("\n")
	for _, line := range wrap(printable(r.Summary), columns) {
		b.WriteString(paint(colors[r.Level], line) + "\n")
	}
	return b.Flush()
}

func pad(s string, n int) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

// wrap breaks a text at spaces; a word that is longer than a line gets a line of its own.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
