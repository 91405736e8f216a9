package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/bulk"
	"hailoclip/api/fleet/broker"
	"hailoclip/api/fleet/members"
)

// restricted is a broker with TLS and keys that somebody else has set up: its node "index" may not publish to some subjects. It returns
// where the credentials of the nodes index and w are.
func restricted(t *testing.T, maxPayload int32, deny ...string) (index, w string) {
	t.Helper()
	dir := members.Dir(t.TempDir())
	authority := must1(dir.Authority())
	certificate := must1(authority.Issue([]string{"127.0.0.1"}, time.Hour))
	o := &server.Options{
		ServerName: "theirs", Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: filepath.Join(string(dir), "store"), JetStreamDomain: "hub",
		NoSigs: true, MaxPayload: maxPayload, JetStreamMaxStore: 64 << 30, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*certificate}},
	}
	must(t, dir.SetAddress("tls://127.0.0.1:1", ""))
	var files []string
	for _, node := range []string{"index", "w"} {
		own := must1(dir.Add(node, false, "tls://127.0.0.1:1"))
		publish, subscribe := members.Node{Name: node}.Permissions("hub")
		user := &server.NkeyUser{Nkey: must1(own.Public()), Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
			Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
		}}
		if node == "index" {
			user.Permissions.Publish.Deny = deny
		}
		o.Nkeys = append(o.Nkeys, user)
		files = append(files, write(t, own))
	}
	s := must1(server.NewServer(o))
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	waitFor(t, func() bool { return s.ReadyForConnections(time.Second) })
	url := strings.Replace(s.ClientURL(), "nats://", "tls://", 1)
	for i, file := range files {
		c, _, err := members.ReadFile(file)
		must(t, err)
		c.URL = url
		files[i] = write(t, c)
	}
	return files[0], files[1]
}

// startWorker has a node encode what is indexed, with a connection of its own.
func startWorker(t *testing.T, cfg Config) *bulkWorker {
	w := newWorker(t, cfg)
	begin(t, w.run)
	waitFor(t, func() bool {
		found, err := w.Encoders(t.Context())
		return err == nil && len(found) == 1
	})
	return w
}

// ends indexes until that is refused for good.
func ends(t *testing.T, cfg Config, image []byte, meanwhile func()) (err error) {
	t.Helper()
	cfg.Domain = "hub"
	e, err := OpenEncoder(within(t), cfg, EncoderOptions{Job: "j", Source: "test", Log: quiet()})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close(context.Background()) }()
	go func() {
		for range e.Results() {
		}
	}()
	if meanwhile != nil {
		meanwhile()
	}
	ctx := within(t)
	if err := e.Send(ctx, bulk.Key(image, e.Digest()), image); err != nil {
		return err
	}
	for {
		if idle, err := e.Idle(ctx); err != nil {
			return err
		} else if idle {
			return errors.New("it is idle")
		}
	}
}

// What the broker refuses for good ends an index, with an error that says what and what to do.
func TestRefusedIndexEnds(t *testing.T) {
	small, large := []byte("image"), bytes.Repeat([]byte("large"), 300<<10)
	for name, c := range map[string]struct {
		deny       string
		maxPayload int32
		image      []byte
		says       []string
	}{
		"images":       {"clip.v1.bulk.>", 8 << 20, small, []string{`Publish to "clip.v1.bulk.`, "add-node"}},
		"large images": {"$O.clip_in.>", 8 << 20, large, []string{`Publish to "$O.clip_in.C.`, "add-node"}},
		"results":      {"$JS.API.CONSUMER.MSG.NEXT.CLIP_RES.>", 8 << 20, small, []string{`Publish to "$JS.API.CONSUMER.MSG.NEXT.CLIP_RES.`, "add-node"}},
		"setup":        {"$JS.API.STREAM.INFO.KV_clip_jobs", 8 << 20, small, []string{"KV_clip_jobs", `Publish to "$JS.API.STREAM.INFO.KV_clip_jobs`, "add-node"}},
		"payload":      {"none", 64 << 10, bytes.Repeat([]byte("image"), 20<<10), []string{"at most 65536 bytes", "max_payload"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			index, w := restricted(t, c.maxPayload, c.deny)
			startWorker(t, Config{Credentials: w})
			err := ends(t, Config{Credentials: index}, c.image, nil)
			if !permanent(err) {
				t.Fatal(err)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v, wanted %s", err, text)
				}
			}
		})
	}
}

