package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// formOf writes a form of one part as mime/multipart does, for each name and its data.
func formOf(t testing.TB, nameAndData ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(nameAndData); i += 2 {
		field, err := w.CreateFormFile(nameAndData[i], `C:\images\a; name="no".jpg`)
		noError(t, err)
		_, err = field.Write([]byte(nameAndData[i+1]))
		noError(t, err)
	}
	noError(t, w.Close())
	return w.FormDataContentType(), b.String()
}

// readForm is what eachPart finds, one line a part.
func readForm(contentType, body string) (found []string, err error) {
	err = eachPart([]byte(contentType), []byte(body), func(p part) error {
		found = append(found, fmt.Sprintf("%s %s %s %q", p.name, p.media, p.frame, p.data))
		return nil
	})
	return found, err
}

func TestForms(t *testing.T) {
	const form = "multipart/form-data; boundary=b"
	one := func(disposition string) string {
		return "--b\r\nContent-Disposition: " + disposition + "\r\n\r\nx\r\n--b--\r\n"
	}
	cases := map[string]struct {
		contentType, body string
		want              []string
	}{
		"curl": {"multipart/form-data; boundary=------------------------d74496d66958873e",
			"--------------------------d74496d66958873e\r\nContent-Disposition: form-data; name=\"image\"; filename=\"cat.jpg\"\r\n" +
				"Content-Type: image/jpeg\r\n\r\n\xff\xd8\r\n\r\n--------------------------d74496d66958873e\r\n" +
				"Content-Disposition: form-data; name=\"prompts\"\r\n\r\na cat\r\n--------------------------d74496d66958873e--\r\n",
			[]string{`image image/jpeg  "\xff\xd8\r\n"`, `prompts   "a cat"`}},
		"Chrome": {"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
			"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name=\"5%22 Größe\"; filename=\"a;b=\"\r\n" +
				"Content-Type: application/octet-stream\r\n\r\n\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n",
			[]string{`5" Größe application/octet-stream  ""`}},
		"old urllib3": {form, one(`form-data; name*=utf-8''Gr%C3%B6%C3%9Fe; filename*=utf-8''x`), []string{`Größe   "x"`}},
		"both names":  {form, one(`form-data; name="Groesse"; name*=UTF-8'de'Gr%C3%B6%C3%9Fe`), []string{`Größe   "x"`}},
		"Go":          {form, one(`form-data; name="a \"b\" \\ c"`), []string{`a "b" \ c   "x"`}},
		"a path":      {form, one(`form-data; filename="C:\dir\a.jpg"; name=image;`), []string{`image   "x"`}},
		"cases and blanks": {`Multipart/Form-Data ; charset=utf-8;BOUNDARY = "b"`,
			"--b \t\r\ncontent-disposition:FORM-DATA ; Name = image\r\ncontent-type:  image/png \r\nX-FRAME-FORMAT: gray8; 1x1\r\n\r\nx\r\n--b-- \t",
			[]string{`image image/png gray8; 1x1 "x"`}},
		"text around": {form, "hello\r\n--bb\r\n\r\n--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\nbye\r\n--b\r\nbye", []string{`a   "x"`}},
		"line feeds": {form, "--b\nContent-Disposition: form-data; name=a\n\nx\r\n\n--b\nContent-Disposition: form-data; name=a\n\n\n--b--\n",
			[]string{`a   "x\r\n"`, `a   ""`}},
		"nothing":           {form, "--b--", nil},
		"empty data":        {form, "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--b--", []string{`a   ""`}},
		"almost a boundary": {form, "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--bx\r\n--b-\r\n--b--x\r\n-b\r\n--b--", []string{`a   "--bx\r\n--b-\r\n--b--x\r\n-b"`}},
		"coding":            {form, "--b\r\nContent-Transfer-Encoding: Binary\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--", []string{`a   "x"`}},
	}
	for name, c := range cases {
		if got, err := readForm(c.contentType, c.body); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestBadForms(t *testing.T) {
	const form, named = "multipart/form-data; boundary=b", "Content-Disposition: form-data; name=a\r\n"
	of := func(headers string) string { return "--b\r\n" + headers + "\r\nx\r\n--b--\r\n" }
	cases := map[string]struct{ contentType, body, want string }{
		"no boundary":       {"multipart/form-data", of(named), "no boundary of 1 to 70"},
		"empty boundary":    {`multipart/form-data; boundary=""`, of(named), "no boundary of 1 to 70"},
		"long boundary":     {form + strings.Repeat("b", 70), of(named), "no boundary of 1 to 70"},
		"open quotes":       {`multipart/form-data; boundary="b`, of(named), "no boundary of 1 to 70"},
		"other boundary":    {form + "b", of(named), "no boundary as its Content-Type"},
		"empty":             {form, "", "no boundary as its Content-Type"},
		"inside a line":     {form, " --b\r\n" + named + "\r\nx", "no boundary as its Content-Type"},
		"no end":            {form, "--b\r\n" + named + "\r\nx\r\n--b", "ends within part 1"},
		"no end, empty":     {form, "--b\r\n" + named + "\r\n", "ends within part 1"},
		"other line ends":   {form, "--b\r\n" + named + "\r\nx\n--b--\n", "ends within part 1"},
		"no second part":    {form, "--b\r\n" + named + "\r\nx\r\n--b\r\n", "within the headers of part 2"},
		"cut headers":       {form, "--b\r\n" + named, "within the headers of part 1"},
		"large headers":     {form, of(named + "X: " + strings.Repeat("x", maxPartHeaders) + "\r\n"), "headers of part 1 are larger than 16384"},
		"no headers":        {form, of(""), "Part 1 has no name"},
		"no name":           {form, of("Content-Disposition: form-data; filename=\"name=a\"\r\n"), "Part 1 has no name"},
		"empty name":        {form, of("Content-Disposition: form-data; name=\"\"\r\n"), "Part 1 has no name"},
		"two names":         {form, of("Content-Disposition: form-data; name=a; name=b\r\n"), "Part 1 has no name"},
		"two headers":       {form, of(named + named), "Content-Disposition twice"},
		"attachment":        {form, of("Content-Disposition: attachment; name=a\r\n"), "Part 1 has no name"},
		"bad quotes":        {form, of("Content-Disposition: form-data; filename=\"a\"b\"; name=a\r\n"), "Part 1 has no name"},
		"name in Latin 1":   {form, of("Content-Disposition: form-data; name*=iso-8859-1''a\r\n"), "Part 1 has no name"},
		"bad escape":        {form, of("Content-Disposition: form-data; name*=utf-8''a%4\r\n"), "Part 1 has no name"},
		"worse escape":      {form, of("Content-Disposition: form-data; name*=utf-8''a%4x\r\n"), "Part 1 has no name"},
		"not UTF-8":         {form, of("Content-Disposition: form-data; name=\"\xff\"\r\n"), "not valid UTF-8"},
		"escaped not UTF-8": {form, of("Content-Disposition: form-data; name*=utf-8''%ff\r\n"), "not valid UTF-8"},
		"folded":            {form, of("Content-Disposition: form-data;\r\n name=a\r\n"), "Part 1 has no name"},
		"folded later":      {form, of(named + " filename: x\r\n"), "in one line"},
		"no header":         {form, of("GET / HTTP/1.1\r\n"), "in one line"},
		"base64":            {form, of(named + "Content-Transfer-Encoding: base64\r\n"), "send the bytes as they are"},
		"many parts":        {form, strings.Repeat("--b\r\n"+named+"\r\nx\r\n", maxParts+1) + "--b--", "Too many parts: at most 1000"},
	}
	for name, c := range cases {
		if got, err := readForm(c.contentType, c.body); !errors.Is(err, errInvalidRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %s", name, got, err, c.want)
		}
	}
	if found, err := readForm(form, strings.Repeat("--b\r\n"+named+"\r\nx\r\n", maxParts)+"--b--"); err != nil || len(found) != maxParts {
		t.Errorf("%d parts, %v", len(found), err)
	}
	stop := errors.New("enough")
	if err := eachPart([]byte(form), []byte(of(named)), func(part) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestPartsAreNotCopied: all of a part lies in the body, and appending to its data does not reach what follows.
func TestPartsAreNotCopied(t *testing.T) {
	contentType, text := formOf(t, `a "quoted" name`, strings.Repeat("data", 1000))
	body := []byte(text)
	inside := func(b []byte) bool {
		at := bytes.Index(body, b)
		return at >= 0 && &body[at] == &b[0]
	}
	noError(t, eachPart([]byte(contentType), body, func(p part) error {
		if !inside(p.name) || !inside(p.media) || !inside(p.data) || cap(p.data) != len(p.data) {
			t.Errorf("a copy of %q, or %d bytes of data with room for %d", p.name, len(p.data), cap(p.data))
		}
		return nil
	}))
	contentType, text = formOf(t, "image", "data", "prompts", "a cat")
	of, body := []byte(contentType), []byte(text)
	if n := testing.AllocsPerRun(100, func() { _ = eachPart(of, body, func(part) error { return nil }) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzForm compares eachPart with mime/multipart: what that reads, eachPart reads alike or refuses, where it says so.
func FuzzForm(f *testing.F) {
	contentType, body := formOf(f, "image", "\xff\xd8\r\n--", "prompts", "a cat", `a"b\`, "")
	f.Add(contentType, []byte(body))
	for _, s := range []string{
		"--b\r\nContent-Disposition: form-data; name*=utf-8''a%20b; name=\"x%22\"\r\nContent-Type: a/b\r\n\r\nx\r\n--b--",
		"x\n--b\nContent-Disposition: form-data; filename=\"C:\\d\\\"; \\\\\"; name=\"a\\(\"\n\nx\n--b \n\n--b--", "--b\r\n\r\n--b--",
		"x\n--b--\n--b\nContent-Disposition: form-data; name=a\n\n--bx\r\n--b--\n",
		"--b\r\nContent-Disposition: form-data; name=a;\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--bx\r\n--b-\r\n--b--x\r\n--b--\r\n--b\r\n",
	} {
		f.Add("multipart/form-data; boundary=b", []byte(s))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		var names, media, data []string
		err := eachPart([]byte(contentType), bytes.Clone(body), func(p part) error {
			if len(p.name) == 0 || !utf8.Valid(p.name) || len(p.name) > maxPartHeaders {
				t.Fatalf("the name %q", p.name)
			}
			names, media, data = append(names, string(p.name)), append(media, string(p.media)), append(data, string(p.data))
			return nil
		})
		if err != nil {
			if !errors.Is(err, errInvalidRequest) || len(err.Error()) > 200 {
				t.Fatalf("%v", err)
			}
			return
		}
		_, params, err := mime.ParseMediaType(contentType)
		if err != nil || params["boundary"] == "" {
			return // it is stricter
		}
		r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		var theirs []*multipart.Part
		var theirData []string
		for {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			content, err := io.ReadAll(p)
			if err != nil {
				return
			}
			theirs, theirData = append(theirs, p), append(theirData, string(content))
		}
		if !slices.Equal(data, theirData) {
			t.Fatalf("the parts of %q are %q, with mime/multipart %q", body, data, theirData)
		}
		for i, p := range theirs {
			// It does not decode %22, and has no name where it does not understand something else.
			if name := strings.ReplaceAll(p.FormName(), "%22", `"`); name != "" && name != names[i] {
				t.Fatalf("part %d of %q is called %q, with mime/multipart %q", i+1, body, names[i], name)
			}
			if values := p.Header.Values("Content-Type"); len(values) == 1 && values[0] != media[i] {
				t.Fatalf("part %d of %q is %q, with mime/multipart %q", i+1, body, media[i], values)
			}
		}
	})
}

func BenchmarkForm(b *testing.B) {
	contentType, body := formOf(b, "image", strings.Repeat("0123456789abcde\r", 64<<10), "prompts", "a photo of a cat")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		_ = eachPart([]byte(contentType), []byte(body), func(part) error { return nil })
	}
}
