package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// chip is a simulated chip that takes commands.
type chip struct {
	socket string
	config string // file of the configuration of a service that has it
}

// newChip is a chip for the demo model, which the settings make listen with "arguments: CONTROL".
func newChip(t *testing.T, settings string) chip {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "chip")
	settings = strings.Replace(settings, "CONTROL", "--control="+socket, 1)
	return chip{socket, configFile(t, "clip:\n  backend: sim\n  model: demo\n"+settings)}
}

// serveSim serves on a chip.
func serveSim(t *testing.T, settings string) (chip, *running) {
	t.Helper()
	c := newChip(t, settings)
	return c, serve(t, t.TempDir(), "--config", c.config)
}

// tell sends a fault. A chip that is being restarted is not there yet; one that dies of the
// command does not answer.
func (c chip) tell(t *testing.T, fault string) {
	t.Helper()
	until(t, "the chip is there", func() bool {
		conn, err := net.Dial("unix", c.socket)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprintln(conn, fault)
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err == nil && answer != "ok\n" {
			t.Fatalf("fault %s: %s", fault, answer)
		}
		return true
	})
}

// watchdog has a chip that hangs replaced soon. Not in tests without such a chip, because on a busy machine a
// healthy one may be silent for a while.
const watchdog = "  device_timeout_ms: 1000\n"

// faults is how often each fault is injected; HAILO_TEST_FAULTS=20 is the long run.
func faults() int {
	n, _ := strconv.Atoi(os.Getenv("HAILO_TEST_FAULTS"))
	return cmp.Or(n, 2)
}

// deadline is performance.request_timeout of the services here: an answer that took longer than that and
// patience was forgotten.
const deadline = time.Minute

// counts are answers by status. Safe for concurrent use.
type counts struct {
	mu sync.Mutex
	of map[int]int
}

func (c *counts) add(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[int]int{}
	}
	c.of[status]++
}

const faultLoad = "  arguments: CONTROL\nperformance:\n  request_timeout: 1m\n  max_queue_size: 32\n"

// TestFaultsUnderLoad breaks the chip in every way while 16 clients ask for image embeddings,
// about 200 a second. Every request is answered within its deadline, with 200 or 503, and every
// 200 has the vector of its own image: the simulated chip's vectors come from the pixels. Only
// a frame that the chip itself fails (error=) gets 500.
func TestFaultsUnderLoad(t *testing.T) {
	t.Parallel()
	c, r := serveSim(t, watchdog+"  on_device_loss: fail\nsim:\n"+faultLoad)
	names := []string{"airplane", "automobile", "bicycle", "cat", "dog", "elephant", "guitar", "pizza"}
	images, want := make([]map[string]any, len(names)), make([]string, len(names))
	for i, name := range names {
		images[i] = map[string]any{"image": sample(t, name+".jpg")}
		want[i] = fmt.Sprint(r.mustPost(t, "/v1/embed/image", images[i]).body["embedding"])
	}
	before := r.resources(t)
	for _, fault := range []string{"crash", "crash=3", "hang", "error=4@2", "lose=2", "garbage=2", "repeat=2"} {
		for status, n := range r.breaks(t, c, fault, "/v1/embed/image", images, func(n int, a reply) error {
			if fmt.Sprint(a.body["embedding"]) != want[n%len(want)] {
				return fmt.Errorf("%s got the vector of another image", names[n%len(names)])
			}
			return nil
		}) {
			if status != http.StatusOK && status != http.StatusServiceUnavailable &&
				(status != http.StatusInternalServerError || !strings.HasPrefix(fault, "error=")) {
				t.Errorf("%s: %d answers %d", fault, n, status)
			}
		}
	}
	// Idle connections end by and by; leaks do not. The server keeps idle goroutines for 10 s, a
	// few for each client; there were hundreds of requests.
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	until(t, fmt.Sprintf("as few as before, %+v", before), func() bool {
		after := r.resources(t)
		return after.files <= before.files && after.goroutines <= before.goroutines+24 && after.children == 1 && after.inFlight == 0
	})
	r.stop(t)
}

// TestFaultsWithStandIn is the same with the CPU standing in: what the chip drops is encoded there.
func TestFaultsWithStandIn(t *testing.T) {
	t.Parallel()
	c, r := serveSim(t, watchdog+"sim:\n  vectors: model\n"+faultLoad)
	r.classifies(t)
	for _, fault := range []string{"crash", "hang", "lose=2"} {
		statuses := r.breaks(t, c, fault, "/v1/classify", []map[string]any{catRequest(t)}, func(_ int, a reply) error {
			if a.best() != "a photo of a cat" {
				return fmt.Errorf("classified as %s", a.raw)
			}
			return nil
		})
		if len(statuses) != 1 {
			t.Errorf("%s: answers by status %v, want only 200", fault, statuses)
		}
	}
}

