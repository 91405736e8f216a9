package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Vectors of texts travel as float32: in float16 a cosine is off by 3e-5 and a probability by 4e-4, and who shares texts would not
// answer to the last digit as who has encoded them (TestHalfPrecision).
const (
	textLook   = 15 * time.Millisecond // between two looks while another node encodes
	textOff    = 5 * time.Second       // for which the broker, or other nodes, are not waited for after they were too slow
	textQueue  = 1024                  // batches that wait to be given
	textAtOnce = 16                    // messages under way

	maxTextMessage = 64 << 10
)

// Longer in tests, which may be slow.
var (
	textTime = 250 * time.Millisecond // for the broker to answer
	textWait = time.Second            // for another node that encodes the same texts
)

// What a message of TextBucket begins with: a vector follows, or the name of the node that encodes the text.
const (
	textClaim  = 0
	textVector = 1
)

// textStore is clip.SharedTexts on the broker. While that is away or slow, texts are as good as unknown.
type textStore struct {
	conn   *Conn
	queue  chan textBatch
	stream atomic.Pointer[jetstream.Stream] // nil: to be looked up

	off, impatient atomic.Int64 // Unix nanoseconds until when neither broker nor nodes are asked, or nodes not waited for

	hits, misses, given atomic.Uint64
}

type textBatch struct {
	subjects []string
	data     [][]byte
}

func newTextStore(c *Conn) *textStore {
	return &textStore{conn: c, queue: make(chan textBatch, textQueue)}
}

// textSubject is where the vector of a text lies: tokens are all that the encoder of the digest sees of it.
func textSubject(digest string, tokens []int32) string {
	b, _ := binary.Append(nil, binary.LittleEndian, tokens)
	of, text := sha256.Sum256([]byte(digest)), sha256.Sum256(b)
	return "$KV." + TextBucket + "." + hex.EncodeToString(of[:8]) + "." + hex.EncodeToString(text[:])
}

func textSubjects(digest string, texts [][]int32) []string {
	subjects := make([]string, len(texts))
	for i, tokens := range texts {
		subjects[i] = textSubject(digest, tokens)
	}
	return subjects
}

// Get implements clip.SharedTexts. Of nodes that miss the same texts at once the first encodes them: it has claimed the first of them.
// The others wait, but not long.
func (s *textStore) Get(ctx context.Context, digest string, texts [][]int32) [][]float32 {
	found := make([][]float32, len(texts))
	now := time.Now()
	if !s.conn.Connected() || len(texts) == 0 || now.UnixNano() < s.off.Load() {
		return found
	}
	subjects := textSubjects(digest, texts)
	claimed, err := s.read(ctx, subjects, found)
	first := firstMissing(found)
	if err == nil && first >= 0 && !claimed[first] {
		var ours bool
		ours, err = s.claim(ctx, subjects[first])
		claimed[first] = !ours
	}
	for err == nil && first >= 0 && claimed[first] && now.UnixNano() >= s.impatient.Load() {
		if time.Since(now) > textWait {
			s.impatient.Store(time.Now().Add(textOff).UnixNano())
			break
		}
		select {
		case <-ctx.Done():
			return found
		case <-time.After(textLook):
		}
		if claimed, err = s.read(ctx, subjects, found); firstMissing(found) != first {
			break // the first comes last
		}
	}
	if err != nil && ctx.Err() == nil {
		s.off.Store(time.Now().Add(textOff).UnixNano())
		s.stream.Store(nil)
	}
	for _, v := range found {
		if v == nil {
			s.misses.Add(1)
		} else {
			s.hits.Add(1)
		}
	}
	return found
}

func firstMissing(found [][]float32) int {
	for i, v := range found {
		if v == nil {
			return i
		}
	}
	return -1
}

// read fills in the vectors that are missing and known, and says which of the others another node has claimed.
func (s *textStore) read(ctx context.Context, subjects []string, found [][]float32) (claimed []bool, err error) {
	ctx, end := s.conn.ask(ctx, textTime)
	defer end(&err)
	stream := s.stream.Load()
	if stream == nil {
		opened, err := s.conn.js.Stream(ctx, "KV_"+TextBucket)
		if err != nil {
			return nil, err
		}
		stream = &opened
		s.stream.Store(stream)
	}
	claimed = make([]bool, len(subjects))
	var reading errgroup.Group
	reading.SetLimit(textAtOnce)
	for i, subject := range subjects {
		if found[i] != nil {
			continue
		}
		reading.Go(func() error {
			m, err := (*stream).GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return nil
			} else if err != nil {
				return err
			}
			found[i] = parseText(m.Data)
			claimed[i] = len(m.Data) > 1 && m.Data[0] == textClaim && string(m.Data[1:]) != s.conn.Config.Node
			return nil
		})
	}
	return claimed, reading.Wait()
}

// claim says to others that this node encodes a text, unless another one has said so before.
func (s *textStore) claim(ctx context.Context, subject string) (ours bool, err error) {
	ctx, end := s.conn.ask(ctx, textTime)
	defer end(&err)
	m := nats.NewMsg(subject)
	m.Data = append([]byte{textClaim}, s.conn.Config.Node...)
	_, err = s.conn.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(0))
	if is(err, jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return false, nil // or it is our own, of a text that could not be encoded then: the wait ends
	}
	return err == nil, err
}

// Put implements clip.SharedTexts. What finds no room in the queue is not given.
func (s *textStore) Put(digest string, texts [][]int32, vectors [][]float32) {
	if !s.conn.Connected() {
		return
	}
	b := textBatch{textSubjects(digest, texts), make([][]byte, len(vectors))}
	for i, v := range vectors {
		b.data[i] = formatText(v)
	}
	select {
	case s.queue <- b:
	default:
	}
}

// give is the task that gives the fleet what this node has encoded.
func (s *textStore) give(ctx context.Context) error {
	if err := s.conn.Setup(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-s.queue:
			if err := s.publish(ctx, b); err != nil && s.conn.Connected() {
				return err
			}
		}
	}
}

// publish gives a batch, the first of it last: who waits for that has all then.
func (s *textStore) publish(ctx context.Context, b textBatch) (err error) {
	ctx, end := s.conn.ask(ctx, askTime)
	defer end(&err)
	var giving errgroup.Group
	giving.SetLimit(textAtOnce)
	for i := 1; i < len(b.subjects); i++ {
		giving.Go(func() error { return s.publishOne(ctx, b.subjects[i], b.data[i]) })
	}
	err = giving.Wait()
	return errors.Join(err, s.publishOne(ctx, b.subjects[0], b.data[0]))
}

func (s *textStore) publishOne(ctx context.Context, subject string, data []byte) error {
	_, err := s.conn.js.Publish(ctx, subject, data)
	if err == nil {
		s.given.Add(1)
	}
	return err
}

func formatText(v []float32) []byte { return appendVector([]byte{textVector}, v) }

// parseText reads what formatText has made; nil for anything else, and for numbers that are no vector.
func parseText(b []byte) []float32 {
	if len(b) < 5 || len(b)%4 != 1 || b[0] != textVector {
		return nil
	}
	v, square := readVector(b[1:])
	if !(math.Abs(square-1) <= 1e-2) { // NaN, too
		return nil
	}
	return v
}
