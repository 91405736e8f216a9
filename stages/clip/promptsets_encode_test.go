package clip

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/cache/sets"
	"hailoclip/hailo"
	"hailoclip/pipeline/fair"
)

// TestPooling compares rows with an independent computation.
func TestPooling(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	d := labels("x=red|blue", "y=green|red|blue")
	d.Templates = &sets.Templates{List: []string{"{}", "the {}"}}
	d.Labels[1].Pool = "max"
	h.put("s", d)
	mean := func(texts ...string) []float32 {
		sum := make([]float32, paintedDim)
		for _, text := range texts {
			v, _ := p.vector(text)
			for i := range v {
				sum[i] += v[i]
			}
		}
		if err := hailo.Normalize(sum, sum); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	want := slices.Concat(mean("red", "the red", "blue", "the blue"), mean("green", "the green"), mean("red", "the red"), mean("blue", "the blue"))
	s, err := h.sets.Ready("s")
	if err != nil || !slices.Equal(s.Labels.Of, []int32{0, 1, 1, 1}) || s.Labels.N != 2 || len(s.Labels.Rows) != len(want) {
		t.Fatalf("%+v: %v", s, err)
	}
	for i := range want {
		if d := math.Abs(float64(s.Labels.Rows[i] - want[i])); d > 1e-6 {
			t.Errorf("number %d is %v, want %v", i, s.Labels.Rows[i], want[i])
		}
	}
}

// TestRestart opens the same file again: nothing is encoded, and all is as it was, byte for byte.
func TestRestart(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p)
	h.fixed = map[string]sets.Definition{"fixed": labels("red").Normalized()}
	h.open()
	h.put("texts", labels("red=a red thing|red", "green=green", "!blue=blue"))
	d := labels("red=red", "green=green")
	d.Background.Auto, d.Background.Prompts = false, []string{"blue"}
	d.Labels[0].Images = []string{shade(t, 255, 0, 9), shade(t, 255, 9, 0)}
	d.Labels[1].Images = []string{shade(t, 9, 255, 9), shade(t, 0, 255, 0)}
	info := h.put("images", d)
	if info.ScoreSource != "gda" || info.Alpha == 0 {
		t.Fatalf("%+v", info)
	}
	before := map[string]*PromptSet{}
	for _, name := range []string{"texts", "images", "fixed"} {
		h.settled(name)
		before[name], _ = h.sets.Ready(name)
	}
	infos, _ := h.sets.Info(t.Context(), "images", true)
	p.count()
	p.images.Store(0)
	h.reopen()
	for name, want := range before {
		got, err := h.sets.Ready(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *want) {
			t.Errorf("%s is\n%+v after a restart, and was\n%+v", name, *got, *want)
		}
	}
	if again, err := h.sets.Info(t.Context(), "images", true); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", infos) {
		t.Errorf("%+v: %v", again, err)
	}
	if n, images := p.count(), p.images.Load(); n+int(images) != 0 {
		t.Errorf("a restart encodes %d texts, %d images", n, images)
	}
	h.close()
}

// TestResume is cut in the middle: what was encoded by then is not encoded again.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 100)}
		h := newHouse(t, p).open()
		var list []string
		for i := range 20 {
			list = append(list, fmt.Sprintf("%d=red %d|red %d again", i, i, i))
		}
		for range 5 {
			p.gate <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		put := make(chan SetInfo, 1)
		go func() {
			info, _, err := h.sets.Put(ctx, "s", labels(list...), Condition{})
			is(t, err, nil)
			put <- info
		}()
		synctest.Wait() // until the fifth batch is through
		if info, err := h.sets.Info(t.Context(), "s", false); err != nil || info.Encoded != 20 || info.State != SetEncoding || info.Total != 40 {
			t.Errorf("%+v: %v", info, err)
		}
		_, err := h.sets.Ready("s")
		is(t, err, ErrSetNotReady)
		h.close()
		if info := <-put; info.State != SetEncoding || info.Encoded != 20 {
			t.Errorf("who waited for it: %+v", info)
		}
		p.gate = nil
		p.count()
		h.open()
		if info, n := h.settled("s"), p.count(); info.State != SetReady || n != 20 {
			t.Errorf("%d texts encoded after a restart: %+v", n, info)
		}
		h.close()
	})
}

