package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/pipeline/fair"
)

// childEnv names what a process that a test started from its own binary does; see child_test.go.
const childEnv = "HAILO_CLIP_CACHE_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		writeEvery = 25 * time.Millisecond
		children[name](os.Args[1:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const testDim = 16

// vectorOf is the embedding that the fake encoder of a namespace gives to a prompt.
func vectorOf(namespace, prompt string, dim int) Vector {
	v := Vector{Embedding: make([]float32, dim), Tokens: len(prompt) % 77, Truncated: len(prompt) > 77}
	sum := 0.0
	for i := range v.Embedding {
		h := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d", namespace, prompt, i))
		v.Embedding[i] = float32(binary.LittleEndian.Uint32(h[:]))/math.MaxUint32 - 0.5
		sum += float64(v.Embedding[i]) * float64(v.Embedding[i])
	}
	for i := range v.Embedding {
		v.Embedding[i] = float32(float64(v.Embedding[i]) / math.Sqrt(sum))
	}
	return v
}

// fakeEncoder counts what it encodes, and waits for gate when there is one.
type fakeEncoder struct {
	namespace string
	gate      chan struct{}
	stubborn  bool // does not care for the end of its context

	mu      sync.Mutex
	encoded map[string]int
	batches []int
	order   []string // what it was given, in order
	ended   []error  // why calls that were at the gate gave up
}

func newFake(namespace string) *fakeEncoder {
	return &fakeEncoder{namespace: namespace, encoded: make(map[string]int)}
}

func (f *fakeEncoder) encode(ctx context.Context, texts []string) ([]Vector, error) {
	f.mu.Lock()
	f.batches = append(f.batches, len(texts))
	f.order = append(f.order, texts...)
	f.mu.Unlock()
	if f.gate != nil {
		ended := ctx.Done()
		if f.stubborn {
			ended = nil
		}
		select {
		case <-f.gate:
		case <-ended:
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ended = append(f.ended, ctx.Err())
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	vectors := make([]Vector, len(texts))
	for i, text := range texts {
		f.encoded[text]++
		vectors[i] = vectorOf(f.namespace, text, testDim)
	}
	return vectors, nil
}

// count returns how many prompts were encoded, each time counted.
func (f *fakeEncoder) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, times := range f.encoded {
		n += times
	}
	return n
}

func testConfig() Config {
	return Config{
		Mode: OnDemand, CacheEnabled: true, CacheMaxEntries: 1000, CacheListBytes: 1 << 20,
		CacheFile: "text-embeddings.db", CacheFileMaxBytes: 16 << 20, MaxPending: 2000,
	}
}

// memoryOnly is testConfig without a file.
func memoryOnly() Config {
	c := testConfig()
	c.CacheFile = ""
	return c
}

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) warnings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), "level=WARN")
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func openStore(t testing.TB, config Config, dir string) (*Store, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	s := OpenStore(config, dir, log.logger())
	t.Cleanup(func() { closeStore(t, s) })
	return s, log
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func embeddings(t testing.TB, s *Store, f *fakeEncoder) *TextEmbeddings {
	t.Helper()
	return embeddingsOf(t, s, Encoder{Namespace: f.namespace, Dim: testDim, Batch: 8, Calls: 2, Encode: f.encode})
}

// openAll is openStore with a fake encoder.
func openAll(t testing.TB, config Config, dir string) (*Store, *TextEmbeddings, *fakeEncoder) {
	t.Helper()
	s, _ := openStore(t, config, dir)
	f := newFake("ns")
	return s, embeddings(t, s, f), f
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func waitWritten(s *Store) {
	for s.Stats().Disk.Queued > 0 {
		time.Sleep(time.Millisecond)
	}
}

func embeddingsOf(t testing.TB, s *Store, e Encoder) *TextEmbeddings {
	t.Helper()
	te, err := s.Embeddings(e)
	if err != nil {
		t.Fatal(err)
	}
	return te
}

// mustGet gets prompts and compares them with what the fake encoder of the namespace makes.
func mustGet(t testing.TB, te *TextEmbeddings, prompts ...string) *Prompts {
	t.Helper()
	p, err := te.Get(t.Context(), fair.Caller{}, prompts)
	if err != nil {
		t.Fatal(err)
	}
	checkPrompts(t, te, p, prompts)
	return p
}

func checkPrompts(t testing.TB, te *TextEmbeddings, p *Prompts, prompts []string) {
	t.Helper()
	if p.Dim != te.encoder.Dim || len(p.Rows) != len(prompts) || len(p.Matrix) != len(prompts)*p.Dim {
		t.Fatalf("%d rows, %d numbers, dimension %d, for %d prompts", len(p.Rows), len(p.Matrix), p.Dim, len(prompts))
	}
	for i, prompt := range prompts {
		want := vectorOf(te.encoder.Namespace, prompt, p.Dim)
		row := p.Rows[i]
		if !slices.Equal(row.Embedding, want.Embedding) || row.Tokens != want.Tokens || row.Truncated != want.Truncated {
			t.Fatalf("prompt %d %q has the wrong vector", i, prompt)
		}
		if !slices.Equal(p.Matrix[i*p.Dim:(i+1)*p.Dim], want.Embedding) {
			t.Fatalf("row %d of the matrix is wrong", i)
		}
	}
}

// blocked runs test in a bubble with a store in memory and an encoder that waits at its gate.
func blocked(t *testing.T, config Config, test func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, _ := openStore(t, config, "")
		f := newFake("ns")
		f.gate = make(chan struct{})
		te := embeddingsOf(t, s, Encoder{Namespace: "ns", Dim: testDim, Batch: 4, Calls: 1, Encode: f.encode})
		test(t, s, te, f)
		closeStore(t, s)
	})
}

