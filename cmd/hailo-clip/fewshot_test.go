package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/draw"
	"golang.org/x/image/math/f64"
)

// Of each icon, images 0 to 7 may be examples and 8 to 15 are tests, each with a background and a pose of its own. 16 to 23 are tests, too,
// that are not like the examples: on fine textures, smaller, turned further.
const tests, moved, drawn = 8, 16, 24

// TestFewShot measures, on a drawing style that the demo model has not seen, what examples add, and how many images of other things
// are not matched. "make fewshot" draws the icons and runs it. Shares are means over draws of labels and examples ±
// their standard deviation.
func TestFewShot(t *testing.T) {
	folder := os.Getenv("HAILO_TEST_ICONS")
	if folder == "" {
		t.Skip("HAILO_TEST_ICONS is not set: make fewshot")
	}
	s := study{T: t, running: serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu"), images: map[[2]int]string{}}
	s.read(folder)
	t.Run("examples", func(t *testing.T) { s.examples(t, rand.New(rand.NewPCG(1, 1)).Perm(len(s.labels))) })
	t.Run("none", func(t *testing.T) { s.none(t, rand.New(rand.NewPCG(1, 1)).Perm(len(s.labels))) })
}

// examples measures the accuracy with 0 to 8 examples of each label.
func (s *study) examples(t *testing.T, all []int) {
	for _, g := range []struct{ labels, draws int }{{10, 6}, {40, 3}} {
		before := 0.0
		for _, n := range []int{0, 1, 2, 4, 8} {
			var near, far share
			var source any
			for i := range g.draws {
				labels := pick(i, all)[:g.labels]
				source = s.put(i, labels, n, map[string]any{})
				near, far = append(near, s.evaluate(labels, tests, moved).Accuracy), append(far, s.evaluate(labels, moved, drawn).Accuracy)
			}
			t.Logf("%d of %d labels, %d examples each (%v): accuracy %v, of moved images %v", g.labels, len(all), n, source, near, far)
			if near.mean() < before-0.01 {
				t.Errorf("accuracy falls from %.3f", before)
			}
			before = near.mean()
		}
	}
}

// none measures matched with ten labels and prompts or images of other things as negatives, or with bounds.
func (s *study) none(t *testing.T, all []int) {
	for _, c := range []struct {
		examples, prompts, images int
		bound                     string
		value                     float64
	}{
		{}, {prompts: 10}, {prompts: 50}, {prompts: 100}, {bound: "min_cosine", value: 0.5}, {bound: "min_margin", value: 0.5},
		{prompts: 50, bound: "min_margin", value: 0.3}, {examples: 1, prompts: 50}, {examples: 4}, {examples: 4, prompts: 10},
		{examples: 4, prompts: 50}, {examples: 4, prompts: 100}, {examples: 4, images: 16}, {examples: 4, prompts: 50, images: 16},
		{examples: 4, bound: "min_cosine", value: 0.65}, {examples: 4, prompts: 50, bound: "min_cosine", value: 0.65},
	} {
		var named, unnamed, lost, right share
		for i := range 6 {
			order := pick(i, all)
			labels, negatives, others := order[:10], order[10:][:c.prompts], order[300:360]
			var prompts, images []string
			for _, l := range negatives {
				prompts = append(prompts, "a photo of a "+s.labels[l])
			}
			for _, l := range order[400:][:c.images] {
				images = append(images, s.image(l, 0))
			}
			set := map[string]any{"background": map[string]any{"prompts": prompts, "images": images}}
			if c.bound != "" {
				set[c.bound] = c.value
			}
			s.put(i, labels, c.examples, set)
			e, none := s.evaluate(labels, tests, moved), len(labels)
			gone := 0
			for _, row := range e.Confusion[:none] {
				gone += row[none]
			}
			right, lost = append(right, e.Accuracy), append(lost, float64(gone)/float64(e.Images))
			if c.prompts > 0 {
				named = append(named, s.evaluate(negatives[:min(c.prompts, 60)], tests, tests+1).Accuracy)
			}
			unnamed = append(unnamed, s.evaluate(others, tests, tests+1).Accuracy)
		}
		t.Logf("10 labels, %+v: not matched of other things %v (named by a negative prompt %v), of the labels %v; accuracy of the labels %v",
			c, unnamed, named, lost, right)
	}
}

// study is a service, icons, and the images that were made of them so far: JPEG in base64, by icon and number. set is the labels of the
// service's prompt set.
type study struct {
	*testing.T
	*running
	labels []string
	icons  []image.Image
	images map[[2]int]string
	set    map[int]bool
}

func (s *study) image(l, n int) string {
	at := [2]int{l, n}
	if s.images[at] == "" {
		s.images[at] = drawing(rand.New(rand.NewPCG(uint64(l), uint64(n))), s.icons[l], n >= moved)
	}
	return s.images[at]
}

// evaluate evaluates with the images from one number to another of labels; those that the set has not are to be not matched.
func (s *study) evaluate(labels []int, from, to int) (e struct {
	Images    int
	Accuracy  float64
	Confusion [][]int
}) {
	var lines strings.Builder
	for _, l := range labels {
		for n := from; n < to; n++ {
			name := "background"
			if s.set[l] {
				name = s.labels[l]
			}
			fmt.Fprintf(&lines, "{\"label\":%q,\"image\":%q}\n", name, s.image(l, n))
		}
	}
	a, err := read(http.Post(s.url+"/v1/prompt-sets/study/evaluate", "application/x-ndjson", strings.NewReader(lines.String())))
	if err != nil || a.status != http.StatusOK || json.Unmarshal([]byte(a.raw), &e) != nil {
		s.Fatal(err, a.raw)
	}
	return e
}

// put makes a set of labels with n random examples of each, waits until it is encoded, and returns what it is scored by.
func (s *study) put(seed int, labels []int, n int, set map[string]any) (source any) {
	var list []map[string]any
	s.set = map[int]bool{}
	for _, l := range labels {
		var images []string
		for _, i := range pick(seed+l, []int{0, 1, 2, 3, 4, 5, 6, 7})[:n] {
			images = append(images, s.image(l, i))
		}
		s.set[l] = true
		list = append(list, map[string]any{"name": s.labels[l], "images": images})
	}
	set["labels"] = list
	request := must(http.NewRequest(http.MethodPut, s.url+"/v1/prompt-sets/study", bytes.NewReader(must(json.Marshal(set)))))
	request.Header.Set("Content-Type", "application/json")
	a := must(read(http.DefaultClient.Do(request)))
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		s.Fatal(a.raw)
	}
	until(s, "encoded", func() bool { a = s.get(s, "/v1/prompt-sets/study"); return a.body["state"] == "ready" })
	return a.body["score_source"]
}

