package fleet

import (
	"bytes"
	"cmp"
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
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"hailoclip/api/bulk"
	"hailoclip/api/fleet/broker"
	"hailoclip/hailo"
	"hailoclip/stages/decode"
)

const testDigest = "sim/test/hash"

// vectorOf is what the encoder of the tests makes of an image.
func vectorOf(image []byte) []float32 {
	sum := sha256.Sum256(image)
	v, length := make([]float32, 16), 0.
	for i := range v {
		v[i] = float32(int16(binary.LittleEndian.Uint16(sum[2*i%32:]))) + 0.5
		length += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(length))
	}
	return v
}

// embedTest fails with what is wrong with an image that begins so.
func embedTest(_ context.Context, image []byte) ([]float32, error) {
	switch {
	case bytes.HasPrefix(image, []byte("bad")):
		return nil, fmt.Errorf("%w: %.20q", decode.ErrCorrupt, image)
	case bytes.HasPrefix(image, []byte("lost")):
		return nil, hailo.ErrDeviceLost
	case bytes.HasPrefix(image, []byte("panic")):
		panic("what an image can do")
	}
	return vectorOf(image), nil
}

// newWorker makes a worker of the node, with a connection of its own.
func newWorker(t *testing.T, cfg Config) *bulkWorker {
	return &bulkWorker{
		Conn: dial(t, cfg), model: "test", digest: testDigest, dimension: 16, atOnce: 4, again: time.Millisecond, lost: time.Millisecond, patience: 2 * time.Second,
		embed: embedTest, healthy: func() bool { return true }, counts: new(bulkCounts), large: semaphore.NewWeighted(largeBytes),
	}
}

// begin runs something until the test ends or stop is called, and again after errors.
func begin(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil && run(ctx) != nil {
			pause(ctx, 50*time.Millisecond)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func openTestEncoder(t *testing.T, url, job string) *Encoder {
	t.Helper()
	until(t, "a worker", func() bool { // else there is no model
		e, err := OpenEncoder(t.Context(), Config{URL: url, Node: "index", Domain: "hub"}, EncoderOptions{Job: job, Source: "test", Log: quiet()})
		if err == nil {
			_ = e.Close(t.Context())
		}
		return err == nil
	})
	e, err := OpenEncoder(t.Context(), Config{URL: url, Node: "index", Domain: "hub"}, EncoderOptions{Job: job, Source: "test", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) }) // once more where the test has closed it
	return e
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// until waits for what must come.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	wait(t, what, func() error {
		if done() {
			return nil
		}
		return errors.New("never")
	})
}

