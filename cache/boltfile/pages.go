package boltfile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"os"
	"slices"
)

// Kinds of pages. bbolt trusts its file: a damaged page can make it fill the memory, or panic in a goroutine of its own,
// either of which ends the process. So Walk looks at all of a file before bbolt does.
//
// A page has a head of 16 bytes: its number (uint64), its kind (uint16), the count of its elements (uint16) and the number
// of pages that it goes on for (uint32). The elements follow, 16 bytes each, then their keys and values, whose
// positions count from the element.
const (
	BranchPage   = 0x01 // element: position and size of the first key below (uint32), page below (uint64)
	LeafPage     = 0x02 // element: 1 for a bucket, position of the key, size of the key, size of the value (uint32)
	FreelistPage = 0x10 // element: free page (uint64)
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

// Walk visits what a bbolt file of buckets of values holds, in the order of its keys: each bucket before the values in it.
// What it gives lies in data. It panics where the file is damaged, or holds anything else: run it in Scan. strict says that
// the program keeps the file for good: then both of its heads must be sound, or the newest change may be lost, and none
// of its pages.
func Walk(data []byte, strict bool, bucket func(name []byte), value func(key, value []byte)) {
	meta := newestMeta(data, strict)
	p := &pages{data: data, size: uint64(u32(meta[8:]))}
	Want(u64(meta[40:]) <= uint64(len(data))/p.size, "it ends too early")
	p.used = make([]bool, u64(meta[40:]))
	p.use(0)
	p.use(1)
	p.tree(p.page(u64(meta[16:])), nil, nil, func(isBucket bool, name, head []byte) {
		Want(isBucket, "it is not one of ours")
		bucket(name)
		root := head[16:] // of a small bucket
		if id := u64(head); id != 0 {
			root = p.page(id)
		}
		p.tree(root, nil, nil, func(isBucket bool, key, content []byte) {
			Want(!isBucket, "it is not one of ours")
			value(key, content)
		})
	})
	p.free(p.page(u64(meta[32:])))
	Want(!strict || !slices.Contains(p.used, false), "a page of it is lost")
}

// Want panics unless ok.
func Want(ok bool, or string) {
	if !ok {
		panic(or)
	}
}

// newestMeta returns the newer of the two meta pages. A write that was killed may have spoiled one, if the disk writes less
// than a page at once; with strict both must be sound, and of transactions that follow each other. Without the head that
// is: magic, version, page size, flags (uint32), root, sequence, free list, count of pages, transaction, checksum
// (uint64).
func newestMeta(data []byte, strict bool) []byte {
	var sound [][]byte
	at := [2]int{0, os.Getpagesize()}
	for i := range at {
		meta, sum := data[at[i]+16:][:64], fnv.New64a()
		_, _ = sum.Write(meta[:56])
		if u32(meta) == 0xED0CDAED && u32(meta[4:]) == 2 && u64(meta[56:]) == sum.Sum64() {
			at[1] = int(u32(meta[8:]))
			sound = append(sound, meta)
		}
	}
	slices.SortFunc(sound, func(a, b []byte) int { return cmp.Compare(u64(b[48:]), u64(a[48:])) })
	Want(!strict || len(sound) == 2 && u64(sound[0][48:]) == u64(sound[1][48:])+1, "its newest change may be lost")
	return sound[0]
}

func (p *pages) use(id uint64) {
	Want(!p.used[id], "two things share a page of it")
	p.used[id] = true
}

// page returns a page with those that it goes on for.
func (p *pages) page(id uint64) []byte {
	p.use(id)
	b := p.data[id*p.size:]
	Want(u64(b) == id, "a page of it is lost")
	more := uint64(u32(b[12:]))
	for i := range more {
		p.use(id + 1 + i)
	}
	return b[:(1+more)*p.size]
}

// tree visits what is in the leaves below a page, in the order of the keys, all of which are above after and at least least.
func (p *pages) tree(page, after, least []byte, visit func(bucket bool, key, value []byte)) (last []byte) {
	kind, count := u16(page[8:]), int(u16(page[10:]))
	Want(kind == LeafPage || kind == BranchPage && count > 0, "a page of it is of the wrong kind")
	for i := range count {
		e := page[16+16*i:]
		if kind == BranchPage {
			key := e[u32(e):][:u32(e[4:])]
			Want(bytes.Compare(key, least) >= 0 && (after == nil || bytes.Compare(key, after) > 0), "its keys are out of order")
			after = p.tree(p.page(u64(e[8:])), after, key, visit)
			continue
		}
		key := e[u32(e[4:]):][:u32(e[8:])]
		value := e[u32(e[4:])+u32(e[8:]):][:u32(e[12:])]
		Want(u32(e) <= 1 && bytes.Compare(key, after) > 0 && bytes.Compare(key, least) >= 0, "its keys are out of order")
		visit(u32(e) == 1, key, value)
		after = key
	}
	return after
}

// free reads a list of free pages.
func (p *pages) free(page []byte) {
	Want(u16(page[8:]) == FreelistPage, "a page of it is of the wrong kind")
	count, ids := uint64(u16(page[10:])), page[16:]
	if count == 0xffff { // or more
		count, ids = u64(ids), ids[8:]
	}
	for i := range count {
		p.use(u64(ids[8*i:]))
	}
}
