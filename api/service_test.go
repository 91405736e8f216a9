package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/cache"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
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
	goodImage        = "a picture"
	notAnImage       = "not an image"
	truncatedImage   = "truncated"
	hugeImage        = "huge"
	avifImage        = "avif"
	lostDevice       = "device lost"
	failingImage     = "encoder fails"
	panickingImage   = "panic"
	notFiniteImage   = "not finite"
	waitingImage     = "wait" // holds the device until service.release is called, or the deadline
	heldImage        = "hold" // holds the device until service.release is called
	unencodableText  = "the text encoder fails"
	waitingText      = "the text encoder hangs" // until the deadline
	panickingText    = "the cache panics"
	unavailableText  = "the device is lost"
	notFiniteText    = "not finite"
	testModel        = "test-clip"
	testLogitScale   = 100
	testQueue        = 4
	testRequestLimit = time.Minute // longer than any test takes, on any machine
)

// service is a server on a real socket, with a real pipeline whose stages are a fake device.
type service struct {
	*Server
	url      string
	addr     string
	pipeline *pipeline.Pipeline
	log      *logBuffer
	working  chan struct{} // gets a value when a waitingImage or waitingText has got to its encoder
	client   *http.Client
	stop     func() // stops everything; runs by itself at the end of the test

	mu     sync.Mutex
	health Health
	wait   chan struct{} // closed by release
}

func (s *service) release() { close(s.wait) }

func (s *service) setHealth(h Health) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health = h
}

func testConfig() Config {
	d := time.Minute
	return Config{
		Host: "127.0.0.1", ReadTimeout: d, WriteTimeout: d, IdleTimeout: d, ShutdownTimeout: d,
		MaxBodyBytes: 1 << 20, MaxBodyMemoryBytes: 64 << 20, MaxHeaderBytes: 8 << 10, MaxConnections: 64, MaxPrompts: 1000, MaxPromptBytes: 2048,
	}
}

// newService makes the server without a socket.
func newService(t testing.TB, change func(*Config, *Service)) *service {
	t.Helper()
	s := &service{
		log: &logBuffer{}, wait: make(chan struct{}), working: make(chan struct{}, 100),
		health: Health{Status: Healthy, ModelLoaded: true, Backend: "sim", RuntimeMode: "simulated", Why: "told to", ModelWhy: "built in"},
	}
	line, err := pipeline.New(
		pipeline.Stage{Name: "decode", Queue: testQueue, Workers: 1, Work: s.decode},
		pipeline.Stage{Name: "encode", Workers: 1, Work: s.encode},
	)
	if err != nil {
		t.Fatal(err)
	}
	s.pipeline = line
	cfg := testConfig()
	svc := Service{
		Pipeline: line, Prompts: s.prompts, Model: testModel, LogitScale: testLogitScale, Softmax: true,
		RequestTimeout: testRequestLimit, Version: "1.2.3",
		Log: slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Stats: func() any {
			return map[string]any{"stages": []string{}, "cache": struct{}{}, "process": struct{}{}}
		},
		Health: func() Health {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.health
		},
	}
	if change != nil {
		change(&cfg, &svc)
	}
	if s.Server, err = New(cfg, svc); err != nil {
		t.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		if err := line.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { s.stop() })
	return s
}

// serve starts it on a free port.
func serve(t testing.TB, change func(*Config, *Service)) *service {
	t.Helper()
	s := newService(t, change)
	ln, err := s.cfg.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	s.url = "http://" + s.addr
	s.client = &http.Client{Transport: &http.Transport{}}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	closeLine := s.stop
	s.stop = sync.OnceFunc(func() {
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		closeLine()
	})
	return s
}

func (s *service) decode(_ int, jobs []*pipeline.Job) {
	for _, job := range jobs {
		switch string(job.Image) {
		case notAnImage:
			job.Fail(fmt.Errorf("%w: not an image", pipeline.ErrBadImage))
		case truncatedImage:
			job.Fail(fmt.Errorf("%w: truncated JPEG", pipeline.ErrBadImage))
		case hugeImage:
			job.Fail(fmt.Errorf("%w: 20000x20000 pixels, at most 50000000 are allowed", pipeline.ErrImageTooLarge))
		case avifImage:
			job.Fail(fmt.Errorf("%w: AVIF; accepted are JPEG, PNG, WebP, GIF, BMP, TIFF", pipeline.ErrUnsupportedImage))
		}
	}
}

