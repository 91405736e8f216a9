package source

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type body struct{ io.Reader }

func (body) Close() error { return nil }

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// bucketHandler answers as S3 does, pages of two keys at a time; of the first version if old.
func bucketHandler(t *testing.T, old bool, keys ...string) http.HandlerFunc {
	slices.Sort(keys)
	return func(w http.ResponseWriter, r *http.Request) {
		if key, ok := strings.CutPrefix(r.URL.Path, "/b/"); !ok || key != "" {
			if i := slices.Index(keys, key); i >= 0 {
				_, _ = w.Write([]byte(key))
			} else {
				http.NotFound(w, r)
			}
			return
		}
		q := r.URL.Query()
		after := q.Get("marker")
		if v2 := q.Get("list-type") == "2" && !old; v2 {
			after = strings.TrimPrefix(q.Get("continuation-token"), "token ")
		}
		var some []string
		for _, key := range keys {
			if key > after && strings.HasPrefix(key, q.Get("prefix")) {
				some = append(some, key)
			}
		}
		more := len(some) > 2
		some = some[:min(len(some), 2)]
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>%v</IsTruncated>`, more)
		for _, key := range some {
			fmt.Fprint(w, "<Contents><Key>")
			if err := xml.EscapeText(w, []byte(key)); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "</Key><LastModified>2025-11-27T06:30:00.000Z</LastModified><Size>%d</Size></Contents>", len(key))
		}
		if more && !old {
			fmt.Fprintf(w, "<NextContinuationToken>token %s</NextContinuationToken>", some[len(some)-1])
		}
		fmt.Fprint(w, "</ListBucketResult>")
	}
}

func TestBucket(t *testing.T) {
	for _, old := range []bool{false, true} {
		host := serveFunc(t, bucketHandler(t, old, "a&b.jpg", "c d/e%.png", "c d/", "c d/.hidden/x.jpg", "notes.txt", "p/1.jpg", "p/10.jpg", "p/2.jpg", "x/../y.jpg", "z.jpg"))
		b := host + "/b/"
		want := []string{
			b + "a&b.jpg: a&b.jpg", b + "c%20d/e%25.png: c d/e%.png", b + "p/1.jpg: p/1.jpg", b + "p/10.jpg: p/10.jpg", b + "p/2.jpg: p/2.jpg",
			b + "x/../y.jpg! it is no name of an object", b + "z.jpg: z.jpg",
		}
		s := openFast(t, b, Options{})
		if diff := cmp.Diff(want, lines(t, s)); diff != "" {
			t.Error(diff)
		}
		if items, err := all(t, s); err != nil || items[0].Modified.Unix() != 1764225000 || items[0].Size != 7 {
			t.Error(err, items)
		}
		if diff := cmp.Diff(want[2:5], lines(t, openFast(t, b+"?prefix=p/", Options{}))); diff != "" {
			t.Error(diff)
		}
		got := lines(t, openFast(t, b, Options{MaxEntries: 3}))
		if last := got[len(got)-1]; last != b+"! the listing has more than 3 entries" {
			t.Error(last)
		}
	}
}

func TestBucketWithoutEnd(t *testing.T) {
	const page = `<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>`
	for next, want := range map[string]string{
		"":                              "! the listing does not go on, but says that there is more",
		"<NextMarker>same</NextMarker>": "! the listing does not go on, but says that there is more",
		"<NextContinuationToken>same</NextContinuationToken>":       "! the listing does not go on, but says that there is more",
		"<Contents><Key>a.txt</Key><Size>-5</Size></Contents>":      "! the listing does not go on, but says that there is more",
		"<Contents><Key>a.txt</Key><Size>many</Size></Contents>":    "invalid syntax",
		"<Contents><LastModified>never</LastModified></Contents>":   "cannot parse",
		"<Contents><Key>&unknown;</Key></Contents>":                 "the listing cannot be read",
		"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>&a;": "the listing cannot be read",
	} {
		host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, page, next) })
		got := lines(t, openFast(t, host, Options{}))
		if len(got) != 1 || !strings.HasPrefix(got[0], host+"/! ") || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q", next, got)
		}
	}
	n := 0
	host := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		fmt.Fprintf(w, page, fmt.Sprintf("<NextContinuationToken>%d</NextContinuationToken><Contents><Key>%d</Key></Contents>", n, n))
	})
	if got := lines(t, openFast(t, host, Options{MaxEntries: 500})); len(got) != 1 || !strings.HasSuffix(got[0], "more than 500 entries") || n > 502 {
		t.Errorf("%q after %d pages", got, n)
	}
}
