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
	text := fmt.Sprintf("clip:\n  backend: sim\n  model: demo\n  device_timeout_ms: 300\n%s", settings)
	text = strings.Replace(text, "CONTROL", "--control="+string(c), 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, file
}

// tell sends a fault. A chip that is being restarted is not there yet; one that dies of the
// command does not answer.
func (c control) tell(t *testing.T, fault string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
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

// faults is how often each fault is injected; HAILO_CLIP_FAULTS=20 is the long run.
func faults() int {
	if n, err := strconv.Atoi(os.Getenv("HAILO_CLIP_FAULTS")); err == nil {
		return n
	}
	return 2
}

// TestFaultsUnderLoad breaks the chip in every way while 16 clients ask for image embeddings,
// about 200 a second. Every request is answered within its deadline, with 200, 503, or
// 500 where the chip reported an error, and every 200 has the vector of its own picture: the simulated chip's vectors come from the pixels.
func TestFaultsUnderLoad(t *testing.T) {
	chip, config := newControl(t, "  on_device_loss: fail\nsim:\n  arguments: CONTROL\nperformance:\n  request_timeout: 5s\n  max_queue_size: 32\n")
	r := serve(t, t.TempDir(), "--config", config)
	names := []string{"airplane", "automobile", "bicycle", "cat", "dog", "elephant", "guitar", "pizza"}
	pictures, want := make([]map[string]any, len(names)), make([]string, len(names))
	for i, name := range names {
		pictures[i] = map[string]any{"image": sample(t, name+".jpg")}
		want[i] = fmt.Sprint(r.mustPost(t, "/v1/embed/image", pictures[i]).body["embedding"])
	}
	before := r.resources(t)

	var wg sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	statuses := map[int]int{}
	for client := range 16 {
		wg.Go(func() {
			pace := time.NewTicker(80 * time.Millisecond) // 16 / 0.08 = 200 a second
			defer pace.Stop()
			for n := client; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				start := time.Now()
				a, err := r.post("/v1/embed/image", pictures[n%len(pictures)])
				if err != nil {
					t.Error(err)
					return
				}
				if d := time.Since(start); d > 6*time.Second { // the deadline, and a busy machine
					t.Errorf("answered %d after %v", a.status, d)
				}
				mu.Lock()
				statuses[a.status]++
				mu.Unlock()
				switch {
				case a.status == http.StatusOK && fmt.Sprint(a.body["embedding"]) != want[n%len(want)]:
					t.Errorf("%s got the vector of another picture", names[n%len(names)])
				case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "":
					t.Errorf("503 without Retry-After: %s", a.raw)
				case a.status != http.StatusOK && a.status != http.StatusServiceUnavailable && a.status != http.StatusInternalServerError:
					t.Errorf("%d: %s", a.status, a.raw)
				}
			}
		})
	}
	for _, fault := range []string{"crash", "crash=3", "hang", "error=4@2", "lose=2", "garbage=2", "repeat=2"} {
		var recovery []time.Duration
		for range faults() {
			chip.tell(t, fault)
			start := time.Now()
			recovery = append(recovery, r.recovered(t, pictures[0], start))
		}
		slices.Sort(recovery)
		t.Logf("%-10s %d times, recovered after %v at the median, %v at the worst", fault, len(recovery),
			recovery[len(recovery)/2].Round(time.Millisecond), recovery[len(recovery)-1].Round(time.Millisecond))
	}
	close(stop)
	wg.Wait()
	t.Logf("statuses %v", statuses)
	if statuses[200] == 0 {
		t.Error("nothing was answered with 200")
	}
	// Idle connections end by and by; leaks do not. The server keeps idle goroutines for 10 s, a
	// few for each client; there were hundreds of requests.
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		after := r.resources(t)
		if after.files <= before.files && after.goroutines <= before.goroutines+24 && after.children == 1 && after.inFlight == 0 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("before %+v, after %+v", before, after)
			break
		}
	}
	if code := r.stop(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// recovered waits until the fault has struck and requests succeed again: three in a row.
func (r *running) recovered(t *testing.T, picture map[string]any, start time.Time) time.Duration {
	t.Helper()
	time.Sleep(100 * time.Millisecond) // the load makes the fault strike within a few frames
	good := time.Time{}
	for n := 0; n < 3; {
		a, err := r.post("/v1/embed/image", picture)
		if err != nil {
			t.Fatal(err)
		}
		if n++; a.status != http.StatusOK {
			n, good = 0, time.Time{}
			if time.Since(start) > 20*time.Second {
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
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Skip("this kernel does not list children: ", err)
	}
	stats := r.get(t, "/v1/stats")
	process, chip := stats.body["process"].(map[string]any), stats.body["npu"].(map[string]any)
	return resources{len(files), int(process["goroutines"].(float64)), countChildren(pid, children), int(chip["in_flight"].(float64))}
}

// countChildren counts those of all threads: any of them may have started the worker.
func countChildren(pid int, main []byte) int {
	n := 0
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		n += len(bytes.Fields(b))
	}
	if n == 0 {
		n = len(bytes.Fields(main))
	}
	return n
}

// TestDeviceLossWithStandIn: while the chip is gone the CPU encodes, and health says so.
func TestDeviceLossWithStandIn(t *testing.T) {
	chip, config := newControl(t, "sim:\n  vectors: model\n  arguments: CONTROL\n")
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
	unhealthy := false
	request := map[string]any{"image": sample(t, "cat.jpg")}
	for end := time.Now().Add(30 * time.Second); !unhealthy && time.Now().Before(end); {
		a, err := r.post("/v1/embed/image", request)
		if err != nil {
			t.Fatal(err)
		}
		if a.status == http.StatusServiceUnavailable {
			h := r.get(t, "/health")
			unhealthy = h.status == http.StatusServiceUnavailable && h.body["status"] == "unhealthy" && h.body["reason"] != ""
		}
	}
	if !unhealthy {
		t.Error("the chip died again and again, and /health never said so")
	}
}
