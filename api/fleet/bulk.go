package fleet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/bulk"
)

// The bulk lane: an Encoder publishes images, workers take them as they have room, publish what came of them and only then
// acknowledge, and the Encoder takes that until its rows are stored. Each step is done at least once; the key says what an image
// is, so that doing it twice changes nothing.
const (
	shards        = 64        // of a job
	inlineImage   = 512 << 10 // bytes up to which an image is in its message, else it is an object
	maxDeliveries = 5         // of an image, then it is dead
	longestError  = 1 << 10   // bytes of the text of an error
	maxDimension  = 4096      // numbers of a vector
)

// LargestImage is how many bytes an image may have that is sent to the broker.
const LargestImage = 64 << 20

// keys are what bulk.Key makes.
var keys = regexp.MustCompile(`^[0-9a-f]{32}\.[0-9a-f]{8}\.p[0-9]{1,3}$`)

// contentOf is what a key says of the bytes of an image.
func contentOf(image []byte) string { return bulk.Key(image, "")[:32] }

// cut is the beginning of a text that anybody may have written, up to so many bytes of it.
func cut[T string | []byte](text T, most int) string {
	return strings.ToValidUTF8(string(text[:min(len(text), most)]), "?")
}

// shardOf is the part of a job that a key belongs to.
func shardOf(key string) string {
	n, _ := strconv.ParseUint(key[:2], 16, 8) // a key is checked before
	return strconv.FormatUint(n%shards, 10)
}

// parseBulk returns the job and the shard of a message's subject.
func parseBulk(subject string) (job, shard string, err error) {
	parts := strings.Split(strings.TrimPrefix(subject, bulkSubject), ".")
	if !strings.HasPrefix(subject, bulkSubject) || len(parts) != 3 || !name.MatchString(parts[1]) || !name.MatchString(parts[2]) {
		return "", "", fmt.Errorf("%q is no subject of an image", subject)
	}
	return parts[1], parts[2], nil
}

// newResult is the message that says what came of an image: a vector, or the code and the text of an error.
func newResult(job, shard, key, digest string, vector []float32, code, text string) *nats.Msg {
	m := nats.NewMsg(resultSubject + job + "." + shard)
	m.Header.Set(headerKey, key)
	m.Header.Set(headerModel, digest)
	if code != "" {
		m.Header.Set(headerError, code)
		text = strings.ToValidUTF8(text, "?")
		m.Data = []byte(strings.ToValidUTF8(text[:min(len(text), longestError)], ""))
		return m
	}
	m.Data = appendVector(make([]byte, 0, 4*len(vector)), vector)
	return m
}

// parseResult reads such a message, which may be anything. digest is that of the encoder that it has to be from, of that of its
// key.
func parseResult(header nats.Header, data []byte, digest, of string) (r bulk.Result, code string, err error) {
	r.Key, code = header.Get(headerKey), header.Get(headerError)
	switch {
	case !keys.MatchString(r.Key):
		return r, "", errors.New("a result without a key")
	case header.Get(headerModel) != digest || !strings.HasSuffix(r.Key, "."+bulk.Short(of)+"."+bulk.PrepVersion):
		return r, "", fmt.Errorf("a result of another encoder, %.80q", header.Get(headerModel))
	case code != "":
		text := cut(data, longestError)
		if r.Error = text; text == "" {
			r.Error = code
		}
		return r, code, nil
	case len(data) == 0 || len(data)%4 != 0 || len(data) > 4*maxDimension:
		return r, "", fmt.Errorf("a vector of %d bytes", len(data))
	}
	vector, square := readVector(data)
	if !(math.Abs(square-1) < 1e-2) { // NaN, too
		return r, "", fmt.Errorf("a vector of the squared length %v", square)
	}
	r.Vector = vector
	return r, "", nil
}

// publish stores a message in its stream, and tries until that has worked or ctx ends: while the broker is away, and while the
// stream has no room, which is how the broker holds back those who send too fast. Of two messages with one id within two minutes the
// broker keeps the first; duplicate says that this was the second. full is called whenever there is no room; it may be nil. Errors: the
// cause of ctx, and permanent ones.
func (c *Conn) publish(ctx context.Context, m *nats.Msg, id string, full func()) (duplicate bool, err error) {
	for tries, wait := 1, 20*time.Millisecond; ; tries, wait = tries+1, min(2*wait, time.Second) {
		try, end := c.ask(ctx, askTime)
		try, cancel := context.WithCancel(try)
		stop := c.refused.watch(cancel, m.Subject)
		ack, err := c.js.PublishMsg(try, m, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
		stop()
		cancel()
		end(&err)
		switch {
		case err == nil:
			return ack.Duplicate, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		}
		if err := c.tryAgain(ctx, err, tries, wait, full, m.Subject); err != nil {
			return false, err
		}
	}
}

// triesTold is after how many tries in vain the log is told.
const triesTold = 3

// tryAgain returns when something that has failed with err may be tried once more, which is about these subjects and streams. Errors: the
// cause of ctx, and permanent ones.
func (c *Conn) tryAgain(ctx context.Context, err error, tries int, wait time.Duration, full func(), about ...string) error {
	if err := c.verdict(err, about...); permanent(err) {
		return err
	}
	switch {
	case noRoom(err):
		if full != nil {
			full()
		}
	case c.Connected():
		if err := c.Setup(ctx); permanent(err) { // else a broker that came back empty; the next try tells
			return err
		}
		if tries >= triesTold {
			c.trouble.warn("again "+kind(about[0]), "the broker does not store a message: it is sent again until it does", "subject", about[0], "error", err)
		}
	}
	if !pause(ctx, wait) {
		return context.Cause(ctx)
	}
	return c.Await(ctx)
}

// Codes of the broker's errors when it stores a message.
const (
	codeNoStore  = 10077 // the stream's own limits: "maximum bytes exceeded"
	codeNoSpace  = 10023 // insufficient resources
	codeTooLarge = 10054 // message size exceeds maximum allowed
)

// noRoom says that the broker would take the message later.
func noRoom(err error) bool {
	return is(err, codeNoStore, codeNoSpace, codeNoRoom, codeNoRoomAccount)
}
