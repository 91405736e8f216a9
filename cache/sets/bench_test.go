package sets

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// setOf is a set of so many labels with prompts of each, and its rows of 512 numbers.
func setOf(labels, prompts int) (Record, map[Key][]float32) {
	r := Record{Name: "a"}
	for i := range labels {
		l := Label{Name: fmt.Sprint("label ", i)}
		for j := range prompts {
			l.Prompts = append(l.Prompts, fmt.Sprintf("prompt %d of label %d: a photo of a thing", j, i))
		}
		r.Definition.Labels = append(r.Definition.Labels, l)
	}
	r.Definition = r.Definition.Normalized()
	rows := map[Key][]float32{}
	for _, e := range r.Definition.Entries(nil) {
		rows[e.Key("encoder")] = make([]float32, 512)
	}
	return r, rows
}

// BenchmarkPut changes one label of a set of 1,000 with rows.
func BenchmarkPut(b *testing.B) {
	for _, labels := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(labels, " labels"), func(b *testing.B) {
			s := openStore(b, filepath.Join(b.TempDir(), FileName))
			r, rows := setOf(labels, 3)
			if err := s.Put(b.Context(), r, nil, nil); err != nil {
				b.Fatal(err)
			}
			if err := s.PutRows(b.Context(), "a", rows); err != nil {
				b.Fatal(err)
			}
			all := slices.Collect(maps.Keys(rows))
			for n := 0; b.Loop(); n++ {
				r.Definition.Labels[n%labels].Prompts[0] = fmt.Sprint(n)
				if err := s.Put(b.Context(), r, all, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens a file with so many sets of 100 labels, and reads them.
func BenchmarkOpen(b *testing.B) {
	for _, count := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(count, " sets"), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), FileName)
			s := openStore(b, path)
			for i := range count {
				r, rows := setOf(100, 7)
				r.Name = fmt.Sprint(i)
				if err := s.Put(b.Context(), r, nil, nil); err != nil {
					b.Fatal(err)
				}
				if err := s.PutRows(b.Context(), r.Name, rows); err != nil {
					b.Fatal(err)
				}
			}
			closeStore(b, s)
			for b.Loop() {
				s := openStore(b, path)
				if _, err := all(b.Context(), s); err != nil {
					b.Fatal(err)
				}
				closeStore(b, s)
			}
			stat, err := os.Stat(path)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(stat.Size())/float64(count), "bytes/set")
		})
	}
}

// BenchmarkParseJSON reads the largest sets, and the texts that take most memory for their length.
func BenchmarkParseJSON(b *testing.B) {
	r, _ := setOf(1000, 100)
	large, err := json.Marshal(r.Definition)
	if err != nil {
		b.Fatal(err)
	}
	bomb := []byte(`{"labels": [{}`)
	for range MaxValues/2 - 2 {
		bomb = append(bomb, ",{}"...)
	}
	bomb = append(bomb, "]}"...)
	for name, text := range map[string][]byte{"large": large, "bomb": bomb} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				d, err := ParseJSON(text)
				if err != nil {
					b.Fatal(err)
				}
				_ = d.Validate(testLimits)
				_ = ETag(d, "model")
			}
			runtime.GC()
		})
	}
}
