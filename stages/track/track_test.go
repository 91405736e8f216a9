package track

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"hailoclip/stages"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func same(n int, v float64) []float64 { return slices.Repeat([]float64{v}, n) }

// cosines are labels with a score that is the logit.
func cosines(n int) Config {
	return Config{
		Labels: &stages.Labels{N: n}, Scoring: stages.Scoring{Activation: stages.None, LogitScale: 1},
		Enter: same(n, 0.6), Exit: same(n, 0.4), MinFrames: 1,
	}
}

// TestTracker gives scores of two labels, a frame every 100 ms, and names what each makes.
func TestTracker(t *testing.T) {
	hold := func(c Config, d time.Duration) Config { c.Hold = d; return c }
	frames := func(c Config, n int) Config { c.MinFrames = n; return c }
	nan := math.NaN()
	for name, c := range map[string]struct {
		config Config
		scores [][]float64
		want   []string
	}{
		"at once": {cosines(2), [][]float64{{0.6, 0}, {0.4, 0}, {0.39, 0}}, []string{"+0 =0", "", "-0 =-1"}},
		"in the band": {cosines(2), [][]float64{{0.59, 0}, {0.41, 0}, {0.7, 0}, {0.59, 0}, {0.41, 0}, {0.59, 0}},
			[]string{"", "", "+0 =0", "", "", ""}},
		"three in a row": {frames(cosines(2), 3), [][]float64{{1, 0}, {1, 0}, {0, 0}, {1, 0}, {1, 0}, {1, 0}, {0, 0}, {0, 0}, {1, 0}, {0, 0}, {0, 0}, {0, 0}},
			[]string{"?", "?", "", "?", "?", "+0 =0", "?", "?", "", "?", "?", "-0 =-1"}},
		"held for 200 ms": {hold(cosines(2), 200*time.Millisecond), [][]float64{{1, 0}, {1, 0}, {0, 0}, {1, 0}, {1, 0}, {1, 0}, {0, 0}, {0, 0}, {0, 0}},
			[]string{"?", "?", "", "?", "?", "+0 =0", "?", "?", "-0 =-1"}},
		"both":                  {hold(frames(cosines(2), 2), 250*time.Millisecond), [][]float64{{1, 0}, {1, 0}, {1, 0}, {1, 0}}, []string{"?", "?", "?", "+0 =0"}},
		"from one to the other": {frames(cosines(2), 2), [][]float64{{1, 0}, {1, 0}, {0, 1}, {0, 1}}, []string{"?", "+0 =0", "?", "-0 +1 =1"}},
		"two hold":              {cosines(2), [][]float64{{0.8, 0.7}, {0.8, 0.9}, {0.3, 0.9}, {0.3, 0.3}}, []string{"+0 +1 =0", "=1", "-0", "-1 =-1"}},
		"which is more likely flickers": {frames(cosines(2), 2), [][]float64{{0.8, 0.7}, {0.8, 0.7}, {0.8, 0.9}, {0.8, 0.7}, {0.8, 0.9}, {0.8, 0.9}, {0.8, 0}, {0.8, 0}},
			[]string{"?", "+0 +1 =0", "?", "", "?", "=1", "?", "-1 =0"}},
		"not a number":  {cosines(2), [][]float64{{1, 1}, {nan, 1}, {nan, nan}, {nan, nan}, {1, nan}}, []string{"+0 +1 =0", "-0 =1", "-1 =-1", "", "+0 =0"}},
		"equal scores":  {cosines(2), [][]float64{{0, 1}, {1, 1}, {1, 1}}, []string{"+1 =1", "+0 =0", ""}},
		"infinite ones": {cosines(2), [][]float64{{math.Inf(1), 0}, {math.Inf(-1), 1}}, []string{"", "+1 =1"}},
	} {
		tracker, got := New(c.config), []string(nil)
		for i, logits := range c.scores {
			got = append(got, told(tracker, tracker.Observe(start.Add(time.Duration(i)*100*time.Millisecond), logits, nil)))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// told writes changes: + enters, - exits, = the state, ? where a change is pending.
func told(t *Tracker, changes []Change) (s string) {
	for _, c := range changes {
		mark := map[[2]bool]string{{false, true}: "+", {false, false}: "-", {true, false}: "="}[[2]bool{c.State, c.Enter}]
		s += fmt.Sprint(" ", mark, c.Label)
	}
	if t.Pending() {
		s += " ?"
	}
	return s[min(1, len(s)):]
}

// TestTimes: times that stand still, go back or leap count as no time, or as what has passed since the one before.
func TestTimes(t *testing.T) {
	c := cosines(1)
	c.Hold = time.Second
	for name, tt := range map[string]struct {
		ms   []int64
		want int // the frame that makes the label hold
	}{
		"steady":        {[]int64{0, 400, 800, 1000}, 3},
		"standing":      {[]int64{5000, 5000, 5000, 5000, 6000}, 4},
		"back":          {[]int64{5000, 5500, 0, 400, 500}, 4},
		"for ever back": {[]int64{5000, 4000, 3000, 2000, 1000}, -1},
		"a leap":        {[]int64{0, 1 << 40}, 1},
	} {
		tracker, got := New(c), -1
		for i, ms := range tt.ms {
			if changes := tracker.Observe(time.UnixMilli(ms), []float64{1}, nil); len(changes) > 0 && got < 0 {
				got = i
			}
		}
		if got != tt.want {
			t.Errorf("%s: frame %d, want %d", name, got, tt.want)
		}
	}
}

// TestResume: labels that hold go on to hold under other numbers; one that is no more is not the state.
func TestResume(t *testing.T) {
	old := New(cosines(3))
	old.Observe(start, []float64{0.9, 0.8, 0}, nil)
	c := cosines(3)
	c.Labels.Kinds = []stages.Kind{stages.Ordinary, stages.Ordinary, stages.Negative}
	next := New(c)
	next.Resume(old, []int{2, 0, 1})
	if state, score, since := next.State(); state != 1 || score != 0 || since != start || next.Holds(0) || !next.Holds(1) || next.Holds(2) {
		t.Errorf("%d, %v, %v", state, score, since)
	}
	if got := told(next, next.Observe(start, []float64{0, 0.9, 0}, nil)); got != "" {
		t.Errorf("nothing has changed: %q", got)
	}
	without := New(cosines(2))
	without.Resume(old, []int{1, -1})
	if got := told(without, without.Observe(start, []float64{0.9, 0.9}, nil)); got != "+1 =0" {
		t.Errorf("the state is no more: %q", got)
	}
}

// labelsOf makes random labels of all kinds.
func labelsOf(r *rand.Rand, dim int) (*stages.Labels, stages.Scoring) {
	n := 1 + r.IntN(6)
	l := &stages.Labels{N: n, Rows: numbers(r, n*dim)}
	s := stages.Scoring{Activation: stages.Activation(r.IntN(4)), LogitScale: 1 + 9*r.Float64(), Temperature: r.Float64() * 2, TopK: n}
	if s.LogitBias = r.Float64(); r.IntN(2) == 0 {
		l.Logits, l.Bias = numbers(r, n*dim), numbers(r, n)
	}
	if r.IntN(2) == 0 {
		l.Kinds, l.Negations = make([]stages.Kind, n), make([]int32, n)
		for i := range n {
			l.Kinds[i], l.Negations[i] = stages.Kind(r.IntN(2)), -1
		}
		if s.Activation == stages.Pair && n > 1 {
			l.Kinds[0], l.Kinds[n-1], l.Negations[0] = stages.Ordinary, stages.Negation, int32(n-1)
		}
	}
	limit := func() *float64 {
		if r.IntN(3) > 0 {
			return nil
		}
		x := r.Float64() / 2
		return &x
	}
	s.MinCosine, s.MinMargin = limit(), limit()
	return l, s
}

func numbers(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64() / 4)
	}
	return v
}

// TestScores: without smoothing they are those of stages.Rank; with it those of Rank for the average of the embeddings.
func TestScores(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const dim = 8
	fits := map[bool]int{}
	for range 3000 {
		l, s := labelsOf(r, dim)
		c := Config{Labels: l, Scoring: s, Enter: same(l.N, math.Inf(-1)), Exit: same(l.N, math.Inf(-1)), MinFrames: 1}
		if r.IntN(2) == 0 {
			c.Smoothing = r.Float64()
		}
		tracker, average := New(c), make([]float64, dim)
		for frame := range 4 {
			embedding, smoothed := numbers(r, dim), make([]float32, dim)
			for i, x := range embedding {
				if average[i] = c.Smoothing*average[i] + (1-c.Smoothing)*float64(x); frame == 0 {
					average[i] = float64(x)
				}
				smoothed[i] = float32(average[i])
			}
			logits := make([]float64, l.N)
			matches, _ := stages.Rank(embedding, l, s, logits)
			fit := tracker.score(logits, matches)
			want, reason := stages.Rank(smoothed, l, s, nil)
			for _, m := range want {
				if got := tracker.Scores()[m.Label]; math.Abs(got-m.Score) > 1e-5 {
					t.Fatalf("label %d: %v, want %v with %+v of %+v", m.Label, got, m.Score, s, l)
				}
			}
			if fits[fit]++; c.Smoothing == 0 && fit != (reason == "") {
				t.Fatalf("it fits: %v, but %q with %+v of %+v", fit, reason, s, l)
			}
		}
	}
	if fits[true] < 100 || fits[false] < 100 {
		t.Errorf("%v", fits)
	}
}

// reference decides from all frames there were, by the definition.
type reference struct {
	Config
	logits  [][]float64
	elapsed []time.Duration // since the first frame
	last    time.Time
	holds   []bool
	changed []int // by label: the frame after that of its last change
	state   int
	states  []int // by frame: the most likely of those that hold
	close   bool  // a score was so near a threshold that rounding decides
}

func (r *reference) observe(at time.Time, logits []float64) (changes []Change) {
	d := time.Duration(0)
	if n := len(r.elapsed); n > 0 {
		d = r.elapsed[n-1] + max(0, at.Sub(r.last))
	}
	r.last, r.elapsed, r.logits = at, append(r.elapsed, d), append(r.logits, slices.Clone(logits))
	now := len(r.logits) - 1
	for _, enter := range []bool{false, true} {
		for i := range r.holds {
			if r.holds[i] == enter || r.kind(i) != stages.Ordinary {
				continue
			}
			first := now + 1
			for ; first > r.changed[i] && r.wants(first-1, i, enter); first-- {
			}
			if first <= now && now-first+1 >= r.MinFrames && d-r.elapsed[first] >= r.Hold {
				changes = append(changes, Change{Enter: enter, Label: i})
			}
		}
	}
	for _, c := range changes {
		r.holds[c.Label], r.changed[c.Label] = c.Enter, now+1
	}
	best, scores := -1, r.scores(now)
	for i := range r.holds {
		if r.holds[i] && (best < 0 || scores[i] > scores[best]) {
			best = i
		}
	}
	r.states = append(r.states, best)
	first := now
	for ; first > 0 && r.states[first-1] == best; first-- {
	}
	if long := now-first+1 >= r.MinFrames && d-r.elapsed[first] >= r.Hold; best != r.state && (long || r.state < 0 || !r.holds[r.state]) {
		changes = append(changes, Change{State: true, Label: best, Previous: r.state})
		r.state = best
	}
	return changes
}

func (r *reference) kind(i int) stages.Kind {
	return append(slices.Clone(r.Labels.Kinds), make([]stages.Kind, r.Labels.N)...)[i]
}

// judge smooths by the sum of all weights and returns the scores of a frame.
func (r *reference) judge(frame int) ([]float64, bool) {
	n := r.Labels.N
	matches, scores := make([]stages.Match, n), make([]float64, n)
	for i := range matches {
		sum, weight := 0.0, 1.0
		for f := frame; f > 0; f-- {
			sum += weight * (1 - r.Smoothing) * r.logits[f][i]
			weight *= r.Smoothing
		}
		sum += weight * r.logits[0][i]
		matches[i].Probability, matches[i].Cosine = sum, sum/r.Scoring.LogitScale
	}
	reason := r.Labels.Judge(matches, &r.Scoring, nil)
	for i, m := range matches {
		scores[i] = m.Score
		for _, other := range []float64{r.Enter[i], r.Exit[i], m.Score} {
			r.close = r.close || other != m.Score && math.Abs(other-m.Score) < 1e-9
		}
	}
	return scores, reason == ""
}

func (r *reference) scores(frame int) []float64 { s, _ := r.judge(frame); return s }

func (r *reference) wants(frame, i int, enter bool) bool {
	scores, fits := r.judge(frame)
	if enter {
		return fits && scores[i] >= r.Enter[i]
	}
	return !fits || scores[i] < r.Exit[i]
}

// TestAgainstReference: on random sequences the tracker says what the definition says. No label enters or exits twice, and the
// state is one that holds.
func TestAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	made, compared := 0, 0
	for range 400 {
		n := 1 + r.IntN(4)
		c := Config{
			Labels: &stages.Labels{N: n}, Scoring: stages.Scoring{Activation: stages.Activation(r.IntN(4)), LogitScale: 4},
			Enter: make([]float64, n), Exit: make([]float64, n), MinFrames: 1 + r.IntN(3), Hold: time.Duration(r.IntN(3)) * 100 * time.Millisecond,
		}
		if r.IntN(2) == 0 {
			c.Smoothing = 0.8 * r.Float64()
		}
		if margin := r.Float64() / 4; r.IntN(3) == 0 {
			c.Scoring.MinMargin = &margin
		}
		if r.IntN(2) == 0 {
			c.Labels.Kinds = make([]stages.Kind, n)
			c.Labels.Kinds[r.IntN(n)] = stages.Negative
		}
		for i := range n {
			c.Enter[i] = r.Float64() * 0.8
			c.Exit[i] = c.Enter[i] - r.Float64()*0.3
		}
		tracker, want := New(c), &reference{Config: c, holds: make([]bool, n), changed: make([]int, n), state: -1}
		at, logits := start, make([]float64, n)
		for frame := range 60 {
			at = at.Add(time.Duration(r.IntN(120)-20) * time.Millisecond)
			for i := range logits {
				if frame%5 == 0 || r.IntN(3) == 0 {
					logits[i] = 8*r.Float64() - 4
				}
			}
			wanted := want.observe(at, logits)
			if want.close {
				break
			}
			compared++
			before := slices.Clone(tracker.holds)
			got := slices.Clone(tracker.Observe(at, logits, nil))
			for i := range got {
				if made++; !got[i].State && before[got[i].Label] == got[i].Enter {
					t.Fatalf("label %d: twice", got[i].Label)
				}
				got[i].Score = 0
			}
			if !reflect.DeepEqual(got, wanted) && len(got)+len(wanted) > 0 {
				t.Fatalf("frame %d: %+v, want %+v with %+v", frame, got, wanted, c)
			}
			if state, _, _ := tracker.State(); state >= 0 && !tracker.Holds(state) {
				t.Fatalf("the state %d does not hold", state)
			}
		}
	}
	if made < 1000 || compared < 10000 {
		t.Errorf("%d changes in %d frames", made, compared)
	}
}

