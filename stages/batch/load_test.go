package batch

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/hailo"
	"hailoclip/pipeline/fair"
)

// load is who sends frames, and to what chip: the zero values are the usual ones.
type load struct {
	name     string
	sources  []source
	a, b     float64 // ms of a run, and of each frame
	cap      int
	noise    float64 // of a run's time
	slower   bool    // from a third of the time on the chip takes half as long again
	texts    bool    // one text a second, of 46 ms
	oneKey   bool    // all come by one connection
	pool     string  // all come through a proxy with a pool of connections, each for one request at a time: lifo, fifo or random
	newKeys  bool    // each frame comes by a connection of its own, all from one address
	switches bool    // the sources take turns
}

// source is n clients of a kind. Times are ms.
type source struct {
	kind   string // closed, stream, poisson, cameras
	n      int
	think  float64
	how    string  // how think varies: mid, steady, exp, jitter, tail, swap
	images int     // frames of a request, closed only
	per    int     // requests by one connection, closed only; 0: all
	rate   float64 // per second; of each camera
	work   float64 // closed only: that one of two cores has with a frame first
}

// phase is how long the source of a load that switches lasts.
const phase = 3 * time.Second

func closed(n int, think float64, how ...string) source {
	return source{kind: "closed", n: n, think: think, how: cmp.Or(append(how, "mid")[0], "mid"), images: 1}
}
func poisson(rate float64, users int) source { return source{kind: "poisson", rate: rate, n: users} }
func cameras(n int, rate float64) source     { return source{kind: "cameras", n: n, rate: rate} }

func (s source) with(images, per int) source { s.images, s.per = images, per; return s }

