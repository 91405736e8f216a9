package bulk

import (
	"context"
	"sync"
)

// flight knows the paths that a source has named and that are not committed yet, so that a path which it names twice, as an archive
// can, ends as it is named last, however long each takes to be read. Safe for concurrent use.
type flight struct {
	mu      sync.Mutex
	paths   map[string]stamp
	awaited string        // the path that the source waits for; "": none
	hurry   chan struct{} // has something when there is one; room for one
	landed  chan struct{} // closed, and replaced, when some have landed
}

// stamp is what an item is known by without reading it.
type stamp struct{ size, modified int64 }

func newFlight() *flight {
	return &flight{paths: map[string]stamp{}, hurry: make(chan struct{}, 1), landed: make(chan struct{})}
}

// free waits while another item of that path is under way. same says that there is one just like it, so that there is nothing to wait for.
func (f *flight) free(ctx context.Context, path string, now stamp) (same bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.awaited = "" }()
	for {
		before, is := f.paths[path]
		if !is || before == now {
			return is, nil
		}
		if f.awaited == "" { // it may be read already; if not, waits says so when it is
			select {
			case f.hurry <- struct{}{}:
			default:
			}
		}
		f.awaited = path
		landed := f.landed
		f.mu.Unlock()
		select {
		case <-landed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if f.mu.Lock(); err != nil {
			return false, err
		}
	}
}

// begin notes that an item is under way.
func (f *flight) begin(path string, now stamp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths[path] = now
}

// waits says that the source waits for a path.
func (f *flight) waits(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.awaited == path
}

// land notes that paths are committed.
func (f *flight) land(paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, path := range paths {
		delete(f.paths, path)
	}
	close(f.landed)
	f.landed = make(chan struct{})
}
