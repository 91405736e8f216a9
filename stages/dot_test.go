package stages

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// dots are the implementations that this machine can run.
var dots = map[string]func(a, b []float32) float32{"go": dotGo, "fastest": dot}

// checkDot compares every implementation with the sum in float64, where products of float32 are exact. What
// lies beside a and b must not count.
func checkDot(t *testing.T, a, b []float32) {
	t.Helper()
	var sum, finite float64
	for i := range a {
		p := float64(a[i]) * float64(b[i])
		sum += p
		if p = math.Abs(p); p <= math.MaxFloat64 {
			finite += p
		}
	}
	if finite > math.MaxFloat32 {
		return // may overflow on the way, or not: depends on the order
	}
	// Products below the normal range of float32 may lose one unit of the smallest each.
	tolerance := 1e-5*finite + float64(len(a))*math.SmallestNonzeroFloat32
	for name, dot := range dots {
		got := float64(dot(a, b))
		ok := math.Abs(got-sum) <= tolerance
		switch {
		case math.IsNaN(sum):
			ok = math.IsNaN(got)
		case math.IsInf(sum, 0):
			ok = got == sum
		}
		if !ok {
			t.Errorf("%s, %d values: %v, want %v within %v", name, len(a), got, sum, tolerance)
		}
	}
}

// TestDot covers every length around the steps of the loops, and lengths of real models.
func TestDot(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	lengths := []int{512, 640, 768, 1023, 1024}
	for n := range 140 {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		// NaN on both sides: reading one value too many shows.
		a, b := make([]float32, n+2), make([]float32, n+2)
		for i := range a {
			a[i], b[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		}
		for _, i := range []int{0, n + 1} {
			a[i], b[i] = float32(math.NaN()), float32(math.NaN())
		}
		checkDot(t, a[1:n+1], b[1:n+1])
	}
}

// TestDotEveryValueCounts puts a single product, or NaN or an infinity, at every place.
func TestDotEveryValueCounts(t *testing.T) {
	for _, n := range []int{1, 7, 75, 127} {
		a, b := make([]float32, n), make([]float32, n)
		for i := range n {
			for _, x := range []float64{3, math.NaN(), math.Inf(1), math.Inf(-1)} {
				a[i], b[i] = float32(x), 2
				checkDot(t, a, b)
				checkDot(t, b, a)
			}
			a[i], b[i] = 0, 0
		}
	}
}

func FuzzDot(f *testing.F) {
	pack := func(vs ...float32) (raw []byte) {
		for _, v := range vs {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		return raw
	}
	inf := float32(math.Inf(1))
	f.Add(pack())
	f.Add(pack(1, 2))
	f.Add(pack(1, -2, 3, 4, -5, 6))
	f.Add(pack(inf, 1, -inf, 1))
	f.Add(pack(inf, 1, 0, -1))
	f.Add(pack(1e-30, 1e30, 1e-25, 1e-15, 1e-40, 1e-1))
	f.Add(pack(make([]float32, 150)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := min(len(raw)/8, 1024)
		a, b := make([]float32, n), make([]float32, n)
		for i := range n {
			a[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
			b[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*(n+i):]))
		}
		checkDot(t, a, b)
	})
}

func BenchmarkDot(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x, y := unit(r, 512), unit(r, 512)
	for name, dot := range dots {
		b.Run(fmt.Sprintf("%s/512", name), func(b *testing.B) {
			b.SetBytes(4 * 512)
			b.ReportAllocs()
			for b.Loop() {
				dot(x, y)
			}
		})
	}
}
