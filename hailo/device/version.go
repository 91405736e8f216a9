package device

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

var (
	versionStart  = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?`)
	versionEnding = regexp.MustCompile(`\.so\.(\d{1,6}\.\d{1,6}\.\d{1,6})$`)
)

// VersionAtEnd returns "5.1.1" for "libhailort.so.5.1.1", "" if there is none.
func VersionAtEnd(name string) string {
	if m := versionEnding.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// VersionAtStart returns the part of a package version before the packaging: "5.1.1" of "5.1.1-2"; "" if there is none.
func VersionAtStart(v string) string { return versionStart.FindString(v) }

// numbers returns major, minor and patch of "5.1.1", "5.1.1-2" or "6.18.50+rpt"; zeros if it is none.
func numbers(v string) (n [3]int) {
	if m := versionStart.FindStringSubmatch(v); m != nil {
		for i := range n {
			n[i], _ = strconv.Atoi(m[i+1])
		}
	}
	return n
}

// Major returns 5 of "5.1.1", 0 where it is no version.
func Major(v string) int { return numbers(v)[0] }

// Minor returns "5.1" of "5.1.1".
func Minor(v string) string {
	n := numbers(v)
	return fmt.Sprintf("%d.%d", n[0], n[1])
}

// Newer says whether a is a newer version than b.
func Newer(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return slices.Compare(x[:], y[:]) > 0
}
