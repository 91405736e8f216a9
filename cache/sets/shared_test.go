package sets

import (
	"path/filepath"
	"reflect"
	"testing"
)

// TestSharedRows come back after a restart, beside sets and without any, and go when nobody wants them.
func TestSharedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := Key{1}, Key{2}
	s := openStore(t, path)
	must(s.KeepRows(t.Context(), nil))
	must(s.PutRows(t.Context(), Shared, map[Key][]float32{a: {1, 2}}))
	closeStore(t, s)
	s = openStore(t, path)
	d := Definition{Labels: []Label{{Name: "x"}}}.Normalized()
	must(s.Put(t.Context(), Record{Name: "x", Definition: d}, nil, nil))
	must(s.PutRows(t.Context(), Shared, map[Key][]float32{b: {3}}))
	closeStore(t, s)
	s = openStore(t, path)
	if names, err := s.Names(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"x"}) {
		t.Errorf("%q: %v", names, err)
	}
	if rows, err := s.Rows(t.Context(), Shared); err != nil || !reflect.DeepEqual(rows, map[Key][]float32{a: {1, 2}, b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
	must(s.KeepRows(t.Context(), []Key{b}))
	must(s.Delete(t.Context(), "x", nil))
	closeStore(t, s)
	s = openStore(t, path)
	if rows, err := s.Rows(t.Context(), Shared); err != nil || !reflect.DeepEqual(rows, map[Key][]float32{b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
}
