package console

import (
	"cmp"
	"regexp"
	"strings"
	"testing"
)

// TestFiles: what browsers get is small, asks no other host, and has nothing that the Content-Security-Policy forbids or that
// makes markup of text.
func TestFiles(t *testing.T) {
	forbidden := regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function|` +
		`\sstyle=|<style|["']javascript:|["'(]data:|@import|(src|href|url\(|from |import\(?)\s*=?\s*["']?(https?:)?//`)
	handler := regexp.MustCompile(`(?i)<[a-z][^>]*\son[a-z]+\s*=`)
	total := 0
	for name, f := range Files() {
		total += min(len(f.Body), cmp.Or(len(f.Gzip), len(f.Body))) // what goes over the wire
		if f.Media == "" || f.ETag == "" || len(f.Body) == 0 {
			t.Errorf("%s: %q %q %d", name, f.Media, f.ETag, len(f.Body))
		}
		text := strings.ReplaceAll(string(f.Body), `xmlns="http://www.w3.org/2000/svg"`, "")
		for _, found := range append(forbidden.FindAllString(text, -1), handler.FindAllString(text, -1)...) {
			t.Errorf("%s has %q", name, found)
		}
	}
	if total > 100_000 {
		t.Errorf("%d bytes, want 100 kB at most", total)
	}
	if NewFile("x.js", []byte("a")).ETag == NewFile("x.js", []byte("b")).ETag {
		t.Error("two files have one ETag")
	}
}
