package configs

import (
	"fmt"
	"strings"
)

// unknown reports a key that does not exist, with the one that may be meant.
func (l *layers) unknown(key, where string) {
	hint, least := "", 3
	names := sections()
	for _, s := range l.settings {
		names = append(names, s.name)
	}
	for _, c := range names {
		if d := distance(key, c, least); d < least {
			hint, least = fmt.Sprintf("; did you mean %q?", c), d
		}
	}
	if section, name, ok := strings.Cut(key, "."); ok {
		l.fault("%s: unknown key %q of section %s%s", where, name, section, hint)
		return
	}
	l.fault("%s: unknown key %q%s", where, key, hint)
}

// distance is the number of letters to insert, delete or replace between a and b (Levenshtein
// 1966), or limit where it cannot be less.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
