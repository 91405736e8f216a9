package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// producer makes the vectors of the demo model in a way of its own.
type producer struct {
	name  string
	args  []string
	quant func(weights []float32, rows int) // of the model's weights; nil: they stay
	ops   []string                          // kinds of layers whose results are quantised
	least float64                           // cosine of an image's vector and that in fp32
}

// TestTwoProducers measures what an index gets of two producers of the same model's vectors: fp32 on the CPU, and what is quantised
// somewhere. It has no chip: of that the simulated one has the format of the outputs only, and weights and results of layers are
// quantised here, by rules that are not the vendor's; sums between layers stay in fp32. See "make producers", and configs/docs/works-with.md for what comes out.
func TestTwoProducers(t *testing.T) {
	t.Parallel()
	needONNX(t)
	long := os.Getenv("HAILO_TEST_LONG") != ""
	parts := 5
	if long {
		parts = 20
	}
	images, texts := variants(t, parts), labels(t)
	simulated := func(format string) []string {
		return []string{"--backend", "sim", "--config", configFile(t, "sim: {vectors: model, arguments: --output "+format+"}\n")}
	}
	cpu := []string{"--backend", "cpu"}
	truth := vectorsOf(t, producer{args: cpu}, images, texts)
	for i, p := range []producer{
		{"the same again", cpu, nil, nil, 1},
		{"output float32", simulated("float32"), nil, nil, 0.999999},
		{"output uint8", simulated("uint8"), nil, nil, 0.999},
		{"output uint16", simulated("uint16"), nil, nil, 0.99999},
		{"weights int8, a factor for each row", cpu, perRow, nil, 0.99},
		{"weights int8", cpu, perTensor, nil, 0.99},
		{"weights int8, results of layers uint8", cpu, perTensor, []string{"MatMul", "Gemm", "Conv", "Softmax", "Relu", "Sigmoid"}, 0.98},
	} {
		if !long && i != 2 && i != 6 {
			continue
		}
		d := compareProducers(truth, vectorsOf(t, p, images, texts), len(images))
		t.Logf("%-40s %s", p.name, d)
		if d.least < p.least-1e-6 || d.rank < 0.9 {
			t.Errorf("%s: cosine %v, at least %v is expected; rank correlation %v", p.name, d.least, p.least, d.rank)
		}
	}
}

// variants are parts of the demo's samples, and of the photographs where there are any: many images, of which each has some that are
// much like it, which is the hard case for a search.
func variants(t *testing.T, parts int) (all [][]byte) {
	t.Helper()
	files := slices.Concat(must(filepath.Glob(samples+"*.jpg")), must(filepath.Glob("../../../shared/data/photos/*.jpg")))
	chance := rand.New(rand.NewPCG(13, 9))
	for _, file := range files {
		whole := must(jpeg.Decode(bytes.NewReader(must(os.ReadFile(file)))))
		b := whole.Bounds()
		for range parts {
			w, h := int(float64(b.Dx())*(0.5+chance.Float64()/2)), int(float64(b.Dy())*(0.5+chance.Float64()/2))
			x, y := b.Min.X+chance.IntN(b.Dx()-w+1), b.Min.Y+chance.IntN(b.Dy()-h+1)
			part := image.NewRGBA(image.Rect(0, 0, w, h))
			for i := range w * h {
				part.Set(i%w, i/w, color.RGBAModel.Convert(whole.At(x+i%w, y+i/w)))
			}
			var out bytes.Buffer
			if err := jpeg.Encode(&out, part, nil); err != nil {
				t.Fatal(err)
			}
			all = append(all, out.Bytes())
		}
	}
	if len(all) < 10*parts {
		t.Fatalf("%d images", len(all))
	}
	return all
}

// labels are sentences about what the samples show.
func labels(t *testing.T) (all []string) {
	t.Helper()
	var index []struct{ Label string }
	if err := json.Unmarshal(must(os.ReadFile(samples+"index.json")), &index); err != nil {
		t.Fatal(err)
	}
	for _, s := range index {
		all = append(all, "a picture of a "+s.Label)
	}
	return all
}

// vectorsOf are those of the images, then those of the texts, as a client of OpenAI gets them.
func vectorsOf(t *testing.T, p producer, images [][]byte, texts []string) (all [][]float32) {
	t.Helper()
	state := t.TempDir()
	args := append(p.args, "--model", "demo")
	if p.quant != nil {
		args[len(args)-1] = "quantised"
		quantisedModel(t, filepath.Join(state, "models", "quantised"), p)
	}
	r := serve(t, state, args...)
	defer r.stop(t)
	var input []string
	for _, b := range images {
		input = append(input, "data:image/jpeg;base64,"+base64.StdEncoding.EncodeToString(b))
	}
	for part := range slices.Chunk(append(input, texts...), 64) {
		var answer struct{ Data []struct{ Embedding []byte } }
		if err := json.Unmarshal([]byte(r.mustPost(t, "/v1/embeddings", map[string]any{"input": part, "encoding_format": "base64"}).raw), &answer); err != nil {
			t.Fatal(err)
		}
		for _, one := range answer.Data {
			v := make([]float32, len(one.Embedding)/4)
			if _, err := binary.Decode(one.Embedding, binary.LittleEndian, v); err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		}
	}
	return all
}

