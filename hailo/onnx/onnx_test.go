package onnx

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"hailoclip/hailo/internal/assert"

	"go.uber.org/goleak"

	"hailoclip/hailo"
	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/model"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// native returns the library to test with: HAILO_TEST_ONNXRUNTIME, or what "hailo-clip setup"
// put into the cache folder. Without one the test is skipped, or fails under
// HAILO_TEST_REQUIRE_NATIVE=1.
func native(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("HAILO_TEST_ONNXRUNTIME")
	if path == "" {
		cache, _ := os.UserCacheDir()
		path = LibraryFile(filepath.Join(cache, "hailo-clip", "lib"), runtime.GOARCH)
	}
	if _, err := os.Stat(path); err != nil {
		assert.MustTrue(tb, os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "1", "no ONNX Runtime: %v", err)
		tb.Skip("no ONNX Runtime: ", err)
	}
	return path
}

// Native is native for the tests outside of the package.
var Native = native

// newBackend opens a backend that is closed with the test.
func newBackend(tb testing.TB, c Config, e encoders) *Backend {
	tb.Helper()
	b := assert.Value(tryOpen(tb, c, e))
	tb.Cleanup(func() { b.Close() })
	return b
}

// take returns a frame that is released with the test.
func take(tb testing.TB, b *Backend) *hailo.Frame {
	tb.Helper()
	f := assert.Value(b.Frames().Get(tb.Context()))
	tb.Cleanup(f.Release)
	return f
}

func tryOpen(tb testing.TB, c Config, e encoders) (*Backend, error) {
	tb.Helper()
	l := assert.Value(Load(native(tb)))
	return open(l, c, e, 16)
}

// demo is the embedded demo model, read from its folder.
func demo(tb testing.TB) encoders {
	tb.Helper()
	e := encoders{digests: [2]string{"demo", "demo"}, image: file("../demo/vision_model.onnx"), text: file("../demo/text_model.onnx")}
	readJSON(tb, "../demo/manifest.json", &e.manifest)
	return e
}

func file(path string) source { return source{name: filepath.Base(path), path: path} }

// tiny is a model of testdata, as text encoder and, if image is not "", as image encoder.
func tiny(text, image string) encoders {
	e := encoders{
		manifest: model.Manifest{EmbeddingDimension: 8, ImageSize: 4, ContextLength: 6, Std: [3]float32{1, 1, 1}},
		text:     file("testdata/" + text),
		digests:  [2]string{"tiny", "tiny"},
	}
	if image != "" {
		e.image = file("testdata/" + image)
	}
	return e
}

func readJSON(tb testing.TB, path string, v any) {
	tb.Helper()
	assert.Must(tb, json.Unmarshal(assert.Value(os.ReadFile(path)), v))
}

// near checks the cosine between two vectors.
func near(t *testing.T, got, want []float32, least float64, what string, args ...any) {
	t.Helper()
	c := backendtest.Cosine(got, want)
	assert.True(t, c >= least, what+": cosine %v", append(args, c)...)
}

// golden is what the training framework made of the demo's texts and images.
type golden struct {
	Texts    map[string][]float32 `json:"texts"`
	TokenIDs map[string][]int32   `json:"token_ids"`
	Images   map[string][]float32 `json:"images"`
}

func TestGoldenTexts(t *testing.T) {
	var golden golden
	readJSON(t, "../demo/golden.json", &golden)
	b := newBackend(t, Config{}, demo(t))
	var texts []string
	var tokens [][]int32
	for text, ids := range golden.TokenIDs {
		texts, tokens = append(texts, text), append(tokens, ids)
	}
	got := assert.Value(b.EncodeTexts(t.Context(), tokens))
	for i, text := range texts {
		near(t, got[i], golden.Texts[text], 0.99999, "%q", text)
	}
}

// The whole way of an image, from the file to the vector, against the training framework's own.
func TestGoldenImages(t *testing.T) {
	var golden golden
	readJSON(t, "../demo/golden.json", &golden)
	b := newBackend(t, Config{}, demo(t))
	d := decode.NewDecoder(decode.Config{MaxPixels: 1 << 22, JPEGScale: "exact"}, b.model.ImageSize)
	square := resize.New(resize.Config{Fit: "crop"}, b.model.ImageSize)
	frame := take(t, b)
	assert.MustTrue(t, len(golden.Images) != 0, "no golden images")
	for name, want := range golden.Images {
		data := assert.Value(os.ReadFile(filepath.Join("../demo/samples", name)))
		p := assert.Value(d.DecodeBytes(data))
		assert.Must(t, square.Resize(frame.Pixels, p.Pix, p.Width, p.Height))
		p.Release()
		assert.Must(t, b.EncodeImages(t.Context(), []*hailo.Frame{frame}))
		// Without libjpeg-turbo the standard decoder's chroma differs a little from the golden one's.
		near(t, frame.Embedding, want, 0.9999, "%s", name)
	}
}

