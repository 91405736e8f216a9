package cache

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/dgraph-io/ristretto/v2"
)

// memory holds single vectors, bounded by their number, and whole lists, bounded by their bytes.
// Keys are hashes: every hit is compared with what was asked. A nil memory remembers nothing.
type memory struct {
	seed maphash.Seed

	// ristretto's Clear and Close must not run beside any other call on it.
	gate    sync.RWMutex
	closed  bool
	vectors *ristretto.Cache[uint64, *entry]
	lists   *ristretto.Cache[uint64, *Prompts]
}

// neverSeconds is for ristretto's clean-up of expired items, of which there are none here.
const neverSeconds = 24 * 3600

func newMemory(entries int, listBytes int64) (*memory, error) {
	vectors, err := ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		NumCounters: 10 * int64(entries), MaxCost: int64(entries), BufferItems: 64,
		IgnoreInternalCost: true, TtlTickerDurationInSec: neverSeconds,
	})
	if err != nil {
		return nil, err
	}
	lists, err := ristretto.NewCache(&ristretto.Config[uint64, *Prompts]{
		NumCounters: listBytes / 1024, MaxCost: listBytes, BufferItems: 64, // lists of 10 KiB and more, 10 counters each
		IgnoreInternalCost: true, TtlTickerDurationInSec: neverSeconds,
	})
	if err != nil {
		vectors.Close()
		return nil, err
	}
	return &memory{seed: maphash.MakeSeed(), vectors: vectors, lists: lists}, nil
}

// key hashes a list of one or more prompts.
func (m *memory) key(namespace string, prompts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	_, _ = h.WriteString(namespace)
	for _, prompt := range prompts {
		_ = h.WriteByte(0)
		_, _ = h.WriteString(prompt)
	}
	return h.Sum64()
}

// vector returns the entry of a prompt, or nil.
func (m *memory) vector(namespace, prompt string, dim int) *entry {
	if m == nil {
		return nil
	}
	key := m.key(namespace, prompt)
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.closed {
		return nil
	}
	e, ok := m.vectors.Get(key)
	if !ok || e.prompt != prompt || e.namespace != namespace || len(e.vector.Embedding) != dim {
		return nil
	}
	return e
}

// setVectors remembers entries. They can be seen a little later; settle waits for it.
func (m *memory) setVectors(entries []*entry) {
	if m == nil {
		return
	}
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.closed {
		return
	}
	for _, e := range entries {
		m.vectors.Set(m.key(e.namespace, e.prompt), e, 1)
	}
}

// settle returns when the vectors set before can be seen, or were found not worth keeping.
func (m *memory) settle() {
	if m == nil {
		return
	}
	m.gate.RLock()
	defer m.gate.RUnlock()
	if !m.closed {
		m.vectors.Wait()
	}
}

// list returns what setList was given for the same prompts, or nil.
func (m *memory) list(key uint64, namespace string, prompts []string, dim int) *Prompts {
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.closed {
		return nil
	}
	p, ok := m.lists.Get(key)
	if !ok || p.namespace != namespace || p.Dim != dim || !slices.Equal(p.texts, prompts) {
		return nil
	}
	return p
}

func (m *memory) setList(key uint64, p *Prompts) {
	m.gate.RLock()
	defer m.gate.RUnlock()
	if !m.closed {
		m.lists.Set(key, p, p.bytes())
	}
}

// entries returns up to limit of the vectors held.
func (m *memory) entries(limit int) []*entry {
	m.gate.RLock()
	defer m.gate.RUnlock()
	var all []*entry
	if !m.closed && limit > 0 {
		m.vectors.IterValues(func(e *entry) (stop bool) {
			all = append(all, e)
			return len(all) == limit
		})
	}
	return all
}

// size returns how many vectors and how many bytes of lists are held.
func (m *memory) size() (vectors, listBytes int64) {
	if m == nil {
		return 0, 0
	}
	m.gate.RLock()
	defer m.gate.RUnlock()
	if m.closed {
		return 0, 0
	}
	return m.vectors.MaxCost() - m.vectors.RemainingCost(), m.lists.MaxCost() - m.lists.RemainingCost()
}

func (m *memory) clear() {
	if m == nil {
		return
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	if !m.closed {
		m.vectors.Clear()
		m.lists.Clear()
	}
}

func (m *memory) close() {
	if m == nil {
		return
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	if !m.closed {
		m.closed = true
		m.vectors.Close()
		m.lists.Close()
	}
}
