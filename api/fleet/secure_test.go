package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet/broker"
	"hailoclip/api/fleet/members"
	"hailoclip/cache/sets"
)

// secureBroker starts a broker that asks for TLS and keys.
func secureBroker(t *testing.T, c broker.Config) (*broker.Broker, members.Dir) {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Secure = true
	return startBroker(t, c), members.Dir(c.Dir)
}

// join makes credentials of a node and connects with them.
func join(t *testing.T, dir members.Dir, node string) *Conn {
	t.Helper()
	return dial(t, Config{Credentials: credentials(t, dir, node)})
}

func credentials(t *testing.T, dir members.Dir, node string) string {
	t.Helper()
	own, err := dir.Add(node, false, "")
	if err != nil {
		t.Fatal(err)
	}
	return write(t, own)
}

func write(t *testing.T, c members.Credentials) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := members.WriteSecret(path, c.Text()); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused dials and waits until the broker, or the client itself, has refused the connection for a reason.
func refused(t *testing.T, cfg Config, reason string) {
	t.Helper()
	var log lines
	c, err := Dial(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("%v, wanted %s", err, reason)
		}
		return
	}
	defer c.Close()
	waitFor(t, func() bool { return log.has(reason) })
	if c.Connected() {
		t.Error("it is connected")
	}
}

func TestSecureFleetWorks(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	a, b := join(t, dir, "a"), join(t, dir, "b")
	ctx := t.Context()
	if err := a.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	everyKindOfUse(t, a, b)
}