func TestConformance(t *testing.T) {
	native(t)
	bytes := demo(t)
	for _, src := range []*source{&bytes.image, &bytes.text} {
		src.path, src.bytes = "", assert.Value(os.ReadFile(src.path))
	}
	for _, tt := range []struct {
		name string
		c    Config
		e    encoders
	}{
		{"demo", Config{}, demo(t)},
		{"demo from memory", Config{Threads: 3, Batch: 7}, bytes},
		{"whole model in one file", Config{}, tiny("whole.onnx", "whole.onnx")},
		{"fixed batches, int32", Config{}, tiny("text_fixed.onnx", "image_fixed.onnx")},
		{"one thread, batch of 1", Config{Threads: 1, Batch: 1}, tiny("external.onnx", "whole.onnx")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) hailo.Backend { return newBackend(t, tt.c, tt.e) })
		})
	}
}

// The model as the program has it: found, read and named by model.Model.
func TestOpenModel(t *testing.T) {
	m := demo(t).manifest
	m.Tokenizer, m.CPU = "tokenizer.json", &model.CPUFiles{Image: "vision_model.onnx", Text: "text_model.onnx"}
	demo := assert.Value(model.Embedded(m, os.DirFS("../demo")))
	b := assert.Value(Open(t.Context(), Config{Library: native(t), Threads: 2}, demo, 3))
	defer b.Close()
	i := b.Info()
	if i.ImageBatch != defaultBatch || i.ImageCalls != 2 || len(i.TextDigest) != 64 || len(i.ImageDigest) != 64 || i.ImageDigest == i.TextDigest || b.Frames().Len() != 3 ||
		!strings.HasPrefix(i.Device, "ONNX Runtime 1.") || !strings.HasSuffix(i.Device, ", 2 threads") {
		t.Errorf("%+v, %d frames", i, b.Frames().Len())
	}
	m.CPU = nil
	_, err := Open(t.Context(), Config{Library: native(t)}, assert.Value(model.Embedded(m, os.DirFS("../demo"))), 3)
	assert.ErrorSays(t, err, nil, "no text encoder for the CPU", "a model for the NPU alone")
}

func TestTextOnly(t *testing.T) {
	b := newBackend(t, Config{}, tiny("external.onnx", ""))
	assert.NoError(t, assert.Err(b.EncodeTexts(t.Context(), [][]int32{{1}})))
	err := b.EncodeImages(t.Context(), []*hailo.Frame{take(t, b)})
	assert.ErrorIs(t, err, hailo.ErrEncode, "an image without an image encoder")
}

// The tiny models hold the same weights, so that all layouts must give the same vectors.
func TestLayoutsAgree(t *testing.T) {
	encode := func(name string, texts ...[]int32) [][]float32 {
		t.Helper()
		return assert.Value(newBackend(t, Config{}, tiny(name, "")).EncodeTexts(t.Context(), texts))
	}
	full := [][]int32{{1, 2, 3, 4, 5, 6}, {7, 7, 7, 7, 7, 7}, {8, 9, 10, 11, 12, 13}} // no padding
	want := encode("whole.onnx", full...)
	for _, name := range []string{"text_fixed.onnx", "external.onnx"} {
		for i, v := range encode(name, full...) {
			near(t, v, want[i], 0.999999, "%s, text %d", name, i)
		}
	}
	for i, v := range encode("whole.onnx", []int32{7}, []int32{7, 7}) {
		near(t, v, want[1], 0.999999, "text %d: padding got past the mask", i)
	}
}

// TestInt8 holds a quantised model against the one whose weights it has in 8 bits.
func TestInt8(t *testing.T) {
	encode := func(name string) (vectors [][]float32) {
		t.Helper()
		b := newBackend(t, Config{}, tiny("whole.onnx", name))
		for shade := range 3 {
			vectors = append(vectors, assert.Value(backendtest.Encode(t.Context(), b, func(pixels []byte) {
				for i := range pixels {
					pixels[i] = byte(200 - 60*(i%3+shade)%200)
				}
			})))
		}
		return vectors
	}
	want := encode("whole.onnx")
	for i, v := range encode("int8.onnx") {
		// 8 bits for a colour and for a weight leave an error of about 1 % in each of 3 products.
		near(t, v, want[i], 0.999, "image %d", i)
	}
	c := backendtest.Cosine(want[0], want[1])
	assert.True(t, c <= 0.99, "the images are alike (cosine %v), which shows nothing", c)
}