// difference is what two producers make of the same images and texts.
type difference struct {
	least, median float64 // cosine of an image's two vectors
	text          float64 // likewise of a text's, the least
	apart         float64 // share of images whose two vectors are further apart than Immich takes for duplicates: 0.01
	rank          float64 // Spearman's correlation of the cosines of all pairs of images, of one producer, with those between the two
	neighbours    float64 // share of the 10 nearest that change, where half of the index comes from the other producer
	first         float64 // likewise, of the nearest alone
	labels        float64 // share of images whose best text changes, where the texts come from the other producer
}

func (d difference) String() string {
	return fmt.Sprintf("cosine min %.5f median %.5f text %.5f | over 0.01 apart %.1f%% | rank correlation %.5f | of 10 neighbours %.1f%% change, of the first %.1f%% | labels %.1f%%",
		d.least, d.median, d.text, 100*d.apart, d.rank, 100*d.neighbours, 100*d.first, 100*d.labels)
}

// compareProducers compares vectors of n images, after which there are those of texts.
func compareProducers(a, b [][]float32, n int) (d difference) {
	var same []float64
	for i := range n {
		cosine := dot(a[i], b[i])
		same = append(same, cosine)
		if 1-cosine > 0.01 {
			d.apart += 1 / float64(n)
		}
	}
	slices.Sort(same)
	d.least, d.median, d.text = same[0], same[n/2], 1
	for i := n; i < len(a); i++ {
		d.text = min(d.text, dot(a[i], b[i]))
	}
	var one, both []float64
	mixed := slices.Clone(a[:n])
	for i := range n {
		if i%2 == 1 {
			mixed[i] = b[i]
		}
		for j := range i {
			one, both = append(one, dot(a[i], a[j])), append(both, dot(a[i], b[j]))
		}
	}
	d.rank = correlation(ranks(one), ranks(both))
	for i := range n {
		was, is := nearest(a[i], a[:n], i)[:10], nearest(a[i], mixed, i)[:10]
		for _, j := range was {
			if !slices.Contains(is, j) {
				d.neighbours += 1 / float64(10*n)
			}
		}
		if was[0] != is[0] {
			d.first += 1 / float64(n)
		}
		if nearest(a[i], a[n:], -1)[0] != nearest(a[i], b[n:], -1)[0] {
			d.labels += 1 / float64(n)
		}
	}
	return d
}

// nearest are the numbers of vectors by falling cosine with v, without that of itself.
func nearest(v []float32, of [][]float32, itself int) (order []int) {
	cosines := make([]float64, len(of))
	for i := range of {
		if cosines[i] = dot(v, of[i]); i != itself {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return -compareFloats(cosines[i], cosines[j]) })
	return order
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func dot(a, b []float32) (sum float64) {
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}

// ranks are the places of values in their order.
func ranks(values []float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return compareFloats(values[i], values[j]) })
	places := make([]float64, len(values))
	for place, i := range order {
		places[i] = float64(place)
	}
	return places
}

// correlation is Pearson's.
func correlation(a, b []float64) float64 {
	mean := func(v []float64) (sum float64) {
		for _, x := range v {
			sum += x / float64(len(v))
		}
		return sum
	}
	ma, mb := mean(a), mean(b)
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+(a[i]-ma)*(b[i]-mb), aa+(a[i]-ma)*(a[i]-ma), bb+(b[i]-mb)*(b[i]-mb)
	}
	return ab / math.Sqrt(aa*bb)
}

// perRow quantises weights to 255 steps, with a factor for each row; perTensor has one for all.
func perRow(weights []float32, rows int) {
	for row := range slices.Chunk(weights, len(weights)/rows) {
		perTensor(row, 1)
	}
}

func perTensor(weights []float32, _ int) {
	largest := float32(0)
	for _, w := range weights {
		largest = max(largest, w, -w)
	}
	for i, w := range weights {
		if largest > 0 {
			weights[i] = float32(math.Round(float64(w/largest*127))) * largest / 127
		}
	}
}

