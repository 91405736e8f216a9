package fleet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"hailoclip/api/fleet/broker"
)

// TestMain looks for what is left behind, but by the broker, which is no part of the program: it can leave the goroutines of a stream that
// was being made when it ended. Storing an object leaves one of nats.go's where that ends before the goroutine has begun.
func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	const object = "github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(server+".(*fileStore).flushStreamStateLoop"), goleak.IgnoreTopFunction(server+"/ats.Register.func1"),
		goleak.IgnoreTopFunction(object))
}

// brokerRoom is what the broker of a test may keep, whatever the disk has left when it starts.
const brokerRoom = 64 << 30

// startBroker starts a broker on any port; the test ends it.
func startBroker(t *testing.T, c broker.Config) *broker.Broker {
	t.Helper()
	if c.Port == 0 {
		c.Port = -1
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.MaxStore = cmp.Or(c.MaxStore, brokerRoom)
	b, err := broker.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// dial connects a node; the test closes it.
func dial(t *testing.T, cfg Config) *Conn {
	t.Helper()
	if cfg.Domain == "" {
		cfg.Domain = "hub"
	}
	c, err := Dial(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.Await(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSetupMakesWhatIsMissing(t *testing.T) {
	b := startBroker(t, broker.Config{})
	c := dial(t, Config{URL: b.URL(), Node: "a"})
	ctx := t.Context()
	if err := c.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		if _, err := find(ctx, c.js, s); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	bulk, err := c.js.Stream(ctx, BulkStream)
	if err != nil {
		t.Fatal(err)
	}
	got := bulk.CachedInfo().Config
	if got.MaxBytes > streamBytes || got.MaxBytes < leastBytes || got.Discard != jetstream.DiscardNew ||
		got.Retention != jetstream.WorkQueuePolicy || got.Replicas != 1 || got.Storage != jetstream.FileStorage {
		t.Errorf("%+v", got)
	}
}

func TestSetupLeavesWhatAnOperatorChanged(t *testing.T) {
	b := startBroker(t, broker.Config{})
	c := dial(t, Config{URL: b.URL(), Node: "a"})
	ctx := t.Context()
	if err := c.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	bulk, err := c.js.Stream(ctx, BulkStream)
	if err != nil {
		t.Fatal(err)
	}
	wanted := bulk.CachedInfo().Config
	wanted.MaxBytes, wanted.MaxAge = 123<<20, time.Hour
	if _, err := c.js.UpdateStream(ctx, wanted); err != nil {
		t.Fatal(err)
	}
	if _, err := c.js.Publish(ctx, bulkSubject+"d.j.0", []byte("x")); err != nil {
		t.Fatal(err)
	}
	other := dial(t, Config{URL: b.URL(), Node: "b"})
	if err := other.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	info, err := bulk.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.Config.MaxBytes != 123<<20 || info.Config.MaxAge != time.Hour || info.State.Msgs != 1 {
		t.Errorf("%+v", info)
	}
}

// A broker with little room gets smaller streams, not none.
func TestSetupFitsTheStore(t *testing.T) {
	b := startBroker(t, broker.Config{MaxStore: 1 << 30})
	c := dial(t, Config{URL: b.URL(), Node: "a"})
	if err := c.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A large stream whose node was lost before it had given it its size gets that from the next one, and keeps it.
func TestSetupGoesOnWithWhatGrows(t *testing.T) {
	for _, room := range []int64{0, 1 << 30} {
		b := startBroker(t, broker.Config{MaxStore: room})
		c := dial(t, Config{URL: b.URL(), Node: "a"})
		for _, s := range stores {
			if s.MaxBytes == streamBytes {
				s.MaxBytes, s.Metadata = leastBytes, map[string]string{metaGrows: "true"}
				must1(c.js.CreateStream(t.Context(), s))
			}
		}
		must(t, c.Setup(t.Context()))
		for _, name := range []string{BulkStream, ResultStream, "OBJ_" + InputStore} {
			got := must1(c.js.Stream(t.Context(), name)).CachedInfo().Config
			if got.Metadata[metaGrows] != "" || room == 0 && got.MaxBytes != streamBytes || got.MaxBytes < 2*leastBytes || got.MaxBytes > streamBytes {
				t.Errorf("%s of %d: %d, %v", name, room, got.MaxBytes, got.Metadata)
			}
		}
	}
}

// Many nodes that start at once do not stand in each other's way.
func TestSetupByManyAtOnce(t *testing.T) {
	b := startBroker(t, broker.Config{})
	failed := make(chan error)
	const nodes = 8
	for range nodes {
		c := dial(t, Config{URL: b.URL(), Node: "a"})
		go func() { failed <- c.Setup(t.Context()) }()
	}
	for range nodes {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

// A broker that came back without its folder gets everything again, without anybody's asking.
func TestSetupAgainOnAnEmptyBroker(t *testing.T) {
	first := startBroker(t, broker.Config{})
	way := newWay(t, first)
	c := dial(t, Config{URL: way.url(), Node: "a"})
	n := &Node{Conn: c}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var last error
		n.repeat(ctx, task{"setup", func(ctx context.Context) error { // as Run has it: a broker that is just starting may not answer yet
			last = n.setUpAlways(ctx)
			return last
		}})
		done <- last
	}()
	there := func() bool {
		asking, end := c.ask(ctx, 0)
		_, err := c.js.ObjectStore(asking, ModelStore) // the last one
		end(&err)
		return err == nil
	}
	waitFor(t, there)
	way.close(first)
	way.lead(startBroker(t, broker.Config{}))
	waitFor(t, there)
	stop()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) { // it may have been about to hear of the last one
		t.Error(err)
	}
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	until(t, "what is waited for", holds)
}

// TestSetupInAnyRoom: whatever room a broker has, each stream gets some of it.
func TestSetupInAnyRoom(t *testing.T) {
	for room := int64(1 << 30); room < 8<<30; room += 61 << 20 { // the large ones fit, or not, or just so
		b := startBroker(t, broker.Config{MaxStore: room})
		if err := dial(t, Config{URL: b.URL(), Node: "a"}).ready(t.Context()); err != nil {
			t.Errorf("%d MiB: %v", room>>20, err)
		}
		b.Close()
	}
}
