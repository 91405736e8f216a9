package configs

import (
	"fmt"
	"strings"
)

// unknown reports a key that does not exist, with the one that may be meant.
func (l *layers) unknown(key, where string) {
	names := sections()
	for _, s := range l.settings {
		names = append(names, s.name)
	}
	hint := ""
	for edits := range 3 {
		for _, name := range names {
			if hint == "" && similar(key, name, edits) {
				hint = fmt.Sprintf("; did you mean %q?", name)
			}
		}
	}
	if section, name, ok := strings.Cut(key, "."); ok {
		l.fault("%s: unknown key %q of section %s%s", where, name, section, hint)
		return
	}
	l.fault("%s: unknown key %q%s", where, key, hint)
}

// similar says whether inserting, deleting or replacing so many letters, or fewer, makes b of a.
func similar(a, b string, edits int) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	if a == "" || b == "" || edits == 0 {
		return len(a)+len(b) <= edits
	}
	return similar(a[1:], b, edits-1) || similar(a, b[1:], edits-1) || similar(a[1:], b[1:], edits-1)
}