// read reads the icons of Emoji One in a folder that hailo/demo/training/render.js has filled.
func (s *study) read(folder string) {
	var concepts []struct {
		Hex, Label string
		Group      int
	}
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(folder, "concepts.json"))), &concepts); err != nil {
		s.Fatal(err)
	}
	for _, c := range concepts {
		data, err := os.ReadFile(filepath.Join(folder, "png", "emojione", c.Hex+".png"))
		if err != nil || c.Group < 3 || c.Group > 7 || strings.Contains(c.Label, "o’clock") || strings.Contains(c.Label, "moon") {
			continue // not what the model was taught
		}
		s.labels, s.icons = append(s.labels, c.Label), append(s.icons, must(png.Decode(bytes.NewReader(data))))
	}
}

// drawing is a JPEG of an icon on a background of one colour, or of a few or many that run into each other, much as data.py beside
// render.js makes them.
func drawing(r *rand.Rand, icon image.Image, moved bool) string {
	const side = 224
	colours, size, turn := []int{1, 1, 2, 4, 8, 16}[r.IntN(6)], 0.5+0.5*r.Float64(), 12*(2*r.Float64()-1)
	if moved {
		colours, size, turn = 28*(1+r.IntN(2)), 0.4+0.25*r.Float64(), math.Copysign(12+13*r.Float64(), r.Float64()-0.5)
	}
	few, out := image.NewRGBA(image.Rect(0, 0, colours, colours)), image.NewRGBA(image.Rect(0, 0, side, side))
	for i := range colours * colours {
		few.Set(i%colours, i/colours, color.RGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(r.IntN(256)), 255})
	}
	draw.CatmullRom.Scale(out, out.Rect, few, few.Rect, draw.Src, nil)
	b, free := icon.Bounds(), 0.9*(1-size)*side
	scale := side * size / float64(max(b.Dx(), b.Dy()))
	sin, cos := math.Sincos(turn * math.Pi / 180)
	mirror := scale * float64(1-2*r.IntN(2))
	m := f64.Aff3{mirror * cos, -scale * sin, side/2 + free*(r.Float64()-0.5), mirror * sin, scale * cos, side/2 + free*(r.Float64()-0.5)}
	m[2] -= (m[0]*float64(b.Dx()) + m[1]*float64(b.Dy())) / 2
	m[5] -= (m[3]*float64(b.Dx()) + m[4]*float64(b.Dy())) / 2
	draw.BiLinear.Transform(out, m, icon, b, draw.Over, nil)
	gain, shift, saturation := 0.75+0.5*r.Float64(), 50*(r.Float64()-0.5), 0.4+0.8*r.Float64()
	for i := 0; i < len(out.Pix); i += 4 {
		grey := (float64(out.Pix[i]) + float64(out.Pix[i+1]) + float64(out.Pix[i+2])) / 3
		for c, v := range out.Pix[i : i+3] {
			out.Pix[i+c] = uint8(min(max((grey+(float64(v)-grey)*saturation)*gain+shift+20*(r.Float64()-0.5), 0), 255))
		}
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, out, &jpeg.Options{Quality: 92}); err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(file.Bytes())
}

// pick returns a list in an order of its own for each seed.
func pick(seed int, from []int) []int {
	list := append([]int(nil), from...)
	rand.New(rand.NewPCG(2, uint64(seed))).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// share is a share, measured several times.
type share []float64

func (f share) mean() (m float64) {
	for _, v := range f {
		m += v / float64(len(f))
	}
	return m
}

func (f share) String() string {
	if len(f) == 0 {
		return "-"
	}
	m, sum := f.mean(), 0.0
	for _, v := range f {
		sum += (v - m) * (v - m) / float64(len(f))
	}
	return fmt.Sprintf("%.1f±%.1f%%", 100*m, 100*math.Sqrt(sum))
}
