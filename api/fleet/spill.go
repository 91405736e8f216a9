package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// Limits of the images that are under way to other nodes, and that are encoded for them.
const (
	maxAway      = 256
	maxTaken     = 256
	maxBytes     = 64 << 20
	maxTries     = 2
	headerBytes  = 1 << 10 // of a message beside the image, at most
	leastTry     = 100 * time.Millisecond
	longestTry   = 10 * time.Second
	unitDistance = 1e-3 // of the squared length of a vector from 1
)

// spill hands images to other nodes: see clip.Elsewhere, which it is. Safe for concurrent use.
type spill struct {
	node  *Node
	want  want
	away  *limiter // what is under way to others, by caller
	taken *limiter // what is encoded for others, by node
	count spillCounts
}

func newSpill(n *Node) *spill {
	e := n.parts.Engine
	return &spill{
		node: n, want: want{n.Config.Site, e.ImageDigest(), e.Preparation()},
		away: newLimiter(maxAway, maxBytes), taken: newLimiter(maxTaken, maxBytes),
	}
}

// Takes implements clip.Elsewhere.
func (s *spill) Takes(from fair.Caller) bool {
	p := &s.node.peers
	return p.until.Load() != 0 && p.any(time.Now(), s.want) && s.away.takes(from.Address)
}

// Embed implements clip.Elsewhere. What a node does not answer in time, or refuses, another one is asked for, once.
func (s *spill) Embed(ctx context.Context, from fair.Caller, image []byte, here clip.Load) (vector []float32, ok bool) {
	if int64(len(image))+headerBytes > s.node.maxPayload.Load() {
		s.count.fail(failTooLarge)
		return nil, false
	}
	var own []byte // which a message that is stuck may keep for longer than the caller may
	but := ""
	for range maxTries {
		if !s.away.enter(from.Address, len(image)) {
			s.count.fail(failLimit)
			return nil, false
		}
		to, ok := s.node.peers.take(time.Now(), s.want, here, but)
		if !ok {
			s.away.leave(from.Address, len(image))
			return nil, false
		}
		if own == nil {
			own = bytes.Clone(image)
		}
		vector, why := s.ask(ctx, from.Address, to, own)
		if why == "" {
			s.count.sent.Add(1)
			return vector, true
		}
		if s.count.fail(why); ctx.Err() != nil || why == failImage || why == failModel {
			return nil, false
		}
		but = to.node
	}
	return nil, false
}

// ask sends an image to a node, and waits for its vector for three times as long as that is expected to take, or until ctx ends.
func (s *spill) ask(ctx context.Context, from string, to choice, image []byte) (vector []float32, why string) {
	limit := max(min(3*to.expected, longestTry), leastTry)
	own := true // the limit is not that of the caller
	if end, ok := ctx.Deadline(); ok {
		if left := time.Until(end); left < limit {
			limit, own = left, false
		}
	}
	try, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		vector []float32
		why    string
	}
	came := make(chan answer, 1)
	go func() { // a message may be stuck on its way out for longer than there is time
		defer s.away.leave(from, len(image))
		a := answer{why: failOther}
		defer func() {
			_ = recover() // of a message that cannot be read
			came <- a
		}()
		a.vector, a.why = s.request(try, to.node, limit, image)
	}()
	a := answer{why: failTimeout}
	select {
	case a = <-came:
	case <-try.Done():
		select {
		case a = <-came:
		default:
		}
	}
	silent := a.why == failNobody || a.why == failBusy || a.why == failStopping || a.why == failTimeout && own && ctx.Err() == nil
	s.node.peers.done(to.node, silent)
	return a.vector, a.why
}

// request sends the image and reads the answer.
func (s *spill) request(ctx context.Context, node string, limit time.Duration, image []byte) (vector []float32, why string) {
	m := nats.NewMsg(encodeSubject + node + ".image")
	m.Data = image
	m.Header.Set(headerDeadline, strconv.FormatInt(max(limit.Milliseconds(), 1), 10))
	m.Header.Set(headerModel, s.want.digest)
	m.Header.Set(headerPrep, s.want.prep)
	m.Header.Set(headerNode, s.node.Config.Node)
	asking, end := s.node.ask(ctx, 0)
	reply, err := s.node.nc.RequestMsgWithContext(asking, m)
	end(&err)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, failNobody
	case ctx.Err() != nil:
		return nil, failTimeout
	case err != nil:
		return nil, failConnection
	}
	if code := reply.Header.Get(headerError); code != "" {
		return nil, refusal(code)
	}
	vector, err = parseVector(reply.Data, s.node.parts.Engine.Dimension())
	if err != nil {
		return nil, failVector
	}
	return vector, ""
}

// parseVector reads a vector of unit length.
func parseVector(b []byte, dimension int) ([]float32, error) {
	if len(b) != 4*dimension {
		return nil, fmt.Errorf("%d bytes, want %d", len(b), 4*dimension)
	}
	vector, square := readVector(b)
	if !(math.Abs(square-1) <= unitDistance) { // NaN, too
		return nil, fmt.Errorf("the squared length is %v, not 1", square)
	}
	return vector, nil
}
