package fleet

import (
	"bytes"
	"strings"
	"testing"

	"hailoclip/api/fleet/broker"
)

// TestReadObject reads an object up to its limit, whatever its size is said to be.
func TestReadObject(t *testing.T) {
	c := dial(t, Config{URL: startBroker(t, broker.Config{}).URL(), Node: "a"})
	if err := c.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	store, err := c.js.ObjectStore(t.Context(), InputStore)
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("x"), 300<<10) // three chunks
	if _, err := store.PutBytes(t.Context(), "o", large); err != nil {
		t.Fatal(err)
	}
	if got, err := readObject(t.Context(), store, "o", int64(len(large))); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := readObject(t.Context(), store, "o", int64(len(large))-1); err == nil || !strings.Contains(err.Error(), "more than 307199 bytes") {
		t.Error(err)
	}
}
