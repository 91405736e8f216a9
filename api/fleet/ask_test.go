package fleet

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"hailoclip/api/fleet/broker"
	"hailoclip/cache/sets"
)

// TestAskEndsWithTheConnection asks the broker for all kinds of things, which does not answer, and then cuts the connection: each
// call ends, though it may wait for an hour.
func TestAskEndsWithTheConnection(t *testing.T) {
	times := []*time.Duration{&askTime, &textTime, &textWait}
	for _, d := range times {
		was := *d
		*d = time.Hour
		t.Cleanup(func() { *d = was })
	}
	way := newWay(t, startBroker(t, broker.Config{}))
	c := dial(t, Config{URL: way.url(), Node: "a"})
	n := &Node{Conn: c}
	w := &bulkWorker{Conn: c, digest: testDigest, large: semaphore.NewWeighted(largeBytes)}
	e := &Encoder{Conn: c, encoder: Encoders{Digest: testDigest}, job: job{JobStatus: JobStatus{Job: "j"}}}
	own, texts := &setStore{conn: c}, newTextStore(c)
	s := &spill{node: n}
	until(t, "the connection is known", func() bool { return c.connections.Load() == 1 }) // else Setup asks again
	must(t, c.Setup(t.Context()))
	definition := []byte(`{"source":"rtsp://127.0.0.1/x","prompt_set":"s"}`)
	file := filepath.Join(t.TempDir(), "model")
	must(t, os.WriteFile(file, []byte("model"), 0o600))
	model := ModelFile{Name: "model", Bytes: 5, SHA256: strings.Repeat("0", 64), Path: file}
	none := func(string, int64, int64) {}
	calls := map[string]func(ctx context.Context) error{
		"Setup":        dial(t, c.Config).Setup,
		"Jobs":         func(ctx context.Context) error { _, err := c.Jobs(ctx); return err },
		"loadJob":      func(ctx context.Context) error { _, _, err := c.loadJob(ctx, "j"); return err },
		"saveJob":      func(ctx context.Context) error { _, err := c.saveJob(ctx, job{}, 0); return err },
		"Encoders":     func(ctx context.Context) error { _, err := c.Encoders(ctx); return err },
		"DeadLetters":  func(ctx context.Context) error { _, err := c.DeadLetters(ctx, "", 1); return err },
		"endImage":     func(ctx context.Context) error { _, err := c.endImage(ctx, 1, 1); return err },
		"queue":        func(ctx context.Context) error { _, err := n.queue(ctx, BulkStream); return err },
		"PutCamera":    func(ctx context.Context) error { return c.PutCamera(ctx, "x", definition) },
		"RemoveCamera": func(ctx context.Context) error { return c.RemoveCamera(ctx, "x") },
		"Cameras":      func(ctx context.Context) error { _, err := c.Cameras(ctx); return err },
		"refill":       func(ctx context.Context) error { return n.refill(ctx, map[string][]byte{"x": definition}) },
		"unmark":       func(ctx context.Context) error { return n.unmark(ctx, "x") },
		"ShareModel":   func(ctx context.Context) error { return c.ShareModel(ctx, "m", []ModelFile{model}, none) },
		"FetchModel": func(ctx context.Context) error {
			_, err := c.FetchModel(ctx, "m", t.TempDir(), func(string) bool { return true }, none)
			return err
		},
		"sets.Get":    func(ctx context.Context) error { _, _, err := own.Get(ctx, "s"); return err },
		"sets.Put":    func(ctx context.Context) error { return own.Put(ctx, sets.Record{Name: "s"}, 0) },
		"sets.Delete": func(ctx context.Context) error { return own.Delete(ctx, "s", 1) },
		"texts.read": func(ctx context.Context) error {
			_, err := texts.read(ctx, []string{"x"}, make([][]float32, 1))
			return err
		},
		"texts.claim": func(ctx context.Context) error { _, err := texts.claim(ctx, textSubject("d", []int32{1})); return err },
		"texts.publish": func(ctx context.Context) error {
			return texts.publish(ctx, textBatch{[]string{textSubject("d", []int32{2})}, [][]byte{{1}}})
		},
		"bucketCreated":   func(ctx context.Context) error { _, err := n.bucketCreated(ctx, SetBucket); return err },
		"watch":           func(ctx context.Context) error { return n.watch(ctx, SetBucket, nil, nil) },
		"idle":            func(ctx context.Context) error { _, err := e.idle(ctx); return err },
		"inherit":         func(ctx context.Context) error { _, err := e.inherit(ctx); return err },
		"resultsConsumer": func(ctx context.Context) error { _, err := e.resultsConsumer(ctx, 0); return err },
		"receiveSome":     e.receiveSome,
		"putInput":        func(ctx context.Context) error { return e.putInput(ctx, "x", []byte("image")) },
		"worker.consumer": func(ctx context.Context) error { _, err := w.consumer(ctx); return err },
		"worker.read": func(ctx context.Context) error {
			_, _, err := w.read(ctx, lentImage{})
			return err
		},
		"spill.request": func(ctx context.Context) error {
			if _, why := s.request(ctx, "b", time.Hour, []byte("image")); why != failConnection {
				return errors.New(why)
			}
			return ErrNoBroker
		},
	}
	way.swallow()
	type outcome struct {
		name string
		err  error
	}
	ended := make(chan outcome, len(calls))
	for name, call := range calls {
		go func() { ended <- outcome{name, call(t.Context())} }()
	}
	wait(t, "all have asked", func() error {
		select {
		case o := <-ended:
			t.Fatalf("%s has an answer: %v", o.name, o.err)
		default:
		}
		if n := way.published(); n < len(calls) {
			return fmt.Errorf("%d of %d", n, len(calls))
		}
		return nil
	})
	way.lead(nil) // so that nobody connects again
	way.cut()
	wait(t, "all have ended", func() error {
		select {
		case o := <-ended:
			if delete(calls, o.name); !errors.Is(o.err, ErrNoBroker) {
				t.Errorf("%s: %v", o.name, o.err)
			}
		default:
		}
		if len(calls) > 0 {
			return fmt.Errorf("still waiting: %v", calls)
		}
		return nil
	})
}

