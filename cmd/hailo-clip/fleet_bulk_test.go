package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hailoclip/api/bulk"
	"hailoclip/api/fleet"
	"hailoclip/api/fleet/broker"
)

// asBroker makes the test binary be the broker of a fleet: "PORT DIR".
const asBroker = "HAILO_TEST_AS_BROKER"

// brokerRoom is what the broker of a test may keep, whatever the disk has left when it starts.
const brokerRoom = 64 << 30

func runBroker(where string) int {
	port, dir, _ := strings.Cut(where, " ")
	b, err := broker.Start(broker.Config{Port: must(strconv.Atoi(port)), Dir: dir, MaxStore: brokerRoom})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("broker", "url", b.URL())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	b.Close()
	return 0
}

// testFleet is a broker and nodes with simulated chips, each a process.
type testFleet struct {
	t        *testing.T
	port     int
	dir, url string
	mu       sync.Mutex
	broker   *running
	nodes    []*fleetNode
}

type fleetNode struct {
	*running
	name, state, chip string
	rate              float64 // images/s of the chip
}

// chips have the rates of D.3 in the design: two Hailo-10H, and one that is slow.
var fleetChips = []fleetNode{
	{name: "fast1", rate: 8 / 0.02386},
	{name: "fast2", rate: 8 / 0.02386},
	{name: "slow", chip: "--image-run 0s --image-frame 13.9ms", rate: 1 / 0.0139},
}

