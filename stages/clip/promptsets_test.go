package clip

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hailoclip/cache/sets"
	"hailoclip/pipeline/fair"
	"hailoclip/stages"
	"hailoclip/stages/evaluate"
)

// TestPromptSet goes through the life of one: it answers as soon as it is there, a change encodes no more than what is
// new, and conditions hold.
func TestPromptSet(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	_, err := h.Classify(t.Context(), &Request{Image: imageOf(t, "red"), PromptSet: "traffic"})
	is(t, err, ErrNoSet)
	info, created, err := h.sets.Put(t.Context(), "traffic", labels("stop=a red light|a red lamp", "go=a green light"), Condition{IfNoneMatch: true})
	if err != nil || !created || info.State != SetReady || info.Encoded != 3 || info.Total != 3 || info.ScoreSource != "text" || p.count() != 3 {
		t.Fatalf("created %v, %+v: %v", created, info, err)
	}
	if got := h.best("traffic", "red") + h.best("traffic", "green"); got != "stopgo" {
		t.Errorf("answers %s", got)
	}
	again, created, err := h.sets.Put(t.Context(), "traffic", labels("stop=a red light|a red lamp", "go=a green light"), Condition{IfMatch: info.ETag})
	if err != nil || created || again.ETag != info.ETag || p.count() != 0 {
		t.Errorf("the same again: %+v: %v", again, err)
	}
	_, _, err = h.sets.Put(t.Context(), "traffic", labels("stop=red"), Condition{IfNoneMatch: true})
	is(t, err, ErrPrecondition)
	changed, created, err := h.sets.Put(t.Context(), "traffic", labels("go=a green light", "stop=a red light|a red lamp", "wait=a blue lamp"), Condition{IfMatch: "*"})
	if got := p.encoded(); err != nil || created || changed.ETag == info.ETag || !slices.Equal(got, []string{"a blue lamp"}) {
		t.Errorf("%q encoded: %v", got, err)
	}
	_, _, err = h.sets.Put(t.Context(), "traffic", labels("stop=red"), Condition{IfMatch: info.ETag})
	is(t, err, ErrPrecondition)
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{IfMatch: info.ETag}), ErrPrecondition)
	_, _, err = h.sets.Put(t.Context(), "none", labels("stop=red"), Condition{IfMatch: "*"})
	is(t, err, ErrPrecondition)
	h.put("a", labels("red"))
	if got := p.encoded(); len(got) != 7 || !slices.Contains(got, "itap of a red.") {
		t.Errorf("a name alone: %q", got)
	}
	list, err := h.sets.List()
	want := []SetSummary{{"a", 1, SetReady, h.settled("a").ETag, "one", false}, {"traffic", 3, SetReady, changed.ETag, "one", false}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%+v: %v", list, err)
	}
	got, err := h.sets.Info(t.Context(), "traffic", true)
	if err != nil || got.ETag != changed.ETag || len(got.Labels) != 3 || got.Labels[1].Prompts[1] != "a red lamp" {
		t.Errorf("%+v: %v", got, err)
	}
	if st := h.Stats().Sets; st.Sets != 2 || st.Encoded != 11 || st.Bytes != 4*paintedDim*4 || st.Encoding+st.Failed+st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = h.sets.Ready("traffic") }); n != 0 {
		t.Errorf("asking for a set allocates %v times", n)
	}
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{IfMatch: changed.ETag}), nil)
	is(t, h.sets.Delete(t.Context(), "traffic", Condition{}), ErrNoSet)
	_, err = h.sets.Ready("traffic")
	is(t, err, ErrNoSet)
	_, err = h.sets.Info(t.Context(), "traffic", false)
	is(t, err, ErrNoSet)
}

// TestFrameSeesOneVersion changes a set while images are classified: each answer is of one version or of the other.
func TestFrameSeesOneVersion(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	versions := []sets.Definition{labels("red=red", "blue=blue"), labels("green=green", "red again=red|red thing", "blue again=blue", "more=blue")}
	names := [][]string{{"red", "blue"}, {"green", "red again", "blue again", "more"}}
	h.put("s", versions[0])
	var stop atomic.Bool
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for !stop.Load() {
				r, err := h.Classify(t.Context(), &Request{Image: imageOf(t, "red"), PromptSet: "s"})
				if err != nil {
					t.Error(err)
					return
				}
				i := slices.IndexFunc(names, func(n []string) bool { return slices.Equal(n, r.Set.Names) })
				if i < 0 || len(r.Matches) != len(names[i]) || r.Set.Names[r.Matches[0].Label] != names[i][i] {
					t.Errorf("%+v of %+v", r.Matches, r.Set.Names)
				}
			}
		})
	}
	for i := range 20 {
		h.put("s", versions[(i+1)%2])
	}
	stop.Store(true)
	running.Wait()
}