// lentImage is a message whose image is an object.
type lentImage struct{ jetstream.Msg }

func (lentImage) Headers() nats.Header { return nats.Header{headerObject: {"x"}} }

// TestAllAskByAsk looks for functions that ask the broker and do not end with the connection.
func TestAllAskByAsk(t *testing.T) {
	files, err := filepath.Glob("*.go")
	must(t, err)
	under := []string{"Dial", "object", "putObject", "dropObject", "publishOne"} // of which nothing is asked, or by whose caller
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, err)
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || slices.Contains(under, f.Name.Name) {
				continue
			}
			uses, asks := false, false
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					uses = uses || s.Sel.Name == "js" || strings.HasPrefix(s.Sel.Name, "RequestMsg")
					asks = asks || s.Sel.Name == "ask" || s.Sel.Name == "begin"
				}
				return true
			})
			if uses && !asks {
				t.Errorf("%s: %s asks the broker without Conn.ask", file, f.Name.Name)
			}
			if uses {
				found++
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d functions were found that ask the broker", found)
	}
}

func TestReconnectDelay(t *testing.T) {
	last := time.Duration(0)
	for try, most := range map[int]time.Duration{0: 500, 1: 500, 2: 1000, 3: 2000, 1000: 2000} {
		different := false
		for range 100 {
			d := reconnectDelay(try)
			if d < most*time.Millisecond/2 || d > most*time.Millisecond {
				t.Errorf("try %d: %v", try, d)
			}
			different, last = different || d != last, d
		}
		if !different {
			t.Errorf("try %d: all nodes come at once", try)
		}
	}
}
