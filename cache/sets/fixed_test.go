package sets

import (
	"path/filepath"
	"reflect"
	"testing"
)

// TestFixedRows come back after a restart, beside sets and without any, and go when nobody wants them.
func TestFixedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() *Store {
		t.Helper()
		s, err := Open(path)
		must(err)
		return s
	}
	a, b := Key{1}, Key{2}
	s := open()
	must(s.KeepFixedRows(t.Context(), nil))
	must(s.PutFixedRows(t.Context(), map[Key][]float32{a: {1, 2}}))
	must(s.Close(t.Context()))
	s = open()
	d := Definition{Labels: []Label{{Name: "x"}}}.Normalized()
	must(s.Put(t.Context(), Record{Name: "x", Definition: d}, nil, nil))
	must(s.PutFixedRows(t.Context(), map[Key][]float32{b: {3}}))
	must(s.Close(t.Context()))
	s = open()
	names, err := s.Names(t.Context())
	if err != nil || !reflect.DeepEqual(names, []string{"x"}) {
		t.Errorf("%q: %v", names, err)
	}
	rows, err := s.FixedRows(t.Context())
	if err != nil || !reflect.DeepEqual(rows, map[Key][]float32{a: {1, 2}, b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
	must(s.KeepFixedRows(t.Context(), []Key{b}))
	must(s.Delete(t.Context(), "x", nil))
	must(s.Close(t.Context()))
	s = open()
	rows, err = s.FixedRows(t.Context())
	if err != nil || !reflect.DeepEqual(rows, map[Key][]float32{b: {3}}) {
		t.Errorf("%v: %v", rows, err)
	}
	must(s.Close(t.Context()))
}