// TestConditionsHold has many clients add a label each, to what each has read: no label is lost. And of many that make a set,
// one does.
func TestConditionsHold(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	var made atomic.Int32
	var running sync.WaitGroup
	const clients = 8
	for i := range clients {
		running.Go(func() {
			if _, created, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{IfNoneMatch: true}); err == nil && created {
				made.Add(1)
			} else if !errors.Is(err, ErrPrecondition) {
				t.Errorf("%v", err)
			}
			for {
				info, err := h.sets.Info(t.Context(), "s", false)
				if err != nil {
					t.Error(err)
					return
				}
				d := info.Definition
				d.Labels = append(d.Labels, labels(fmt.Sprintf("%d=blue", i)).Labels...)
				_, _, err = h.sets.Put(t.Context(), "s", d, Condition{IfMatch: info.ETag})
				if err == nil {
					return
				} else if !errors.Is(err, ErrPrecondition) {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	if info := h.settled("s"); made.Load() != 1 || len(info.Labels) != 1+clients || info.State != SetReady {
		t.Errorf("made %d times, %d labels", made.Load(), len(info.Labels))
	}
}

func TestCalibrate(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("red=red", "green=green")
	d.Labels[1].Threshold = &sets.Threshold{Enter: 0.5, Exit: 0.25}
	h.put("s", d)
	info, err := h.sets.Calibrate(t.Context(), "s", map[string]*sets.Threshold{"red": {Enter: 0.75, Exit: 0.5}}, 2, Condition{})
	s, _ := h.sets.Ready("s")
	if err != nil || info.Temperature != 2 || s.Scoring.Temperature != 2 || *s.Thresholds[0] != (sets.Threshold{Enter: 0.75, Exit: 0.5}) ||
		*s.Thresholds[1] != *d.Labels[1].Threshold || s.ETag != info.ETag {
		t.Errorf("%+v, %+v: %v", info, s, err)
	}
	found := Evaluation{Set: s, Labels: s.Names, Report: &evaluate.Report{}}
	found.Thresholds, found.Temperature = make([]*evaluate.Threshold, 2), new(2.0)
	if lost, _ := found.Calibration(); len(lost) != 0 {
		t.Errorf("thresholds that were not found again at the same temperature: %v", lost)
	}
	found.Temperature = new(3.0)
	lost, temperature := found.Calibration()
	info, err = h.sets.Calibrate(t.Context(), "s", lost, temperature, Condition{})
	if err != nil || info.Temperature != 3 || info.Labels[0].Threshold != nil || info.Labels[1].Threshold != nil {
		t.Errorf("thresholds for scores at another temperature are kept: %+v: %v", info, err)
	}
	_, err = h.sets.Calibrate(t.Context(), "s", map[string]*sets.Threshold{"mauve": {}}, 0, Condition{})
	isFault(t, err, "thresholds")
	_, err = h.sets.Calibrate(t.Context(), "none", nil, 2, Condition{})
	is(t, err, ErrNoSet)
}

// TestActivations: a model that is not trained for a sigmoid is not asked for one, not after a change of the model either.
func TestActivations(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("red=red", "green=green")
	d.Activation = "sigmoid"
	_, _, err := h.sets.Put(t.Context(), "s", d, Condition{})
	isFault(t, err, "activation")
	h.sigmoid = true
	h.reopen()
	h.put("s", d)
	if s, err := h.sets.Ready("s"); err != nil || s.Scoring.Activation != stages.Sigmoid || s.Scoring.LogitBias != -5 {
		t.Errorf("%+v: %v", s, err)
	}
	d.Activation, d.Labels[0].Negation, d.Labels[1].Negation = "pair", []string{"blue"}, []string{"blue too"}
	h.put("pair", d)
	s, err := h.sets.Ready("pair")
	if err != nil || s.Scoring.Activation != stages.Pair || !slices.Equal(s.Labels.Negations, []int32{2, 3, -1, -1}) || s.Labels.Kinds[2] != stages.Negation {
		t.Errorf("%+v: %v", s, err)
	}
	h.sigmoid = false
	h.reopen()
	if info := h.settled("s"); info.State != SetFailed || !strings.Contains(info.Reason, "sigmoid") {
		t.Errorf("%+v", info)
	}
}

// TestConfiguredSets answer as others do, cannot be changed, and hide those of the same name.
func TestConfiguredSets(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red"))
	h.fixed = map[string]sets.Definition{"s": labels("green=green").Normalized()}
	h.reopen()
	if info := h.settled("s"); !info.ReadOnly || info.Labels[0].Name != "green" || info.State != SetReady {
		t.Errorf("%+v", info)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{})
	is(t, err, ErrManaged)
	is(t, h.sets.Delete(t.Context(), "s", Condition{}), ErrManaged)
	_, err = h.sets.AddExample(t.Context(), "s", "green", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrManaged)
	p.count()
	h.reopen()
	if h.settled("s"); p.count() != 0 {
		t.Error("a restart encodes what the configuration has")
	}
	h.fixed = nil
	h.reopen()
	if info := h.settled("s"); info.ReadOnly || info.Labels[0].Name != "red" || p.count() != 0 {
		t.Errorf("%+v", info)
	}
}

// TestFileLost has a file that is no store: the service is degraded and says why, sets of the configuration answer, and the file
// stays as it is.
func TestFileLost(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p)
	h.fixed = map[string]sets.Definition{"fixed": labels("red=red").Normalized()}
	content := []byte(strings.Repeat("not a database ", 1000))
	if err := os.WriteFile(h.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	h.open()
	if health := h.Health(); h.State() != Degraded || health.State != Degraded || !strings.Contains(health.Reason, sets.FileName) {
		t.Errorf("%+v", health)
	}
	if st := h.Stats().Sets; !strings.Contains(st.Lost, sets.FileName) {
		t.Errorf("%+v", st)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("red=red"), Condition{})
	is(t, err, ErrSetsLost)
	is(t, h.sets.Delete(t.Context(), "s", Condition{}), ErrSetsLost)
	_, err = h.sets.Ready("s")
	is(t, err, ErrSetsLost)
	_, err = h.sets.Info(t.Context(), "s", false)
	is(t, err, ErrSetsLost)
	list, err := h.sets.List()
	if is(t, err, ErrSetsLost); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	h.settled("fixed")
	if got := h.best("fixed", "red"); got != "red" {
		t.Errorf("answers %s", got)
	}
	h.close()
	if now, err := os.ReadFile(h.path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the file has changed: %v", err)
	}
}

// TestFileThatTakesNothing refuses changes, says so, and is well when a change succeeds again.
func TestFileThatTakesNothing(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	before := h.put("s", labels("red=red"))
	away := h.path + ".away"
	if err := os.Rename(h.path, away); err != nil {
		t.Fatal(err)
	}
	_, _, err := h.sets.Put(t.Context(), "s", labels("green=green"), Condition{})
	is(t, err, ErrSetsLost)
	if health := h.Health(); health.State != Degraded || !strings.Contains(health.Reason, "deleted or replaced") {
		t.Errorf("%+v", health)
	}
	if s, err := h.sets.Ready("s"); err != nil || s.ETag != before.ETag {
		t.Errorf("%+v: %v", s, err)
	}
	if err := os.Rename(away, h.path); err != nil {
		t.Fatal(err)
	}
	h.put("s", labels("green=green"))
	if health := h.Health(); health.State != Healthy || health.Reason != "" {
		t.Errorf("%+v", health)
	}
}

// TestRoom: all sets together have a bound, which a smaller version of a set makes room in.
func TestRoom(t *testing.T) {
	h := newHouse(t, &painter{name: "one"})
	h.room = 4 * paintedDim * 5 // five rows
	h.open()
	h.put("a", labels("1=red", "2=red", "3=red"))
	_, _, err := h.sets.Put(t.Context(), "b", labels("1=red", "2=red", "3=red"), Condition{})
	is(t, err, ErrSetsFull)
	_, err = h.sets.AddExample(t.Context(), "a", "1", Example{Vector: []float32{1, 0, 0}}, Condition{})
	is(t, err, ErrSetsFull)
	h.put("a", labels("1=red", "2=red"))
	h.put("b", labels("1=red", "2=red", "3=red"))
	is(t, h.sets.Delete(t.Context(), "a", Condition{}), nil)
	h.put("c", labels("1=red", "2=red"))
}

// TestBatchHasOneVersion changes a set in the middle of a batch.
func TestBatchHasOneVersion(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	first := h.put("s", labels("red=red"))
	image := imageOf(t, "red")
	n := 0
	err := h.ClassifyBatch(t.Context(), Request{PromptSet: "s", Logits: true}, Batch{
		Len: 20, AtOnce: 1, Open: func(int) ([]byte, error) { return image, nil },
		Done: func(i int, r Result, err error) {
			if n++; i == 3 {
				h.put("s", labels("green=green"))
			}
			if err != nil || r.Set.ETag != first.ETag || len(r.Logits) != 1 {
				t.Errorf("%d: %+v: %v", i, r, err)
			}
		},
	})
	if err != nil || n != 20 {
		t.Errorf("%d images: %v", n, err)
	}
	is(t, h.ClassifyBatch(t.Context(), Request{PromptSet: "none"}, Batch{}), ErrNoSet)
}

// TestVersionsAreCounted: what a version will have is counted without making its texts.
func TestVersionsAreCounted(t *testing.T) {
	h := newHouse(t, &painter{name: "one"}).open()
	d := labels("cat=red|blue", "dog", "!sky=green")
	d.Labels[0].Pool = "max"
	d.Background = sets.Background{Auto: true, Prompts: []string{"green"}}
	for _, templates := range []*sets.Templates{nil, {Name: "none"}, {Name: "imagenet80"}, {List: []string{"a {}", "the {}"}}} {
		d.Templates = templates
		all, texts := newLabels(&d, nil)
		rows := 0
		for _, l := range all {
			rows += max(l.Rows(), 1)
		}
		v := h.sets.newVersion(&promptSet{}, &d, fair.Caller{})
		if v.total != texts || v.bytes != int64(4*rows*paintedDim) {
			t.Errorf("%d texts and %d bytes, want %d and %d", v.total, v.bytes, texts, 4*rows*paintedDim)
		}
		v.cancel(nil)
	}
}
