package token

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
)

// merge is what two neighbouring tokens become. The lowest rank goes first.
type merge struct{ rank, id int32 }

func pair(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

// scratch is the memory of one Encode.
type scratch struct {
	text    []byte
	symbols []symbol
	heap    []uint64
}

// symbol is a token of the word that is being merged; the tokens are a list linked by index.
// A token that went into its left neighbour has the id gone.
type symbol struct{ id, prev, next int32 }

const gone = -1

// keepScratch is how many elements of each kind a pooled scratch keeps: enough for the longest
// prompt the API accepts, so that one huge text does not pin its memory.
const keepScratch = 4096

func (s *scratch) shrink() {
	if cap(s.text) > keepScratch || cap(s.symbols) > keepScratch || cap(s.heap) > keepScratch {
		*s = scratch{}
	}
}

// encodeWord appends the ids of one word (not empty), from the cache if it is there.
func (t *Tokenizer) encodeWord(ids []int32, word string, s *scratch) []int32 {
	if len(word) > maxCachedWord {
		return t.mergeWord(ids, word, s)
	}
	place := &t.words[maphash.String(wordSeed, word)>>(64-wordCacheBits)]
	if e := place.Load(); e != nil && e.word == word {
		return append(ids, e.ids...)
	}
	from := len(ids)
	ids = t.mergeWord(ids, word, s)
	place.Store(&cachedWord{strings.Clone(word), slices.Clone(ids[from:])})
	return ids
}

// wordCache remembers the ids of words. Each word has one place, and the last one there stays: so
// there is no lock, and the memory is bounded by places times the longest word (about 4 MB).
type wordCache [1 << wordCacheBits]atomic.Pointer[cachedWord]

const (
	wordCacheBits = 14
	maxCachedWord = 32 // bytes, so at most as many ids
)

type cachedWord struct {
	word string
	ids  []int32
}

var wordSeed = maphash.MakeSeed()

// mergeWord is byte pair encoding: of all neighbours that can merge, those of the lowest rank do,
// the leftmost first, until none can. A heap holds every pair that can merge by rank and place,
// so that a word of n bytes takes n log n steps; entries that later merges made void are skipped.
func (t *Tokenizer) mergeWord(ids []int32, word string, s *scratch) []int32 {
	n := len(word)
	s.symbols, s.heap = s.symbols[:0], s.heap[:0]
	for i := range n {
		s.symbols = append(s.symbols, symbol{t.bytes[word[i]], int32(i - 1), int32(i + 1)})
	}
	s.symbols[n-1].id = t.lastBytes[word[n-1]]
	for i := range n - 1 {
		t.offer(s, int32(i))
	}
	for len(s.heap) > 0 {
		top := s.pop()
		left := &s.symbols[int32(top)]
		if left.id == gone || int(left.next) >= n {
			continue
		}
		right := &s.symbols[left.next]
		m, ok := t.merges[pair(left.id, right.id)]
		if !ok || m.rank != int32(top>>32) {
			continue
		}
		left.id, right.id = m.id, gone
		left.next = right.next
		if int(left.next) < n {
			s.symbols[left.next].prev = int32(top)
			t.offer(s, int32(top))
		}
		if left.prev >= 0 {
			t.offer(s, left.prev)
		}
	}
	for i := int32(0); int(i) < n; i = s.symbols[i].next {
		ids = append(ids, s.symbols[i].id)
	}
	return ids
}

// offer puts the pair that begins at symbol i on the heap, if it can merge. Symbol i has a right
// neighbour.
func (t *Tokenizer) offer(s *scratch, i int32) {
	left := s.symbols[i]
	if m, ok := t.merges[pair(left.id, s.symbols[left.next].id)]; ok {
		s.push(uint64(m.rank)<<32 | uint64(i))
	}
}

// push and pop keep s.heap a binary heap with the smallest value first.
func (s *scratch) push(v uint64) {
	h := append(s.heap, v)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if h[up] <= v {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = v
	s.heap = h
}

func (s *scratch) pop() uint64 {
	h := s.heap
	top, v := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	for i := 0; len(h) > 0; {
		down := 2*i + 1
		if down+1 < len(h) && h[down+1] < h[down] {
			down++
		}
		if down >= len(h) || h[down] >= v {
			h[i] = v
			break
		}
		h[i] = h[down]
		i = down
	}
	s.heap = h
	return top
}
