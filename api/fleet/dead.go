package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is an image that no node could encode.
type DeadLetter struct {
	Key    string    `json:"key"`
	Job    string    `json:"job"`
	Reason string    `json:"reason"`
	Node   string    `json:"node"` // that tells of it
	Tries  int       `json:"tries"`
	Time   time.Time `json:"time"`
}

// deliveries is what the broker tells when an image was given out too often.
const deliveries = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + BulkStream + ".>"

// codeDead is of the result of an image that was given out too often.
const codeDead = "not_encoded"

// maxLetter is how many bytes a dead letter has at most.
const maxLetter = 16 << 10

// bury adds to the dead letters, at most once for an id within two minutes. What cannot be added is only logged: the result of the
// image says the same.
func (c *Conn) bury(ctx context.Context, d DeadLetter, id string) {
	d.Node, d.Time = c.Config.Node, time.Now().UTC()
	d.Reason = cut(d.Reason, longestError)
	d.Key = cut(d.Key, 64)
	data, err := json.Marshal(d)
	if err == nil {
		_, err = c.publish(ctx, &nats.Msg{Subject: deadSubject + d.Job, Header: nats.Header{}, Data: data}, id, nil)
	}
	if err != nil {
		c.trouble.warn("letter", "dead letters are lost", "key", d.Key, "reason", d.Reason, "error", err)
	}
}

// buryDead is the task that ends images which were given out too often: without it they would stay in the queue. Several nodes do
// it, each for some of them. What happens while none of them listens is found by who waits for the job, see Encoder.Idle.
func (n *Node) buryDead(ctx context.Context) error {
	if err := n.Setup(ctx); err != nil {
		return err
	}
	s, err := n.nc.QueueSubscribeSync(deliveries, "clip-dead")
	if err != nil {
		return err
	}
	defer func() { _ = s.Unsubscribe() }() // or the connection is closed
	for {
		m, err := s.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		var advisory struct {
			Stream   string `json:"stream"`
			Sequence uint64 `json:"stream_seq"`
			Tries    int    `json:"deliveries"`
		}
		if err := json.Unmarshal(m.Data, &advisory); err != nil || advisory.Stream != BulkStream {
			continue // not of the broker
		}
		switch buried, err := n.endImage(ctx, advisory.Sequence, advisory.Tries); {
		case err != nil:
			return err
		case buried:
			n.bulk.dead.Add(1)
		}
	}
}

// endImage takes an image out of the queue that no worker will be given again, after its result says so.
func (c *Conn) endImage(ctx context.Context, sequence uint64, tries int) (ended bool, err error) {
	asking, end := c.ask(ctx, 0)
	defer end(&err)
	stream, err := c.js.Stream(asking, BulkStream)
	if err != nil {
		return false, err
	}
	m, err := stream.GetMsg(asking, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil // another node was faster
	}
	if err != nil {
		return false, err
	}
	key, id := m.Header.Get(headerKey), m.Header.Get(nats.MsgIdHdr)
	reason := fmt.Sprintf("no node could encode it in %d tries", tries)
	job, shard, err := parseBulk(m.Subject)
	if err != nil {
		job, reason = "unknown", err.Error()
	} else if keys.MatchString(key) {
		result := newResult(job, shard, key, m.Header.Get(headerModel), nil, codeDead, reason)
		if _, err := c.publish(ctx, result, id+".dead", nil); err != nil {
			return false, err
		}
	}
	c.bury(ctx, DeadLetter{Key: key, Job: job, Reason: reason, Tries: tries}, id)
	if object := m.Header.Get(headerObject); object != "" {
		c.forget(ctx, object)
	}
	if err := stream.DeleteMsg(asking, sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, err
	}
	return true, nil
}

// recentDead is how many dead letters of all jobs are looked at for those of one.
const recentDead = 1000

// DeadLetters returns up to limit of the last dead letters of a job, the newest first; of all jobs for "". Of a job only those among the
// last of all jobs are found. It takes some seconds at most. Errors: those of the broker, and that the letters are too large to be read.
func (c *Conn) DeadLetters(ctx context.Context, job string, limit int) (list []DeadLetter, err error) {
	ctx, end := c.ask(ctx, 2*readTime)
	defer end(&err)
	stream, err := c.js.Stream(ctx, DeadStream)
	if err != nil {
		return nil, c.verdict(err, DeadStream)
	}
	return c.deadLetters(ctx, job, limit, stream.CachedInfo().State.LastSeq)
}

func (c *Conn) deadLetters(ctx context.Context, job string, limit int, last uint64) (list []DeadLetter, err error) {
	filter, most := deadSubject+">", uint64(max(limit, 0)) // nobody takes single ones out
	if job != "" {
		filter, most = deadSubject+job, recentDead
	}
	if last == 0 || limit < 1 {
		return nil, nil
	}
	err = c.read(ctx, DeadStream, filter, last-min(last, most)+1, func(m jetstream.Msg) {
		var d DeadLetter
		if len(m.Data()) <= maxLetter && json.Unmarshal(m.Data(), &d) == nil && deadSubject+d.Job == m.Subject() {
			list = append(list, d)
		}
	})
	list = list[max(len(list)-limit, 0):]
	slices.Reverse(list)
	return list, err
}

// statusLetters is how many dead letters a status has.
const statusLetters = 5

// knownLetters are those of the last status: they are read again only when there are others.
type knownLetters struct {
	created time.Time // the stream
	last    uint64
	list    []DeadLetter
}

// reportDead adds the last dead letters to a status. One status is made at a time.
func (n *Node) reportDead(ctx context.Context, s *Status) (err error) {
	ctx, end := n.ask(ctx, 0)
	defer end(&err)
	stream, err := n.js.Stream(ctx, DeadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	} else if err != nil {
		return n.verdict(err, DeadStream)
	}
	info, known := stream.CachedInfo(), &n.letters
	if info.State.LastSeq != known.last || !info.Created.Equal(known.created) {
		list, err := n.deadLetters(ctx, "", statusLetters, info.State.LastSeq)
		if err != nil {
			return err
		}
		*known = knownLetters{info.Created, info.State.LastSeq, list}
	}
	if info.State.Msgs > 0 {
		s.Dead = known.list
	}
	return nil
}