// loads are those of the model.
func loads() (list []load) {
	add := func(name string, sources ...source) *load {
		list = append(list, load{name: name, sources: sources, a: 12.5, b: 1.42, cap: 8, noise: 0.01})
		return &list[len(list)-1]
	}
	for _, n := range []int{1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32} {
		add(fmt.Sprintf("closed %d, think 2", n), closed(n, 2))
	}
	for _, think := range []float64{0.3, 1, 3, 5, 7, 10, 20} {
		for _, n := range []int{2, 4, 8, 12, 16} {
			add(fmt.Sprintf("closed %d, think %v", n, think), closed(n, think))
		}
	}
	for _, think := range []float64{2, 5, 10, 20} {
		for _, n := range []int{2, 4, 8, 12} {
			add(fmt.Sprintf("closed %d, think %v exp.", n, think), closed(n, think, "exp"))
		}
	}
	for _, think := range []float64{5, 8, 10} {
		for _, n := range []int{4, 8} {
			add(fmt.Sprintf("closed %d, think %v steady", n, think), closed(n, think, "steady"))
		}
	}
	for _, n := range []int{4, 8} {
		add(fmt.Sprintf("closed %d, 10 %% think 50", n), closed(n, 2, "tail"))
		add(fmt.Sprintf("closed %d, poor network", n), closed(n, 2, "jitter"))
	}
	add("4 clients of 2 images", closed(4, 2).with(2, 0))
	add("2 clients of 4 images", closed(2, 3).with(4, 0))
	for _, n := range []int{1, 2, 4} {
		add(fmt.Sprintf("streams %d, 2 in flight", n), source{kind: "stream", n: n, think: 3, how: "mid"})
	}
	for _, rate := range []float64{30, 50, 120, 200, 300} {
		add(fmt.Sprintf("poisson %v", rate), poisson(rate, 0))
	}
	add("poisson 120, 12 users", poisson(120, 12))
	add("poisson 120, 3 users", poisson(120, 3))
	for _, c := range [][2]int{{1, 30}, {2, 30}, {4, 30}, {8, 30}, {4, 15}, {12, 15}, {6, 10}, {2, 60}, {3, 50}, {1, 100}, {2, 100}} {
		add(fmt.Sprintf("cameras %dx%d", c[0], c[1]), cameras(c[0], float64(c[1])))
	}
	for _, n := range []int{2, 4, 8} {
		add(fmt.Sprintf("closed %d + poisson 50", n), closed(n, 2), poisson(50, 0))
	}
	add("closed 4 + poisson 150", closed(4, 2), poisson(150, 0))
	add("closed 4 + poisson 50, 5 users", closed(4, 2), poisson(50, 5))
	add("closed 4 + cameras 2x30", closed(4, 2), cameras(2, 30))
	add("closed 4 + cameras 4x15", closed(4, 2), cameras(4, 15))
	add("closed 3 think 1 + 3 think 20", closed(3, 1), closed(3, 20, "exp"))
	add("switch: closed 4/poisson 150/4x30", closed(4, 2), poisson(150, 0), cameras(4, 30)).switches = true
	for _, n := range []int{4, 8} {
		add(fmt.Sprintf("closed %d, think 2/20 by turns", n), closed(n, 2, "swap"))
	}
	for _, chip := range []load{{name: "5+3n", a: 5, b: 3, cap: 8}, {name: "30+.5n", a: 30, b: .5, cap: 8}, {name: "1.2n", b: 1.2, cap: 8},
		{name: "cap 4", a: 12.5, b: 1.42, cap: 4}, {name: "cap 16", a: 12.5, b: 1.42, cap: 16}} {
		more := func(name string, sources ...source) {
			l := add(chip.name+": "+name, sources...)
			l.a, l.b, l.cap = chip.a, chip.b, chip.cap
		}
		for _, n := range []int{4, 8, 12} {
			more(fmt.Sprintf("closed %d, think 2", n), closed(n, 2))
		}
		more("closed 4, think 10", closed(4, 10))
		more("closed 8, think 5 exp.", closed(8, 5, "exp"))
		more("poisson 100", poisson(100, 0))
		more("cameras 4x15", cameras(4, 15))
	}
	add("text: closed 4", closed(4, 2)).texts = true
	add("text: poisson 120", poisson(120, 0)).texts = true
	add("text: cameras 4x30", cameras(4, 30)).texts = true
	add("noisy chip: closed 4", closed(4, 2)).noise = 0.05
	add("noisy chip: closed 8", closed(8, 2)).noise = 0.05
	add("noisy chip: poisson 120", poisson(120, 0)).noise = 0.05
	add("chip 1.5x slower from 1/3 on: closed 4", closed(4, 2)).slower = true
	add("one key: closed 8", closed(8, 2)).oneKey = true
	add("one key: poisson 120", poisson(120, 0)).oneKey = true
	add("one key: cameras 4x30", cameras(4, 30)).oneKey = true
	add("one key: closed 4 + poisson 50", closed(4, 2), poisson(50, 0)).oneKey = true
	for _, work := range []float64{0.8, 1.5, 2, 2.5} { // not of the model: the more come back at once, the later the last
		for _, n := range []int{2, 4, 8, 12, 16} {
			c := closed(n, 0.5)
			c.work = work
			add(fmt.Sprintf("closed %d, work %v on 2 cores", n, work), c)
		}
	}
	for _, pool := range []string{"lifo", "fifo", "random"} { // not of the model
		add("closed 4 + poisson 50, pool "+pool, closed(4, 2), poisson(50, 0)).pool = pool
		add("closed 8, pool "+pool, closed(8, 2)).pool = pool
		add("poisson 120, pool "+pool, poisson(120, 0)).pool = pool
		add("cameras 4x30, pool "+pool, cameras(4, 30)).pool = pool
	}
	for _, rate := range []float64{50, 80, 120, 200, 300} { // evenly spaced, as most load generators send them
		add(fmt.Sprintf("even %v, pool lifo", rate), cameras(1, rate)).pool = "lifo"
	}
	add("closed 8 and poisson 50 from an address, new keys", closed(8, 2), poisson(50, 0)).newKeys = true
	add("closed 8 from an address, new keys", closed(8, 2)).newKeys = true
	add("poisson 120 from an address, new keys", poisson(120, 0)).newKeys = true
	add("poisson 200 from an address, new keys", poisson(200, 0)).newKeys = true
	add("cameras 4x30 from an address, new keys", cameras(4, 30)).newKeys = true
	for _, per := range []int{1, 5, 20} {
		add(fmt.Sprintf("closed 8, new key after %d", per), closed(8, 2).with(1, per))
	}
	return list
}

