package source

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	maxRatio  = 100       // of unpacked bytes to packed ones
	ratioFrom = 1 << 20   // unpacked bytes that have no ratio yet
	maxWindow = 128 << 20 // bytes that zstd refers back to, as zstd --long has them
)

type compression string

const (
	none  compression = ""
	plain compression = "tar"
	gzips compression = "gzip"
	zstds compression = "zstd"
)

// compressionOf is how an archive is compressed, by its name; none: it is no archive.
func compressionOf(path string) compression {
	lower := strings.ToLower(path)
	for suffix, c := range map[string]compression{".tar": plain, ".tar.gz": gzips, ".tgz": gzips, ".tar.zst": zstds, ".tzst": zstds} {
		if strings.HasSuffix(lower, suffix) {
			return c
		}
	}
	return none
}

// unpacked reads what is unpacked of a file, until ctx ends or a limit is passed.
type unpacked struct {
	ctx   context.Context
	r     io.Reader
	close func()
	in    counter
	out   int64
	limit int64
}

func unpack(ctx context.Context, r io.Reader, c compression, limit int64) (*unpacked, error) {
	u := &unpacked{ctx: ctx, in: counter{r: r}, limit: limit}
	switch c {
	case gzips:
		z, err := gzip.NewReader(&u.in)
		if err != nil {
			return nil, err
		}
		u.r, u.close = z, func() { _ = z.Close() }
	case zstds:
		z, err := zstd.NewReader(&u.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		u.r, u.close = z, z.Close
	}
	return u, nil
}

func (u *unpacked) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	n, err := u.r.Read(p)
	u.out += int64(n)
	switch { // without the bytes, as io.ReadFull drops an error that comes with the last ones
	case u.out > u.limit:
		return 0, fmt.Errorf("unpacked it has more than %d bytes", u.limit)
	case u.out > ratioFrom && u.out/maxRatio > u.in.n:
		return 0, fmt.Errorf("unpacked it has more than %d times the bytes", maxRatio)
	}
	return n, err
}

// counter counts the bytes that are read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