// quantisedModel writes the demo model with other weights, and layers that quantise.
func quantisedModel(t *testing.T, folder string, p producer) {
	t.Helper()
	const from = "../../hailo/demo/"
	var manifest map[string]any
	if err := json.Unmarshal(must(os.ReadFile(from+"manifest.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	manifest["name"] = filepath.Base(folder)
	manifest["files"] = map[string]any{"vision_model.onnx": struct{}{}, "text_model.onnx": struct{}{}, "tokenizer.json": struct{}{}}
	files := map[string]string{"manifest.json": string(must(json.Marshal(manifest))), "tokenizer.json": string(must(os.ReadFile(from + "tokenizer.json")))}
	for _, name := range []string{"vision_model.onnx", "text_model.onnx"} {
		onnx := must(os.ReadFile(from + name))
		tensors, weights := quantise(onnx, p.quant)
		onnx, layers := quantiseLayers(onnx, p.ops)
		t.Logf("%s: %d tensors, %d weights, %d layers", name, tensors, weights, layers)
		if tensors < 10 || weights < 100_000 || layers < 10 && p.ops != nil {
			t.Fatalf("%s: %d tensors with %d weights", name, tensors, weights)
		}
		files[name] = string(onnx)
	}
	put(t, folder, files)
}

// quantise changes the weights of a model in ONNX where they lie: those of graph (field 7 of the file), initializer (5), in raw_data (9),
// which have two dimensions (1) or more and are float32 (data_type, 2, is 1). It returns how many there are.
func quantise(onnx []byte, quant func(weights []float32, rows int)) (tensors, weights int) {
	for graph := range fields(onnx, 7) {
		for tensor := range fields(graph, 5) {
			var dims []uint64
			kind, raw := uint64(0), []byte(nil)
			eachField(tensor, func(field int, number uint64, data []byte) {
				switch {
				case field == 1 && data == nil:
					dims = append(dims, number)
				case field == 1:
					for len(data) > 0 {
						dim, n := binary.Uvarint(data)
						dims, data = append(dims, dim), data[n:]
					}
				case field == 2:
					kind = number
				case field == 9:
					raw = data
				}
			})
			if kind != 1 || len(dims) < 2 || len(raw) < 4*1024 {
				continue
			}
			w := make([]float32, len(raw)/4)
			_, _ = binary.Decode(raw, binary.LittleEndian, w)
			quant(w, int(dims[0]))
			_, _ = binary.Encode(raw, binary.LittleEndian, w)
			tensors, weights = tensors+1, weights+len(w)
		}
	}
	return tensors, weights
}

// quantiseLayers has the result of every node of a kind (field 4) go through 8 bits: node (field 1 of graph) gives its output (2) another
// name, of which DynamicQuantizeLinear and DequantizeLinear make the former one. The range is that of the values of each run.
func quantiseLayers(onnx []byte, ops []string) (changed []byte, layers int) {
	text := func(b []byte, field uint64, s string) []byte {
		return append(binary.AppendUvarint(binary.AppendUvarint(b, field<<3|2), uint64(len(s))), s...)
	}
	node := func(b []byte, op string, inputs, outputs []string) []byte {
		var n []byte
		for _, s := range inputs {
			n = text(n, 1, s)
		}
		for _, s := range outputs {
			n = text(n, 2, s)
		}
		return text(b, 1, string(text(n, 4, op)))
	}
	graph := func(graph []byte) (b []byte) {
		copyFields(graph, func(field int, whole, data []byte) {
			var op, output string
			if field == 1 {
				eachField(data, func(field int, _ uint64, data []byte) {
					switch {
					case field == 4:
						op = string(data)
					case field == 2 && output == "":
						output = string(data)
					}
				})
			}
			if !slices.Contains(ops, op) {
				b = append(b, whole...)
				return
			}
			var n []byte
			copyFields(data, func(field int, whole, data []byte) {
				if field == 2 && string(data) == output {
					whole = text(nil, 2, output+"/raw")
				}
				n = append(n, whole...)
			})
			b = text(b, 1, string(n))
			parts := []string{output + "/8", output + "/scale", output + "/zero"}
			b = node(b, "DynamicQuantizeLinear", []string{output + "/raw"}, parts)
			b = node(b, "DequantizeLinear", parts, []string{output})
			layers++
		})
		return b
	}
	copyFields(onnx, func(field int, whole, data []byte) {
		if field == 7 {
			whole = text(nil, 7, string(graph(data)))
		}
		changed = append(changed, whole...)
	})
	return changed, layers
}

// copyFields calls do with each field of a message of protobuf: all of it, and its bytes.
func copyFields(message []byte, do func(field int, whole, data []byte)) {
	for len(message) > 0 {
		key, n := binary.Uvarint(message)
		var data []byte
		end := n
		switch value, m := binary.Uvarint(message[n:]); key & 7 {
		case 0:
			end += m
		case 1:
			end += 8
		case 2:
			end += m + int(value)
			data = message[n+m : end]
		case 5:
			end += 4
		default:
			panic(fmt.Sprintf("wire type %d", key&7))
		}
		do(int(key>>3), message[:end], data)
		message = message[end:]
	}
}

// fields yields the fields of a message of protobuf that have a number and bytes.
func fields(message []byte, number int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		going := true
		eachField(message, func(field int, _ uint64, data []byte) {
			if going && field == number && data != nil {
				going = yield(data)
			}
		})
	}
}

// eachField calls do with each field of a message of protobuf: data is nil of those that are numbers.
func eachField(message []byte, do func(field int, number uint64, data []byte)) {
	copyFields(message, func(field int, whole, data []byte) {
		_, n := binary.Uvarint(whole)
		number, _ := binary.Uvarint(whole[n:])
		do(field, number, data)
	})
}
