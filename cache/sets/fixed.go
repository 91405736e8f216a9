package sets

import (
	"bytes"
	"context"

	"go.etcd.io/bbolt"
)

// Rows of sets that are not in the file, because the configuration has them, lie in the bucket tally, for all such sets
// together: a Key says all that rows are of.

// FixedRows returns what KeepFixedRows and PutFixedRows have kept, less what is damaged.
func (s *Store) FixedRows(ctx context.Context) (map[Key][]float32, error) {
	return view(ctx, s, func(tx *bbolt.Tx) (map[Key][]float32, error) {
		if tx == nil {
			return nil, nil
		}
		return rowsIn(tx.Bucket([]byte(tally)), tally), nil
	})
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
		b := tx.Bucket([]byte(tally))
		eachRow(b, func(key, _ []byte) {
			if !wanted[Key(key[1:])] {
				gone = append(gone, bytes.Clone(key))
			}
		})
		for _, key := range gone {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}
