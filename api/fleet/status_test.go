package fleet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hailoclip/api/fleet/broker"
)

func TestStatusOfNoFleet(t *testing.T) {
	var n *Node
	if s := n.Status(t.Context()); s.Enabled || s.Broker != nil || s.Nodes != nil {
		t.Errorf("%+v", s)
	}
}

// TestStatusTellsQueues: what waits, what is kept, and the connection.
func TestStatusTellsQueues(t *testing.T) {
	b := startBroker(t, broker.Config{})
	n := &Node{Conn: dial(t, Config{URL: b.URL(), Node: "a", Site: "home"})}
	if err := n.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := n.js.Publish(t.Context(), "clip.v1.dead.x", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	var s Status
	if err := n.reportQueues(t.Context(), &s); err != nil || len(s.Queues) != 3 {
		t.Fatalf("%+v %v", s.Queues, err)
	}
	if q := s.Queues[2]; q.Stream != DeadStream || q.Messages != 3 || q.Pending != 3 || q.Bytes == 0 || q.Limit <= 0 {
		t.Errorf("%+v", q)
	}
	c := n.brokerStatus(t.Context())
	if !c.Connected || c.URL != b.URL() || c.Version == "" || c.MaxPayload != 8<<20 || c.TLS || c.RTTMS <= 0 || c.LastError != "" {
		t.Errorf("%+v", c)
	}
}

// TestStatusWithoutBroker returns at once, and says why there is little.
func TestStatusWithoutBroker(t *testing.T) {
	b := startBroker(t, broker.Config{})
	n := &Node{Conn: dial(t, Config{URL: b.URL(), Node: "a"})}
	b.Close()
	until(t, "it is lost", func() bool { return !n.Connected() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := Status{}
	if err := n.reportQueues(ctx, &s); !errors.Is(err, ErrNoBroker) {
		t.Error(err)
	}
	if c := n.brokerStatus(ctx); c.Connected || c.URL != b.URL() || ctx.Err() != nil {
		t.Errorf("%+v", c)
	}
}

// TestExamine hears nodes that tell of themselves, two of one name as two, and nothing that is no load.
func TestExamine(t *testing.T) {
	b := startBroker(t, broker.Config{})
	c := dial(t, Config{URL: b.URL(), Node: "a"})
	if err := c.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	end, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			for _, l := range []string{`"instance":"1"`, `"instance":"2"`, `"rate":-1`} {
				text := `{"node":"a","version":"v","model":"m","digests":["d"],"health":"healthy","unix_ms":1,` + l + `}`
				_ = c.nc.Publish(loadSubject+"a", []byte(text))
				_ = c.nc.Publish(loadSubject+"b", []byte(text)) // which is not what the subject says
			}
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	defer func() { close(end); <-stopped }()
	var e *Examination
	until(t, "both are heard in time", func() (heard bool) {
		var err error
		e, err = Examine(t.Context(), Config{URL: b.URL(), Domain: "hub"})
		must(t, err)
		return len(e.Heard) >= 2
	})
	if len(e.Heard) != 2 || e.Heard[0].Instance != "1" || e.Heard[1].Node != "a" || e.Heard[0].Clock > -24*time.Hour {
		t.Fatalf("%+v", e)
	}
	if !e.ClockKnown || e.Clock.Abs() > time.Minute || len(e.Queues) != 3 || e.Broker.Version == "" {
		t.Errorf("%+v", e)
	}
}

func TestExamineNoBroker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := Examine(ctx, Config{URL: "nats://127.0.0.1:1"}); e != nil || !errors.Is(err, ErrNoBroker) {
		t.Errorf("%+v %v", e, err)
	}
}

func TestCredentialsArePrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a")
	c := Config{Credentials: file}
	if c.CheckCredentials() == nil {
		t.Error("there is no such file")
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false} {
		if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, nil, mode), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckCredentials(); (err == nil) != ok {
			t.Errorf("%s: %v", mode, err)
		}
	}
}