func startFleet(t *testing.T) *testFleet {
	port := must(strconv.Atoi(freePort(t))) // that restarts find again
	f := &testFleet{t: t, port: port, dir: t.TempDir(), url: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	f.startBroker()
	for _, chip := range fleetChips {
		n := chip
		n.state = t.TempDir()
		f.nodes = append(f.nodes, &n)
		n.running = f.startNode(&n)
	}
	return f
}

func (f *testFleet) startBroker() {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", asBroker, f.port, f.dir))
	b := start(f.t, c)
	b.urlOf(f.t, "broker")
	f.mu.Lock()
	f.broker = b
	f.mu.Unlock()
}

// startNode starts the process of a node, without waiting for it.
func (f *testFleet) startNode(n *fleetNode) *running {
	return start(f.t, serveCommand(n.state, "--model", "demo", "--backend", "sim", "--set=sim.arguments="+n.chip, "--set=fleet.url="+f.url,
		"--set=fleet.node="+n.name, "--set=fleet.spill=false", "--set=fleet.share=false", "--set=fleet.cameras=false"))
}

// status is what a node tells of itself.
func (n *fleetNode) status(t *testing.T) (s fleet.Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(n.get(t, "/v1/fleet").raw), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// cpu is the time of the processors that a process has used.
func (r *running) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// fleetMotifs is how many images differ in their pixels: others repeat one with other bytes, so that what is encoded of each is known.
const fleetMotifs = 61

// manyImages is a source of so many JPEGs of 256 pixels, no two of them alike.
type manyImages struct {
	n      int
	motifs [][]byte
	told   atomic.Int64
}

func newManyImages(n int) *manyImages {
	m := &manyImages{n: n}
	for i := range fleetMotifs {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		img := image.NewRGBA(image.Rect(0, 0, 256, 256))
		var blocks [16][16]color.RGBA
		for y := range blocks {
			for x := range blocks[y] {
				blocks[y][x] = color.RGBA{uint8(random.IntN(256)), uint8(random.IntN(256)), uint8(random.IntN(256)), 255}
			}
		}
		for y := range 256 {
			for x := range 256 {
				c := blocks[y/16][x/16]
				c.G += uint8(random.IntN(24)) // texture, so that decoding costs what a photo's does
				img.SetRGBA(x, y, c)
			}
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 75}); err != nil {
			panic(err)
		}
		m.motifs = append(m.motifs, b.Bytes())
	}
	return m
}

// image is one whose comment is its number.
func (m *manyImages) image(i int) []byte {
	motif := m.motifs[i%fleetMotifs]
	b := append(make([]byte, 0, len(motif)+12), motif[:2]...)
	b = append(b, 0xff, 0xfe, 0, 10)
	b = binary.BigEndian.AppendUint64(b, uint64(i))
	return append(b, motif[2:]...)
}

func (m *manyImages) Name() string { return fmt.Sprint(m.n, " images of a test") }

func (m *manyImages) Each(_ context.Context, found func(bulk.Item) error) error {
	for i := range m.n {
		m.told.Store(int64(i))
		err := found(bulk.Item{Path: strconv.Itoa(i), Size: int64(len(m.motifs[i%fleetMotifs]) + 12), Modified: time.Unix(1, 0),
			Open: func(context.Context) ([]byte, error) { return m.image(i), nil }})
		if err != nil {
			return err
		}
	}
	return nil
}

// index has the fleet index images, and checks every row. It returns how long that took and what the indexing process sent and
// received. meanwhile is called with the number of stored rows as it grows.
func (f *testFleet) index(source *manyImages, meanwhile func(rows int64)) (took time.Duration, in, out uint64) {
	t := f.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	want := make([][]float32, fleetMotifs) // by one engine
	for i := range want {
		a := f.nodes[0].mustPost(t, "/v1/embed/image", map[string]any{"image": source.motifs[i]})
		var answer struct{ Embedding []float32 }
		if err := json.Unmarshal([]byte(a.raw), &answer); err != nil || len(answer.Embedding) == 0 {
			t.Fatal(a.raw, err)
		}
		want[i] = answer.Embedding
	}
	dir := t.TempDir()
	out1 := filepath.Join(dir, "vectors.ndjson")
	sink := must(bulk.OpenNDJSON(out1))
	defer sink.Close()
	journal := must(bulk.OpenJournal(filepath.Join(dir, "journal"), true))
	defer journal.Close()
	options := fleet.EncoderOptions{Job: bulk.JobID(source.Name(), out1), Source: source.Name(), Log: slog.New(slog.DiscardHandler)}
	cfg := fleet.Config{URL: f.url, Node: "index", Domain: "hub"}
	var encoder *fleet.Encoder
	until(t, "workers are there", func() bool {
		var err error
		encoder, err = fleet.OpenEncoder(ctx, cfg, options)
		return err == nil
	})
	begun := time.Now()
	status, err := bulk.Run(ctx, bulk.Job{Source: source, Sink: sink, Encoder: encoder, Journal: journal, Name: out1, Dimension: len(want[0]),
		Progress: func(s bulk.Status) { encoder.Tell(s.Seen, s.Enumerated); meanwhile(s.Rows) }})
	took = time.Since(begun)
	in, out = encoder.Traffic()
	if err != nil {
		t.Fatalf("%v after %+v", err, status)
	}
	if err := encoder.Close(ctx); err != nil {
		t.Error(err)
	}
	f.check(source, out1, want)
	return took, in, out
}

// check fails the test unless there is one row for each image, with the vector of its pixels.
func (f *testFleet) check(source *manyImages, path string, want [][]float32) {
	t := f.t
	rows, missing, double, wrong := make([]int, source.n), 0, 0, 0
	for line := range bytes.Lines(must(os.ReadFile(path))) {
		var row bulk.Row
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		i, err := strconv.Atoi(row.Path)
		if err != nil || i < 0 || i >= source.n {
			t.Fatalf("a row of %q", row.Path)
		}
		rows[i]++
		if !slices.EqualFunc(row.Embedding, want[i%fleetMotifs], func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }) {
			if wrong++; wrong < 4 {
				t.Errorf("row %d is wrong: %.200s", i, line)
			}
		}
	}
	for _, n := range rows {
		switch {
		case n == 0:
			missing++
		case n > 1:
			double++
		}
	}
	t.Logf("%d rows: %d missing, %d double, %d wrong", len(rows), missing, double, wrong)
	if missing+double+wrong > 0 {
		t.Fail()
	}
}

// full says that the whole suite is wanted: make fleet-test.
func full() bool { return os.Getenv("HAILO_TEST_FLEET") == "full" }

