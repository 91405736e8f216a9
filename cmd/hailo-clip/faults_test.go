package main

import (
	"bufio"
	"bytes"
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

// control commands the simulated chip behind a service.
type control string

// newControl returns a socket and the configuration that makes the chip listen on it.
func newControl(t *testing.T, settings string) (control, string) {
	t.Helper()
	dir := t.TempDir()
	c := control(filepath.Join(dir, "chip"))
	file := filepath.Join(dir, "sim.yaml")
	text := fmt.Sprintf("clip:\n  backend: sim\n  model: demo\n%s", settings)
	text = strings.Replace(text, "CONTROL", "--control="+string(c), 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, file
}

// patience is how long a test waits for what must come. Only a test that fails waits for so long: nothing is
// decided by how fast the machine is.
const patience = 2 * time.Minute

// watchdog has a chip that hangs replaced soon. Not in tests without such a chip, because on a busy machine a
// healthy one may be silent for a while.
const watchdog = "  device_timeout_ms: 1000\n"

// tell sends a fault. A chip that is being restarted is not there yet; one that dies of the
// command does not answer.
func (c control) tell(t *testing.T, fault string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", string(c))
		if err != nil {
			if time.Now().After(end) {
				t.Fatal(err)
			}
			continue
		}
		defer conn.Close()
		fmt.Fprintln(conn, fault)
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err == nil && answer != "ok\n" {
			t.Fatalf("fault %s: %s", fault, answer)
		}
		return
	}
}

// faults is how often each fault is injected; HAILO_TEST_FAULTS=20 is the long run.
func faults() int {
	if n, err := strconv.Atoi(os.Getenv("HAILO_TEST_FAULTS")); err == nil {
		return n
	}
	return 2
}

// deadline is performance.request_timeout of the services here: an answer that took longer than that and
// patience was forgotten.
const deadline = time.Minute

// visitors ask for one thing and keep what came of it.
type visitors struct {
	stop    chan struct{}
	once    sync.Once // closes stop
	clients sync.WaitGroup

	mu       sync.Mutex
	statuses map[int]int
	started  time.Time
}

// TestFaultsUnderLoad breaks the chip in every way while 16 clients ask for image embeddings,
// about 200 a second. Every request is answered within its deadline, with 200 or 503, and every
// 200 has the vector of its own image: the simulated chip's vectors come from the pixels. Only
// a frame that the chip itself fails (error=) gets 500.
func TestFaultsUnderLoad(t *testing.T) {
	chip, config := newControl(t, watchdog+"  on_device_loss: fail\nsim:\n  arguments: CONTROL\nperformance:\n  request_timeout: 1m\n  max_queue_size: 32\n")
	r := serve(t, t.TempDir(), "--config", config)
	names := []string{"airplane", "automobile", "bicycle", "cat", "dog", "elephant", "guitar", "pizza"}
	images, want := make([]map[string]any, len(names)), make([]string, len(names))
	for i, name := range names {
		images[i] = map[string]any{"image": sample(t, name+".jpg")}
		want[i] = fmt.Sprint(r.mustPost(t, "/v1/embed/image", images[i]).body["embedding"])
	}
	before := r.resources(t)
	good := func(n int, a reply) error {
		if fmt.Sprint(a.body["embedding"]) != want[n%len(want)] {
			return fmt.Errorf("%s got the vector of another image", names[n%len(names)])
		}
		return nil
	}
	for _, fault := range []string{"crash", "crash=3", "hang", "error=4@2", "lose=2", "garbage=2", "repeat=2"} {
		l := r.startLoad(t, "/v1/embed/image", images, good)
		r.breaks(t, chip, fault, "/v1/embed/image", images[0])
		l.end(t, fault)
		for status, n := range l.statuses {
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
	if code := r.stop(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestFaultsWithStandIn is the same with the CPU standing in: what the chip drops is encoded there.
func TestFaultsWithStandIn(t *testing.T) {
	chip, config := newControl(t, watchdog+"sim:\n  vectors: model\n  arguments: CONTROL\nperformance:\n  request_timeout: 1m\n  max_queue_size: 32\n")
	r := serve(t, t.TempDir(), "--config", config)
	request := catRequest(t)
	r.classifies(t)
	for _, fault := range []string{"crash", "hang", "lose=2"} {
		l := r.startLoad(t, "/v1/classify", []map[string]any{request}, func(_ int, a reply) error {
			if a.best() != "a photo of a cat" {
				return fmt.Errorf("classified as %s", a.raw)
			}
			return nil
		})
		r.breaks(t, chip, fault, "/v1/classify", request)
		l.end(t, fault)
		if len(l.statuses) != 1 {
			t.Errorf("%s: answers by status %v, want only 200", fault, l.statuses)
		}
	}
}

// startLoad has 16 clients ask about 200 times a second, if the machine can. good judges a 200.
func (r *running) startLoad(t *testing.T, path string, requests []map[string]any, good func(n int, a reply) error) *visitors {
	t.Helper()
	l := &visitors{stop: make(chan struct{}), statuses: map[int]int{}, started: time.Now()}
	for client := range 16 {
		l.clients.Go(func() {
			pace := time.NewTicker(80 * time.Millisecond) // 16 / 0.08 = 200 a second
			defer pace.Stop()
			for n := client; ; n++ {
				select {
				case <-l.stop:
					return
				case <-pace.C:
				}
				start := time.Now()
				a, err := r.post(path, requests[n%len(requests)])
				if err != nil {
					t.Error(err)
					return
				}
				if d := time.Since(start); d > deadline+patience {
					t.Errorf("answered %d after %v", a.status, d)
				}
				l.mu.Lock()
				l.statuses[a.status]++
				l.mu.Unlock()
				if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
					t.Errorf("503 without Retry-After: %s", a.raw)
				}
				if a.status == http.StatusOK {
					if err := good(n, a); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	t.Cleanup(l.halt) // of a test that fails
	return l
}

func (l *visitors) halt() {
	l.once.Do(func() { close(l.stop) })
	l.clients.Wait()
}

// end stops the load and logs it.
func (l *visitors) end(t *testing.T, fault string) {
	l.halt()
	answers := 0
	for _, n := range l.statuses {
		answers += n
	}
	t.Logf("%-10s %.0f requests a second, answers by status: %v", fault, float64(answers)/time.Since(l.started).Seconds(), l.statuses)
}

// breaks injects a fault again and again, and logs how soon requests succeed again.
func (r *running) breaks(t *testing.T, chip control, fault, path string, request map[string]any) {
	t.Helper()
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
		chip.tell(t, fault)
		until(t, fault+": it strikes", func() bool { return count() != before }) // or nothing would have recovered
		seen = images()
		recovery = append(recovery, r.recovered(t, path, request, start))
	}
	slices.Sort(recovery)
	at := func(share int) time.Duration {
		return recovery[(len(recovery)-1)*share/100].Round(time.Millisecond)
	}
	t.Logf("%-10s %d times, from the command to the first good answer %v at the median, %v for 99 in 100, %v at the worst",
		fault, len(recovery), at(50), at(99), at(100))
}

// recovered waits, after a fault has struck, until requests succeed again: three in a row. It
// returns when the first of them was answered, from start.
func (r *running) recovered(t *testing.T, path string, request map[string]any, start time.Time) time.Duration {
	t.Helper()
	good := time.Time{}
	for n := 0; n < 3; {
		a := r.ask(t, path, request)
		if n++; a.status != http.StatusOK {
			n, good = 0, time.Time{}
			if time.Since(start) > patience {
				t.Fatalf("not recovered: %s", a.raw)
			}
			time.Sleep(5 * time.Millisecond)
		} else if good.IsZero() {
			good = time.Now()
		}
	}
	return good.Sub(start)
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
	chip, config := newControl(t, watchdog+"sim:\n  vectors: model\n  arguments: CONTROL\n")
	r := serve(t, t.TempDir(), "--config", config)
	r.classifies(t)
	chip.tell(t, "hang") // until the watchdog replaces it
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
	_, config := newControl(t, "  on_device_loss: fail\nsim:\n  arguments: CONTROL --fault=crash=40\n")
	r := serve(t, t.TempDir(), "--config", config)
	request := map[string]any{"image": sample(t, "cat.jpg")}
	until(t, "/health says so", func() bool {
		if r.ask(t, "/v1/embed/image", request).status != http.StatusServiceUnavailable {
			return false
		}
		h := r.get(t, "/health")
		return h.status == http.StatusServiceUnavailable && h.body["status"] == "unhealthy" && h.body["reason"] != ""
	})
}
