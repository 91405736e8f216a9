package console

import (
	"bytes"
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
	total, sent := 0, 0
	for name, f := range Files() {
		if f.Media == "" || f.ETag == "" || len(f.Body) == 0 {
			t.Errorf("%s: %q %q %d", name, f.Media, f.ETag, len(f.Body))
		}
		text := strings.ReplaceAll(string(f.Body), `xmlns="http://www.w3.org/2000/svg"`, "")
		for _, found := range append(forbidden.FindAllString(text, -1), handler.FindAllString(text, -1)...) {
			t.Errorf("%s has %q", name, found)
		}
		if name != "docs.css" { // which is of another page
			total += len(f.Body)
			sent += min(len(f.Body), cmp.Or(len(f.Gzip), len(f.Body))) // what goes over the wire
		}
	}
	if total > 210_000 || sent > 80_000 {
		t.Errorf("%d bytes, %d compressed, want 210 kB and 80 kB at most", total, sent)
	}
	if NewFile("x.js", []byte("a")).ETag == NewFile("x.js", []byte("b")).ETag {
		t.Error("two files have one ETag")
	}
}

// TestComments: a module is handed out without its comments, with as many lines, and no text in it looks like one.
func TestComments(t *testing.T) {
	for name, f := range Files() {
		if !strings.HasSuffix(name, ".js") {
			continue
		}
		written, err := www.ReadFile("www/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(f.Body, []byte("\n")) != bytes.Count(written, []byte("\n")) || comment.Match(f.Body) {
			t.Errorf("%s has other lines, or comments", name)
		}
		for _, at := range comment.FindAllIndex(written, -1) {
			if bytes.Count(comment.ReplaceAll(written[:at[0]], nil), []byte("`"))%2 != 0 {
				t.Errorf("%s: %q is in a text of many lines", name, written[at[0]:at[1]])
			}
		}
	}
}
