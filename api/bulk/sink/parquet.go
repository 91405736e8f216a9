package sink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"go.etcd.io/bbolt"

	"hailoclip/api/bulk"
	"hailoclip/hailo/safefile"
)

// RowsSuffix is what the file beside a Parquet file is called after it, in which its rows are kept.
const RowsSuffix = ".rows"

// writtenKey of the bucket about says that the Parquet file has all rows.
var writtenKey = []byte("written")

// groupRows is how many rows are in memory when a Parquet file is written: with 512 numbers a vector these are 32 MiB.
const groupRows = 16 << 10

// parquetSink keeps rows as boltSink does, since a Parquet file is whole or not one, and rows that are replaced cannot be taken out
// of it. Finish writes it anew, with rows ordered by key.
type parquetSink struct {
	*boltSink
	path string
}

// parquetRow is the schema; nil is null.
type parquetRow struct {
	Key       string         `parquet:"key"`
	Path      string         `parquet:"path"`
	Model     string         `parquet:"model,dict"`
	Embedding []float32      `parquet:"embedding,optional,list"`
	Matches   []parquetMatch `parquet:"classifications,optional,list"`
	Error     *string        `parquet:"error,optional"`
}

type parquetMatch struct {
	Label       string  `parquet:"label"`
	Score       float64 `parquet:"score"`
	Probability float64 `parquet:"probability"`
	Cosine      float64 `parquet:"cosine"`
}

func openParquet(path string, o Options) (bulk.Sink, error) {
	_, rowsErr := os.Lstat(path + RowsSuffix)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	} else if err == nil && errors.Is(rowsErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is there, but not %s, in which its rows are kept: name another file, or remove it",
			filepath.Base(path+RowsSuffix))
	}
	rows, err := newBolt(path+RowsSuffix, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path+RowsSuffix), err)
	}
	return &parquetSink{rows, path}, nil
}

// Finish writes the file next to its place and renames it, unless nothing was put since it was written.
func (s *parquetSink) Finish(ctx context.Context) error {
	var written bool
	err := s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			written = tx.Bucket(aboutBucket).Get(writtenKey) != nil
			return nil
		})
	})
	if _, statErr := os.Lstat(s.path); err != nil || written && statErr == nil {
		return err
	}
	// Only one process has the rows, so that what is there is left of one that was killed.
	to := s.path + ".new"
	os.Remove(to)
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(to) // fails once it is renamed
	err = s.write(ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := safefile.Rename(to, s.path); err != nil {
		return err
	}
	return s.guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(aboutBucket).Put(writtenKey, []byte{1}) })
	})
}

func (s *parquetSink) write(ctx context.Context, f *os.File) error {
	w := parquet.NewGenericWriter[parquetRow](f, parquet.Compression(&zstd.Codec{Level: zstd.SpeedDefault}),
		parquet.MaxRowsPerRowGroup(groupRows), parquet.CreatedBy("hailo-clip", "", ""))
	rows := make([]parquetRow, 0, page)
	err := s.pages(ctx, func(name, value []byte) error {
		r, err := decode(name, value)
		if err != nil {
			return err
		}
		row := parquetRow{Key: r.Key, Path: r.Path, Model: r.Model, Embedding: r.Embedding}
		for _, m := range r.Matches {
			row.Matches = append(row.Matches, parquetMatch(m))
		}
		if r.Error != "" {
			row.Error = &r.Error
		}
		rows = append(rows, row)
		return nil
	}, func([]string) error {
		_, err := w.Write(rows)
		rows = rows[:0]
		return err
	})
	return errors.Join(err, w.Close())
}
