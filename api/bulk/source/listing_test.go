package source

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
)

// serve answers with pages by their path; other paths that end with a slash are not found, and files have their path as content.
func serve(t *testing.T, pages map[string]string) (address string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	return serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		page, ok := pages[r.URL.Path]
		switch {
		case ok:
			_, _ = w.Write([]byte(page))
		case strings.HasSuffix(r.URL.Path, "/"):
			http.NotFound(w, r)
		default:
			http.ServeContent(w, r, "", time.Unix(1700000000, 0), strings.NewReader(r.URL.Path))
		}
	}), asked
}

func serveFunc(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

// openFast opens a source that does not wait long.
func openFast(t *testing.T, address string, o Options) bulk.Source {
	t.Helper()
	s := open(t, address, o)
	switch s := s.(type) {
	case *listing:
		s.pause = time.Millisecond
	case *oneAddress:
		s.pause = time.Millisecond
	}
	return s
}

const (
	nginxPage = "<html>\r\n<head><title>Index of /p/</title></head>\r\n<body>\r\n<h1>Index of /p/</h1><hr><pre><a href=\"../\">../</a>\r\n" +
		"<a href=\"sub/\">sub/</a>                  27-Nov-2025 06:30                   -\r\n" +
		"<a href=\"img10.jpg\">img10.jpg</a>        27-Nov-2025 06:31                   12\r\n" +
		"<a href=\"img2.jpg\">img2.jpg</a>          27-Nov-2025 06:32                   11\r\n" +
		"<a href=\"a%20b%25.png\">a b%.png</a>      27-Nov-2025 06:32                   1K\r\n" +
		"<a href=\"notes.txt\">notes.txt</a>        27-Nov-2025 06:32                    1\r\n</pre><hr></body></html>\r\n"
	nginxJSON = `[{ "name":"sub", "type":"directory", "mtime":"Thu, 27 Nov 2025 06:30:00 GMT" },
{ "name":"img10.jpg", "type":"file", "mtime":"Thu, 27 Nov 2025 06:31:00 GMT", "size":12 },
{ "name":"img2.jpg", "type":"file", "mtime":"Thu, 27 Nov 2025 06:32:00 GMT", "size":11 },
{ "name":"a b%.png", "type":"file", "mtime":"Thu, 27 Nov 2025 06:32:00 GMT", "size":11 },
{ "name":"notes.txt", "type":"file", "mtime":"Thu, 27 Nov 2025 06:32:00 GMT", "size":1 }]`
	caddyJSON = `[{"name":"sub/","size":4096,"url":"./sub/","mod_time":"2025-11-27T06:30:00Z","mode":2147484141,"is_dir":true,"is_symlink":false},
{"name":"img10.jpg","size":12,"url":"./img10.jpg","mod_time":"2025-11-27T06:31:00.123Z","mode":420,"is_dir":false,"is_symlink":false},
{"name":"img2.jpg","size":11,"url":"./img2.jpg","mod_time":"2025-11-27T06:32:00Z","mode":420,"is_dir":false,"is_symlink":false},
{"name":"a b%.png","size":11,"url":"./a%20b%25.png","mod_time":"2025-11-27T06:32:00Z","mode":420,"is_dir":false,"is_symlink":false},
{"name":"notes.txt","size":1,"url":"./notes.txt","mod_time":"2025-11-27T06:32:00Z","mode":420,"is_dir":false,"is_symlink":false}]`
	apachePage = `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN"><html><head><title>Index of /p</title></head><body><h1>Index of /p</h1>
<table><tr><th valign="top"><img src="/icons/blank.gif" alt="[ICO]"></th><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td valign="top"><img src="/icons/back.gif" alt="[PARENTDIR]"></td><td><a href="/">Parent Directory</a></td><td>&nbsp;</td><td align="right">  - </td></tr>
<tr><td><a href="sub/"><img src="/icons/folder.gif"></a></td><td><a href="sub/">sub/</a></td><td align="right">2025-11-27 06:30  </td><td align="right">  - </td></tr>
<tr><td><a href="a%20b%25.png"><img></a></td><td><a href="a%20b%25.png">a b%.png</a></td><td align="right">2025-11-27 06:31  </td><td align="right"> 12 </td></tr>
<tr><td><a href="img2.jpg"><img></a></td><td><a href="img2.jpg">img2.jpg</a></td><td align="right">2025-11-27 06:31  </td><td align="right">1.2M</td></tr>
<tr><td><a href="img10.jpg"><img></a></td><td><a href="img10.jpg">img10.jpg</a></td><td align="right">2025-11-27 06:31  </td><td align="right">1.2M</td></tr>
<tr><td><a href="notes.txt"><img></a></td><td><a href="notes.txt">notes.txt</a></td></tr></table></body></html>`
	pythonPage = `<!DOCTYPE HTML><html lang="en"><head><meta charset="utf-8"><title>Directory listing for /p/</title></head><body><h1>Directory listing for /p/</h1>
<hr><ul><li><a href="sub/">sub/</a></li><li><a href="a%20b%25.png">a b%.png</a></li><li><a href="img10.jpg">img10.jpg</a></li>
<li><a href="img2.jpg">img2.jpg</a></li><li><a href="notes.txt">notes.txt</a></li><li><a href=".hidden.jpg">x</a></li></ul><hr></body></html>`
)

func TestListing(t *testing.T) {
	for name, page := range map[string]string{"nginx": nginxPage, "nginx, JSON": nginxJSON, "Caddy": caddyJSON, "Apache": apachePage, "Python": pythonPage} {
		host, _ := serve(t, map[string]string{"/p/": page, "/p/sub/": `<a href="/p/sub/c.jpg">c</a><a href="/p/">up</a>`})
		var skipped []string
		s := openFast(t, host+"/p", Options{Skipped: func(kind string) { skipped = append(skipped, kind) }})
		p := host + "/p/"
		want := []string{
			p + "a%20b%25.png: /p/a b%.png", p + "img2.jpg: /p/img2.jpg", p + "img10.jpg: /p/img10.jpg", p + "sub/c.jpg: /p/sub/c.jpg",
		}
		if diff := cmp.Diff(want, lines(t, s)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		items, err := all(t, s)
		for _, item := range items {
			if item.Size < 0 || item.Modified.IsZero() || item.Once {
				t.Errorf("%s: %v, %v", name, item, err)
			}
		}
		if diff := cmp.Diff([]string{".txt", ".txt"}, skipped); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if exact := strings.HasPrefix(name, "nginx") || name == "Caddy"; (items[2].Modified.Unix() == 1764225060) != exact {
			t.Errorf("%s: %v", name, items[2].Modified)
		}
	}
}

// TestListingStaysWithin has pages with links to everywhere but into the folder.
func TestListingStaysWithin(t *testing.T) {
	other, others := serve(t, nil)
	var outside atomic.Int64
	var host string
	host = serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/p/":
			for _, link := range []string{
				"", ".", "./", "/p/", "..", "../", "/", "/p", "//", "../p/", "?C=N", "#x", "x.jpg?y", "x.jpg#y", other + "/p/x.jpg", strings.Replace(other, "http:", "", 1) + "/p/x.jpg",
				"https:/p/x.jpg", "/pp/x.jpg", "../x.jpg", "%2e%2e/x.jpg", "%2e%2e%2fx.jpg", "%2e%2e/", "sub%2f..%2fx.jpg", "deep/er/x.jpg", "javascript:x.jpg", "mailto:a@x.jpg",
				"http://user:pass@" + strings.TrimPrefix(host, "http://") + "/p/x.jpg", "..\\x.jpg", "\\x.jpg", "%00.jpg", ":::", "%zz.jpg", "away/", "root/", "up.jpg", "fine.jpg",
			} {
				fmt.Fprintf(w, "<a href=\"%s\">x</a>\n", link)
			}
		case path == "/p/away/", path == "/p/away.jpg":
			http.Redirect(w, r, other+"/p/", http.StatusFound)
		case path == "/p/root/":
			http.Redirect(w, r, "/p/", http.StatusFound)
		case path == "/p/up.jpg":
			http.Redirect(w, r, "/secret.jpg", http.StatusFound)
		case strings.HasPrefix(path, "/p/"):
			_, _ = w.Write([]byte("fine"))
		default:
			outside.Add(1)
		}
	})
	got := lines(t, openFast(t, host+"/p/", Options{}))
	want := []string{
		host + `/p/%5Cx.jpg: fine`,
		host + "/p/away/! a redirect away from the folder is not followed",
		host + "/p/fine.jpg: fine",
		host + "/p/root/! it is redirected to another folder",
		host + "/p/up.jpg! a redirect away from the folder is not followed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if outside.Load() != 0 || others.Load() != 0 {
		t.Errorf("%d requests left the folder, %d the host", outside.Load(), others.Load())
	}
}

