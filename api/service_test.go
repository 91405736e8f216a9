package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/api/admin"
	"hailoclip/api/compat"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/source"
	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/pipeline"
	"hailoclip/stages"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// TestMain also proves that no test leaves a goroutine behind, but for two of fasthttp: its
// clock for the Date header, one for the life of the process, and the sweeper of its worker
// pool, which notices only within ten seconds that the server has stopped.
//
// All tests run with memory that is overwritten when it is given back; benchmarks do not.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		poison = func(b []byte) {
			for i := range b {
				b[i] = poisoned
			}
		}
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// poisoned is not UTF-8 by itself, so that it cannot be a part of any text.
const poisoned = 0xa5

const testDimension = 512

// What the fake device does with an image depends on its bytes.
const (
	goodImage        = "an image"
	notAnImage       = "not an image"
	truncatedImage   = "truncated"
	hugeImage        = "huge"
	avifImage        = "avif"
	lostDevice       = "device lost"
	failingImage     = "encoder fails"
	panickingImage   = "panic"
	notFiniteImage   = "not finite"
	waitingImage     = "wait" // holds the device until release is called, or the deadline
	heldImage        = "hold" // holds the device until release is called
	unencodableText  = "the text encoder fails"
	waitingText      = "the text encoder hangs" // until the deadline
	panickingText    = "the text encoder panics"
	unavailableText  = "the device is lost"
	notFiniteText    = "not finite"
	testModel        = "test-clip"
	testSize         = 32 // pixels on a side
	testLogitScale   = 100
	testQueue        = 4
	testRequestLimit = time.Minute // longer than any test takes, on any machine
)

// device is a fake backend. It reads from the pixels which image it has, see imageFile.
type device struct {
	frames  *hailo.Frames
	entered chan struct{} // gets a value when a waitingImage, heldImage or waitingText has got here
	wait    chan struct{} // closed by release

	status atomic.Pointer[hailo.Status]
	info   atomic.Pointer[hailo.Info]
}

func newDevice() *device {
	d := &device{frames: hailo.NewHeapFrames(1, testSize, testDimension), entered: make(chan struct{}, 100), wait: make(chan struct{})}
	d.status.Store(&hailo.Status{Ready: true})
	d.info.Store(&hailo.Info{Backend: "sim", Simulated: true, ImageBatch: 1, ImageCalls: 1, TextBatch: 1, TextDigest: "x", ImageDigest: "y"}) // no text waits with a waitingText
	return d
}

func (d *device) release()              { close(d.wait) }
func (d *device) Frames() *hailo.Frames { return d.frames }
func (d *device) Close() error          { return nil }
func (d *device) Info() hailo.Info      { return *d.info.Load() }
func (d *device) Status() hailo.Status  { return *d.status.Load() }

// lose makes the device say that it is away.
func (d *device) lose(why string) { d.status.Store(&hailo.Status{Why: hailo.Because(why)}) }

