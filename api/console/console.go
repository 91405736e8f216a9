// Package console has the page that the service shows in a browser: HTML, style sheets and ES modules in www, which are
// embedded and handed out as they are, but for comments. There is no build step. Tests that need a browser are in test, see
// "make console-test".
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"path"
	"regexp"
	"sync"
)

//go:embed www
var www embed.FS

// Index is the name of the page itself.
const Index = "index.html"

// File is a file that browsers get.
type File struct {
	Media string // Content-Type
	ETag  string // quoted, as the header has it; another one for other bytes
	Body  []byte // shared, only to be read
	Gzip  []byte // Body compressed, likewise; nil where that is hardly smaller
}

// NewFile makes a file, which keeps body. The media type goes by the suffix of name.
func NewFile(name string, body []byte) File {
	sum := sha256.Sum256(body)
	f := File{Media: media[path.Ext(name)], ETag: `"` + hex.EncodeToString(sum[:12]) + `"`, Body: body}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // neither this nor a write to memory fails
	_, _ = z.Write(body)
	_ = z.Close()
	if b.Len() < len(body)*9/10 {
		f.Gzip = b.Bytes()
	}
	return f
}

var media = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".jpg":  "image/jpeg",
	".json": "application/json",
}

// comment is a line of a module that has only a comment. Browsers get an empty one, so that the numbers of lines are the same.
var comment = regexp.MustCompile(`(?m)^[ \t]*//.*$`)

// Files returns the files of the page by name. The map is shared, only to be read.
var Files = sync.OnceValue(func() map[string]File {
	files := map[string]File{}
	entries, _ := www.ReadDir("www") // it is there, because it is embedded
	for _, e := range entries {
		body, _ := www.ReadFile("www/" + e.Name())
		if path.Ext(e.Name()) == ".js" {
			body = comment.ReplaceAll(body, nil)
		}
		files[e.Name()] = NewFile(e.Name(), body)
	}
	return files
})