func TestImagesOfHosts(t *testing.T) {
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/unknown.jpg" {
			w.(http.Flusher).Flush() // without a length
		}
		_, _ = w.Write([]byte(strings.Repeat("x", 101)))
	})
	with := strings.Replace(host, "://", "://me:secret@", 1)
	for address, want := range map[string]string{
		with + "/a.jpg": host + "/a.jpg! it has 101 bytes, more than 100", with + "/unknown.jpg": host + "/unknown.jpg! it has more than 100 bytes",
		host + "/a.jpg?token=hidden": host + "/a.jpg?token=***! the host answers 401 Unauthorized",
	} {
		s := openFast(t, address, Options{MaxImageBytes: 100})
		if got := lines(t, s); len(got) != 1 || got[0] != want || strings.Contains(s.Name(), "secret") || strings.Contains(s.Name(), "hidden") {
			t.Errorf("%s, %q, want %s", s.Name(), got, want)
		}
	}
	if _, err := Open("http://host/a.tar.gz", Options{}); err == nil || !strings.Contains(err.Error(), "download it first") {
		t.Error(err)
	}
}

func TestAddressesInLists(t *testing.T) {
	host, asked := serve(t, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"l.txt": host + "/a.jpg\n" + host + "/a b.jpg\nhttp://me:secret@host/x\nb.jpg\n", "b.jpg": "b"})
	want := []string{
		"", host + "/a b.jpg! an address has at most 4096 bytes, none of them white space",
		"http://me:***@host/x! addresses in lists have no user and no password", "b.jpg: b",
	}
	for allow, first := range map[string]string{"other.example": " is not in fetch.allow", "127.0.0.1": ": /a.jpg"} {
		s := open(t, dir+"/l.txt", Options{Listed: outbound.New(outbound.Config{Allow: []string{allow}})})
		got := lines(t, s)
		if want[0] = got[0]; !strings.HasSuffix(got[0], first) {
			t.Errorf("%q, want %q", got[0], first)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("%d requests", asked.Load())
	}
}

