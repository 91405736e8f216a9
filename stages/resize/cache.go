package resize

import "sync"

// tables remembers the tables of sizes seen lately, for all workers.
var tables = tableCache{known: map[span]*table{}}

// maxCached bounds the weights that a cache holds: 16 MiB of memory, about 900 tables of VGA images.
const maxCached = 2 << 20

// tableCache is safe for concurrent use.
type tableCache struct {
	mu      sync.RWMutex
	known   map[span]*table
	weights int // in all known tables
}

// get returns the table of s. A hit allocates nothing.
func (c *tableCache) get(s span) (*table, error) {
	c.mu.RLock()
	t := c.known[s]
	c.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, err := newTable(s) // two workers may compute the same one; that is cheaper than waiting
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.known[s]; first != nil {
		return first, nil
	}
	for old, o := range c.known { // any ones: computing a table again takes well under a millisecond
		if c.weights+len(t.weights) <= maxCached {
			break
		}
		delete(c.known, old)
		c.weights -= len(o.weights)
	}
	c.known[s] = t
	c.weights += len(t.weights)
	return t, nil
}