func (d *device) EncodeImages(ctx context.Context, frames []*hailo.Frame) error {
	for _, f := range frames {
		text := string(f.Pixels[2:][:binary.LittleEndian.Uint16(f.Pixels)])
		vector := testVector(text)
		switch text {
		case lostDevice:
			return hailo.ErrDeviceLost
		case failingImage:
			return fmt.Errorf("%w: status 7 at /dev/h1x-0", hailo.ErrEncode)
		case panickingImage:
			panic("the stage panics")
		case notFiniteImage:
			vector[3] = float32(math.NaN())
		case heldImage:
			d.entered <- struct{}{}
			<-d.wait // whatever the deadline says
		case waitingImage:
			d.entered <- struct{}{}
			select {
			case <-d.wait:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		copy(f.Embedding, vector)
	}
	return nil
}

func (d *device) EncodeTexts(ctx context.Context, tokens [][]int32) (vectors [][]float32, err error) {
	for _, t := range tokens {
		text := textOf(t)
		vector := testVector(text)
		switch text {
		case unencodableText:
			return nil, hailo.ErrEncode
		case unavailableText:
			return nil, fmt.Errorf("%w: the device is being brought back", hailo.ErrDeviceLost)
		case waitingText:
			d.entered <- struct{}{}
			<-ctx.Done()
			return nil, errors.New("gave up")
		case panickingText:
			panic("the text encoder panics")
		case notFiniteText:
			vector[0] = float32(math.Inf(1))
		}
		vectors = append(vectors, vector)
	}
	return vectors, nil
}

// tokenize makes a token of every word, which is a number of texts, and one more.
func tokenize(text string) (tokens []int32, truncated bool) {
	tokens = make([]int32, len(strings.Fields(text))+2)
	tokens[0] = tokenized.Add(1)
	texts.Store(tokens[0], text)
	return tokens[:min(len(tokens), 77)], len(tokens) > 77
}

// texts are those that were tokenized, by their first token.
var (
	texts     sync.Map
	tokenized atomic.Int32
)

func textOf(tokens []int32) string {
	text, _ := texts.Load(tokens[0])
	return text.(string)
}

// testEngine is a real one over d. change may be nil. It is closed at the end of the test, if not before.
func testEngine(t testing.TB, d *device, change func(*clip.Config, *clip.Parts)) *clip.Engine {
	t.Helper()
	store := cache.OpenStore(cache.Config{
		Mode: cache.OnDemand, CacheEnabled: true, CacheMaxEntries: 1000, CacheListBytes: 1 << 20, CacheFileMaxBytes: 4 << 20, MaxPending: 2000,
	}, "", slog.New(slog.DiscardHandler))
	cfg := clip.Config{ApplySoftmax: true, Images: stages.Config{
		Decode: decode.Config{MaxPixels: 1 << 20, JPEGScale: decode.ScaleExact}, Resize: resize.Config{Fit: resize.FitCrop}}}
	parts := clip.Parts{
		Model:    model.Manifest{Name: testModel, ImageSize: testSize, EmbeddingDimension: testDimension, ContextLength: 77, LogitScale: testLogitScale},
		ModelWhy: "built in", Tokenize: tokenize,
		Images: d, Texts: []hailo.Backend{d}, BackendWhy: "told to", Encoders: d,
		Store: store, Budget: decode.NewBudget(1<<30, math.MaxInt64, 1, testQueue), Sets: testSets(t),
	}
	if change != nil {
		change(&cfg, &parts)
	}
	e := must(clip.New(cfg, pipeline.Config{WorkerThreads: 1, MaxQueueSize: testQueue}, parts))
	t.Cleanup(func() { noError(t, e.Close(context.Background())) })
	return e
}

// service is a server on a real socket, with a real engine over a fake device.
type service struct {
	*Server
	*device
	url    string
	addr   string
	log    *logBuffer
	client *http.Client
	stop   func() // stops everything; runs by itself at the end of the test
}

func testConfig() Config {
	d := time.Minute
	return Config{
		Host: "127.0.0.1", ReadTimeout: d, WriteTimeout: d, IdleTimeout: d, ShutdownTimeout: d,
		MaxBodyBytes: 1 << 20, MaxBatchBodyBytes: 4 << 20, MaxBodyMemoryBytes: 64 << 20, MaxHeaderBytes: 8 << 10, MaxConnections: 64, MaxPrompts: 1000, MaxPromptBytes: 2048,
	}
}

// allDialects has every dialect on, and no aliases.
func allDialects() compat.Config {
	return compat.Config{
		OpenAI: true, Immich: compat.Immich{Enabled: true}, Frigate: true, Weaviate: true, Ollama: true, TEI: true, HuggingFace: true, Cohere: true,
		Voyage: true, Roboflow: true, Qdrant: true, CLIPAsService: true,
	}
}

// newService makes the server without a socket.
func newService(t testing.TB, change func(*Config, *Service)) *service {
	t.Helper()
	s := &service{device: newDevice(), log: &logBuffer{}}
	cfg, recorder := testConfig(), admin.NewRecorder()
	svc := Service{
		Engine: testEngine(t, s.device, func(_ *clip.Config, p *clip.Parts) { p.Observe = recorder.Line }), RequestTimeout: testRequestLimit, BatchTimeout: testRequestLimit, Version: "1.2.3", LogEvery: 1,
		Compat:   allDialects(),
		Recorder: recorder, Admin: &admin.Parts{Reload: func(context.Context) (any, error) {
			return map[string][]string{"applied": {}, "needs_restart": {}, "warnings": {}}, nil
		}},
		Log: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if *overTLS {
		cfg.TLS = testTLS(t, t.TempDir())
	}
	if change != nil {
		change(&cfg, &svc)
	}
	svc.Memory, svc.Bus, svc.Lost = cfg.NewMemory(), event.NewBus(100), event.ErrLost
	parts := stream.Parts{
		Engine: svc.Engine, Bus: svc.Bus, Lost: svc.Lost, Limits: stream.Limits{Prompts: cfg.MaxPrompts, PromptBytes: cfg.MaxPromptBytes},
		Timeout: testRequestLimit, Frames: source.Limits{FrameBytes: cfg.MaxBodyBytes}, Buffers: svc.Memory.Buffers(), Log: svc.Log, Encode: AppendAnswer,
	}
	if svc.Store != nil {
		parts.Store = svc.Store
	}
	svc.Hub = must(stream.NewHub(stream.Config{MaxStreams: 16, MaxListeners: 4, Linger: time.Minute}, parts))
	s.Server = must(New(cfg, svc))
	s.stop = sync.OnceFunc(func() {
		noError(t, svc.Hub.Close(context.Background()))
		noError(t, svc.Engine.Close(context.Background()))
	})
	t.Cleanup(func() { s.stop() })
	return s
}

// serve makes a server and starts it.
func serve(t testing.TB, change func(*Config, *Service)) *service {
	t.Helper()
	s := newService(t, change)
	s.listen(t)
	return s
}

// listen starts it on a free port.
func (s *service) listen(t testing.TB) {
	t.Helper()
	s.serve(t, must(s.cfg.Listen()))
}

// serve starts it on ln.
func (s *service) serve(t testing.TB, ln net.Listener) {
	t.Helper()
	s.addr = ln.Addr().String()
	s.url = "http://" + s.addr
	s.client = &http.Client{Transport: &http.Transport{}}
	if s.cfg.speaksTLS(ln) {
		s.url = "https://" + s.addr
		s.client.Transport.(*http.Transport).TLSClientConfig = clientTLS
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	until(t, func() bool { // tests look at it
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.listeners) > 0 || len(ended) > 0
	})
	closeEngine := s.stop
	s.stop = sync.OnceFunc(func() {
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		noError(t, s.Shutdown(ctx))
		noError(t, <-ended)
		closeEngine()
	})
}

// imageFile is an image that the device knows by its text: its pixels hold the text's beginning, and all of it lies
// behind them. Broken ones are what they say.
func imageFile(text string) []byte {
	w, h, kept := uint32(testSize), uint32(testSize), min(len(text), testSize*testSize*3-2)
	switch text {
	case notAnImage:
		return []byte(text)
	case avifImage:
		return []byte("\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf")
	case hugeImage:
		w, h = 20000, 20000
	}
	b := binary.LittleEndian.AppendUint32([]byte("BM"), 0)
	for _, v := range []uint32{0, 54, 40, w, -h, 1 | 24<<16, 0, 0, 0, 0, 0, 0} { // rows from the top
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	pixels := make([]byte, testSize*testSize*3)
	binary.LittleEndian.PutUint16(pixels, uint16(kept))
	copy(pixels[2:], text[:kept])
	for i := 0; i < len(pixels); i += 3 { // BGR
		b = append(b, pixels[i+2], pixels[i+1], pixels[i])
	}
	if text == truncatedImage {
		return b[:len(b)/2]
	}
	b = append(b, text...)
	return append(b, "xyz"[:(4-len(b)%3)%3]...) // so that its base64 is padded
}

// testVector is a unit vector that only depends on the text; the image and the text goodImage
// have the same one.
func testVector(text string) []float32 {
	h := fnv.New64a()
	h.Write([]byte(text))
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	v := make([]float32, testDimension)
	for i := range v {
		v[i] = float32(random.NormFloat64())
	}
	length := math.Sqrt(dot(v, v))
	for i := range v {
		v[i] = float32(float64(v[i]) / length)
	}
	return v
}

func dot(a, b []float32) (sum float64) {
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// b64 is the image in base64.
func b64(text string) string { return base64.StdEncoding.EncodeToString(imageFile(text)) }

// classifyBody is the body of a request for /v1/classify; more is appended to the object.
func classifyBody(image, more string, prompts ...string) string {
	return fmt.Sprintf(`{"image":%q,"prompts":%s%s}`, b64(image), must(json.Marshal(prompts)), more)
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
	last   bool // the server closes the connection
}

// post sends a body as JSON; headers are pairs of name and value.
func (s *service) post(t testing.TB, path, body string, headers ...string) reply {
	t.Helper()
	return s.do(t, http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

func (s *service) do(t testing.TB, method, path, body string, headers ...string) reply {
	t.Helper()
	req := must(http.NewRequest(method, s.url+path, strings.NewReader(body)))
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := s.client.Do(req)
	noError(t, err)
	return must(read(resp))
}

// read reads an answer to its end.
func read(resp *http.Response) (reply, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, resp.Close}, err
}

// into decodes the answer, which must have no field that v lacks.
func (r reply) into(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %d %s", err, r.status, r.body)
	}
}

// wantOK checks that the answer is a good one.
func (r reply) wantOK(t testing.TB) {
	t.Helper()
	if r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// wantError checks that the answer is the error, in the form that every error has.
func (r reply) wantError(t testing.TB, status int, code, sentence string) {
	t.Helper()
	var e struct {
		Error     string `json:"error"`
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
	}
	r.into(t, &e)
	if r.status != status || e.Code != code || !strings.Contains(e.Error, sentence) {
		t.Errorf("got %d %s, want %d %s %q", r.status, r.body, status, code, sentence)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if e.RequestID == "" || r.header.Get(headerRequestID) != e.RequestID {
		t.Errorf("request_id %q in the body, %q in the header", e.RequestID, r.header.Get(headerRequestID))
	}
	if retry := r.header.Get("Retry-After") != ""; retry != (status == 429 || status == 503 || code == "prompt_set_not_ready") {
		t.Errorf("Retry-After %q with status %d", r.header.Get("Retry-After"), status)
	}
}

type match struct {
	Text        string  `json:"text"`
	Score       float64 `json:"score"`
	Rank        int     `json:"rank"`
	Cosine      float64 `json:"cosine"`
	Probability float64 `json:"probability"`
	Truncated   bool    `json:"truncated"`
}

type classifyAnswer struct {
	Classifications []match  `json:"classifications"`
	InferenceTimeMS *float64 `json:"inference_time_ms"`
	LogitScale      float64  `json:"logit_scale"`
	Model           string   `json:"model"`
	RequestID       string   `json:"request_id"`
}

// texts are the prompts of the answer, in its order.
func (a *classifyAnswer) texts() []string {
	texts := []string{}
	for _, c := range a.Classifications {
		texts = append(texts, c.Text)
	}
	return texts
}

// allReturned waits until all memory for bodies has come back.
func (s *service) allReturned(t testing.TB) {
	t.Helper()
	until(t, func() bool { return s.bodies.available() == int64(s.cfg.MaxBodyMemoryBytes) })
}

// noError ends the test if there is one.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must is for what cannot fail in a sound test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