// everyKindOfUse does with two nodes all that the parts of a fleet do with the broker.
func everyKindOfUse(t *testing.T, a, b *Conn) {
	t.Helper()
	ctx := t.Context()
	loads, err := b.nc.SubscribeSync(loadSubject + "*")
	must(t, err)
	answers, err := b.nc.Subscribe(encodeSubject+b.Config.Node+".image", func(m *nats.Msg) { _ = m.Respond([]byte("vector")) })
	must(t, err)
	must(t, b.nc.Flush())
	// Behind a leaf the interest takes a moment to arrive.
	waitFor(t, func() bool {
		must(t, a.nc.Publish(loadSubject+a.Config.Node, []byte("load")))
		_, err := loads.NextMsg(50 * time.Millisecond)
		return err == nil
	})
	waitFor(t, func() bool {
		m, err := a.nc.Request(encodeSubject+b.Config.Node+".image", []byte("image"), time.Second)
		return err == nil && string(m.Data) == "vector"
	})
	must(t, answers.Unsubscribe())

	consumer, err := b.js.CreateOrUpdateConsumer(ctx, BulkStream, jetstream.ConsumerConfig{Durable: "npu-d", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	_, err = a.js.Publish(ctx, bulkSubject+"d.job.0", []byte("image"), jetstream.WithMsgID(a.Config.Node))
	must(t, err)
	message, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
	must(t, err)
	must(t, message.Ack())
	waitFor(t, func() bool {
		info, err := consumer.Info(ctx)
		return err == nil && info.NumAckPending == 0 && info.NumPending == 0
	})
	_, err = b.js.Publish(ctx, resultSubject+"job.0", []byte("vector"))
	must(t, err)
	results, err := a.js.OrderedConsumer(ctx, ResultStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{resultSubject + "job.>"}})
	must(t, err)
	_, err = results.Next(jetstream.FetchMaxWait(5 * time.Second))
	must(t, err)

	bucketOfA, err := a.js.KeyValue(ctx, SetBucket)
	must(t, err)
	bucketOfB, err := b.js.KeyValue(ctx, SetBucket)
	must(t, err)
	watch, err := bucketOfB.WatchAll(ctx)
	must(t, err)
	revision, err := bucketOfA.Create(ctx, "door", []byte("1"))
	must(t, err)
	_, err = bucketOfA.Update(ctx, "door", []byte("2"), revision)
	must(t, err)
	waitFor(t, func() bool {
		entry := <-watch.Updates()
		return entry != nil && string(entry.Value()) == "2"
	})
	must(t, watch.Stop())
	must(t, bucketOfB.Delete(ctx, "door"))
	if err := bucketOfB.Purge(ctx, "door"); !is(err, 10111) { // a message that removes others
		t.Error(err)
	}

	store, err := a.js.ObjectStore(ctx, InputStore)
	must(t, err)
	large := bytes.Repeat([]byte("x"), 300<<10)
	_, err = store.PutBytes(ctx, "k", large)
	must(t, err)
	other, err := b.js.ObjectStore(ctx, InputStore)
	must(t, err)
	got, err := other.GetBytes(ctx, "k")
	must(t, err)
	if !bytes.Equal(got, large) {
		t.Error("the object is another")
	}
	must(t, other.Delete(ctx, "k"))
}

func must(t *testing.T, err error) {
	if err != nil {
		t.Helper()
		t.Fatalf("%v\n%s", err, debug.Stack())
	}
}

func TestSecureBrokerRefuses(t *testing.T) {
	b, dir := secureBroker(t, broker.Config{})
	mine, err := dir.Add("a", false, "")
	must(t, err)
	_, elsewhere := secureBroker(t, broker.Config{})
	foreign, err := elsewhere.Add("a", false, b.URL())
	must(t, err)

	refused(t, Config{Credentials: write(t, foreign)}, "certificate signed by unknown authority")
	stolen := mine
	stolen.Seed = foreign.Seed
	refused(t, Config{Credentials: write(t, stolen)}, "Authorization Violation")
	plain := strings.Replace(b.URL(), "tls://", "nats://", 1)
	refused(t, Config{URL: plain, Node: "a"}, "certificate") // the client takes TLS when asked to, and knows no authority
	refused(t, Config{URL: plain, Credentials: write(t, mine)}, "with credentials it must be tls://")
	refused(t, Config{Credentials: write(t, mine), Node: "other"}, "are those of a")

	withoutKey, err := nats.Connect(b.URL(), nats.Secure(mine.TLS()))
	if err == nil {
		withoutKey.Close()
		t.Error("a client without a key is let in")
	}
	old := mine.TLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if nc, err := nats.Connect(b.URL(), nats.Secure(old), nats.Nkey(must1(mine.Public()), mine.Sign)); err == nil {
		nc.Close()
		t.Error("TLS 1.2 is let in")
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A client with credentials does not speak with a broker that has no TLS.
func TestCredentialsAreNotUsedWithoutTLS(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	plain := startBroker(t, broker.Config{})
	own, err := dir.Add("a", false, strings.Replace(plain.URL(), "nats://", "tls://", 1))
	must(t, err)
	refused(t, Config{Credentials: write(t, own)}, "nkeys not supported by the server")
}

func TestRemovedNodeIsCut(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	a, b := join(t, dir, "a"), join(t, dir, "b")
	must(t, dir.Remove("a"))
	waitFor(t, func() bool { return !a.Connected() })
	if !b.Connected() || b.connections.Load() != 1 {
		t.Error("the other node lost its connection, too")
	}
	// A new node of the same name has another key.
	again := join(t, dir, "a")
	must(t, again.nc.Flush())
	if a.Connected() {
		t.Error("the key of the removed node is good again")
	}
}

// A node can neither tell the load of another, nor take its requests, nor read its answers, nor destroy what is kept.
func TestNodesCannotBeImpersonated(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	path := credentials(t, dir, "mallory")
	dialed := func() (*Conn, *lines) { // a log has only so many warnings
		var log lines
		c, err := Dial(Config{Credentials: path, Domain: "hub"}, slog.New(slog.NewTextHandler(&log, nil)))
		must(t, err)
		t.Cleanup(c.Close)
		must(t, c.Await(within(t)))
		return c, &log
	}
	c, log := dialed()
	must(t, c.Setup(within(t)))
	for _, subject := range []string{
		loadSubject + "a", "clip.v1.event.a", "_INBOX.a.x", "$JS.hub.API.STREAM.DELETE.CLIP_BULK",
		"$JS.hub.API.STREAM.CREATE.other", "$JS.hub.API.STREAM.SNAPSHOT.KV_clip_sets", "$SYS.REQ.SERVER.PING", "other",
	} {
		must(t, c.nc.Publish(subject, nil))
		subject = strings.Replace(subject, "$JS.hub.", "$JS.", 1) // the server looks at what the domain stands for
		waitFor(t, func() bool { return log.has(`Publish to \"` + subject + `\"`) })
	}
	must(t, c.nc.Publish(loadSubject+"mallory", nil))
	c, log = dialed()
	for _, subject := range []string{
		encodeSubject + "a.image", encodeSubject + ">", "clip.v1.status.a", "_INBOX.>", "_INBOX.a.>", bulkSubject + ">", resultSubject + ">", ">",
	} {
		_, err := c.nc.SubscribeSync(subject)
		must(t, err)
		waitFor(t, func() bool { return log.has(`Subscription to \"` + subject + `\"`) })
	}
}

// Nodes cannot empty, change or take apart what others keep, as far as they need not.
func TestNodesCannotDestroy(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	c := join(t, dir, "mallory")
	must(t, c.Setup(within(t)))
	var subjects []string
	for _, s := range members.Stores {
		for _, verb := range []string{"DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN", "PEER.REMOVE"} {
			subjects = append(subjects, "STREAM."+verb+"."+s)
		}
		if !strings.HasPrefix(s, "OBJ_") {
			subjects = append(subjects, "STREAM.PURGE."+s)
		}
		if s != BulkStream {
			subjects = append(subjects, "STREAM.MSG.DELETE."+s)
		}
		if !slices.Contains([]string{BulkStream, ResultStream, "OBJ_" + InputStore}, s) {
			subjects = append(subjects, "STREAM.UPDATE."+s)
		}
		subjects = append(subjects, "CONSUMER.PAUSE."+s+".x", "CONSUMER.LEADER.STEPDOWN."+s+".x", "CONSUMER.RESET."+s+".x", "CONSUMER.UNPIN."+s+".x")
	}
	subjects = append(subjects, "CONSUMER.DELETE."+BulkStream+".npu-x", "INFO", "STREAM.LIST", "ACCOUNT.PURGE.x", "META.LEADER.STEPDOWN")
	var all []string
	for _, s := range subjects {
		all = append(all, "$JS.API."+s)
	}
	for _, subject := range append(all, "$JS.ACK.KV_clip_sets.x.1.1.1.1.1") {
		must(t, c.nc.Publish(subject, nil))
		waitFor(t, func() bool { return c.refused.of("none", []string{subject}) != "" })
	}
}

// A node with keys makes smaller streams where there is little room, too.
func TestSecureSetupFitsTheStore(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{MaxStore: 1 << 30})
	c := join(t, dir, "a")
	must(t, c.Setup(within(t)))
	must(t, c.Setup(within(t)))
	if refused := c.refused.list(10); len(refused) > 0 {
		t.Error(refused)
	}
}

// All that indexing takes is permitted: small and large images, those that are none, and those that no node could encode.
func TestSecureBulk(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	w := startWorker(t, Config{Credentials: credentials(t, dir, "w")})
	begin(t, (&Node{Conn: join(t, dir, "n")}).buryDead)
	e, err := OpenEncoder(within(t), Config{Credentials: credentials(t, dir, "index"), Domain: "hub"}, EncoderOptions{Job: "j", Source: "test", Log: quiet()})
	must(t, err)
	images := append(testImages(100), bytes.Repeat([]byte("large"), 300<<10), []byte("bad image"), []byte("lost"))
	if got := index(t, e, images, nil); len(got) != len(images) {
		t.Errorf("%d results", len(got))
	}
	must(t, e.Close(t.Context()))
	state, err := w.Job(t.Context(), "j", 10)
	must(t, err)
	if len(state.Letters) != 2 || state.Queued != 0 || state.Unstored != 0 || state.Done != int64(len(images)) {
		t.Errorf("%+v", state)
	}
	must1(w.Jobs(t.Context()))
	var s Status
	must(t, (&Node{Conn: w.Conn}).reportQueues(t.Context(), &s))
	if refused := w.refused.list(10); len(refused) > 0 {
		t.Error(refused)
	}
}

// within is a context with time enough.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) has(text string) bool { return strings.Contains(l.text(), text) }

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

func TestReadableCredentialsAreWarnedOf(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	path := credentials(t, dir, "a")
	must(t, os.Chmod(path, 0o644))
	var log lines
	c, err := Dial(Config{Credentials: path}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	c.Close()
	if !log.has("chmod 600") {
		t.Error("there is no warning")
	}
}

// A broker that is away is told once, whatever the number of attempts.
func TestAbsentBrokerIsToldOnce(t *testing.T) {
	b := startBroker(t, broker.Config{})
	url := b.URL()
	b.Close()
	var log lines
	c, err := Dial(Config{URL: url, Node: "a"}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	defer c.Close()
	waitFor(t, func() bool { return c.nc.Stats().Reconnects == 0 && log.has("works alone") })
	c.nc.ForceReconnect()
	c.nc.ForceReconnect()
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// Nothing in a message of the configuration or of Dial is a password.
func TestPasswordsAreNotRepeated(t *testing.T) {
	var faults []string
	Config{URL: "nats://user:s3cret@broker:4222"}.Check(func(field, format string, args ...any) {
		faults = append(faults, field)
		for _, a := range args {
			if s, ok := a.(string); ok && strings.Contains(s, "s3cret") {
				t.Error(s)
			}
		}
	})
	if len(faults) != 1 {
		t.Error(faults)
	}
}

// All that Setup makes is what nodes may use, and nothing else.
func TestPermissionsNameTheStores(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	c := join(t, dir, "a")
	must(t, c.Setup(within(t)))
	var made []string
	for name := range c.js.StreamNames(t.Context()).Name() {
		made = append(made, name)
	}
	wanted := slices.Clone(members.Stores)
	slices.Sort(wanted)
	slices.Sort(made)
	if !slices.Equal(made, wanted) {
		t.Errorf("Setup makes %s, members.Stores are %s", made, wanted)
	}
}

// TestSharedSet: who is no node, and has a node's credentials, gets a set that is shared, a large one and a deleted one, too.
func TestSharedSet(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	a := &setStore{conn: join(t, dir, "a")}
	looks := Config{Credentials: credentials(t, dir, "b"), Domain: a.conn.Config.Domain}
	long := labelled("cat")
	for i := range 40 {
		long.Labels[0].Prompts = append(long.Labels[0].Prompts, strings.Repeat("long ", 2000)+string(rune('A'+i)))
	}
	for name, d := range map[string]sets.Definition{"pets": labelled("cat", "dog"), "x.": long} {
		must(t, a.Put(t.Context(), sets.Record{Name: name, Definition: d}, 0))
		got, ok, err := SharedSet(t.Context(), looks, name, quiet())
		if err != nil || !ok || !reflect.DeepEqual(got, d.Normalized()) {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	_, revision, err := a.Get(t.Context(), "pets")
	must(t, err)
	must(t, a.Delete(t.Context(), "pets", revision))
	for _, name := range []string{"pets", "none", "", "*", "a b", ">"} {
		if _, ok, err := SharedSet(t.Context(), looks, name, quiet()); ok || err != nil {
			t.Errorf("%q: %v, %v", name, ok, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, ok, err := SharedSet(ended, Config{URL: "nats://127.0.0.1:1", Node: "b"}, "pets", quiet()); ok || !errors.Is(err, ErrNoBroker) {
		t.Errorf("without a broker: %v, %v", ok, err)
	}
}