func (s *service) encode(_ int, jobs []*pipeline.Job) {
	for _, job := range jobs {
		var vector []float32
		switch string(job.Image) {
		case lostDevice:
			job.Fail(fmt.Errorf("%w: device lost", pipeline.ErrUnavailable))
			continue
		case failingImage:
			job.Fail(fmt.Errorf("%w: status 7 at /dev/h1x-0", pipeline.ErrEncode))
			continue
		case panickingImage:
			panic("the stage panics")
		case notFiniteImage:
			vector = make([]float32, testDimension)
			vector[3] = float32(math.NaN())
		case heldImage:
			s.working <- struct{}{}
			<-s.wait // whatever the deadline says
			if string(job.Image) != heldImage {
				panic("the image has changed under the device")
			}
			vector = testVector(heldImage)
		case waitingImage:
			s.working <- struct{}{}
			select {
			case <-s.wait:
			case <-job.Context().Done():
				job.Fail(fmt.Errorf("%w in the device", pipeline.ErrDeadline))
				continue
			}
			vector = testVector(string(job.Image))
		default:
			vector = testVector(string(job.Image))
		}
		score(job, vector)
	}
}

// score is the short way to write what stage score does.
func score(job *pipeline.Job, image []float32) {
	if job.Embedding {
		job.Result.Embedding = image
	}
	n := len(job.Prompts) / testDimension
	matches, sum := make([]pipeline.Match, n), 0.0
	for i := range matches {
		m := &matches[i]
		m.Prompt = i
		m.Cosine = dot(job.Prompts[i*testDimension:(i+1)*testDimension], image)
		m.Probability = math.Exp(job.Scoring.LogitScale * (m.Cosine - 1))
		sum += m.Probability
	}
	for i := range matches {
		m := &matches[i]
		m.Probability /= sum
		if m.Score = m.Cosine; job.Scoring.Softmax && n > 1 {
			m.Score = m.Probability
		}
	}
	slices.SortStableFunc(matches, func(a, b pipeline.Match) int { return cmp.Compare(b.Score, a.Score) })
	matches = slices.DeleteFunc(matches, func(m pipeline.Match) bool { return job.Scoring.Cut && m.Score < job.Scoring.Threshold })
	job.Result.Matches = matches[:min(len(matches), job.Scoring.TopK)]
}

// prompts stands for the cache and the text encoder.
func (s *service) prompts(ctx context.Context, _ fair.Caller, texts []string) (*cache.Prompts, error) {
	p := &cache.Prompts{Dim: testDimension}
	for _, text := range texts {
		switch text {
		case unencodableText:
			return nil, fmt.Errorf("texts: %w", pipeline.ErrEncode)
		case unavailableText:
			return nil, fmt.Errorf("texts: %w: the device is being brought back", pipeline.ErrUnavailable)
		case waitingText:
			s.working <- struct{}{}
			<-ctx.Done()
			return nil, errors.New("gave up")
		case panickingText:
			panic("the cache panics")
		}
		vector := testVector(text)
		if text == notFiniteText {
			vector[0] = float32(math.Inf(1))
		}
		p.Matrix = append(p.Matrix, vector...)
		tokens := len(strings.Fields(text)) + 2
		p.Rows = append(p.Rows, cache.Vector{Embedding: vector, Tokens: min(tokens, 77), Truncated: tokens > 77})
	}
	return p, nil
}

// testVector is a unit vector that only depends on the text; the image and the text goodImage
// have the same one.
func testVector(text string) []float32 {
	h, sum := fnv.New64a(), 0.0
	h.Write([]byte(text))
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	v := make([]float32, testDimension)
	for i := range v {
		v[i] = float32(random.NormFloat64())
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
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

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// classifyBody is the body of a request for /v1/classify; more is appended to the object.
func classifyBody(image, more string, prompts ...string) string {
	p, err := json.Marshal(prompts)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"image":%q,"prompts":%s%s}`, b64(image), p, more)
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
	r, err := s.try(method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *service) try(method, path, body string, headers ...string) (reply, error) {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, s.url+path, reader)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return reply{}, err
	}
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
	if retry := r.header.Get("Retry-After") != ""; retry != (status == 429 || status == 503) {
		t.Errorf("Retry-After %q with status %d", r.header.Get("Retry-After"), status)
	}
}

type classifyAnswer struct {
	Classifications []struct {
		Text        string  `json:"text"`
		Score       float64 `json:"score"`
		Rank        int     `json:"rank"`
		Cosine      float64 `json:"cosine"`
		Probability float64 `json:"probability"`
		Truncated   bool    `json:"truncated"`
	} `json:"classifications"`
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
