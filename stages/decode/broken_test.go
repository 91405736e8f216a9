package decode

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// tiny refuses the huge images that damage makes of sizes.
var tiny = Config{MaxPixels: 100_000, JPEGScale: ScaleExact}

// outcome is all that a caller sees of an image: its pixels, or the error.
func outcome(d *Decoder, b []byte) string {
	p, err := d.DecodeBytes(b)
	if err != nil {
		return err.Error()
	}
	defer p.Release()
	return fmt.Sprintf("%d x %d, %x", p.Width, p.Height, sha256.Sum256(p.Pix))
}

// broken yields b in many states of damage, always the same ones.
func broken(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		r := rand.New(rand.NewPCG(1, uint64(len(b))))
		somewhere := func() int { return min(8, len(b)-1) + r.IntN(max(len(b)-8, 1)) }
		for i := range 64 {
			v := bytes.Clone(b)
			for range 1 + i%3 {
				at := min(somewhere(), len(v)-1)
				end := min(at+r.IntN(64), len(v))
				switch i % 4 {
				case 0:
					v = v[:at]
				case 1:
					v[at] = byte(r.Uint32())
				case 2:
					v = append(v[:at:at], v[end:]...)
				case 3:
					v = append(v[:at:at], append(bytes.Clone(v[at:end]), v[at:]...)...)
				}
				if len(v) == 0 {
					break
				}
			}
			if !yield(v) {
				return
			}
		}
		if !bytes.HasPrefix(b, []byte("\xff\xd8\xff")) {
			return
		}
		// JPEG: something that libjpeg warns of, and something that ends the decoding, before each marker.
		pieces := jpegSegments(b)
		for i := range pieces {
			for _, warning := range []string{"", "junk", "\xff\x02"} {
				for _, fatal := range []string{"", "\xff\xd8", "\xff\xc4\x00\x05\x00\x01\x02", "\xff\xf0", "\xff\xda\x00\x02", "\xff\xd9"} {
					v := bytes.Join(pieces[:i], nil)
					v = append(append(v, warning...), fatal...)
					if !yield(append(v, bytes.Join(pieces[i:], nil)...)) {
						return
					}
				}
			}
		}
	}
}

// brokenFiles yields every test file of every format in many states of damage.
func brokenFiles(t testing.TB) iter.Seq2[string, []byte] {
	files, err := filepath.Glob("testdata/pil/*.*")
	if err != nil || len(files) < 50 {
		t.Fatal(len(files), err)
	}
	return func(yield func(string, []byte) bool) {
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for v := range broken(b) {
				if n++; !yield(fmt.Sprintf("%s, damage %d", filepath.Base(file), n), v) {
					return
				}
			}
		}
	}
}

// TestBroken decodes every damaged file after two different images, with their released pixels overwritten in two
// different ways: nothing of an answer may depend on what came before.
func TestBroken(t *testing.T) {
	defer func(before byte) { poison = before }(poison)
	first, second := read(t, "pil", "rgb_444.jpg"), read(t, "pil", "rgb_420_optimized.jpg")
	for name, d := range decoders(t, tiny) {
		n := 0
		for file, b := range brokenFiles(t) {
			if n++; name == "go" && (n%4 != 0 || !strings.Contains(file, ".jpg")) {
				continue // what is no JPEG has one decoder only
			}
			after := func(b, before []byte, fill byte) string {
				poison = fill
				outcome(d, before)
				return outcome(d, b)
			}
			one, two := after(b, first, 0x11), after(b, second, 0xEE)
			if one != two {
				t.Errorf("%s: %s: %s after one image, %s after another", name, file, one, two)
			}
		}
	}
}

// TestBrokenNative does so with what the C library allocates: two processes, of which malloc fills memory in different
// ways, must agree on every damaged JPEG.
func TestBrokenNative(t *testing.T) {
	const child = "DECODE_TEST_CHILD"
	d := turboDecoder(t, tiny)
	if os.Getenv(child) != "" {
		all := sha256.New()
		for file, b := range brokenFiles(t) {
			if strings.Contains(file, ".jpg") {
				fmt.Fprintln(all, outcome(d, b))
			}
		}
		fmt.Println("digest", hex.EncodeToString(all.Sum(nil)))
		return
	}
	digests := map[string]bool{}
	for _, fill := range []string{"17", "238"} {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenNative$", "-test.v")
		c.Env = append(os.Environ(), child+"=1", "GLIBC_TUNABLES=glibc.malloc.perturb="+fill)
		out, err := c.Output()
		_, digest, found := strings.Cut(string(out), "digest ")
		if err != nil || !found {
			t.Fatalf("%v: %s", err, out)
		}
		digest, _, _ = strings.Cut(digest, "\n")
		digests[digest] = true
	}
	if len(digests) != 1 {
		t.Error("what is decoded depends on memory that was never written")
	}
}

// TestBrokenAtOnce decodes files that cause different errors and warnings at the same time: the library keeps the texts
// by which they are told apart for each thread of the system, not for each file.
func TestBrokenAtOnce(t *testing.T) {
	d := turboDecoder(t, tiny)
	var files [][]byte
	var want []string
	for file, b := range brokenFiles(t) {
		if strings.HasPrefix(file, "progressive_gray.jpg") {
			files, want = append(files, b), append(want, outcome(d, b))
		}
	}
	var all sync.WaitGroup
	for from := range 8 {
		all.Go(func() {
			for i := range files {
				at := (i + from*len(files)/8) % len(files)
				if got := outcome(d, files[at]); got != want[at] {
					t.Errorf("damage %d: %s at once, %s alone", at+1, got, want[at])
				}
				runtime.Gosched()
			}
		})
	}
	all.Wait()
}