// TestFormerAnswersAfterRestart is cut while a set that answers is encoded anew: the former version answers on.
func TestFormerAnswersAfterRestart(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	was := labels("red=a red thing|red", "green", "!blue=blue")
	was.Labels[0].Threshold, was.MinMargin = &sets.Threshold{Enter: 0.5, Exit: 0.25}, new(0.125)
	h.put("s", was)
	want := must(h.sets.Ready("s"))
	p.gate = make(chan struct{}) // nothing is encoded
	ctx, cancel := context.WithCancel(t.Context())
	put := make(chan error)
	go func() {
		_, _, err := h.sets.Put(ctx, "s", labels("red="+strings.Join(many("red", 70), "|")), Condition{})
		put <- err
	}()
	for must(h.sets.Info(t.Context(), "s", false)).State != SetEncoding {
		time.Sleep(time.Millisecond)
	}
	for range 2 { // a second restart changes nothing
		h.reopen()
		if got := must(h.sets.Ready("s")); string(must(json.Marshal(got))) != string(must(json.Marshal(want))) {
			t.Fatalf("answers by\n%+v after a restart, and did by\n%+v", *got, *want)
		}
		if info := must(h.sets.Info(t.Context(), "s", false)); info.State != SetEncoding || info.ETag == want.ETag {
			t.Errorf("%+v", info)
		}
	}
	cancel()
	<-put
	h.close()

	p.gate = nil
	h.open()
	h.settled("s")
	if got := must(h.sets.Ready("s")); got.ETag == want.ETag {
		t.Errorf("the former version answers when the new one is encoded: %+v", got)
	}
	h.close()
	store := must(sets.Open(h.path))
	defer store.Close(t.Context())
	if r := must(store.Get(t.Context(), "s")); r.Former != nil {
		t.Error("the former version is kept when the new one answers")
	}
}

func many(word string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(word, i))
	}
	return list
}

// TestDeviceLost encodes elsewhere while a device is away, and again when it is back. A set that nothing can encode waits,
// and says for what.
func TestDeviceLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &painter{name: "one"}, &painter{name: "another"}
		h := newHouse(t, first)
		h.others = []hailo.Backend{second}
		h.open()
		first.away.Store(true)
		info := h.put("s", labels("red=red", "blue=blue"))
		if info.State != SetReady || len(info.Warnings) != 1 || !strings.Contains(info.Warnings[0], "another") || first.count() != 0 || second.count() != 2 {
			t.Errorf("%+v", info)
		}
		second.away.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		info, _, err := h.sets.Put(ctx, "waits", labels("red=red"), Condition{})
		if err != nil || info.State != SetEncoding || !strings.Contains(info.Reason, "device lost") || time.Since(start) != 28*time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(start), info, err)
		}
		first.away.Store(false)
		time.Sleep(lastRetry)
		synctest.Wait()
		for _, name := range []string{"s", "waits"} {
			if info := h.settled(name); info.State != SetReady || len(info.Warnings) != 0 || info.Reason != "" {
				t.Errorf("%+v", info)
			}
		}
		if n := first.count(); n != 3 || second.count() != 0 {
			t.Errorf("the device that is back has encoded %d", n)
		}
		if got := h.best("s", "red"); got != "red" {
			t.Errorf("answers %s", got)
		}
		h.close()
	})
}

// TestTextsThatCannotBeEncoded end in a state that says so; what was ready before answers on.
func TestTextsThatCannotBeEncoded(t *testing.T) {
	p := &painter{name: "one"}
	h := newHouse(t, p).open()
	h.put("s", labels("red=red"))
	info := h.put("s", labels("red=red", "odd=blue|mauve|green"))
	if info.State != SetFailed || !strings.Contains(info.Reason, `label "odd": "mauve"`) || h.Stats().Sets.Failed != 1 {
		t.Errorf("%+v", info)
	}
	if s, err := h.sets.Ready("s"); err != nil || len(s.Names) != 1 {
		t.Errorf("%+v: %v", s, err)
	}
	h.put("new", labels("mauve=mauve"))
	_, err := h.sets.Ready("new")
	if is(t, err, ErrSetNotReady); !strings.Contains(err.Error(), "mauve") {
		t.Errorf("%v", err)
	}
	p.fail = func(text string) error {
		if text == "blue" {
			panic("of the encoder")
		}
		return nil
	}
	if info := h.put("new", labels("blue=blue")); info.State != SetFailed || !strings.Contains(info.Reason, "panic") {
		t.Errorf("%+v", info)
	}
	p.fail = nil
	if info := h.put("new", labels("blue=blue")); info.State != SetReady { // the same again is tried again
		t.Errorf("%+v", info)
	}
}

// TestEncodingIsFair has two sets of many texts and a third: they take turns, a batch each, and one batch is encoded at a time.
func TestEncodingIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		var running sync.WaitGroup
		put := func(name string, n int) {
			running.Go(func() {
				var prompts []string
				for i := range n {
					prompts = append(prompts, fmt.Sprintf("red %s %d", name, i))
				}
				h.put(name, labels("red="+strings.Join(prompts, "|")))
			})
			synctest.Wait()
		}
		put("a", 40)
		put("b", 40)
		put("c", 4)
		for range 21 {
			p.gate <- struct{}{}
			synctest.Wait()
		}
		running.Wait()
		var order []string
		for i, text := range p.encoded() {
			if i%paintedBatch == 0 {
				order = append(order, strings.Fields(text)[1])
			}
		}
		if got := strings.Join(order, ""); got != "abc"+strings.Repeat("ab", 9) || p.most != 1 {
			t.Errorf("%s, %d at once", got, p.most)
		}
		h.close()
	})
}

