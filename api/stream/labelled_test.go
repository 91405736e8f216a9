package stream

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// byName are the frames of each stream with counters of its own, and its state.
func (y *yard) byName() (frames map[string]uint64, states map[string]string, sum uint64) {
	frames, states = map[string]uint64{}, map[string]string{}
	for _, l := range y.Stats().ByName {
		frames[l.Stream], states[l.Stream] = l.Frames, l.State
		sum += l.Frames
	}
	return frames, states, sum
}

// TestLabelled: counters go on by name, whatever becomes of the stream, and together they are all frames.
func TestLabelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		once := func(id string, frames int) {
			t.Helper()
			s := y.feed(id, plainStream)
			for range frames {
				s.push("red")
			}
			s.Close()
			<-s.finished
		}
		once("gate", 2)
		once("", 3)
		once("gate", 1)
		frames, states, sum := y.byName()
		if frames["gate"] != 3 || frames[OtherStreams] != 3 || states["gate"] != StateIdle || states[OtherStreams] != "" || sum != y.Stats().Frames {
			t.Errorf("%v %v", frames, states)
		}
		time.Sleep(2 * y.cfg.Linger)
		synctest.Wait()
		if _, states, _ = y.byName(); states["gate"] != StateGone {
			t.Errorf("%v", states)
		}
		s := y.feed("gate", plainStream)
		s.push("red")
		if frames, states, _ = y.byName(); frames["gate"] != 4 || states["gate"] != StateFed {
			t.Errorf("%v %v", frames, states)
		}
		s.Close()
		<-s.finished
		for n := range 2 * maxLabelled { // names without end
			once(fmt.Sprint("cam", n), 1)
			time.Sleep(2 * y.cfg.Linger)
		}
		synctest.Wait()
		frames, _, sum = y.byName()
		if len(frames) != maxLabelled+1 || frames["gate"] != 4 || frames["cam0"] != 1 || frames[OtherStreams] != 3+maxLabelled+1 || sum != y.Stats().Frames {
			t.Errorf("%d names, %v", len(frames), frames)
		}
	})
}

// TestDefinedStreamsAreLabelled: one that is defined takes the room of another one that is gone, but of none that is there.
func TestDefinedStreamsAreLabelled(t *testing.T) {
	y := newYard(t, func(y *yard) { y.cfg.MaxStreams = 2 * maxLabelled })
	for n := range maxLabelled {
		y.feed(fmt.Sprint("cam", n), plainStream).push("red")
	}
	y.feed("late", plainStream).push("red")
	if frames, _, _ := y.byName(); len(frames) != maxLabelled+1 || frames[OtherStreams] != 1 {
		t.Errorf("%v", frames)
	}
	if err := y.Delete(context.Background(), "cam7"); err != nil {
		t.Fatal(err)
	}
	y.Hub.mu.Lock()
	m := y.Hub.label("late", false, true)
	y.Hub.mu.Unlock()
	if frames, _, sum := y.byName(); m == &y.Hub.others || len(frames) != maxLabelled+1 || sum != y.Stats().Frames {
		t.Errorf("%v, %d of %d", frames, sum, y.Stats().Frames)
	} else if _, there := frames["cam7"]; there {
		t.Error("one that is gone keeps its room")
	}
	y.Hub.mu.Lock()
	defer y.Hub.mu.Unlock()
	if y.Hub.label("another", false, true) != &y.Hub.others {
		t.Error("there is more room than there is")
	}
}
