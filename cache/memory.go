package cache

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/dgraph-io/ristretto/v2"
)

// memory holds lists of prompts. The zero memory holds none.
type memory struct {
	seed  maphash.Seed
	mu    sync.RWMutex // held to write by close: ristretto's Close must not run beside any other call
	cache *ristretto.Cache[uint64, *Prompts]
}

// newMemory makes one for lists that cost up to limit together, and usual each.
func newMemory(limit, usual int, cost func(*Prompts) int64) *memory {
	// It fails on no limit that Config.Validate lets pass. A nil cache holds nothing.
	cache, _ := ristretto.NewCache(&ristretto.Config[uint64, *Prompts]{
		NumCounters: 10 * int64(limit/usual), MaxCost: int64(limit), Cost: cost, BufferItems: 64, IgnoreInternalCost: true,
		TtlTickerDurationInSec: 24 * 3600, // nothing expires
	})
	return &memory{seed: maphash.MakeSeed(), cache: cache}
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
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cache == nil {
		return nil
	}
	p, ok := m.cache.Get(m.key(namespace, texts))
	if !ok || p.namespace != namespace || p.Dim != dim || !slices.Equal(p.texts, texts) { // keys are hashes
		return nil
	}
	return p
}

// set remembers lists. They can be seen a little later, with wait when it returns, or were found not worth keeping.
func (m *memory) set(wait bool, lists ...*Prompts) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.cache == nil {
		return
	}
	for _, p := range lists {
		m.cache.Set(m.key(p.namespace, p.texts), p, 0)
	}
	if wait {
		m.cache.Wait()
	}
}

// some returns up to limit of the lists.
func (m *memory) some(limit int) (found []*Prompts) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.cache.IterValues(func(p *Prompts) (stop bool) {
		found = append(found, p)
		return len(found) >= limit
	})
	return found[:min(limit, len(found))]
}

// used is how much of the limit is taken.
func (m *memory) used() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.cache.MaxCost() - m.cache.RemainingCost()
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache.Close()
	m.cache = nil
}
