package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	versionStart  = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?`)
	versionEnding = regexp.MustCompile(`\.so\.(\d{1,6}\.\d{1,6}\.\d{1,6})$`)
)

// versionAtEnd returns "5.1.1" for "libhailort.so.5.1.1", "" if there is none.
func versionAtEnd(name string) string {
	m := versionEnding.FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	return m[1]
}

// numbers returns major, minor and patch of "5.1.1", "5.1.1-2" or "6.18.50+rpt"; zeros if it is none.
func numbers(v string) [3]int {
	var n [3]int
	for i, s := range first3(versionStart.FindStringSubmatch(v)) {
		n[i], _ = strconv.Atoi(s)
	}
	return n
}

func first3(match []string) []string {
	if match == nil {
		return nil
	}
	return match[1:]
}

// upstream returns the part of a package version before the packaging: "5.1.1" of "5.1.1-2".
func upstream(v string) string {
	if m := versionStart.FindString(v); m != "" {
		return m
	}
	return v
}

// minor returns "5.1" of "5.1.1".
func minor(v string) string {
	n := numbers(v)
	return fmt.Sprintf("%d.%d", n[0], n[1])
}

func newer(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return slices.CompareFunc(x[:], y[:], func(i, j int) int { return cmp.Compare(i, j) }) > 0
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// plural returns "1 problem", "2 problems".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// remedy joins lines that are not empty.
func remedy(lines ...string) string {
	return strings.Join(slices.DeleteFunc(lines, func(s string) bool { return s == "" }), "\n")
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// shell returns a word as a shell reads it back.
func shell(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
