package cache

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
)

// Kinds of pages. bbolt trusts its file: a damaged page can make it fill the memory, or panic in a goroutine of its own,
// either of which ends the process. So readPages looks at all of a file before bbolt does.
//
// A page has a head of 16 bytes: its number (uint64), its kind (uint16), the count of its elements (uint16) and the number
// of pages that it goes on for (uint32). The elements follow, 16 bytes each, then their keys and values, whose
// positions count from the element.
const (
	branchPage   = 0x01 // element: position and size of the first key below (uint32), page below (uint64)
	leafPage     = 0x02 // element: 1 for a bucket, position of the key, size of the key, size of the value (uint32)
	freelistPage = 0x10 // element: free page (uint64)
)

var (
	u16 = binary.LittleEndian.Uint16
	u32 = binary.LittleEndian.Uint32
	u64 = binary.LittleEndian.Uint64
)

// pages is a bbolt file. Its methods panic where it is damaged.
type pages struct {
	data []byte
	size uint64 // of a page
	used []bool // the pages that something refers to: nothing else may
}

// readPages returns what a bbolt file holds, sorted by namespace, and the keys of the values that are not sound. It panics
// where the file is damaged, or holds anything but namespaces and vectors, of which one at least must be sound if
// there are any: run it under guard.
func readPages(data []byte) (namespaces []NamespaceInfo, damaged map[string][]diskKey) {
	meta := newestMeta(data)
	p := &pages{data: data, size: uint64(u32(meta[8:]))}
	want(u64(meta[40:]) <= uint64(len(data))/p.size, "it ends too early")
	p.used = make([]bool, u64(meta[40:]))
	p.use(0)
	p.use(1)
	damaged = make(map[string][]diskKey)
	sound := 0
	p.tree(p.page(u64(meta[16:])), nil, func(bucket bool, name, value []byte) {
		want(bucket && len(name) <= maxNamespace, "it is not one of ours")
		n := NamespaceInfo{Namespace: string(name)}
		root := value[16:] // of a small bucket
		if id := u64(value); id != 0 {
			root = p.page(id)
		}
		p.tree(root, nil, func(bucket bool, key, value []byte) {
			want(!bucket && len(key) == len(diskKey{}), "it is not one of ours")
			if soundValue(diskKey(key), value) {
				n.Vectors++
			} else {
				n.Damaged++
				damaged[n.Namespace] = append(damaged[n.Namespace], diskKey(key))
			}
		})
		sound += n.Vectors
		namespaces = append(namespaces, n)
	})
	want(sound > 0 || len(damaged) == 0, "it is not one of ours")
	p.free(p.page(u64(meta[32:])))
	return namespaces, damaged
}

func want(ok bool, or string) {
	if !ok {
		panic(or)
	}
}

// newestMeta returns the newer of the two meta pages; a write that was killed may have spoiled one. Without the head that
// is: magic, version, page size, flags (uint32), root, sequence, free list, count of pages, transaction, checksum
// (uint64).
func newestMeta(data []byte) (newest []byte) {
	at := [2]int{0, os.Getpagesize()}
	for i := range at {
		meta, sum := data[at[i]+16:][:64], fnv.New64a()
		_, _ = sum.Write(meta[:56])
		if u32(meta) == 0xED0CDAED && u32(meta[4:]) == 2 && u64(meta[56:]) == sum.Sum64() {
			if at[1] = int(u32(meta[8:])); newest == nil || u64(meta[48:]) > u64(newest[48:]) {
				newest = meta
			}
		}
	}
	return newest
}

func (p *pages) use(id uint64) {
	want(!p.used[id], "two things share a page of it")
	p.used[id] = true
}

// page returns a page with those that it goes on for.
func (p *pages) page(id uint64) []byte {
	p.use(id)
	b := p.data[id*p.size:]
	want(u64(b) == id, "a page of it is lost")
	more := uint64(u32(b[12:]))
	for i := range more {
		p.use(id + 1 + i)
	}
	return b[:(1+more)*p.size]
}

// tree visits what is in the leaves below a page, in the order of the keys. All keys are above after.
func (p *pages) tree(page, after []byte, visit func(bucket bool, key, value []byte)) (last []byte) {
	kind, count := u16(page[8:]), int(u16(page[10:]))
	want(kind == leafPage || kind == branchPage && count > 0, "a page of it is of the wrong kind")
	for i := range count {
		e := page[16+16*i:]
		if kind == branchPage {
			_ = e[u32(e):][:u32(e[4:])]
			after = p.tree(p.page(u64(e[8:])), after, visit)
			continue
		}
		key := e[u32(e[4:]):][:u32(e[8:])]
		value := e[u32(e[4:])+u32(e[8:]):][:u32(e[12:])]
		want(u32(e) <= 1 && bytes.Compare(key, after) > 0, "its keys are out of order")
		visit(u32(e) == 1, key, value)
		after = key
	}
	return after
}

// free reads a list of free pages.
func (p *pages) free(page []byte) {
	want(u16(page[8:]) == freelistPage, "a page of it is of the wrong kind")
	count, ids := uint64(u16(page[10:])), page[16:]
	if count == 0xffff { // or more
		count, ids = u64(ids), ids[8:]
	}
	for i := range count {
		p.use(u64(ids[8*i:]))
	}
}
