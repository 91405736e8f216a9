package client

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
)

// form is a body of multipart/form-data that is being written. Writing to memory does not fail.
type form struct {
	body   bytes.Buffer
	writer *multipart.Writer
}

func newForm(images ...Image) *form {
	size := 0
	for _, i := range images {
		size += len(i.Data) + 512
	}
	f := new(form)
	f.body.Grow(size)
	f.writer = multipart.NewWriter(&f.body)
	return f
}

func (f *form) image(name string, i Image) {
	header := textproto.MIMEHeader{"Content-Disposition": {disposition(name) + `; filename="image"`}}
	for key, value := range i.headers() {
		header.Set(key, value)
	}
	w, _ := f.writer.CreatePart(header)
	_, _ = w.Write(i.Data)
}

func (f *form) text(name, value string) {
	w, _ := f.writer.CreatePart(textproto.MIMEHeader{"Content-Disposition": {disposition(name)}})
	_, _ = w.Write([]byte(value))
}

// disposition names a part. A name that is not a plain word is written as RFC 8187 has it, which no two readers take for
// different ones.
func disposition(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	plain := true
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
			b.WriteByte(c)
		default:
			plain = false
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	if plain {
		return `form-data; name="` + name + `"`
	}
	return `form-data; name*=UTF-8''` + b.String()
}

// post is the request with the form as its body.
func (f *form) post(path string) call {
	_ = f.writer.Close()
	header := map[string]string{"Content-Type": f.writer.FormDataContentType()}
	return call{method: http.MethodPost, path: path, header: header, body: f.body.Bytes()}
}