// TestAlone: in a run of two, a quantised image has another vector than alone, because both share a scale. The manifest
// says so of such files, and then each has its own run.
func TestAlone(t *testing.T) {
	e := tiny("whole.onnx", "int8.onnx")
	e.manifest.CPU = &model.CPUFiles{Alone: true}
	b := newBackend(t, Config{Batch: 8}, e)
	assert.True(t, b.Info().ImageBatch == 1 && b.Info().TextBatch == 1, "%+v", b.Info())
	e.manifest.CPU = nil
	together := newBackend(t, Config{Batch: 8, Threads: 1}, e)
	encode := func(b *Backend, shades ...byte) []float32 {
		t.Helper()
		var frames []*hailo.Frame
		for _, shade := range shades {
			frames = append(frames, take(t, b))
			for i := range frames[len(frames)-1].Pixels {
				frames[len(frames)-1].Pixels[i] = shade + byte(i%3)
			}
		}
		assert.Must(t, b.EncodeImages(t.Context(), frames))
		return slices.Clone(frames[0].Embedding)
	}
	want := encode(b, 100)
	assert.True(t, slices.Equal(encode(together, 100), want), "the same image alone: another vector")
	assert.True(t, !slices.Equal(encode(together, 100, 250), want), "the neighbour makes no difference, which shows nothing")
	for _, name := range []string{"text_fixed.onnx", "image_fixed.onnx"} {
		e := tiny("whole.onnx", name)
		if name == "text_fixed.onnx" {
			e = tiny(name, "")
		}
		e.manifest.CPU = &model.CPUFiles{Alone: true}
		assert.ErrorSays(t, assert.Err(tryOpen(t, Config{}, e)), nil, "takes 2 at once", "%s", name)
	}
}

func TestOpenRefuses(t *testing.T) {
	with := func(e encoders, change func(*encoders)) encoders { change(&e); return e }
	whole := tiny("whole.onnx", "whole.onnx")
	for _, tt := range []struct {
		name string
		e    encoders
		want string
	}{
		{"no such file", tiny("none.onnx", ""), "none.onnx"},
		{"not a model", tiny("make.py", ""), "make.py"},
		{"one byte", with(whole, func(e *encoders) { e.text = source{name: "memory.onnx", bytes: []byte{1}} }), "memory.onnx"},
		{"no bytes", with(whole, func(e *encoders) { e.text = source{name: "empty.onnx"} }), "empty.onnx"},
		{"no text half", tiny("image_fixed.onnx", ""), "gives no text_embeds (from input_ids)"},
		{"no image half", tiny("whole.onnx", "external.onnx"), "gives no image_embeds (from pixel_values)"},
		{"float16", tiny("half.onnx", ""), "text_embeds float16[any 8] does not fit the manifest, which needs float32[any 8]"},
		{"image size", with(whole, func(e *encoders) { e.manifest.ImageSize = 224 }), "pixel_values float32[any 3 4 4] does not fit"},
		{"dimension", with(whole, func(e *encoders) { e.manifest.EmbeddingDimension = 512 }), "text_embeds float32[any 8] does not fit"},
		{"context", with(tiny("text_fixed.onnx", ""), func(e *encoders) { e.manifest.ContextLength = 77 }), "input_ids int32[2 6] does not fit"},
		{"NaN", with(whole, func(e *encoders) { e.manifest.Tokens.PadID = 15 }), "length 0, infinity or NaN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tryOpen(t, Config{}, tt.e)
			if err == nil {
				b.Close()
			}
			assert.ErrorSays(t, err, nil, tt.want)
		})
	}
}

// Vectors of no length never get out, and a bad text does not spoil the backend.
func TestBadVectors(t *testing.T) {
	b := newBackend(t, Config{}, tiny("whole.onnx", "whole.onnx"))
	for name, ids := range map[string][]int32{
		"NaN": {1, 15}, "zero": {14}, "token not in the vocabulary": {16}, "negative token": {-17},
	} {
		_, err := b.EncodeTexts(t.Context(), [][]int32{{1}, ids, {2}})
		assert.ErrorIs(t, err, hailo.ErrEncode, "%s", name)
	}
	err := b.EncodeImages(t.Context(), []*hailo.Frame{take(t, b)})
	assert.ErrorIs(t, err, hailo.ErrEncode, "black image of a model without bias")
	assert.NoError(t, assert.Err(b.EncodeTexts(t.Context(), [][]int32{{1}, {2}})), "afterwards")
}