// load has 16 clients ask about 200 times a second, if the machine can, until stop is closed. good judges a 200.
func (r *running) load(t *testing.T, path string, requests []map[string]any, good func(int, reply) error, stop chan struct{}) map[int]int {
	var statuses counts
	var clients sync.WaitGroup
	for client := range 16 {
		clients.Go(func() {
			pace := time.NewTicker(80 * time.Millisecond) // 16 / 0.08 = 200 a second
			defer pace.Stop()
			for n := client; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				start := time.Now()
				a, err := r.post(path, requests[n%len(requests)])
				if d := time.Since(start); d > deadline+patience {
					t.Errorf("answered %d after %v", a.status, d)
				}
				statuses.add(a.status)
				switch {
				case err != nil:
				case a.status == http.StatusOK:
					err = good(n, a)
				case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "":
					err = fmt.Errorf("503 without Retry-After: %s", a.raw)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	return statuses.of
}

// breaks injects a fault again and again under load, logs how soon requests succeed again, and returns the answers by
// status.
func (r *running) breaks(t *testing.T, c chip, fault, path string, requests []map[string]any, good func(n int, a reply) error) map[int]int {
	t.Helper()
	stop, statuses := make(chan struct{}), make(chan map[int]int, 1)
	go func() { statuses <- r.load(t, path, requests, good, stop) }()
	end := sync.OnceValue(func() map[int]int { close(stop); return <-statuses })
	defer end() // of a test that fails
	count := func() uint64 {
		npu := r.stats(t).NPU
		if strings.HasPrefix(fault, "error=") {
			return npu.Failed
		}
		return uint64(npu.Restarts)
	}
	images := func() uint64 { return r.stats(t).NPU.Images }
	var recovery []time.Duration
	seen := images()
	for n := range faults() {
		// One that is broken before it encodes anything is no chip at all, which is tried ever more slowly; and one that
		// dies while it opens is a failed start and no restart.
		until(t, fault+": the chip is there", func() bool { return r.stats(t).NPU.Ready && (n == 0 || images() != seen) })
		before, start := count(), time.Now()
		c.tell(t, fault)
		until(t, fault+": it strikes", func() bool { return count() != before }) // or nothing would have recovered
		seen = images()
		// Three in a row are good.
		first, row := time.Time{}, 0
		until(t, fault+": recovered", func() bool {
			if a := r.ask(t, path, requests[0]); a.status != http.StatusOK {
				row = 0
			} else if row++; row == 1 {
				first = time.Now()
			}
			return row == 3
		})
		recovery = append(recovery, first.Sub(start))
	}
	slices.Sort(recovery)
	at := func(share int) time.Duration { return recovery[(len(recovery)-1)*share/100].Round(time.Millisecond) }
	t.Logf("%-10s %d times, first good answer after %v at the median, %v for 99 in 100, %v at the worst; answers by status: %v", fault,
		len(recovery), at(50), at(99), at(100), end())
	return end()
}

// resources is what a leak would make grow.
type resources struct{ files, goroutines, children, inFlight int }

func (r *running) resources(t *testing.T) resources {
	t.Helper()
	pid := r.cmd.Process.Pid
	files := must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)))
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err != nil {
		t.Skip("this kernel does not list children: ", err)
	}
	children := 0
	for _, task := range must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))) { // any thread may have started the worker
		b, _ := os.ReadFile(task)
		children += len(bytes.Fields(b))
	}
	stats := r.stats(t)
	return resources{len(files), stats.Process.Goroutines, children, stats.NPU.InFlight}
}

// TestDeviceLossWithStandIn: while the chip is gone the CPU encodes, and health says so.
func TestDeviceLossWithStandIn(t *testing.T) {
	c, r := serveSim(t, watchdog+"sim:\n  vectors: model\n  arguments: CONTROL\n")
	r.classifies(t)
	c.tell(t, "hang") // until the watchdog replaces it
	for range 5 {
		r.classifies(t)
	}
	if a := r.get(t, "/health"); a.status != http.StatusOK || a.body["status"] != "degraded" || a.body["reason"] == nil {
		t.Errorf("health after a loss: %s", a.raw)
	}
	// New prompts, too, are encoded by whoever is there.
	if a := r.mustPost(t, "/v1/classify", map[string]any{"image": sample(t, "pizza.jpg"),
		"prompts": []string{"a photo of a pizza", "a photo of a guitar"}}); a.best() != "a photo of a pizza" {
		t.Errorf("classified as %s", a.raw)
	}
}

// TestDeadDeviceIsUnhealthy: a chip that does not start again is told by /health and by 503.
func TestDeadDeviceIsUnhealthy(t *testing.T) {
	_, r := serveSim(t, "  on_device_loss: fail\nsim:\n  arguments: CONTROL --fault=crash=40\n")
	request := map[string]any{"image": sample(t, "cat.jpg")}
	until(t, "/health says so", func() bool {
		if r.ask(t, "/v1/embed/image", request).status != http.StatusServiceUnavailable {
			return false
		}
		h := r.get(t, "/health")
		return h.status == http.StatusServiceUnavailable && h.body["status"] == "unhealthy" && h.body["reason"] != ""
	})
}
