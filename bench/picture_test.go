package bench

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

func TestPhoto(t *testing.T) {
	for _, c := range [][2]int{{640, 480}, {1280, 720}, {17, 33}} {
		a, err := Photo(c[0], c[1], 1)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := Photo(c[0], c[1], 1)
		if other, _ := Photo(c[0], c[1], 2); !bytes.Equal(a, b) || bytes.Equal(a, other) {
			t.Errorf("%v: not the same for the same seed, or for another", c)
		}
		m, err := jpeg.Decode(bytes.NewReader(a))
		if err != nil {
			t.Fatal(err)
		}
		y, ok := m.(*image.YCbCr)
		if !ok || y.SubsampleRatio != image.YCbCrSubsampleRatio420 || m.Bounds().Dx() != c[0] || m.Bounds().Dy() != c[1] {
			t.Errorf("%v: %T of %v", c, m, m.Bounds())
		}
		// Photographs of this quality have 1 to 2.5 bits a pixel.
		if bits := float64(8*len(a)) / float64(c[0]*c[1]); c[0] > 600 && (bits < 1.2 || bits > 2.4) {
			t.Errorf("%v: %.2f bits a pixel", c, bits)
		}
	}
	for _, c := range [][2]int{{0, 10}, {15, 100}, {100, 8193}, {-1, -1}} {
		if _, err := Photo(c[0], c[1], 0); err == nil {
			t.Errorf("%v is accepted", c)
		}
	}
}

func BenchmarkPhoto(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Photo(640, 480, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMachine(t *testing.T) {
	m := ThisMachine()
	if m.Cores < 1 || m.Memory < 1<<20 || m.Kernel == "" || m.CPU == "" {
		t.Errorf("%+v", m)
	}
	for want, text := range map[string]string{
		"Intel(R) Xeon(R)": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\n",
		"Cortex-A76":       "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5\n",
		"CPU part 0x123":   "CPU part : 0x123", "unknown CPU": "nonsense",
	} {
		if got := cpuName(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestProfile(t *testing.T) {
	do := func(_ context.Context, r *clip.Request) (clip.Result, error) {
		if len(r.Image) == 0 {
			return clip.Result{}, decode.ErrNotImage
		}
		return clip.Result{Result: stages.Result{Times: [4]pipeline.StageTime{{Stage: "decode"}, {Stage: "resize"}, {Stage: "encode"}, {Stage: "score"}}}}, nil
	}
	pictures := []Picture{{"one", []byte("1")}, {"two", []byte("22")}}
	paths, err := Profile(t.Context(), do, pictures, nil, 50*time.Millisecond)
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %d paths", err, len(paths))
	}
	for i, p := range paths {
		if p.Name != pictures[i].Name || p.Images < 1 || len(p.Stages) != 4 || p.Stages[0].Stage != "decode" || p.Latency.Max <= 0 || p.Mallocs <= 0 {
			t.Errorf("%+v", p)
		}
	}
	var out strings.Builder
	WritePaths(&out, paths)
	if !strings.Contains(out.String(), "whole way") {
		t.Error(out.String())
	}
	if _, err := Profile(t.Context(), do, []Picture{{Name: "bad"}}, nil, time.Millisecond); err == nil || !strings.HasPrefix(err.Error(), "bad: ") {
		t.Errorf("error %v", err)
	}
}

func TestProfiles(t *testing.T) {
	cpu, heap := filepath.Join(t.TempDir(), "cpu.out"), filepath.Join(t.TempDir(), "heap.out")
	stop, err := Profiles(cpu, heap)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cpu, heap} {
		if b, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
			t.Errorf("%s is no profile: %v", name, err)
		}
	}
	if _, err := Profiles(filepath.Join(cpu, "x"), ""); err == nil {
		t.Error("a file that cannot be is no error")
	}
}
