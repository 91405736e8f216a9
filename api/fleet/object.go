package fleet

import (
	"context"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

// readObject returns an object of at most so many bytes. What the store says of its size is not believed: no more is read.
func readObject(ctx context.Context, store jetstream.ObjectStore, name string, most int64) ([]byte, error) {
	o, err := store.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	b, err := io.ReadAll(io.LimitReader(o, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("object %.64q has more than %d bytes", name, most)
	}
	return b, err
}
