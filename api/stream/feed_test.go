package stream

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/stages/decode"
)

const plainStream = `{"prompts": ["red", "green", "blue"], "format": "` + rawFormat + `"}`

// with adds fields to plainStream.
func with(fields string) string { return plainStream[:len(plainStream)-1] + ", " + fields + "}" }

// TestAnswersInOrder sends frames by both policies, one after the other as they are answered.
func TestAnswersInOrder(t *testing.T) {
	for _, policy := range []string{Latest, Queue} {
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, nil)
			s := y.feed("", with(`"policy": "`+policy+`"`))
			for _, name := range []string{"red", "green", "green", "blue", "red"} {
				s.push(name)
				synctest.Wait()
			}
			s.Close()
			s.ordered()
			if got := s.text(); got != "red green green blue red" {
				t.Errorf("%s: %s", policy, got)
			}
			if st := s.Counts(); st.Frames != 5 || st.Answered != 5 || y.released.Load() != 5 {
				t.Errorf("%s: %+v, %d released", policy, st, y.released.Load())
			}
		})
	}
}

// TestQueueLosesNothing: whoever sends faster than frames are encoded waits; a frame that is no image does not stop the others.
func TestQueueLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = 10 * time.Millisecond })
		s := y.feed("", with(`"policy": "queue", "max_in_flight": 3`))
		for i := range 100 {
			if i == 50 {
				f := s.frame("red")
				f.Image = f.Image[:1]
				if err := s.Push(f); err != nil {
					t.Error(err)
				}
			}
			s.push([]string{"red", "green"}[i%2])
			if n := s.unanswered(); n > 3 {
				t.Fatalf("%d are not answered", n)
			}
		}
		s.Close()
		s.ordered()
		want := strings.Repeat("red green ", 25) + "bad " + strings.Repeat("red green ", 25)
		if got := s.text(); got != strings.TrimSpace(want) {
			t.Error(got)
		}
		if err := s.outcomes()[50].Err; !errors.Is(err, decode.ErrTruncated) {
			t.Errorf("error %v", err)
		}
		if y.released.Load() != 101 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// TestLatest: frames come twice as fast as they are encoded. None waits for long, and Push never does.
func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = 20 * time.Millisecond })
		s := y.feed("", plainStream)
		for range 300 {
			start := time.Now()
			s.push("red")
			if waited := time.Since(start); waited > 0 {
				t.Fatalf("it waited %v", waited)
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.Close()
		s.ordered()
		st := s.Counts()
		if st.Answered < 145 || st.Answered+st.Superseded != 300 {
			t.Errorf("%+v", st)
		}
		for _, o := range s.outcomes() {
			if o.Dropped == "" && o.Lag > 400*time.Millisecond {
				t.Errorf("the lag of frame %d is %v", o.Seq, o.Lag)
			}
		}
		if y.released.Load() != 300 {
			t.Errorf("%d released", y.released.Load())
		}
	})
}

// TestStalledReader: answers are not taken. With latest all but a few frames are superseded, and their memory is given back; Push
// blocks only when thousands of outcomes wait. With queue it blocks at once.
func TestStalledReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		s := y.feed("", plainStream)
		s.stall = make(chan struct{})
		for range maxUnanswered {
			s.push("red")
			synctest.Wait()
		}
		if held := maxUnanswered - int(y.released.Load()); held > maxWaiting {
			t.Errorf("the memory of %d frames is held", held)
		}
		pushed := make(chan struct{})
		go func() {
			s.push("red")
			close(pushed)
		}()
		synctest.Wait()
		select {
		case <-pushed:
			t.Error("there is no end to what waits")
		default:
		}
		close(s.stall)
		<-pushed
		s.Close()
		s.ordered()
		if st := s.Counts(); st.Answered < latestInFlight || st.Superseded == 0 || st.Answered+st.Superseded != maxUnanswered+1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestExpired: the device hangs until after the deadline of the frames.
func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.gate = make(chan struct{}); y.parts.Timeout = time.Second })
		s := y.feed("", with(`"policy": "queue"`))
		start := time.Now()
		s.push("red", "green", "blue")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := s.text(); got != "expired expired expired" {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		close(y.chip.gate)
		s.push("blue")
		s.Close()
		s.ordered()
		if got := s.text(); got != "expired expired expired blue" {
			t.Error(got)
		}
	})
}

// TestPlaces: many streams send more than is encoded. Only so many of their frames are in the engine as keep it busy, so that none is
// old when it is answered, and each stream has its share.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, func(y *yard) { y.chip.takes = 10 * time.Millisecond }) // 100 a second
		var all []*sender
		for range 20 {
			all = append(all, y.feed("", plainStream))
		}
		const rounds = 300
		for range rounds { // 400 a second
			for _, s := range all {
				s.push("red")
			}
			time.Sleep(50 * time.Millisecond)
		}
		inside := 0
		for _, s := range all {
			s.Feed.mu.Lock()
			inside += s.inside
			s.Feed.mu.Unlock()
		}
		if most := y.parts.Engine.AtOnce(); inside > most {
			t.Errorf("%d frames are in the engine, want %d at most", inside, most)
		}
		for i, s := range all {
			s.Close()
			s.ordered()
			if st := s.Counts(); st.Answered < 73 || st.Answered > 79 || st.Answered+st.Superseded != rounds {
				t.Errorf("stream %d: %+v", i, st)
			}
			for _, o := range s.outcomes()[:rounds-10] {
				if o.Dropped == "" && o.Lag > 400*time.Millisecond { // two waits of 200 ms for 19 others
					t.Fatalf("stream %d: the lag of frame %d is %v", i, o.Seq, o.Lag)
				}
			}
		}
		if y.released.Load() != 20*rounds {
			t.Errorf("%d released", y.released.Load())
		}
		synctest.Wait()
		y.places.mu.Lock()
		defer y.places.mu.Unlock()
		if y.places.free != y.parts.Engine.AtOnce() || y.places.waiting.Len() != 0 {
			t.Errorf("%d places are free, %d wait", y.places.free, y.places.waiting.Len())
		}
	})
}

// TestSlowPrompts: frames whose prompts wait for the text encoder keep no place of others, and are answered once it is done, also when
// their feed has got other prompts meanwhile.
func TestSlowPrompts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, nil)
		one := y.feed("", plainStream)
		one.push("red")
		synctest.Wait()
		y.chip.texts = make(chan struct{})
		var slow []*sender
		for range 3 {
			s := y.feed("", strings.Replace(plainStream, "red", "dark red", 1))
			for range 2 * y.parts.Engine.AtOnce() {
				s.push("blue")
			}
			slow = append(slow, s)
		}
		synctest.Wait()
		for range 10 {
			one.push("red")
			synctest.Wait()
		}
		if st := one.Counts(); st.Answered != 11 {
			t.Errorf("%+v while others wait for the text encoder", st)
		}
		if err := slow[0].Change([]byte(`{"prompts": ["green"]}`)); err != nil {
			t.Fatal(err)
		}
		slow[0].push("green")
		close(y.chip.texts)
		for i, s := range slow {
			s.Close()
			s.ordered()
			if st := s.Counts(); st.Answered != 2 || st.Answered+st.Superseded != st.Frames {
				t.Errorf("stream %d: %+v, %v", i, st, s.outcomes()[len(s.outcomes())-1].Err)
			}
		}
		one.Close()
	})
}
