// Package access knows who may ask the service: anybody, or those who have one of the keys of the configuration; and which pages may,
// by their origin and the host that they ask. It sees no requests: packages api and admin do the asking.
package access

import (
	"context"
	"crypto/subtle"
	"sync"
	"sync/atomic"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

// Keys are the keys in force. Safe for concurrent use.
type Keys struct {
	applying sync.Mutex
	grants   atomic.Pointer[[]*Grant] // of each key, or of anybody alone
}

// Grant is what the holder of a key may do, until the key is revoked. Safe for concurrent use.
type Grant struct {
	Key // without a Name: that of anybody, where nobody needs a key
	*use
	caller string        // as fair.Caller has it
	bulk   pipeline.Lane // of all its images, with that priority
}

// use is what is being done with a key; it outlives changes of all but the name and the hash.
type use struct {
	inside  atomic.Int64
	revoked context.Context
	revoke  context.CancelFunc
}

// New returns the keys of c, which has passed Check.
func New(c Config) *Keys {
	k := &Keys{}
	k.Apply(c)
	return k
}

// Apply puts the keys of c in force, which has passed Check, in place of those before. Who holds a key that is still there goes on
// under what is said of it now; the others are revoked. So is anybody, as soon as there are keys.
func (k *Keys) Apply(c Config) {
	k.applying.Lock()
	defer k.applying.Unlock()
	keys := c.Keys
	if len(keys) == 0 {
		keys = []Key{{Manage: true}}
	}
	before := map[Key]*use{}
	identity := func(key Key) Key { return Key{Name: key.Name, Hash: key.Hash} }
	if grants := k.grants.Load(); grants != nil {
		for _, g := range *grants {
			before[identity(g.Key)] = g.use
		}
	}
	grants := make([]*Grant, len(keys))
	for i, key := range keys {
		g := &Grant{Key: key, use: before[identity(key)], caller: "key " + key.Name} // no address has a space
		if delete(before, identity(key)); g.use == nil {
			g.use = &use{}
			g.revoked, g.revoke = context.WithCancel(context.Background())
		}
		if key.Priority == "bulk" {
			g.bulk = pipeline.NewLane(fair.Caller{Address: g.caller}, pipeline.Bulk)
		}
		grants[i] = g
	}
	k.grants.Store(&grants)
	for _, gone := range before {
		gone.revoke()
	}
}

// Needed says that a key is needed.
func (k *Keys) Needed() bool { return (*k.grants.Load())[0].Name != "" }

// Find returns what the holder of a key may do, or nil if it is none of the keys in force; anybody's grant where none is needed. It
// takes as long for each text of a length, whichever keys there are: the hash is compared with all of them, in constant time.
func (k *Keys) Find(key []byte) (found *Grant) {
	grants := *k.grants.Load()
	if grants[0].Name == "" {
		return grants[0]
	}
	if len(key) > maxKey {
		return nil
	}
	sum := Sum(key)
	for _, g := range grants {
		if subtle.ConstantTimeCompare(sum[:], g.Hash[:]) == 1 {
			found = g
		}
	}
	return found
}

// Enter says whether one more may be inside, and counts it then; Leave must follow.
func (g *Grant) Enter() bool {
	for {
		n := g.inside.Load()
		if g.MaxConcurrent > 0 && n >= int64(g.MaxConcurrent) {
			return false
		}
		if g.inside.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave says that one that has entered has ended.
func (g *Grant) Leave() { g.inside.Add(-1) }

// Revoked ends when the key is revoked. What has an end of its own may still be finished.
func (g *Grant) Revoked() context.Context { return g.revoked }

// Caller is who asks: the holder of the key, from whatever address, or else who c says.
func (g *Grant) Caller(c fair.Caller) fair.Caller {
	if g.Name != "" {
		c.Address = g.caller
	}
	return c
}

// Lane is where the images of a caller enter the line: with priority normal they wait in turn with those of others, within
// max_queue_size; with bulk they wait, until their deadline, for each other, and one of them at a time takes a place in the queue.
func (g *Grant) Lane(c fair.Caller) pipeline.Lane {
	if g.Priority == "bulk" {
		return g.bulk
	}
	return pipeline.Lane{Caller: c}
}
