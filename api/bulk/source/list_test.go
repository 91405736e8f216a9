package source

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hailoclip/api/bulk"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.jpg": "a", "sub/b": "b", "new\nline.jpg": "n", " space .png": "s"})
	long := strings.Repeat("x", maxLine+1)
	t.Chdir(dir)
	cases := map[string][]string{
		"a.jpg\nsub/b\n":                       {"a.jpg: a", "sub/b: b"},
		"\xef\xbb\xbfa.jpg\r\n\r\n\n./sub/b":   {"a.jpg: a", "./sub/b: b"},
		"a.jpg\x00new\nline.jpg\x00":           {"a.jpg: a", "new\nline.jpg: n"},
		" space .png\na.jpg":                   {" space .png: s", "a.jpg: a"},
		dir + "/a.jpg\n":                       {dir + "/a.jpg: a"},
		"none.jpg\nsub\na.jpg":                 {"none.jpg! stat " + dir + "/none.jpg: no such file or directory", "sub! " + dir + "/sub is no file", "a.jpg: a"},
		long + "\na.jpg\n":                     {long[:80] + "...! a line has more than 8192 bytes", "a.jpg: a"},
		strings.Repeat(long, 20) + "\na.jpg":   {long[:80] + "...! a line has more than 8192 bytes", "a.jpg: a"},
		strings.Repeat("\n", 70_000) + "a\x00": {"a\uFFFD00! there is a NUL in the line"},
		"":                                     nil,
	}
	for text, want := range cases {
		write(t, dir, map[string]string{"list.txt": text})
		if diff := cmp.Diff(want, lines(t, open(t, dir+"/list.txt", Options{}))); diff != "" {
			t.Errorf("%.100q: %s", text, diff)
		}
		for i, line := range want {
			want[i] = strings.ReplaceAll(strings.ReplaceAll(line, "stat "+dir+"/", "stat "), "! "+dir+"/", "! ")
		}
		s := open(t, "-", Options{Stdin: strings.NewReader(text)})
		for range 2 {
			if diff := cmp.Diff(want, lines(t, s)); diff != "" {
				t.Errorf("standard input, %.100q: %s", text, diff)
			}
		}
		if s.Name() != "- in "+dir {
			t.Error(s.Name())
		}
	}
}

// TestStandardInputAgain has the first reading end in the middle.
func TestStandardInputAgain(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	var want []string
	text := ""
	for range 20_000 {
		text += "none.jpg\n"
		want = append(want, "none.jpg! stat none.jpg: no such file or directory")
	}
	s := open(t, "-", Options{Stdin: strings.NewReader(text)})
	n, enough := 0, errors.New("enough")
	if err := s.Each(t.Context(), func(bulk.Item) error {
		if n++; n == 10_000 {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if got := lines(t, s); !cmp.Equal(got, want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func TestStandardInputThatWaits(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := io.WriteString(w, "a.jpg\n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err = open(t, "-", Options{Stdin: r}).Each(ctx, func(bulk.Item) error { n++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%v after %d lines", err, n)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestListThatBreaks(t *testing.T) {
	s := open(t, "-", Options{Stdin: io.MultiReader(strings.NewReader("none.jpg\n"), broken{})})
	all := lines(t, s)
	if len(all) != 2 || all[1] != "-! the disk is gone" {
		t.Errorf("%q", all)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"l.list": "x"})
	s = open(t, filepath.Join(dir, "l.list"), Options{})
	if err := os.Remove(filepath.Join(dir, "l.list")); err != nil {
		t.Fatal(err)
	}
	if all := lines(t, s); len(all) != 1 || !strings.HasPrefix(all[0], dir+"/l.list! ") {
		t.Errorf("%q", all)
	}
}

func FuzzList(f *testing.F) {
	for _, s := range []string{"a\nb\r\n", "a\x00b\nc\x00", "\xef\xbb\xbfx", "http://host/a.jpg\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		err := eachLine(t.Context(), strings.NewReader(text), func(line string, err error) error {
			n += len(line)
			if line == "" || (strings.ContainsAny(line, "\x00") && err == nil) || len(line) > maxLine {
				t.Errorf("%q", line)
			}
			return nil
		})
		if err != nil || n > len(text)+len(text)/2*8 {
			t.Error(err, n)
		}
	})
}