// thinker returns how long a client thinks, in ms.
func thinker(rnd *rand.Rand, mean float64, how string) func(since time.Duration) time.Duration {
	gauss := func(mean, deviation float64) float64 { return mean + deviation*rnd.NormFloat64() }
	return func(since time.Duration) time.Duration {
		var ms float64
		switch how {
		case "steady":
			ms = gauss(mean, 0.1*mean)
		case "exp":
			ms = mean * rnd.ExpFloat64()
		case "jitter": // a poor network
			ms = gauss(mean, .35*mean) + 1.5*rnd.ExpFloat64()
			if rnd.Float64() < .05 {
				ms += 15 * rnd.ExpFloat64()
			}
		case "tail":
			if ms = gauss(mean, .2*mean); rnd.Float64() >= .9 {
				ms = 20 + 30*rnd.ExpFloat64()
			}
		case "swap":
			if ms = gauss(mean, .35*mean); since/phase%2 == 1 {
				ms = gauss(20, 7)
			}
		default:
			ms = gauss(mean, .35*mean)
		}
		return millis(max(0.15, ms))
	}
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// chip is a device as its scheduler runs it: whatever waits, up to cap frames, the moment it is free. It needs a little longer to
// begin with what comes to it while it is free.
type chip struct {
	load
	rnd   *rand.Rand
	begin time.Time
	until time.Duration // the load lasts
	pool  *hailo.Frames

	mu      sync.Mutex
	waiting []job
	busy    bool
	texts   int // waiting
}

type job struct {
	frame *hailo.Frame
	call  *encoding
}

// encoding is one call of EncodeImages.
type encoding struct {
	left int
	done chan struct{}
}

const startGap = 200 * time.Microsecond

func (c *chip) Info() hailo.Info {
	return hailo.Info{ImageBatch: c.cap, ImageCalls: max(2, 32/c.cap), Gathers: true}
}
func (c *chip) Frames() *hailo.Frames                                       { return c.pool }
func (c *chip) Status() hailo.Status                                        { return hailo.Status{Ready: true} }
func (c *chip) Close() error                                                { return nil }
func (c *chip) EncodeTexts(context.Context, [][]int32) ([][]float32, error) { return nil, nil }
func (c *chip) EncodeImages(_ context.Context, frames []*hailo.Frame) error {
	call := &encoding{left: len(frames), done: make(chan struct{})}
	c.mu.Lock()
	for _, f := range frames {
		c.waiting = append(c.waiting, job{f, call})
	}
	c.consider(startGap)
	c.mu.Unlock()
	<-call.done
	return nil
}

// consider starts a run if the device is free.
func (c *chip) consider(gap time.Duration) {
	switch n := min(len(c.waiting), c.cap); {
	case c.busy:
	case c.texts > 0:
		c.texts--
		c.busy = true
		time.AfterFunc(46*time.Millisecond, func() { c.finish(nil, 0) })
	case n > 0:
		c.busy = true
		run := slices.Clone(c.waiting[:n])
		c.waiting = slices.Delete(c.waiting, 0, n)
		ms := (c.a + c.b*float64(n)) * (1 + c.noise*c.rnd.NormFloat64())
		if c.slower && time.Since(c.begin) > c.until/3 {
			ms *= 1.5
		}
		took := millis(max(ms, 0.01))
		slow := time.Duration(0)
		if c.noise > .02 && c.rnd.Float64() < .01 {
			slow = 30 * time.Millisecond
		}
		time.AfterFunc(gap+took+slow, func() { c.finish(run, took+slow) })
	}
}

func (c *chip) finish(run []job, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	for _, j := range run {
		j.frame.Run = hailo.Run{Frames: len(run), Took: took}
		if j.call.left--; j.call.left == 0 {
			close(j.call.done)
		}
	}
	c.consider(0)
}

// outcome is what became of a load.
type outcome struct{ rate, mean, p99 float64 } // per second; ms from a frame's being ready to its answer

// simulate puts a batcher under a load, by the fake clock. Without the rule it starts at once.
func simulate(t *testing.T, l load, withRule bool, until time.Duration, seed uint64) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		c := &chip{load: l, rnd: rand.New(rand.NewPCG(seed, 0)), pool: hailo.NewHeapFrames(l.cap, 1, 1), until: until}
		b := New(c, 0)
		if !withRule {
			b.rule.a = 0
		}
		c.begin = time.Now()
		s := &senders{load: l, batcher: b, seed: seed, begin: c.begin, until: until, cores: make(chan struct{}, 2)}
		s.rnd = s.rand()
		for i := range l.sources {
			s.start(i)
		}
		if l.texts {
			s.wait.Go(func() {
				rnd := s.rand()
				for s.sleep(millis(1000 * rnd.ExpFloat64())) {
					c.mu.Lock()
					c.texts++
					c.consider(0)
					c.mu.Unlock()
				}
			})
		}
		s.wait.Wait()
		b.Close()
		slices.Sort(s.took)
		for _, d := range s.took {
			o.mean += d.Seconds() * 1000 / float64(len(s.took))
		}
		o.rate = float64(len(s.took)) / until.Seconds()
		o.p99 = s.took[len(s.took)*99/100].Seconds() * 1000
	})
	return o
}

// senders are the clients of a load.
type senders struct {
	load
	batcher *Batcher
	seed    uint64
	seeds   atomic.Uint64
	begin   time.Time
	until   time.Duration
	wait    sync.WaitGroup
	cores   chan struct{}

	mu    sync.Mutex
	took  []time.Duration
	idle  []uint64 // connections of the pool
	conns uint64   // made
	rnd   *rand.Rand
}

// connect takes a connection of the pool; release gives it back.
func (s *senders) connect() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		s.conns++
		return s.conns
	}
	at := map[string]int{"lifo": n - 1, "random": s.rnd.IntN(n)}[s.load.pool]
	connection := s.idle[at]
	s.idle = slices.Delete(s.idle, at, at+1)
	return connection
}

func (s *senders) release(connection uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, connection)
}

