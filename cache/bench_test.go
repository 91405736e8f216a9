package cache

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"hailoclip/pipeline/fair"
)

// A request with known prompts: what classify pays for its prompts.
func BenchmarkGetKnownList(b *testing.B) {
	for _, n := range []int{1, 4, 20, 1000} {
		b.Run(fmt.Sprintf("prompts=%d", n), func(b *testing.B) {
			te, prompts := benchEmbeddings(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := te.Get(context.Background(), fair.Caller{}, prompts); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// A request with known prompts in a new list.
func BenchmarkGetKnownPrompts(b *testing.B) {
	for _, n := range []int{4, 20, 1000} {
		b.Run(fmt.Sprintf("prompts=%d", n), func(b *testing.B) {
			te, prompts := benchEmbeddings(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := te.rows(context.Background(), fair.Caller{}, false, prompts, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchEmbeddings(b *testing.B, n int) (*TextEmbeddings, []string) {
	config := memoryOnly()
	config.CacheListBytes, config.CacheMaxEntries = 32<<20, 2000
	s, _ := openStore(b, config, "")
	te := embeddingsOf(b, s, Encoder{Namespace: "ns", Dim: 512, Batch: 64, Calls: 1, Encode: wideEncode(newFake("ns"), 512)})
	prompts := promptList("cat", n)
	if _, err := te.Get(b.Context(), fair.Caller{}, prompts); err != nil {
		b.Fatal(err)
	}
	s.singles.cache.Wait()
	s.lists.cache.Wait()
	return te, prompts
}

// Twenty prompts that are on disk only.
func BenchmarkGetFromDisk(b *testing.B) {
	dir := b.TempDir()
	s, _ := openStore(b, testConfig(), dir)
	te := embeddingsOf(b, s, Encoder{Namespace: "ns", Dim: 512, Batch: 64, Calls: 1, Encode: wideEncode(newFake("ns"), 512)})
	prompts := promptList("cat", 20)
	mustGet(b, te, prompts...)
	closeStore(b, s)
	s, _ = openStore(b, testConfig(), dir)
	te = embeddingsOf(b, s, te.encoder)
	b.ReportAllocs()
	for b.Loop() {
		s.singles.cache.Clear()
		s.lists.cache.Clear()
		if _, err := te.Get(b.Context(), fair.Caller{}, prompts); err != nil {
			b.Fatal(err)
		}
	}
	if s.Stats().Encoded != 0 {
		b.Fatal("encoded")
	}
}

// Opening a file with 10000 vectors of dimension 512, all of which is read and checked.
func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	config := testConfig()
	config.CacheFileMaxBytes, config.MaxPending = 256<<20, 100_000
	s, _ := openStore(b, config, dir)
	v := vectorOf("ns", "a cat", 512)
	for part := range 10 {
		singles := make([]*Prompts, 1000)
		for i := range singles {
			singles[i] = single("ns", fmt.Sprint(part, i), v)
		}
		s.disk.put(singles)
		s.disk.writing.Lock()
		s.disk.writeQueued()
		s.disk.writing.Unlock()
	}
	closeStore(b, s)
	b.SetBytes(s.Stats().Disk.Bytes)
	for b.Loop() {
		if _, err := Inspect(filepath.Join(dir, config.CacheFile)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValue(b *testing.B) {
	key, v := keyOf("ns", "a cat"), vectorOf("ns", "a cat", 512)
	value := formatValue(key, v)
	b.Run("key", func(b *testing.B) {
		for b.Loop() {
			keyOf("ns", "a photo of a person riding a bicycle")
		}
	})
	b.Run("format", func(b *testing.B) {
		b.SetBytes(int64(len(value)))
		for b.Loop() {
			formatValue(key, v)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(value)))
		for b.Loop() {
			if _, ok := parseValue(key, value); !ok {
				b.Fatal("not sound")
			}
		}
	})
}
