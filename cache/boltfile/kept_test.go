package boltfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// After a change whose head may be on disk or not nothing more is written, but all can be read.
func TestHeadThatMayBeLost(t *testing.T) {
	k, err := OpenKept(filepath.Join(t.TempDir(), "file.db"), "things", os.O_RDWR, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	put := func() error {
		return k.Change(t.Context(), nil, nil, func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("bucket"))
			return errors.Join(err, b.Put([]byte("key"), []byte("value")))
		})
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("the disk is ill")
	id, err := View(t.Context(), k, func(tx *bbolt.Tx) (int, error) { return tx.ID(), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id   int
		keep bool
	}{{id + 1, false}, {id, true}} {
		if err := k.Do(t.Context(), func() error { return k.failed(lost, tt.id) }, nil); !errors.Is(err, lost) {
			t.Fatal(err)
		}
		if err := put(); errors.Is(err, lost) != tt.keep {
			t.Errorf("%v: %v", tt.keep, err)
		}
	}
	got, err := View(t.Context(), k, func(tx *bbolt.Tx) (string, error) { return string(tx.Bucket([]byte("bucket")).Get([]byte("key"))), nil })
	if err = errors.Join(err, k.Close(t.Context())); err != nil || got != "value" {
		t.Errorf("%q, %v", got, err)
	}
}
