package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBench measures the service on the simulated chip as users do.
func TestBench(t *testing.T) {
	t.Parallel()
	state, dir := t.TempDir(), t.TempDir()
	report, page, table := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html"), filepath.Join(dir, "r.csv")
	window := time.Second / 2
	run := func(args ...string) result {
		all := []string{"bench", "--backend", "sim", "--model", "demo", "--size", "64x48", "-d", window.String(), "--warmup", "100ms", "-c", "4", "--timeout", "2m"}
		return runProgram(t, command(state, append(all, args...)...))
	}
	for window < patience { // long enough for some answers
		if r := run("--assert", "requests>50"); r.code == exitOK {
			break
		}
		window *= 4
	}
	r := run("--json", report, "--html", page, "--csv", table, "--assert", "errors==0", "--assert", "cache_hits>=100%", "--assert", "cpu>0", "--assert", "batch>=1")
	r.expect(t, exitOK, "4 clients", "backend sim (simulated)", "decode", "encode-wait", "answer", "A run of the device takes")
	var saved struct{ Steps []struct{ Rate float64 } }
	if b, err := os.ReadFile(report); err != nil || json.Unmarshal(b, &saved) != nil || len(saved.Steps) != 1 || saved.Steps[0].Rate <= 0 {
		t.Errorf("%v, %+v", err, saved)
	}
	wrote(t, page, table)
	runProgram(t, command(state, "bench", "--compare", report, report)).expect(t, exitOK, "1.000")
	run("--assert", "requests<1").expect(t, exitFailed, "requests<1 does not hold")
	if entries, err := os.ReadDir(state); err != nil || len(entries) != 0 {
		t.Errorf("left in the state folder: %v, %v", entries, err)
	}
}

// TestBenchStreams measures streams of both kinds, beside some that misbehave.
func TestBenchStreams(t *testing.T) {
	t.Parallel()
	table := filepath.Join(t.TempDir(), "r.csv")
	for _, kind := range []string{"ws", "push"} {
		args := []string{"bench", "--backend", "sim", "--model", "demo", "--size", "64x48", "--warmup", "100ms", "-c", "2", "--timeout", "2m", "--stream", kind,
			"--policy", "queue", "--misbehave", "stalled,partial,garbage", "--csv", table}
		for window := time.Second; ; window *= 4 { // long enough for some answers
			r := hailoClip(t, append(args, "--fps", "20", "-d", window.String(), "--assert", "requests>=20", "--assert", "error_ratio<50%", "--assert", "share_min>0")...)
			if r.code == exitOK || window > patience {
				r.expect(t, exitOK, "2 "+kind+" streams of 20/s", "lag as the service says p50", "answers of the stream with the fewest")
				break
			}
		}
		wrote(t, table)
	}
	hailoClip(t, "bench", "bodies", "--backend", "sim", "--model", "demo", "--size", "64x48", "--body", "ws,ws-raw,push", "-c", "2", "-d", "1s", "--turns", "1").
		expect(t, exitOK, "ws-raw", "push")
}

func TestBenchArguments(t *testing.T) {
	t.Parallel()
	file, nobody := filepath.Join(t.TempDir(), "no", "folder"), "http://127.0.0.1:1"
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--assert", "p99"}, exitUsage, "there is no < <="},
		{[]string{"--slo", "p98=1ms"}, exitUsage, "is none of rate"},
		{[]string{"--size", "640"}, exitUsage, "not of the form"},
		{[]string{"--size", "8x8"}, exitUsage, "out of bounds: 16 to"},
		{[]string{"-c", "0"}, exitUsage, "load of 0 clients"},
		{[]string{"--stream", "ws", "--rate", "5"}, exitUsage, "--stream has --fps and no --rate"},
		{[]string{"--stream", "ws", "--fps", "2000"}, exitUsage, "2000 frames a second"},
		{[]string{"--stream", "ws", "--misbehave", "rudely"}, exitUsage, `trouble "rudely" is none of`},
		{[]string{"bodies", "--body", "ws", "--prompts", "0"}, exitUsage, "streams classify"},
		{[]string{"--search", "rate"}, exitUsage, "a search needs a goal"},
		{[]string{"-d", "1ms"}, exitUsage, "duration 1ms"},
		{[]string{"a.json"}, exitUsage, "for --compare only"},
		{[]string{"--compare", "a.json"}, exitUsage, "takes two reports"},
		{[]string{"--timeout", "0s"}, exitUsage, "--timeout: 0s"},
		{[]string{"--url", "localhost:5000"}, exitUsage, "is not of the form"},
		{[]string{"--url", nobody, "--backend=cpu"}, exitUsage, "of no use with --url"},
		{[]string{"--url", nobody, "--model=demo"}, exitUsage, "of no use with --url"},
		{[]string{"--url", nobody, "--config=/dev/null"}, exitUsage, "of no use with --url"},
		{[]string{"--url", nobody, "--json", file}, exitFailed, "no such file"},
		{[]string{"--url", nobody, "--csv", file}, exitFailed, "no such file"},
		{[]string{"--url", nobody, "--html", file}, exitFailed, "no such file"},
		{[]string{"--url", nobody, "-d", "100ms"}, exitFailed, "connection refused"},
		{[]string{"--nonsense"}, exitUsage, "hailo-clip bench run --help"},
		{[]string{"--model", "no-such-model", "-d", "100ms"}, exitFailed, "the service ended at its start"},
	} {
		t.Run(fmt.Sprintf("%q", c.args), func(t *testing.T) { hailoClip(t, append([]string{"bench"}, c.args...)...).expect(t, c.code, c.says) })
	}
	hailoClip(t, "bench", "--help").expect(t, exitOK, "bench run --help", "--search rate --slo")
}

func TestBenchProfile(t *testing.T) {
	t.Parallel()
	cpu, heap := filepath.Join(t.TempDir(), "cpu.out"), filepath.Join(t.TempDir(), "heap.out")
	hailoClip(t, "bench", "profile", "--backend", "sim", "--model", "demo", "--size", "64x48,96x64", "-d", "100ms",
		"--cpu-profile", cpu, "--heap-profile", heap).
		expect(t, exitOK, "64x48", "96x64", "decode", "resize", "encode", "score", "whole way")
	wrote(t, cpu, heap)
}

// wrote fails the test unless something is in the files.
func wrote(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
