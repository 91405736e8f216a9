package sink

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"hailoclip/api/bulk"
	"hailoclip/cache/boltfile"
)

func TestBolt(t *testing.T) {
	conform(t, kind{file: true, many: 100_000}, func(t *testing.T) string { return filepath.Join(t.TempDir(), "out.db") })
}

// TestBoltForeign: a database of something else is not written to.
func TestBoltForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := must[*bbolt.DB](t)(bbolt.Open(path, 0o600, nil))
	noError(t, db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("mine")); return err }))
	noError(t, db.Close())
	before := must[[]byte](t)(os.ReadFile(path))
	_, err := Open(t.Context(), path, Options{Dimension: dimension})
	says(t, err, "something else")
	if !bytes.Equal(before, must[[]byte](t)(os.ReadFile(path))) {
		t.Error("it was changed")
	}
	noError(t, os.WriteFile(path, []byte("no database at all"), 0o600))
	if s, err := Open(t.Context(), path, Options{}); err == nil {
		s.Close()
		t.Error("a text was opened")
	}
	noError(t, os.Remove(path))
	noError(t, os.Symlink("elsewhere.db", path))
	if s, err := Open(t.Context(), path, Options{}); err == nil {
		s.Close()
		t.Error("a link was followed")
	}
}

// TestBoltDeleted: what is written to a file that nobody can open any more would be lost.
func TestBoltDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := openSink(t, path)
	defer s.Close()
	noError(t, os.Remove(path))
	says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "deleted or replaced")
}

// TestBoltDamaged damages bytes of a file at random: whatever that does, rows are those that were put, or an error tells.
func TestBoltDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openSink(t, filepath.Join(dir, "a.db"))
	for i := range 20 {
		rows := make([]bulk.Row, 50)
		for j := range rows {
			rows[j] = rowOf(50*i + j)
		}
		noError(t, s.Put(t.Context(), rows))
	}
	noError(t, s.Close())
	whole := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "a.db")))
	random, failed := rand.New(rand.NewPCG(3, 4)), 0
	path := filepath.Join(dir, "b.db")
	for range 60 {
		damaged := bytes.Clone(whole)
		for range 1 + random.IntN(64) {
			damaged[random.IntN(len(damaged))] ^= byte(1 + random.IntN(255))
		}
		if random.IntN(4) == 0 {
			damaged = damaged[:random.IntN(len(damaged))]
		}
		noError(t, os.WriteFile(path, damaged, 0o600))
		s, err := Open(t.Context(), path, Options{Dimension: dimension})
		if err != nil {
			failed++
			continue
		}
		for i := range 1000 {
			row, found, err := s.Find(t.Context(), keyOf(i))
			if err != nil {
				failed++
			} else if found && row.Path == rowOf(i).Path {
				if diff := cmp.Diff(rowOf(i), row); diff != "" {
					t.Fatal(diff)
				}
			}
		}
		_ = s.Close()
	}
	if failed == 0 {
		t.Error("no damage was found")
	}
}

// FuzzDecode: whatever a file has for a row, that is a row or an error.
func FuzzDecode(f *testing.F) {
	whole := rowOf(1)
	whole.Matches, whole.Error = []bulk.Match{{Label: "a", Score: 1}}, "e"
	for _, r := range []bulk.Row{whole, {Key: "k", Path: "p"}} {
		content, err := encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(r.Key+"\x00"+r.Path), content, true)
	}
	f.Add([]byte("k\x00p"), []byte{255, 255, 255, 255, '{', '}'}, true)
	f.Fuzz(func(t *testing.T, name, content []byte, seal bool) {
		value := content
		if seal {
			value = boltfile.Seal(rowsBucket, name, content)
		}
		row, err := decode(name, value)
		if err != nil {
			if !errors.Is(err, boltfile.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		again, err := encode(row)
		if err != nil {
			return // a number that is none, in a vector; Put does not let it in
		}
		name = []byte(row.Key + "\x00" + row.Path)
		back, err := decode(name, boltfile.Seal(rowsBucket, name, again))
		if err != nil || len(back.Embedding) != len(row.Embedding) || back.Path != row.Path || back.Key != row.Key {
			t.Fatalf("%v is read as %v, %v", row, back, err)
		}
	})
}