// TestLongSetsTakeTurns: two sets of many texts are in memory at once, whoever sent the others. After a while it is another's
// turn, of another address first, and who was interrupted goes on where it was. A brief set waits for none of them.
func TestLongSetsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 10_000)}
		h := newHouse(t, p).open()
		var running sync.WaitGroup
		put := func(name, address string, n int) {
			var d sets.Definition
			for i := range n {
				d.Labels = append(d.Labels, sets.Label{Name: fmt.Sprint(i), Prompts: []string{
					fmt.Sprintf("red %s %d", name, i), fmt.Sprintf("green %s %d", name, i)}})
			}
			running.Go(func() {
				if _, _, err := h.sets.Put(t.Context(), name, d, Condition{Caller: fair.Caller{Address: address}}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		all := map[string]int{}
		encode := func(batches int) string {
			for range batches {
				p.gate <- struct{}{}
				synctest.Wait()
			}
			names := map[string]bool{}
			for _, text := range p.encoded() {
				name := strings.Fields(text)[1]
				names[name] = true
				all[name]++
			}
			return strings.Join(slices.Sorted(maps.Keys(names)), " ")
		}
		const many = briefTexts/2 + 2
		for _, name := range []string{"a", "b", "c", "d"} {
			put(name, "greedy", many)
		}
		put("modest", "modest", many)
		put("brief", "other", 2)
		if got := encode(6); got != "a b brief" {
			t.Errorf("%s are encoded first", got)
		}
		h.settled("brief")
		time.Sleep(longestTurn + time.Second)
		if got := encode(8); !strings.HasSuffix(got, "modest") {
			t.Errorf("%s are encoded after a while", got)
		}
		encode(5 * many)
		running.Wait()
		for _, name := range []string{"a", "b", "c", "d", "modest"} {
			if info := h.settled(name); info.State != SetReady || all[name] != 2*many {
				t.Errorf("%s is %s after %d texts", name, info.State, all[name])
			}
		}
		h.close()
	})
}

// TestClientsFirst lets texts of clients that wait go before those of sets, but not for ever.
func TestClientsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		var running sync.WaitGroup
		texts := func(what string) {
			running.Go(func() {
				var list []string
				for i := range 12 {
					list = append(list, fmt.Sprintf("red %s %d", what, i))
				}
				if _, err := h.EmbedTexts(t.Context(), fair.Caller{Address: "client"}, list); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		texts("client")
		running.Go(func() { h.put("s", labels("red=red")) })
		time.Sleep(longestWay / 2)
		if st := h.Stats(); st.Sets.Encoding != 1 || st.Cache.Pending == 0 {
			t.Errorf("%+v", st)
		}
		for range 3 {
			p.gate <- struct{}{}
		}
		time.Sleep(lookForTexts)
		synctest.Wait()
		if got := p.encoded(); len(got) != 12 || slices.Contains(got, "red") {
			t.Errorf("%q", got)
		}
		p.gate <- struct{}{}
		running.Wait()
		if got := p.encoded(); !slices.Equal(got, []string{"red"}) {
			t.Errorf("%q", got)
		}
		texts("others") // two batches are with the encoder, one waits
		running.Go(func() { h.put("s", labels("blue=blue")) })
		time.Sleep(longestWay)
		synctest.Wait()
		if p.most != 3 {
			t.Errorf("%d batches at once: the set waits for ever", p.most)
		}
		for range 4 {
			p.gate <- struct{}{}
		}
		running.Wait()
		h.close()
	})
}

// TestReplacedWhileEncoding and deleted: nothing more is encoded for it, and what was ready answers on.
func TestReplacedWhileEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &painter{name: "one", gate: make(chan struct{}, 1000)}
		h := newHouse(t, p).open()
		p.gate <- struct{}{}
		h.put("s", labels("red=red"))
		var running sync.WaitGroup
		put := func(name, prompts string) {
			running.Go(func() { h.put(name, labels("red="+prompts)) })
			synctest.Wait()
		}
		put("s", "red 1|red 2|red 3|red 4|red 5")
		put("gone", "red gone")
		if s, err := h.sets.Ready("s"); err != nil || s.ETag == h.sets.newest((*h.sets.all.Load())["s"]).etag {
			t.Errorf("%+v: %v", s, err)
		}
		put("s", "red again")
		is(t, h.sets.Delete(t.Context(), "gone", Condition{}), nil)
		synctest.Wait()
		for range 10 {
			p.gate <- struct{}{}
		}
		running.Wait()
		if got := p.encoded(); !slices.Equal(got, []string{"red", "red again"}) {
			t.Errorf("%q", got)
		}
		_, err := h.sets.Ready("gone")
		is(t, err, ErrNoSet)
		h.close()
	})
}