// The model in slow.onnx does not end on this token, in no time that a test would wait for.
var forever = [][]int32{{2_000_000_000}}

var errTest = errors.New("the deadline of the test")

// begin calls EncodeTexts beside the test.
func begin(ctx context.Context, b *Backend, tokens [][]int32) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := b.EncodeTexts(ctx, tokens)
		result <- err
	}()
	return result
}

func TestCancel(t *testing.T) {
	b := newBackend(t, Config{Threads: 1}, tiny("slow.onnx", ""))
	ctx, cancel := context.WithCancelCause(t.Context())
	running := begin(ctx, b, forever)
	for len(b.free) > 0 { // until it has the only workspace
		runtime.Gosched()
	}
	waiting := begin(ctx, b, forever)
	cancel(errTest)
	for _, result := range []<-chan error{running, waiting} {
		assert.ErrorIs(t, <-result, errTest, "cancelled")
	}
	assert.ErrorIs(t, assert.Err(b.EncodeTexts(ctx, [][]int32{{0}})), errTest, "cancelled before")
	assert.NoError(t, assert.Err(b.EncodeTexts(t.Context(), [][]int32{{1}})), "the workspace does not work any more")
}

func TestCloseWaits(t *testing.T) {
	b := newBackend(t, Config{Threads: 2}, tiny("slow.onnx", ""))
	ctx, cancel := context.WithCancelCause(t.Context())
	result := begin(ctx, b, forever)
	for len(b.free) == cap(b.free) {
		runtime.Gosched()
	}
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	for b.Status().Ready {
		runtime.Gosched()
	}
	assert.ErrorIs(t, assert.Err(b.EncodeTexts(t.Context(), [][]int32{{1}})), hailo.ErrClosed, "during Close")
	select {
	case <-closed:
		t.Error("Close did not wait")
	default:
	}
	cancel(errTest)
	assert.ErrorIs(t, <-result, errTest, "in flight")
	assert.NoError(t, <-closed)
}

// A part that fails ends the others, and its error is the one that is told.
func TestShareFirstError(t *testing.T) {
	b := newBackend(t, Config{Threads: 2}, tiny("slow.onnx", ""))
	bad := errors.New("bad part")
	var once sync.Once
	err := b.share(t.Context(), 2, 1, func(ctx context.Context, _ *workspace, _, _ int) error {
		var err error
		once.Do(func() { err = bad })
		if err == nil {
			<-ctx.Done()
			err = context.Cause(ctx)
		}
		return err
	})
	assert.True(t, errors.Is(err, bad) && errors.Is(err, hailo.ErrEncode), "%v", err)
	assert.True(t, len(b.free) == 2, "workspaces lost: %v", len(b.free))
}

// A panic in a part, which may run on a goroutine of its own, is an error of its call alone.
func TestSharePanic(t *testing.T) {
	b := newBackend(t, Config{Threads: 2}, tiny("slow.onnx", ""))
	for parts := range 2 {
		err := b.share(t.Context(), parts+1, 1, func(context.Context, *workspace, int, int) error { panic("at the disco") })
		assert.ErrorSays(t, err, hailo.ErrEncode, "at the disco", "%d parts", parts+1)
		assert.ErrorSays(t, err, hailo.ErrEncode, "encode.go", "%d parts", parts+1)
	}
	assert.True(t, len(b.free) == 2, "workspaces lost: %v", len(b.free))
}

func TestTextFiles(t *testing.T) {
	m := model.Manifest{Tokenizer: "t.json", CPU: &model.CPUFiles{Image: "v.onnx", Text: "a.onnx"}, Files: map[string]model.File{}}
	for _, name := range []string{"t.json", "v.onnx", "v.onnx_data", "a.onnx", "a.onnx.data", "a.onnx_data", "a.onnx_data_1", "a.onnx.txt", "a.onn", "ba.onnx_data"} {
		m.Files[name] = model.File{}
	}
	want := []string{"t.json", "a.onnx", "a.onnx.data", "a.onnx_data", "a.onnx_data_1"}
	assert.Diff(t, want, textFiles(m))
}
