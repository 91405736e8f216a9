package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"hailoclip/api/bulk"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// fleetMotifs is how many images are drawn; the others are made of them.
const fleetMotifs = 61

// jpegHead is how image/jpeg begins: the 64 bytes by which brightness was quantised follow.
const jpegHead = "\xff\xd8\xff\xdb\x00\x84\x00"

// manyImages is a source of n square JPEGs, of which each has pixels of its own, and so a vector of its own.
type manyImages struct {
	n      int
	motifs [][]byte
}

// newManyImages makes n images of edge pixels, up to 61 * 16^4.
func newManyImages(n, edge int) *manyImages {
	m := &manyImages{n: n}
	for i := range fleetMotifs {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		img := image.NewRGBA(image.Rect(0, 0, edge, edge))
		var blocks [16][16]color.RGBA
		for y := range blocks {
			for x := range blocks[y] {
				blocks[y][x] = color.RGBA{uint8(random.IntN(256)), uint8(random.IntN(256)), uint8(random.IntN(256)), 255}
			}
		}
		for y := range edge {
			for x := range edge {
				c := blocks[y*16/edge][x*16/edge]
				c.G += uint8(random.IntN(24)) // texture, so that decoding costs what a photo's does
				img.SetRGBA(x, y, c)
			}
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 75}); err != nil || !bytes.HasPrefix(b.Bytes(), []byte(jpegHead)) {
			panic(fmt.Sprintf("no JPEG as it was: %v", err))
		}
		m.motifs = append(m.motifs, b.Bytes())
	}
	return m
}

// image is a motif whose four coarsest waves are by so much stronger as the digits of the number say: other pixels for next to no work.
func (m *manyImages) image(i int) []byte {
	b := slices.Clone(m.motifs[i%fleetMotifs])
	for wave, number := 0, i/fleetMotifs; number > 0; wave, number = wave+1, number/16 {
		b[len(jpegHead)+wave] += byte(number % 16)
	}
	return b
}

func (m *manyImages) Name() string { return fmt.Sprint(m.n, " images of a test") }

func (m *manyImages) Each(_ context.Context, found func(bulk.Item) error) error {
	for i := range m.n {
		err := found(bulk.Item{Path: strconv.Itoa(i), Size: int64(len(m.motifs[i%fleetMotifs])), Modified: time.Unix(1, 0),
			Open: func(context.Context) ([]byte, error) { return m.image(i), nil }})
		if err != nil {
			return err
		}
	}
	return nil
}

// referee is an engine in this process, on a simulated chip of its own that takes no time.
type referee struct {
	*engine
	lane pipeline.Lane
}

func newReferee(t testing.TB) referee {
	t.Helper()
	needONNX(t)
	t.Setenv(asProgram, "1") // for the chip, which is a process
	t.Setenv("HAILO_CLIP_SIM_ARGUMENTS", "--image-run 0s --image-frame 0s")
	g := &globals{Backend: "sim", Model: "demo", StateDir: t.TempDir()}
	e := must(newEngine(t.Context(), must(g.place()), false, slog.New(slog.DiscardHandler)))
	os.Unsetenv("HAILO_CLIP_SIM_ARGUMENTS") // not for the nodes
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return referee{e, pipeline.NewLane(fair.Caller{Address: "referee"}, pipeline.Bulk)}
}

// vector is the right one of an image. Several may ask at once.
func (r referee) vector(ctx context.Context, image []byte) ([]float32, error) {
	found, err := r.EmbedImage(ctx, &clip.Request{Image: image, Lane: r.lane})
	return found.Embedding, err
}

// rowsFound is what is wrong with the rows of an index.
type rowsFound struct {
	rows, missing, double, wrong int
	distinct                     int      // vectors among the right ones; as many as images, or exchanged rows would not show
	examples                     []string // of wrong rows
}

// check compares each row with the vector that its image has by the referee.
func (r referee) check(ctx context.Context, source *manyImages, rows io.Reader) (v rowsFound, err error) {
	var mu sync.Mutex
	seen, distinct := make([]atomic.Int32, source.n), map[string]bool{}
	lines := make(chan []byte, 64)
	working, ctx := errgroup.WithContext(ctx)
	for range 16 * runtime.GOMAXPROCS(0) { // which keeps the chip busy
		working.Go(func() error {
			for line := range lines {
				var row bulk.Row
				if err := json.Unmarshal(line, &row); err != nil {
					return err
				}
				i, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(row.Path), ".jpg"))
				if err != nil || i < 0 || i >= source.n {
					return fmt.Errorf("a row of %q", row.Path)
				}
				seen[i].Add(1)
				want, err := r.vector(ctx, source.image(i))
				if err != nil {
					return err
				}
				mu.Lock()
				v.rows++
				distinct[string(must(json.Marshal(want[:8])))] = true
				if !slices.Equal(row.Embedding, want) {
					v.wrong++
					v.examples = append(v.examples, fmt.Sprintf("%.200s, want %v", line, want[:4]))[:min(len(v.examples)+1, 3)]
				}
				mu.Unlock()
			}
			return nil
		})
	}
	working.Go(func() error {
		defer close(lines)
		text := bufio.NewScanner(rows)
		text.Buffer(nil, 1<<20)
		for text.Scan() {
			select {
			case lines <- bytes.Clone(text.Bytes()):
			case <-ctx.Done():
				return nil
			}
		}
		return text.Err()
	})
	err = working.Wait()
	for i := range seen {
		switch n := seen[i].Load(); {
		case n == 0:
			v.missing++
		case n > 1:
			v.double++
		}
	}
	v.distinct = len(distinct)
	return v, err
}

// fails fails the test unless there is one row for each of n images, with the vector of its own pixels.
func (v rowsFound) fails(t testing.TB, n int) {
	t.Helper()
	t.Logf("%d rows: %d missing, %d double, %d wrong; %d distinct vectors", v.rows, v.missing, v.double, v.wrong, v.distinct)
	if v.missing+v.double+v.wrong > 0 || v.distinct != n {
		t.Errorf("not each of %d images has one row with the vector of its own pixels: %s", n, v.examples)
	}
}

// TestFleetReferee: rows that are missing, there twice, exchanged or spoilt show.
func TestFleetReferee(t *testing.T) {
	r, source := newReferee(t), newManyImages(130, 64) // of which 69 differ from another by their waves alone
	var rows [][]byte
	for i := range source.n {
		vector := must(r.vector(t.Context(), source.image(i)))
		rows = append(rows, must(json.Marshal(bulk.Row{Path: strconv.Itoa(i), Embedding: vector})))
	}
	found := func(rows [][]byte) rowsFound {
		v := must(r.check(t.Context(), source, bytes.NewReader(bytes.Join(rows, []byte("\n")))))
		v.examples = nil
		return v
	}
	if v := found(rows); fmt.Sprint(v) != fmt.Sprint(rowsFound{rows: 130, distinct: 130}) {
		t.Errorf("%+v", v)
	}
	exchanged := slices.Clone(rows)
	exchanged[3] = bytes.Replace(rows[64], []byte(`"64"`), []byte(`"3"`), 1) // of the same motif
	exchanged[64] = bytes.Replace(rows[3], []byte(`"3"`), []byte(`"64"`), 1)
	if v := found(exchanged); v.wrong != 2 || v.missing+v.double != 0 {
		t.Errorf("%+v", v)
	}
	if v := found(append(rows[2:], rows[5], rows[6], rows[6])); v.missing != 2 || v.double != 2 || v.wrong != 0 {
		t.Errorf("%+v", v)
	}
}
