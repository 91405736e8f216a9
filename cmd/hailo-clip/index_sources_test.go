package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// TestIndexSources: an index has the same rows of the same images, whatever they come from, and goes on with what is new.
func TestIndexSources(t *testing.T) {
	t.Parallel()
	dir, packs := madeImages(t, 30, 64), t.TempDir()
	put(t, dir, map[string]string{"broken.jpg": "no image", "again.jpg": string(must(os.ReadFile(dir + "/000/000007.jpg"))), "notes.txt": "x"})
	aged(t, dir)
	var names []string
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".jpg") {
			names = append(names, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	zipped := gzipped(archive.Bytes())
	z := must(zstd.NewWriter(nil))
	host := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(host.Close)
	put(t, packs, map[string]string{
		"a.tar": archive.String(), "a.tgz": zipped, "a.tar.zst": string(z.EncodeAll(archive.Bytes(), nil)), "cut.tar.gz": zipped[:len(zipped)*2/3],
		"addresses.txt": host.URL + "/" + strings.Join(names, "\n"+host.URL+"/") + "\n",
	})
	put(t, dir, map[string]string{"names.list": strings.Join(names, "\x00")})

	config := configFile(t, "fetch: {allow: [127.0.0.1]}\n")
	index := func(from, out string, input io.Reader) result {
		c := command(t.TempDir(), "index", "--config", config, "--model", "demo", "--backend", "sim", from, "--out", out)
		c.Stdin, c.Dir = input, dir
		return runProgram(t, c)
	}
	whole := filepath.Join(t.TempDir(), "v.ndjson")
	index(dir, whole, nil).expect(t, exitOK, "32 images (1 without a usable image); 32 rows")
	want := indexed(t, whole)
	for from, prefix := range map[string]string{
		".": "", dir + "/names.list": "", "-": "", packs + "/addresses.txt": host.URL + "/", host.URL: host.URL + "/",
		packs + "/a.tar": packs + "/a.tar!/", packs + "/a.tgz": packs + "/a.tgz!/", packs + "/a.tar.zst": packs + "/a.tar.zst!/",
	} {
		t.Run(filepath.Base(from), func(t *testing.T) {
			t.Parallel()
			out, input := filepath.Join(t.TempDir(), "v.ndjson"), strings.Join(names, "\n")
			index(from, out, strings.NewReader(input)).expect(t, exitOK, "32 images (1 without a usable image); 32 rows")
			rows := indexed(t, out)
			for _, name := range names {
				a, b := want[dir+"/"+name], rows[prefix+name]
				if a.Key == "" || a.Key != b.Key || !reflect.DeepEqual(a.Embedding, b.Embedding) || (a.Error == "") != (b.Error == "") {
					t.Errorf("%s: %s, %d, %s; want %s", prefix+name, b.Key, len(b.Embedding), b.Error, a.Key)
				}
			}
			if len(rows) != len(names) {
				t.Errorf("%d rows", len(rows))
			}
			index(from, out, strings.NewReader(input)).expect(t, exitOK, "0 rows", "32 unchanged")
		})
	}
	t.Run("cut", func(t *testing.T) { // what is before the damage counts, and the damage has a row, which is looked at again
		out := filepath.Join(t.TempDir(), "v.ndjson")
		for range 2 {
			index(packs+"/cut.tar.gz", out, nil).expect(t, exitOK, "cut.tar.gz: it could not be read or encoded")
		}
		rows := indexed(t, out)
		if row, is := rows[packs+"/cut.tar.gz"]; !is || !strings.Contains(row.Error, "the archive is read no further") || len(rows) < 5 || len(rows) > 32 {
			t.Errorf("%d rows, %+v", len(rows), row)
		}
		put(t, packs, map[string]string{"cut.tar.gz": zipped})
		index(packs+"/cut.tar.gz", out, nil).expect(t, exitOK)
		if rows := indexed(t, out); rows[packs+"/cut.tar.gz!/again.jpg"].Key == "" || len(rows) > 33 {
			t.Errorf("%d rows", len(rows))
		}
	})
}

func gzipped(b []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	w.Close()
	return out.String()
}
