// Package access decides who may use the service: anybody, or the holders of the keys of the configuration; and which web pages, by
// their origin and the host that they ask. It does not know HTTP: packages api and admin give it the values to decide on.
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
	applying sync.Mutex               // held by Apply
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

// Apply replaces the keys in force by those of c, which has passed Check. A key with the same name and hash keeps its count of
// requests inside and is not revoked; its other settings hold for new requests. All other keys before are revoked, and so is the
// grant of anybody as soon as there are keys.
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

// Find returns the grant of a key, or nil if that is not in force; where no key is needed, the grant of anybody. Its time does not
// depend on which key matches: the hash is compared with all of them, each in constant time.
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

// Enter counts one more request inside and returns true, or returns false if there are MaxConcurrent already. After true, Leave
// must follow. It does not block.
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

// Leave ends what Enter has counted.
func (g *Grant) Leave() { g.inside.Add(-1) }

// Revoked ends when the key is revoked. What has an end of its own may still be finished.
func (g *Grant) Revoked() context.Context { return g.revoked }

// Caller returns c with the key in place of the address, so that a key is one caller wherever it is used; c itself without a key.
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