// TestTwoStatesWithNoise: a door that is opened and closed, in noise that crosses both thresholds.
func TestTwoStatesWithNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	c := cosines(2)
	c.Scoring = stages.Scoring{LogitScale: 100}
	c.MinFrames, c.Hold, c.Smoothing = 3, 200*time.Millisecond, 0.8
	tracker, open := New(c), false
	raw := New(Config{Labels: c.Labels, Scoring: c.Scoring, Enter: c.Enter, Exit: c.Exit, MinFrames: 1})
	flips := 0
	var got []string
	for frame := range 900 { // 30 a second
		if frame%150 == 0 {
			open = !open
		}
		logits := []float64{20 + 3*r.NormFloat64(), 20 + 3*r.NormFloat64()}
		if logits[1] += 3; open {
			logits[0] += 6
		}
		at := start.Add(time.Duration(frame) * time.Second / 30)
		flips += len(raw.Observe(at, logits, nil))
		for _, c := range tracker.Observe(at, logits, nil) {
			if late := frame % 150; !c.State && frame >= 150 && late > 30 {
				t.Errorf("frame %d: %+v", frame, c)
			}
			got = append(got, fmt.Sprint(frame/150, " ", map[bool]string{true: "enter", false: "exit"}[c.Enter || c.State && c.Label >= 0], " ", c.Label))
		}
	}
	want := []string{"0 enter 0", "0 enter 0"}
	for i := 1; i < 6; i++ {
		want = append(want, fmt.Sprint(i, " exit ", (i+1)%2), fmt.Sprint(i, " enter ", i%2), fmt.Sprint(i, " enter ", i%2))
	}
	if got = slices.DeleteFunc(got, func(s string) bool { return s[2:] == "exit -1" }); !slices.Equal(got, want) || flips < 100 {
		t.Errorf("%q, want %q; without smoothing %d changes", got, want, flips)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	for a := stages.Softmax; a <= stages.None; a++ {
		c := cosines(20)
		c.Scoring = stages.Scoring{Activation: a, LogitScale: 10}
		tracker, logits := New(c), make([]float64, 20)
		at, frame := start, 0
		if n := testing.AllocsPerRun(100, func() {
			for i := range logits {
				logits[i] = float64((i + frame) % 20)
			}
			at, frame = at.Add(time.Second), frame+1
			tracker.Observe(at, logits, nil)
		}); n != 0 {
			t.Errorf("activation %d: %v allocations", a, n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{20, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := cosines(n)
			c.Scoring, c.MinFrames, c.Smoothing = stages.Scoring{LogitScale: 100}, 3, 0.5
			tracker, logits := New(c), make([]float64, n)
			b.ReportAllocs()
			for i := range b.N {
				logits[i%n] = 25 + float64(i%7)
				tracker.Observe(start.Add(time.Duration(i)*time.Millisecond), logits, nil)
			}
		})
	}
}