// BenchmarkListing reads a listing with b.N images; -benchtime 1000000x is a million of them.
func BenchmarkListing(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n := range b.N {
			fmt.Fprintf(w, "<a href=\"image%d.jpg\">x</a> 27-Nov-2025 06:30   %d\n", n, n)
		}
	}))
	defer s.Close()
	l, err := Open(s.URL, Options{})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	if err := l.Each(b.Context(), func(bulk.Item) error { n++; return nil }); err != nil || n != b.N {
		b.Error(n, err)
	}
}

func FuzzListing(f *testing.F) {
	for _, page := range []string{nginxPage, nginxJSON, caddyJSON, apachePage, pythonPage, `<a href="../x/%2e%2e/">`, `[{"name":"..","is_dir":true}]`} {
		f.Add([]byte(page))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := page{url: mustURL(t, "http://host/p/"), room: 100}
		resp := &http.Response{Request: &http.Request{URL: p.url}, Body: body{strings.NewReader(string(b))}}
		_ = p.read(newHosts(Options{}.withDefaults(), outbound.Allowed{}))(t.Context(), resp)
		for _, e := range p.entries {
			u := p.child(e)
			again := mustURL(t, u.String())
			if name, ok := strings.CutPrefix(again.Path, "/p/"); !ok || strings.Contains(strings.TrimSuffix(name, "/"), "/") || name == "" || name[0] == '.' ||
				again.Host != "host" || again.RawQuery != "" || again.Fragment != "" || len(p.entries) > 100 {
				t.Errorf("%q: %s", e.name, u)
			}
		}
	})
}
