package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet/broker"
)

// Of the dead letters the last are told, the newest first, and only once read while there are no others.
func TestDeadLetters(t *testing.T) {
	b := startBroker(t, broker.Config{})
	n := &Node{Conn: dial(t, Config{URL: b.URL(), Node: "a"})}
	if letters, err := n.Job(t.Context(), "j1", 3); letters != nil || err != nil {
		t.Error(letters, err)
	}
	must(t, n.Setup(t.Context()))
	if letters, err := n.DeadLetters(t.Context(), "", 3); letters != nil || err != nil {
		t.Error(letters, err)
	}
	for i := range 30 {
		n.bury(t.Context(), DeadLetter{Key: fmt.Sprint(i), Job: fmt.Sprint("j", i%2), Reason: "none", Tries: 5}, fmt.Sprint(i))
	}
	// What is none changes nothing.
	for _, junk := range []string{"", "{", `{"job":"j1"}`} {
		must1(n.js.Publish(t.Context(), deadSubject+"j0", []byte(junk)))
	}
	keysOf := func(letters []DeadLetter) (keys []string) {
		for _, l := range letters {
			keys = append(keys, l.Key)
		}
		return keys
	}
	for job, want := range map[string][]string{"j1": {"29", "27", "25"}, "j0": {"28", "26", "24"}, "other": nil} {
		letters, err := n.DeadLetters(t.Context(), job, 3)
		if err != nil || !slices.Equal(keysOf(letters), want) {
			t.Errorf("%s: %v, %v", job, letters, err)
		}
	}
	letters, err := n.DeadLetters(t.Context(), "", 5) // with what is none among them
	if err != nil || !slices.Equal(keysOf(letters), []string{"29", "28"}) {
		t.Error(letters, err)
	}
	var s Status
	for range 2 {
		if err := n.reportDead(t.Context(), &s); err != nil || !slices.Equal(keysOf(s.Dead), []string{"29", "28"}) {
			t.Error(s.Dead, err)
		}
	}
	n.bury(t.Context(), DeadLetter{Key: "new", Job: "j"}, "new")
	if err := n.reportDead(t.Context(), &s); err != nil || s.Dead[0].Key != "new" {
		t.Error(s.Dead, err)
	}
	noConsumers(t, n.Conn)
}

// noConsumers: what is only read leaves nothing behind.
func noConsumers(t *testing.T, c *Conn) {
	t.Helper()
	for _, name := range []string{DeadStream, "KV_" + JobBucket} {
		stream := must1(c.js.Stream(t.Context(), name))
		if n := stream.CachedInfo().State.Consumers; n > 0 {
			t.Errorf("%s has %d consumers", name, n)
		}
	}
}

// Whoever fills the bucket of jobs, or that of letters, costs others no more than a bounded amount, and hides nothing without a word.
func TestReadingIsBounded(t *testing.T) {
	b := startBroker(t, broker.Config{})
	c := dial(t, Config{URL: b.URL(), Node: "a"})
	// As a former version has made them: of values of any size.
	for _, s := range stores {
		if s.Name == DeadStream || s.Name == "KV_"+JobBucket {
			s.MaxMsgSize = -1
			must1(c.js.CreateStream(t.Context(), s))
		}
	}
	must(t, c.Setup(t.Context()))
	good := must1(json.Marshal(job{JobStatus: JobStatus{Job: "good", State: "running", Changed: time.Now()}}))
	must1(c.js.Publish(t.Context(), "$KV."+JobBucket+".good", good))
	must1(c.js.Publish(t.Context(), "$KV."+JobBucket+".other", good)) // a job of another name
	must1(c.js.Publish(t.Context(), "$KV."+JobBucket+".large", append([]byte(`{"job":"large","source":"`), append(bytes.Repeat([]byte("x"), maxJob), `"}`...)...)))
	jobs, err := c.Jobs(t.Context())
	if err != nil || len(jobs) != 1 || jobs[0].Job != "good" || jobs[0].State != "running" {
		t.Errorf("%+v, %v", jobs, err)
	}
	huge := bytes.Repeat([]byte("x"), 900<<10)
	for i := range 6 {
		must1(c.js.Publish(t.Context(), fmt.Sprint("$KV.", JobBucket, ".huge", i), huge))
		must1(c.js.Publish(t.Context(), deadSubject+"j", huge))
	}
	if jobs, err = c.Jobs(t.Context()); !errors.Is(err, errReadEnough) || len(jobs) != 1 {
		t.Errorf("%+v, %v", jobs, err)
	}
	if _, err := c.DeadLetters(t.Context(), "j", 3); !errors.Is(err, errReadEnough) {
		t.Error(err)
	}
	noConsumers(t, c)
	for i := range 6 {
		must(t, must1(c.js.KeyValue(t.Context(), JobBucket)).Delete(t.Context(), fmt.Sprint("huge", i)))
	}
	var acks []jetstream.PubAckFuture
	for i := range mostRead {
		acks = append(acks, must1(c.js.PublishAsync(fmt.Sprint("$KV.", JobBucket, ".many", i), []byte("{}"))))
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			t.Fatal(err)
		}
	}
	read := 0
	err = c.read(t.Context(), "KV_"+JobBucket, "$KV."+JobBucket+".>", 1, func(jetstream.Msg) { read++ })
	if !errors.Is(err, errReadEnough) || read != mostRead {
		t.Error(read, err)
	}
}
