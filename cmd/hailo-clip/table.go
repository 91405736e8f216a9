package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

const (
	barWidth  = 24
	textWidth = 44 // a longer prompt is cut in tables
)

// printJSON writes v on one line, with <, > and & as they are: this is no HTML.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
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

// pad cuts or fills text to width cells of a terminal, of which Chinese takes two a character.
func pad(text string, width int) string {
	return runewidth.FillRight(runewidth.Truncate(printable(text), width, "…"), width)
}

// longest is the width of a column of texts, in cells.
func longest(texts []string) int {
	width := 1
	for _, text := range texts {
		width = max(width, runewidth.StringWidth(printable(text)))
	}
	return min(width, textWidth)
}