func (s *senders) rand() *rand.Rand { return rand.New(rand.NewPCG(s.seed, s.seeds.Add(1))) }

// sleep says whether the load still lasts afterwards.
func (s *senders) sleep(d time.Duration) bool {
	time.Sleep(d)
	return time.Since(s.begin) < s.until
}

// on waits until it is a source's turn, and says whether the load still lasts.
func (s *senders) on(i int) bool {
	if n := len(s.sources); s.switches {
		for int(time.Since(s.begin)/phase)%n != i {
			if !s.sleep(phase - time.Since(s.begin)%phase + time.Millisecond) {
				return false
			}
		}
	}
	return time.Since(s.begin) < s.until
}

// frame sends one and waits for its answer.
func (s *senders) frame(key fair.Caller) {
	if s.oneKey {
		key = fair.Caller{Address: "proxy", Connection: 1}
	}
	if s.newKeys {
		key = fair.Caller{Address: "nat", Connection: s.seeds.Add(1)}
	}
	if s.load.pool != "" {
		key = fair.Caller{Address: "proxy", Connection: s.connect()}
		defer s.release(key.Connection)
	}
	start := time.Now()
	if err := s.batcher.Encode(context.Background(), key, &hailo.Frame{}); err != nil {
		panic(err)
	}
	took := time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took)
}

// start starts the clients of a source.
func (s *senders) start(i int) {
	src := s.sources[i]
	address := func(j int) string { return fmt.Sprint(i, "/", j) }
	switch src.kind {
	case "closed":
		for j := range src.n {
			rnd := s.rand()
			think := thinker(rnd, src.think, src.how)
			s.wait.Go(func() {
				s.sleep(millis(rnd.Float64() * 20))
				for count := 0; s.on(i); count++ {
					key := fair.Caller{Address: address(j), Connection: 1}
					if src.per > 0 {
						key.Connection += uint64(count / src.per)
					}
					if src.work > 0 {
						s.cores <- struct{}{}
						time.Sleep(millis(src.work * (1 + .1*rnd.NormFloat64())))
						<-s.cores
					}
					var images sync.WaitGroup
					for range src.images - 1 {
						images.Go(func() { s.frame(key) })
					}
					s.frame(key)
					images.Wait()
					time.Sleep(think(time.Since(s.begin)))
				}
			})
		}
	case "stream": // makes a frame in the time of its thinking, keeps two in flight
		for j := range src.n {
			rnd := s.rand()
			think := thinker(rnd, src.think, src.how)
			s.wait.Go(func() {
				free := make(chan struct{}, 2)
				var sent sync.WaitGroup
				defer sent.Wait()
				for s.sleep(think(0)) {
					select {
					case free <- struct{}{}:
					default:
						free <- struct{}{}
						time.Sleep(millis(.15 + rnd.Float64()*.3))
					}
					sent.Go(func() {
						s.frame(fair.Caller{Address: address(j), Connection: 1})
						<-free
					})
				}
			})
		}
	case "poisson": // n 0: every frame from a caller never seen before
		rnd := s.rand()
		s.wait.Go(func() {
			for n := 1; s.sleep(millis(1000 / src.rate * rnd.ExpFloat64())); n++ {
				if !s.on(i) {
					return
				}
				key := fair.Caller{Address: address(n), Connection: 1}
				if src.n > 0 {
					key.Address = address(rnd.IntN(src.n))
				}
				s.wait.Go(func() { s.frame(key) })
			}
		})
	case "cameras":
		for j := range src.n {
			rnd := s.rand()
			s.wait.Go(func() {
				due := time.Now().Add(millis(rnd.Float64() * 1000 / src.rate))
				for s.sleep(time.Until(due.Add(millis(rnd.NormFloat64())))) {
					if !s.on(i) {
						return
					}
					due = due.Add(millis(1000 / src.rate))
					if due.Before(time.Now()) {
						due = time.Now().Add(millis(rnd.Float64() * 1000 / src.rate))
					}
					s.wait.Go(func() { s.frame(fair.Caller{Address: address(j), Connection: 1}) })
				}
			})
		}
	}
}

// modelled is what the model says of a load, see testdata/model.txt.
type modelled struct {
	atOnce, rule      outcome
	bestMean, bestP99 float64
}

func readModel(t *testing.T) map[string]modelled {
	f, err := os.Open("testdata/model.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := map[string]modelled{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if words[0] == "#" {
			continue
		}
		n := make([]float64, 8)
		for i := range n {
			if n[i], err = strconv.ParseFloat(words[len(words)-8+i], 64); err != nil {
				t.Fatal(err)
			}
		}
		rows[strings.Join(words[:len(words)-8], " ")] = modelled{outcome{n[0], n[1], n[2]}, outcome{n[5], n[6], n[7]}, n[3], n[4]}
	}
	return rows
}
