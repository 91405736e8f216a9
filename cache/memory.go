package cache

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// memory holds lists of prompts; a nil cache holds none.
type memory struct {
	cache   *ristretto.Cache[uint64, *Prompts]
	seed    maphash.Seed
	closing sync.RWMutex // ristretto's Close must not run beside other calls
	evicted atomic.Uint64
}

// newMemory makes one for lists whose sizes are up to limit together, and usual each.
func newMemory(enabled bool, limit, usual int64) *memory {
	m := &memory{seed: maphash.MakeSeed()}
	if enabled {
		m.cache, _ = ristretto.NewCache(&ristretto.Config[uint64, *Prompts]{ // fails on no limit within the bounds of Config
			NumCounters: 10 * limit / usual, MaxCost: limit, BufferItems: 64, IgnoreInternalCost: true,
			TtlTickerDurationInSec: 24 * 3600, // nothing expires
			OnEvict:                func(*ristretto.Item[*Prompts]) { m.evicted.Add(1) },
		})
	}
	return m
}

func (m *memory) key(namespace string, texts []string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	_, _ = h.WriteString(namespace)
	for _, text := range texts {
		_ = h.WriteByte(0)
		_, _ = h.WriteString(text)
	}
	return h.Sum64()
}

// get returns the embeddings of texts, or nil.
func (m *memory) get(namespace string, dim int, texts []string) *Prompts {
	m.closing.RLock()
	defer m.closing.RUnlock()
	p, ok := m.cache.Get(m.key(namespace, texts))
	if !ok || p.namespace != namespace || p.Dim != dim || !slices.Equal(p.texts, texts) { // keys are hashes
		return nil
	}
	return p
}

// set remembers lists. They can be seen a little later, with wait when it returns, or were found not worth keeping.
func (m *memory) set(wait bool, lists ...*Prompts) {
	m.closing.RLock()
	defer m.closing.RUnlock()
	for _, p := range lists {
		m.cache.Set(m.key(p.namespace, p.texts), p, p.size)
	}
	if wait {
		m.cache.Wait()
	}
}

// some returns up to limit of the lists, and one at least if there is one.
func (m *memory) some(limit int) (found []*Prompts) {
	m.cache.IterValues(func(p *Prompts) (stop bool) {
		found = append(found, p)
		return len(found) >= limit
	})
	return found
}

// used is how much of the limit is taken.
func (m *memory) used() int64 { return m.cache.MaxCost() - m.cache.RemainingCost() }

func (m *memory) close() {
	m.closing.Lock()
	defer m.closing.Unlock()
	m.cache.Close()
}