// callerNamed is a caller with this address; without one it is the program itself.
func callerNamed(address string) fair.Caller {
	if address == "" {
		return fair.Caller{}
	}
	return fair.Caller{Address: address, Connection: 1}
}

// goGet starts a Get and returns where its error will be. A wrong vector is an error.
func goGet(ctx context.Context, te *TextEmbeddings, address string, prompts ...string) <-chan error {
	return start(ctx, te.Get, address, prompts...)
}

// goAwait is goGet for Await.
func goAwait(ctx context.Context, te *TextEmbeddings, address string, prompts ...string) <-chan error {
	return start(ctx, te.Await, address, prompts...)
}

func start(ctx context.Context, get func(context.Context, fair.Caller, []string) (*Prompts, error), address string, prompts ...string) <-chan error {
	result := make(chan error, 1)
	go func() {
		p, err := get(ctx, callerNamed(address), prompts)
		for i := 0; err == nil && i < len(prompts); i++ {
			if !slices.Equal(p.Rows[i].Embedding, vectorOf("ns", prompts[i], testDim).Embedding) {
				err = fmt.Errorf("%q has the vector of another prompt", prompts[i])
			}
		}
		result <- err
	}()
	synctest.Wait()
	return result
}

// ends waits for requests and wants their errors to be want, nil for none.
func ends(t *testing.T, want error, results ...<-chan error) {
	t.Helper()
	for i, result := range results {
		if err := <-result; !errors.Is(err, want) {
			t.Errorf("request %d: got %v, want %v", i, err, want)
		}
	}
}

// still fails the test when a request has ended.
func still(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		t.Fatalf("it has ended: %v", err)
	default:
	}
}

// step lets one call of the encoder pass.
func (f *fakeEncoder) step() {
	f.gate <- struct{}{}
	synctest.Wait()
}

func promptList(prefix string, n int) []string {
	prompts := make([]string, n)
	for i := range prompts {
		prompts[i] = fmt.Sprintf("a photo of a %s %d", prefix, i)
	}
	return prompts
}

// fill writes n prompts to a new file in dir and returns its path.
func fill(t testing.TB, dir string, n int) string {
	t.Helper()
	s, _ := openStore(t, testConfig(), dir)
	mustGet(t, embeddings(t, s, newFake("ns")), promptList("cat", n)...)
	closeStore(t, s)
	if stats := s.Stats(); stats.Disk.Written != uint64(n) {
		t.Fatalf("wrote %d of %d vectors: %+v", stats.Disk.Written, n, stats.Disk)
	}
	return filepath.Join(dir, testConfig().CacheFile)
}

// putSum makes the checksum at the end of b right.
func putSum(key diskKey, b []byte) {
	body := b[:len(b)-valueSum]
	binary.LittleEndian.PutUint64(b[len(body):], checksum(key, body))
}

// wideEncode is f with embeddings of another dimension.
func wideEncode(f *fakeEncoder, dim int) EncodeFunc {
	return func(ctx context.Context, texts []string) ([]Vector, error) {
		vectors, err := f.encode(ctx, texts)
		for i := range vectors {
			vectors[i] = vectorOf(f.namespace, texts[i], dim)
		}
		return vectors, err
	}
}