// index does what the runner does: it sends images until each has a result that is right. Each result is told to stored.
func index(t *testing.T, e *Encoder, images [][]byte, stored func(bulk.Result)) map[string]bulk.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	waiting := map[string][]byte{}
	for _, image := range images {
		waiting[bulk.Key(image, e.Digest())] = image
	}
	want, got := len(waiting), map[string]bulk.Result{}
	var mu sync.Mutex
	var receiving sync.WaitGroup
	done := make(chan struct{})
	receiving.Go(func() {
		for {
			select {
			case r := <-e.Results():
				mu.Lock()
				if image := waiting[r.Key]; image != nil {
					if r.Error == "" && !slices.Equal(r.Vector, vectorOf(image)) {
						t.Errorf("%s has a vector that is not its own", r.Key)
					}
					got[r.Key] = r
					delete(waiting, r.Key)
				}
				if stored != nil {
					stored(r)
				}
				mu.Unlock()
				r.Stored()
			case <-done:
				return
			}
		}
	})
	defer receiving.Wait()
	defer close(done)
	for {
		mu.Lock()
		again := make(map[string][]byte, len(waiting))
		for key, image := range waiting {
			again[key] = image
		}
		mu.Unlock()
		if len(again) == 0 {
			break
		}
		for key, image := range again {
			if err := e.Send(ctx, key, image); err != nil {
				t.Error(err)
				return got
			}
		}
		for idle := false; !idle; {
			var err error
			if idle, err = e.Idle(ctx); err != nil {
				mu.Lock()
				t.Errorf("%d of %d images have a result: %v", len(got), want, err)
				mu.Unlock()
				return got
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return got
}

func testImages(n int) (images [][]byte) {
	for i := range n {
		images = append(images, fmt.Appendf(nil, "image %d %s", i, strings.Repeat("x", i%500)))
	}
	return images
}

func TestBulk(t *testing.T) {
	b := startBroker(t, broker.Config{})
	workers := []*bulkWorker{newWorker(t, Config{URL: b.URL(), Node: "a"}), newWorker(t, Config{URL: b.URL(), Node: "b"})}
	for _, w := range workers {
		w.patience = time.Minute // none is given out twice, however slow this is
		begin(t, w.run)
	}
	images := testImages(2000)
	large := bytes.Repeat([]byte("large"), 300<<10)
	images = append(images, large, []byte("bad image"))
	e := openTestEncoder(t, b.URL(), "j1")
	if e.Model() != "test" || e.Digest() != testDigest {
		t.Errorf("%s %s", e.Model(), e.Digest())
	}
	until(t, "both are at work", func() bool {
		c, err := e.js.Consumer(t.Context(), BulkStream, consumerPrefix+bulk.Short(testDigest))
		return err == nil && c.CachedInfo().NumWaiting >= 2
	})
	got := index(t, e, images, nil)
	for key, r := range got {
		if (r.Error != "") != (key == bulk.Key([]byte("bad image"), testDigest)) {
			t.Errorf("%+v", r)
		}
	}
	if n := workers[0].counts.encoded.Load() + workers[1].counts.encoded.Load(); n != 2001 {
		t.Errorf("%d images were encoded, of 2001", n)
	}
	for _, w := range workers {
		if w.counts.encoded.Load() < 200 {
			t.Error("a worker had next to nothing to do")
		}
	}
	// Nothing is left with the broker but the dead letter and the job.
	store, err := e.js.ObjectStore(t.Context(), InputStore)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := store.List(t.Context()); !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Errorf("%v, %v", list, err)
	}
	letters, err := e.DeadLetters(t.Context(), "j1", 10)
	if err != nil || len(letters) != 1 || letters[0].Key != bulk.Key([]byte("bad image"), testDigest) || !strings.HasPrefix(letters[0].Reason, "invalid_image: ") {
		t.Errorf("%+v, %v", letters, err)
	}
	e.Tell(2002, true)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	jobs, err := workers[0].Jobs(t.Context())
	if err != nil || len(jobs) != 1 || jobs[0].Done != 2002 || jobs[0].Failed != 1 || jobs[0].State != "done" || jobs[0].Source != "test" {
		t.Errorf("%+v, %v", jobs, err)
	}
}

// A worker that fails at all images leaves them to others: it tries few of them.
func TestBulkFailingWorker(t *testing.T) {
	b := startBroker(t, broker.Config{})
	w := newWorker(t, Config{URL: b.URL(), Node: "a"})
	w.again = 400 * time.Millisecond
	w.embed = func(context.Context, []byte) ([]float32, error) { return nil, errors.New("broken") }
	begin(t, w.run)
	e := openTestEncoder(t, b.URL(), "j")
	begun := time.Now()
	for _, image := range testImages(200) {
		if err := e.Send(t.Context(), bulk.Key(image, testDigest), image); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "it has begun", func() bool { return w.counts.returned.Load() > 0 })
	pause(t.Context(), time.Second)
	n := w.counts.returned.Load()
	if took := time.Since(begun); n > uint64(w.atOnce)*uint64(2+took/w.again) {
		t.Errorf("%d images in %v", n, took)
	}
}

// Workers that prepare images in another way than others get none of theirs; while both are there, who indexes is told.
func TestBulkOtherPreparation(t *testing.T) {
	b := startBroker(t, broker.Config{})
	usual, other := newWorker(t, Config{URL: b.URL(), Node: "a"}), newWorker(t, Config{URL: b.URL(), Node: "b"})
	other.digest = bulk.Prepared(testDigest, "pad-exact-go")
	other.embed = func(context.Context, []byte) ([]float32, error) {
		t.Error("it gets an image")
		return nil, errors.New("none of its own")
	}
	begin(t, usual.run)
	e := openTestEncoder(t, b.URL(), "j")
	begin(t, other.run)
	open := func(job string) error {
		e, err := OpenEncoder(t.Context(), Config{URL: b.URL(), Node: "index", Domain: "hub"}, EncoderOptions{Job: job, Model: "test", Log: quiet()})
		if err == nil {
			_ = e.Close(t.Context())
		}
		return err
	}
	wait(t, "both are seen", func() error {
		if err := open("k"); err == nil || !strings.Contains(err.Error(), "pad-exact-go") {
			return fmt.Errorf("opening says %w", cmp.Or(err, errors.New("nothing")))
		}
		return nil
	})
	if got := index(t, e, testImages(100), nil); len(got) != 100 {
		t.Errorf("%d results", len(got))
	}
}

// Images that were made smaller are encoded under the keys of those that they are of, and apart from others; one that is not what its message
// says is refused.
func TestBulkPrepared(t *testing.T) {
	b := startBroker(t, broker.Config{})
	w := newWorker(t, Config{URL: b.URL(), Node: "a"})
	begin(t, w.run)
	plain := openTestEncoder(t, b.URL(), "plain")
	e, err := OpenEncoder(t.Context(), Config{URL: b.URL(), Node: "index", Domain: "hub"}, EncoderOptions{
		Job: "j", Log: quiet(), Prepared: func(digest string) string { return bulk.Resized(digest, 256, "turbo") },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close(context.Background()) }()
	key := bulk.Key([]byte("a large image"), e.Digest())
	if e.Digest() == plain.Digest() || key == bulk.Key([]byte("a large image"), plain.Digest()) {
		t.Fatal("it is the encoder of whole images")
	}
	for _, c := range []struct {
		e     *Encoder
		key   string
		image string
	}{{e, key, "a small one"}, {e, bulk.Key([]byte("bad and large"), e.Digest()), "bad and small"}, {plain, bulk.Key([]byte("other"), plain.Digest()), "other"}} {
		if err := c.e.Send(t.Context(), c.key, []byte(c.image)); err != nil {
			t.Fatal(err)
		}
		r := <-c.e.Results()
		if r.Key != c.key || strings.HasPrefix(c.image, "bad") != (r.Error != "") || r.Error == "" && !slices.Equal(r.Vector, vectorOf([]byte(c.image))) {
			t.Errorf("%s: %+v", c.image, r)
		}
		r.Stored()
	}
	for content, key := range map[string]string{contentOf([]byte("another")): key, "": key, "x": key} { // without one, the key has to be its own
		m := nats.NewMsg(bulkSubject + bulk.Short(testDigest) + ".j.0")
		m.Header.Set(headerKey, key)
		m.Header.Set(headerModel, testDigest)
		m.Header.Set(headerContent, content)
		m.Data = []byte("a small one")
		before := w.counts.dead.Load()
		if _, err := w.publish(t.Context(), m, "id "+content, nil); err != nil {
			t.Fatal(err)
		}
		until(t, "it is refused", func() bool { return w.counts.dead.Load() > before })
	}
}

// What a process has not stored the next process of the job gets, without the images being encoded again.
func TestBulkAfterARestart(t *testing.T) {
	b := startBroker(t, broker.Config{})
	w := newWorker(t, Config{URL: b.URL(), Node: "a"})
	w.patience = time.Minute // none is given out twice, however slow this is
	begin(t, w.run)
	first := openTestEncoder(t, b.URL(), "j")
	images := testImages(50)
	for _, image := range images {
		if err := first.Send(t.Context(), bulk.Key(image, testDigest), image); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all are encoded", func() bool { return w.counts.encoded.Load() == 50 })
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, open := <-first.Results(); open {
		t.Error("a closed encoder has results")
	}
	second := openTestEncoder(t, b.URL(), "j")
	if got := index(t, second, images, nil); len(got) != 50 {
		t.Errorf("%d results", len(got))
	}
	if n := w.counts.encoded.Load(); n != 50 {
		t.Errorf("%d images were encoded", n)
	}
}

// A broker that stops goes on where it was; one that comes back empty gets everything again.
func TestBulkWithoutABroker(t *testing.T) {
	for _, empty := range []bool{false, true} {
		t.Run(fmt.Sprint("empty ", empty), func(t *testing.T) {
			dir := t.TempDir()
			b := startBroker(t, broker.Config{Dir: dir})
			way := newWay(t, b)
			w := newWorker(t, Config{URL: way.url(), Node: "a"})
			begin(t, w.run)
			e := openTestEncoder(t, way.url(), "j")
			var stored atomic.Int64
			lose := make(chan struct{})
			stop := sync.OnceFunc(func() { close(lose) })
			again := make(chan *broker.Broker, 1)
			go func() {
				<-lose
				way.close(b)
				if empty {
					entries, _ := os.ReadDir(dir)
					for _, entry := range entries {
						_ = os.RemoveAll(filepath.Join(dir, entry.Name()))
					}
				}
				b, err := broker.Start(broker.Config{Port: -1, Dir: dir, MaxStore: brokerRoom})
				if err != nil {
					t.Error(err)
				}
				if err == nil {
					way.lead(b)
				}
				again <- b
			}()
			got := index(t, e, testImages(3000), func(bulk.Result) {
				if stored.Add(1) == 1000 {
					stop()
				}
			})
			if len(got) != 3000 {
				t.Errorf("%d results", len(got))
			}
			stop() // also where there were not so many
			if b := <-again; b != nil {
				b.Close()
			}
		})
	}
}

// An image that no node can encode is given out five times, and is an error then.
func TestBulkDead(t *testing.T) {
	for _, listening := range []bool{true, false} {
		t.Run(fmt.Sprint("listening ", listening), func(t *testing.T) {
			b := startBroker(t, broker.Config{})
			w := newWorker(t, Config{URL: b.URL(), Node: "a"})
			begin(t, w.run)
			n := &Node{Conn: dial(t, Config{URL: b.URL(), Node: "n"})}
			if listening {
				begin(t, n.buryDead)
			}
			e := openTestEncoder(t, b.URL(), "j")
			images := append(testImages(20), []byte("lost"), []byte("panic"))
			got := index(t, e, images, nil)
			for _, bad := range images[20:] {
				if r := got[bulk.Key(bad, testDigest)]; r.Error != "no node could encode it in 5 tries" {
					t.Errorf("%+v", r)
				}
			}
			if letters, err := e.DeadLetters(t.Context(), "", 10); err != nil || len(letters) != 2 {
				t.Errorf("%+v, %v", letters, err)
			}
			if n := w.counts.redelivered.Load(); n != 8 {
				t.Errorf("%d given out again", n)
			}
		})
	}
}

// The queue has a limit; who sends waits for the workers, and nothing is lost.
func TestBulkFull(t *testing.T) {
	b := startBroker(t, broker.Config{})
	w := newWorker(t, Config{URL: b.URL(), Node: "a"})
	if err := w.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	stream, err := w.js.Stream(t.Context(), BulkStream)
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.MaxBytes = 16 << 10
	if _, err := w.js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.consumer(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := openTestEncoder(t, b.URL(), "j")
	var begun sync.WaitGroup
	begun.Go(func() {
		until(t, "the queue is full", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return !e.full.IsZero()
		})
		begin(t, w.run)
	})
	if got := index(t, e, testImages(400), nil); len(got) != 400 {
		t.Errorf("%d results", len(got))
	}
	begun.Wait()
}

// A message whose image is not that of its key makes no row, and ends.
func TestBulkWrongImage(t *testing.T) {
	b := startBroker(t, broker.Config{})
	w := newWorker(t, Config{URL: b.URL(), Node: "a"})
	begin(t, w.run)
	e := openTestEncoder(t, b.URL(), "j")
	if err := e.Send(t.Context(), bulk.Key([]byte("one"), testDigest), []byte("another")); err != nil {
		t.Fatal(err)
	}
	until(t, "the message has ended", func() bool {
		idle, err := e.Idle(t.Context())
		return idle && err == nil
	})
	if letters, err := e.DeadLetters(t.Context(), "j", 10); err != nil || len(letters) != 1 || w.counts.encoded.Load() != 0 {
		t.Errorf("%+v, %v", letters, err)
	}
}

// A worker that stops gives back what it has not begun, and others have it at once.
func TestBulkWorkerStops(t *testing.T) {
	b := startBroker(t, broker.Config{})
	slow := newWorker(t, Config{URL: b.URL(), Node: "slow"})
	slow.embed = func(ctx context.Context, _ []byte) ([]float32, error) { <-ctx.Done(); return nil, context.Cause(ctx) }
	stop := begin(t, slow.run)
	e := openTestEncoder(t, b.URL(), "j")
	var begun sync.WaitGroup
	begun.Go(func() {
		until(t, "it is busy", func() bool { return slow.counts.inFlight.Load() == 4 })
		stop()
		begin(t, newWorker(t, Config{URL: b.URL(), Node: "fast"}).run)
	})
	if got := index(t, e, testImages(30), nil); len(got) != 30 { // in less than ackWait, or the time is over
		t.Errorf("%d results", len(got))
	}
	begun.Wait()
}
