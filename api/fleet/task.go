package fleet

import (
	"context"
	"errors"
	"time"
)

// task is a part of a node's work, which goes on until ctx ends.
type task struct {
	name string
	run  func(ctx context.Context) error
}

// tasks are those that the configuration wants.
func (n *Node) tasks() (all []task) {
	all = append(all, task{"setup", n.setUpAlways}, task{"membership", n.beMember})
	if n.shares() {
		all = append(all, task{"prompt sets", n.followSets}, task{"vectors of texts", n.texts.give})
	}
	if n.places() {
		all = append(all, task{"cameras", n.placeCameras})
	}
	if n.Config.Bulk {
		all = append(all, task{"bulk", n.encodeBulk}, task{"dead", n.buryDead})
	}
	if n.spill != nil {
		all = append(all, task{"spill", n.passImages})
	}
	return all
}

// repeat runs a task again, a second later, whenever it has failed.
func (n *Node) repeat(ctx context.Context, t task) {
	for ctx.Err() == nil {
		if err := n.Await(ctx); err != nil {
			return
		}
		if err := t.run(ctx); err != nil && !errors.Is(err, ErrNoBroker) && ctx.Err() == nil {
			n.log.Warn("a part of the fleet's work is begun again", "task", t.name, "error", err)
		}
		pause(ctx, time.Second)
	}
}