// A worker whose results are refused takes no more images; the log is told once, and the status until it is mended.
func TestRefusedWorkerStops(t *testing.T) {
	cannot, can := restricted(t, 8<<20, "clip.v1.res.>")
	var log lines
	c, err := Dial(Config{Credentials: cannot, Domain: "hub"}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	n := &Node{Conn: c}
	t.Cleanup(c.Close)
	w := newWorker(t, Config{Credentials: can})
	w.Conn = c
	runs := 0
	begin(t, func(ctx context.Context) error {
		n.repeat(ctx, task{"bulk", func(ctx context.Context) error { runs++; return w.run(ctx) }})
		return nil
	})
	other := dial(t, Config{Credentials: can})
	waitFor(t, func() bool {
		found, err := other.Encoders(t.Context())
		return err == nil && len(found) == 1
	})
	e, err := OpenEncoder(within(t), Config{Credentials: can, Domain: "hub"}, EncoderOptions{Job: "j", Log: quiet()})
	must(t, err)
	defer e.Close(context.Background())
	image := []byte("image")
	must(t, e.Send(within(t), bulk.Key(image, testDigest), image))
	waitFor(t, func() bool { return len(n.faults.list()) > 0 })
	status := n.newStatus(t.Context())
	if all := strings.Join(status.Faults, "\n"); !strings.Contains(all, `bulk: fleet: an image of an index cannot be dealt with: the broker refuses: `) ||
		!strings.Contains(all, `Publish to "clip.v1.res.j.`) || !strings.Contains(all, "add-node") {
		t.Error(all)
	}
	for range 3 { // again and again
		n.trouble.warn("task "+n.faults.all["bulk"].error.Error(), "a part of the fleet's work is begun again")
	}
	if n := strings.Count(log.text(), "begun again"); n != 1 {
		t.Errorf("the log is told %d times:\n%s", n, log.text())
	}
	if n := strings.Count(log.text(), "level=WARN"); n > 2 {
		t.Errorf("%d warnings:\n%s", n, log.text())
	}
}

// A stream of a fleet's name that is somebody else's is neither used nor waited for.
func TestForeignStreamIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		stream jetstream.StreamConfig
		says   string
	}{
		"subjects":  {jetstream.StreamConfig{Name: BulkStream, Subjects: []string{"theirs.>"}, Retention: jetstream.WorkQueuePolicy}, `CLIP_BULK: the stream is not one of a fleet: it does not take clip.v1.bulk.>, but ["theirs.>"]`},
		"retention": {jetstream.StreamConfig{Name: BulkStream, Subjects: []string{bulkSubject + ">"}}, "its retention is Limits, not WorkQueue"},
		"overlap":   {jetstream.StreamConfig{Name: "theirs", Subjects: []string{"clip.>"}}, "CLIP_DEAD: nats: API error: code=400 err_code=10065"},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, broker.Config{})
			conn := dial(t, Config{URL: b.URL(), Node: "a"})
			must1(conn.js.CreateStream(t.Context(), c.stream))
			err := conn.Setup(t.Context())
			if !permanent(err) || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
			if err := ends(t, Config{URL: b.URL(), Node: "index"}, []byte("image"), nil); !permanent(err) {
				t.Error(err)
			}
		})
	}
}

// A node that is removed while it indexes ends, and a service of it goes on and says why.
func TestRemovedNodeEndsItsIndex(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{})
	startWorker(t, Config{Credentials: credentials(t, dir, "w")})
	index := Config{Credentials: credentials(t, dir, "index")}
	service := &Node{Conn: join(t, dir, "service")}
	begin(t, func(ctx context.Context) error {
		service.repeat(ctx, task{"setup", service.setUpAlways})
		return nil
	})
	err := ends(t, index, []byte("image"), func() {
		must(t, dir.Remove("index"))
		must(t, dir.Remove("service"))
	})
	for _, text := range []string{"the broker does not know the key of this node", "hailo-clip fleet add-node index"} {
		if !permanent(err) || !errors.Is(err, ErrNoBroker) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, wanted %s", err, text)
		}
	}
	waitFor(t, func() bool {
		return strings.Contains(fmt.Sprint(service.newStatus(t.Context()).Faults), "hailo-clip fleet add-node service")
	})
}

// Errors that pass are waited for, also where the broker refuses other things.
func TestPassingErrors(t *testing.T) {
	c := &Conn{}
	c.refused.note(fmt.Errorf(`%w: Permissions Violation for Publish to "$JS.API.STREAM.DELETE.%s"`, nats.ErrPermissionViolation, ResultStream))
	for _, err := range []error{
		context.DeadlineExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled, ErrNoBroker, jetstream.ErrNoHeartbeat,
		&jetstream.APIError{Code: 503, ErrorCode: 10008}, &jetstream.APIError{Code: 400, ErrorCode: codeNoStore}, &jetstream.APIError{ErrorCode: codeNoPeers},
	} {
		if permanent(c.verdict(err, BulkStream)) || permanent(c.unwelcome(err)) {
			t.Error(err)
		}
	}
	if err := ErrNoBroker; permanent(c.verdict(err, ResultStream)) {
		t.Error("what was asked on a connection that is lost is refused for good")
	}
}

// However many subjects are refused, as of texts each is, the next one is known.
func TestManyRefusals(t *testing.T) {
	var r refusals
	for i := range 10 * mostRefusals {
		subject := fmt.Sprint("$KV.clip_text.", i)
		r.note(fmt.Errorf(`%w: Permissions Violation for Publish to "%s"`, nats.ErrPermissionViolation, subject))
		if r.of("none", []string{subject}) == "" || len(r.all) > mostRefusals {
			t.Fatalf("%s: %d are known", subject, len(r.all))
		}
	}
}

// What a broker has refused ends with the connection, before what was asked on it does: nothing of it is held against the next one.
func TestRefusalsEndWithTheConnection(t *testing.T) {
	way := newWay(t, startBroker(t, broker.Config{}))
	c := dial(t, Config{URL: way.url(), Node: "a"})
	until(t, "the connection is known", func() bool { return c.connections.Load() == 1 })
	c.refused.note(fmt.Errorf(`%w: Permissions Violation for Publish to "%s0"`, nats.ErrPermissionViolation, resultSubject))
	c.shut.Store(&shut{&permanentError{ErrNoBroker, "nothing"}, time.Now().Add(-time.Hour)})
	left := make(chan []string)
	context.AfterFunc(c.life.now.Load().ctx, func() { left <- c.refused.list(1) })
	way.lead(nil) // so that nobody connects again
	way.cut()
	if all := <-left; len(all) > 0 {
		t.Error(all)
	}
	if err := c.shutOut(refusedFor); err != nil || c.Connected() {
		t.Error(err)
	}
}