// TestFleetBulk indexes through three nodes and prints what that cost and who did how much; it says nothing about speed.
func TestFleetBulk(t *testing.T) {
	n := 2000
	if full() {
		n = 20000
	}
	f := startFleet(t)
	for _, node := range f.nodes {
		node.serving(t)
	}
	before := make([]time.Duration, len(f.nodes))
	for i, node := range f.nodes {
		before[i] = node.cpu()
	}
	brokerBefore := f.broker.cpu()
	source := newManyImages(n)
	took, in, out := f.index(source, func(int64) {})
	capacity, cpu, wire, encoded := 0., time.Duration(0), in+out, uint64(0)
	for _, node := range f.nodes {
		capacity += node.rate
	}
	brokerCPU := f.broker.cpu() - brokerBefore
	var table strings.Builder
	for i, node := range f.nodes {
		used := node.cpu() - before[i]
		s := node.status(t)
		share, fair := float64(s.Worker.Encoded)/float64(n), node.rate/capacity
		fmt.Fprintf(&table, "%-8s %6d images, %5.1f %% of all, its chip is %5.1f %% of the capacity (%+.1f %%); CPU %.2f ms an image\n", node.name,
			s.Worker.Encoded, 100*share, 100*fair, 100*(share/fair-1), ms(used, int(s.Worker.Encoded)))
		cpu += used
		encoded += s.Worker.Encoded
		wire += s.Broker.InBytes + s.Broker.OutBytes
	}
	if encoded < uint64(n) {
		t.Errorf("%d images were encoded", encoded)
	}
	t.Logf("%d JPEGs of 256 pixels, %d bytes each, in %v: %.1f images/s, %.1f %% of the chips' %.1f\n%sworkers %.2f ms, broker %.2f ms of CPU an image; %d bytes an image through the broker, both ways",
		n, len(source.image(0)), took.Round(time.Millisecond), float64(n)/took.Seconds(), 100*float64(n)/took.Seconds()/capacity, capacity,
		&table, ms(cpu, n), ms(brokerCPU, n), wire/uint64(n))
}

func ms(d time.Duration, n int) float64 { return d.Seconds() * 1e3 / float64(max(n, 1)) }

// TestFleetKilled kills a random node every five seconds, and the broker twice: each image has one right row in the end.
func TestFleetKilled(t *testing.T) {
	if !full() {
		t.Skip("HAILO_TEST_FLEET is not full: see make fleet-test")
	}
	n := 100000
	if some := os.Getenv("HAILO_TEST_FLEET_IMAGES"); some != "" {
		n = must(strconv.Atoi(some))
	}
	f := startFleet(t)
	for _, node := range f.nodes {
		node.serving(t)
	}
	done := make(chan struct{})
	var killing sync.WaitGroup
	kills := 0
	killing.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			node := f.nodes[rand.IntN(len(f.nodes))]
			_ = node.cmd.Process.Kill()
			<-node.ended
			kills++
			node.running = f.startNode(node)
		}
	})
	brokers := 0
	took, _, _ := f.index(newManyImages(n), func(rows int64) {
		if brokers < 2 && rows > int64(n*(brokers+1)/3) {
			brokers++
			_ = f.broker.cmd.Process.Kill()
			<-f.broker.ended
			f.startBroker()
		}
	})
	close(done)
	killing.Wait()
	t.Logf("%d images in %v (%.1f images/s) with %d nodes and %d brokers killed", n, took.Round(time.Second), float64(n)/took.Seconds(), kills, brokers)
	if brokers != 2 {
		t.Errorf("the broker was killed %d times", brokers)
	}
}

// TestFleetEmptied stops the broker in mid-run and takes its folder away: all is sent again that had no row.
func TestFleetEmptied(t *testing.T) {
	n := 2000
	if full() {
		n = 20000
	}
	f := startFleet(t)
	for _, node := range f.nodes {
		node.serving(t)
	}
	emptied := false
	took, _, _ := f.index(newManyImages(n), func(rows int64) {
		if !emptied && rows > int64(n/3) {
			emptied = true
			_ = f.broker.cmd.Process.Kill()
			<-f.broker.ended
			if err := os.RemoveAll(f.dir); err != nil {
				t.Error(err)
			}
			f.startBroker()
		}
	})
	t.Logf("%d images in %v, with a broker that lost all", n, took.Round(time.Second))
	if !emptied {
		t.Error("the broker was never emptied")
	}
}
