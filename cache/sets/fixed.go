package sets

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"
)

// Rows of sets that are not in the file, because the configuration has them, lie in the bucket tally, for all such sets
// together: a Key says all that rows are of.

// FixedRows returns what KeepFixedRows and PutFixedRows have kept, less what is damaged.
func (s *Store) FixedRows(ctx context.Context) (rows map[Key][]float32, err error) {
	rows = map[Key][]float32{}
	return rows, s.do(ctx, func() error {
		if s.db == nil {
			return nil
		}
		return s.db.View(func(tx *bbolt.Tx) error {
			eachFixedRow(tx, func(key []byte, value []byte) {
				if numbers := unseal(tally, key, value); numbers != nil {
					rows[Key(key[1:])] = parseRow(numbers)
				}
			})
			return nil
		})
	}, nil)
}

func eachFixedRow(tx *bbolt.Tx, do func(key, value []byte)) {
	b := tx.Bucket([]byte(tally))
	if b == nil {
		return
	}
	c := b.Cursor()
	for key, value := c.Seek([]byte("r")); key != nil; key, value = c.Next() {
		if len(key) == 1+len(Key{}) {
			do(key, value)
		}
	}
}

// PutFixedRows adds rows. Errors: ErrFull, or those of the system.
func (s *Store) PutFixedRows(ctx context.Context, rows map[Key][]float32) error {
	items := make(map[string][]byte, len(rows))
	for k, row := range rows {
		key := rowKey(k)
		items[string(key)] = seal(tally, key, formatRow(row))
	}
	return s.update(ctx, nil, func(tx *bbolt.Tx) error {
		if err := count(tx, 0); err != nil { // makes the bucket
			return err
		}
		return s.put(tx, tx.Bucket([]byte(tally)), items, 0)
	})
}

// KeepFixedRows removes the rows that are not among keys. Nothing is written where there are none.
func (s *Store) KeepFixedRows(ctx context.Context, keys []Key) error {
	wanted := map[Key]bool{}
	for _, key := range keys {
		wanted[key] = true
	}
	rows, err := s.FixedRows(ctx)
	if err != nil {
		return err
	}
	surplus := false
	for key := range rows {
		surplus = surplus || !wanted[key]
	}
	if !surplus {
		return nil
	}
	return s.update(ctx, nil, func(tx *bbolt.Tx) error {
		var gone [][]byte
		eachFixedRow(tx, func(key, _ []byte) {
			if !wanted[Key(key[1:])] {
				gone = append(gone, bytes.Clone(key))
			}
		})
		for _, key := range gone {
			if err := tx.Bucket([]byte(tally)).Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}
