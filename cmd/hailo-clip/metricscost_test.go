package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"hailoclip/bench/load"
)

// TestMetricsCost measures the CPU time of the service for an answer, with what is the default (metrics, of which somebody reads
// all every five seconds, and one line in the log for a hundred answers) and with neither, in turns, on the simulated chip with 16
// clients. HAILO_TEST_METRICS_COST is the number of turns; it decides nothing, and needs a machine that does nothing else:
//
//	make metrics-cost N=20
func TestMetricsCost(t *testing.T) {
	turns, _ := strconv.Atoi(os.Getenv("HAILO_TEST_METRICS_COST"))
	if turns < 1 {
		t.Skip("set HAILO_TEST_METRICS_COST to the number of turns")
	}
	image := must(os.ReadFile(filepath.Join("..", "..", "stages", "decode", "testdata", "pixels", "vga_420.jpg")))
	bodies := must(load.NewBodies([]load.Image{{Data: image}}, load.Ask{Prompts: 20}))
	names := []string{"without", "with"}
	var targets []*load.Target
	for _, how := range [][]string{
		{"--admin-listen=", "--set=logging.requests=0"},
		{"--admin-listen=127.0.0.1:0", "--set=logging.requests=100"},
	} {
		r := serve(t, t.TempDir(), append(how, "--backend", "sim", "--model", "demo", "--set=performance.max_queue_size=64")...)
		if len(targets) == 1 {
			w := &watched{running: r, admin: r.adminURL(t)}
			go w.scrapes()
		}
		targets = append(targets, must(load.NewTarget(r.url, "", bodies, time.Minute)))
		defer targets[len(targets)-1].Close()
	}
	step := func(which int) float64 {
		found, err := load.Run(t.Context(), load.Options{Loads: []load.Load{{Clients: 16}}, Turns: 1,
			Window: load.Window{Warmup: time.Second, Duration: 5 * time.Second, Every: 1 << 20}, Progress: func(string, time.Duration, time.Duration) {}}, targets[which])
		if err != nil || found.Steps[0].Failed() > 0 || found.Steps[0].Service == nil {
			t.Fatal(err, found)
		}
		return found.Steps[0].Service.CPU
	}
	var cpu [2][]float64
	var ratios []float64
	for turn := range turns {
		for i := range 2 {
			which := (turn + i) % 2
			cpu[which] = append(cpu[which], step(which))
		}
		ratios = append(ratios, cpu[1][turn]/cpu[0][turn])
	}
	for i, name := range names {
		fmt.Printf("%s metrics and log: %.4f ms CPU an answer (median of %d turns, %.4f to %.4f)\n",
			name, median(cpu[i]), turns, slices.Min(cpu[i]), slices.Max(cpu[i]))
	}
	fmt.Printf("with / without: %.4f (median of the turns' ratios, %.4f to %.4f)\n", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// scrapes reads the metrics every five seconds until the service ends.
func (w *watched) scrapes() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		if response, err := http.Get(w.admin + "/metrics"); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		select {
		case <-w.ended:
			return
		case <-tick.C:
		}
	}
}
