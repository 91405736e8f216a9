package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
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

// Times after which a task that has failed is run again.
const (
	taskAgain     = time.Second
	taskPermanent = 10 * time.Second
	taskFault     = 3 * taskPermanent // for which a permanent error is reported, as long as it does not come again
)

// repeat runs a task again whenever it has failed. The log is told once of what fails again and again.
func (n *Node) repeat(ctx context.Context, t task) {
	for ctx.Err() == nil {
		err, again := n.Await(ctx), taskAgain
		if err == nil {
			err = t.run(ctx)
		}
		if err != nil && ctx.Err() == nil && (permanent(err) || !errors.Is(err, ErrNoBroker)) {
			key := "task " + t.name + err.Error()
			if permanent(err) {
				again, key = taskPermanent, "task "+err.Error() // it may be that of all tasks
				n.faults.note(t.name, err)
			}
			n.trouble.warn(key, "a part of the fleet's work is begun again", "task", t.name, "error", err)
		}
		pause(ctx, again)
	}
}

// taskFaults are the permanent errors of tasks. Safe for concurrent use.
type taskFaults struct {
	mu  sync.Mutex
	all map[string]taskFailure // by task
}

type taskFailure struct {
	error
	at time.Time
}

func (f *taskFaults) note(task string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[string]taskFailure{}
	}
	f.all[task] = taskFailure{err, time.Now()}
}

// list returns those that were noted lately, by task; one that several have once.
func (f *taskFaults) list() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := map[string]bool{}
	for _, task := range slices.Sorted(maps.Keys(f.all)) {
		if e := f.all[task]; time.Since(e.at) < taskFault && !said[e.Error()] {
			said[e.Error()] = true
			all = append(all, task+": "+e.Error())
		}
	}
	return all
}
