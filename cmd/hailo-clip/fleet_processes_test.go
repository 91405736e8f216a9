package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("serving", "url", b.URL())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	b.Close()
	return 0
}

// fullFleet says that the whole suite is wanted, with the programs themselves, TLS and keys: make fleet-test.
func fullFleet() bool { return os.Getenv("HAILO_TEST_FLEET") == "full" }

// builtPrograms is the folder of the built programs, hailo-clip-fleet among them: "make" says where.
func builtPrograms(t testing.TB) string {
	t.Helper()
	bin := os.Getenv("HAILO_TEST_BIN")
	if !isFile(filepath.Join(bin, brokerProgram)) {
		t.Fatalf("HAILO_TEST_BIN=%q is no folder with %s: use make", bin, brokerProgram)
	}
	return bin
}

// testFleet is a broker and nodes with simulated chips, each a process.
type testFleet struct {
	t        *testing.T
	bin      string // where hailo-clip-fleet is, which asks for TLS and keys; "": the broker is the test binary, and asks for nothing
	port     string
	dir, url string
	mu       sync.Mutex
	broker   *running
	nodes    []*fleetNode
}

type fleetNode struct {
	*running
	name, state, chip string
	join              []string // flags by which it finds its broker
	rate              float64  // images/s of the chip
}

// chips have the rates of D.3 in the design: two Hailo-10H, and one that is slow.
var fleetChips = []fleetNode{
	{name: "fast1", rate: 8 / 0.02386},
	{name: "fast2", rate: 8 / 0.02386},
	{name: "slow", chip: "--image-run 0s --image-frame 13.9ms", rate: 1 / 0.0139},
}

// startFleet starts a broker and the chips; the whole suite has the broker itself.
func startFleet(t *testing.T) *testFleet {
	f := startBrokerOnly(t)
	for _, chip := range fleetChips {
		n := chip
		n.state, n.join = t.TempDir(), f.joins(n.name)
		f.nodes = append(f.nodes, &n)
		n.running = f.startNode(&n)
	}
	for _, n := range f.nodes {
		n.serving(t)
	}
	return f
}

func startBrokerOnly(t *testing.T) *testFleet {
	port := freePort(t) // that restarts find again
	f := &testFleet{t: t, port: port, dir: t.TempDir(), url: "nats://127.0.0.1:" + port}
	if fullFleet() {
		f.bin = builtPrograms(t)
	}
	f.startBroker()
	return f
}

func (f *testFleet) startBroker() {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), asBroker+"="+f.port+" "+f.dir)
	if f.bin != "" {
		c = command(f.t.TempDir(), "fleet", "serve", "--secure", "--max-store=64G", "--listen=127.0.0.1:"+f.port, "--store="+f.dir)
		c.Env = append(c.Env, "PATH="+f.bin+":"+os.Getenv("PATH"))
	}
	b := start(f.t, c)
	b.urlOf(f.t, "serving")
	f.mu.Lock()
	f.broker = b
	f.mu.Unlock()
}

// credentials are the file of a node that the broker lets in from now on.
func (f *testFleet) credentials(name string) string {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), name+".creds")
	hailoClip(f.t, "fleet", "add-node", name, "--store", f.dir, "-o", file).expect(f.t, exitOK)
	return file
}

// joins are the flags by which a service is a node.
func (f *testFleet) joins(name string) []string {
	if f.bin != "" {
		return []string{"--set=fleet.credentials=" + f.credentials(name)}
	}
	return []string{"--set=fleet.url=" + f.url, "--set=fleet.node=" + name}
}

// config is that of the process that indexes.
func (f *testFleet) config() fleet.Config {
	if f.bin != "" {
		return fleet.Config{Credentials: f.credentials("index"), Domain: "hub"}
	}
	return fleet.Config{URL: f.url, Node: "index", Domain: "hub"}
}

// empty takes away all that the broker keeps but what the runbook says to keep.
func (f *testFleet) empty() {
	for _, e := range must(os.ReadDir(f.dir)) {
		if slices.Contains([]string{"ca.pem", "ca-key.pem", "nodes.json"}, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.t.Error(err)
		}
	}
}

// startNode starts the process of a node, without waiting for it.
func (f *testFleet) startNode(n *fleetNode) *running {
	return start(f.t, serveCommand(n.state, append([]string{"--model", "demo", "--backend", "sim", "--set=sim.arguments=" + n.chip,
		"--set=fleet.spill=false", "--set=fleet.share=false", "--set=fleet.cameras=false"}, n.join...)...))
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

// index has the fleet index images, and checks every row. It returns how long that took and what the indexing process sent and
// received. meanwhile is called with the number of stored rows as it grows.
func (f *testFleet) index(source *manyImages, meanwhile func(rows int64)) (took time.Duration, in, out uint64) {
	f.t.Helper()
	return newReferee(f.t).index(f.t, f.config(), source, meanwhile)
}

// index has a fleet index images, by a process that finds its broker so.
func (r referee) index(t *testing.T, cfg fleet.Config, source *manyImages, meanwhile func(rows int64)) (took time.Duration, in, out uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	dir := t.TempDir()
	rows := filepath.Join(dir, "vectors.ndjson")
	sink := must(bulk.OpenNDJSON(rows))
	defer sink.Close()
	journal := must(bulk.OpenJournal(filepath.Join(dir, "journal"), true))
	defer journal.Close()
	options := fleet.EncoderOptions{Job: bulk.JobID(source.Name(), rows), Source: source.Name(), Log: slog.New(slog.DiscardHandler)}
	var encoder *fleet.Encoder
	until(t, "workers are there", func() bool {
		var err error
		encoder, err = fleet.OpenEncoder(ctx, cfg, options)
		return err == nil
	})
	begun := time.Now()
	status, err := bulk.Run(ctx, bulk.Job{Source: source, Sink: sink, Encoder: encoder, Journal: journal, Name: rows, Dimension: encoder.Dimension(),
		Progress: func(s bulk.Status) { encoder.Tell(s.Seen, s.Enumerated); meanwhile(s.Rows) }})
	took = time.Since(begun)
	in, out = encoder.Traffic()
	if err != nil {
		t.Fatalf("%v after %+v", err, status)
	}
	if err := encoder.Close(ctx); err != nil {
		t.Error(err)
	}
	file := must(os.Open(rows))
	defer file.Close()
	must(r.check(ctx, source, file)).fails(t, source.n)
	return took, in, out
}
