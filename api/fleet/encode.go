package fleet

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
	"hailoclip/stages/clip"
)

// passImages has the engine hand images to other nodes, and encodes theirs, until ctx ends and what it has of theirs is answered.
func (n *Node) passImages(ctx context.Context) error {
	var serving sync.WaitGroup
	images, err := n.nc.Subscribe(encodeSubject+n.Config.Node+".image", func(m *nats.Msg) { n.spill.take(m, &serving) })
	if err != nil {
		return err
	}
	_ = images.SetPendingLimits(2*maxTaken, 2*maxBytes)
	n.parts.Engine.Spill(n.spill)
	<-ctx.Done()
	n.parts.Engine.Spill(nil)
	n.leaving.Store(true)
	_ = images.Unsubscribe() // fails when the connection is closed
	serving.Wait()
	return nil
}

// take has the engine encode the image of a message of another node's, or refuses it at once. It does not block.
func (s *spill) take(m *nats.Msg, serving *sync.WaitGroup) {
	limit, from, why := s.admit(m)
	if why != "" {
		s.refuse(m, why)
		return
	}
	serving.Go(func() {
		defer func() {
			if recover() != nil {
				s.refuse(m, failOther)
			}
		}()
		s.serve(m, limit, from)
	})
}

// admit reads the head of a message, and says why it is refused. If it is not, the image is in s.taken.
func (s *spill) admit(m *nats.Msg) (limit time.Duration, from fair.Caller, why string) {
	ms, err := strconv.ParseInt(m.Header.Get(headerDeadline), 10, 64)
	node := m.Header.Get(headerNode)
	from = fair.Caller{Address: "fleet/" + node}
	switch {
	case err != nil || ms < 1 || m.Reply == "" || len(m.Data) == 0 || !name.MatchString(node):
		return 0, from, failMalformed
	case m.Header.Get(headerModel) != s.want.digest || m.Header.Get(headerPrep) != s.want.prep:
		return 0, from, failModel
	case s.node.leaving.Load():
		return 0, from, failStopping
	case s.node.parts.Engine.State() == clip.Unhealthy:
		return 0, from, failEncode
	case s.node.parts.Engine.RefusesHere(from) != nil || !s.taken.enter(node, len(m.Data)):
		return 0, from, failBusy
	}
	return min(time.Duration(min(ms, longestTry.Milliseconds()))*time.Millisecond, longestTry), from, ""
}

// serve encodes the image here and answers with its vector.
func (s *spill) serve(m *nats.Msg, limit time.Duration, from fair.Caller) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	node, size := m.Header.Get(headerNode), len(m.Data)
	r := clip.Request{
		Image: m.Data, Lane: pipeline.Lane{Caller: from}, Release: func() { s.taken.leave(node, size) },
	}
	result, err := s.node.parts.Engine.EmbedHere(ctx, &r)
	if err != nil {
		s.refuse(m, reasonOf(err))
		return
	}
	s.count.taken.Add(1)
	_ = m.Respond(appendVector(make([]byte, 0, 4*len(result.Embedding)), result.Embedding)) // fails without a connection: nobody waits
}

// reasonOf is why the engine has no vector.
func reasonOf(err error) string {
	var panicked *pipeline.PanicError
	switch {
	case errors.Is(err, pipeline.ErrQueueFull):
		return failBusy
	case errors.Is(err, pipeline.ErrClosed), errors.Is(err, hailo.ErrClosed):
		return failStopping
	case errors.Is(err, pipeline.ErrDeadline):
		return failDeadline
	case errors.Is(err, hailo.ErrDeviceLost), errors.Is(err, hailo.ErrEncode), errors.As(err, &panicked):
		return failEncode
	}
	return failImage
}

// refuse answers a message without a vector.
func (s *spill) refuse(m *nats.Msg, why string) {
	s.count.refuse(why)
	if m.Reply == "" {
		return
	}
	answer := nats.NewMsg(m.Reply)
	answer.Header.Set(headerError, why)
	_ = s.node.nc.PublishMsg(answer) // as above
}
