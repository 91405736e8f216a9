package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBench measures the service on the simulated chip as users do.
func TestBench(t *testing.T) {
	state, dir := t.TempDir(), t.TempDir()
	report, page, table := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html"), filepath.Join(dir, "r.csv")
	window := time.Second / 2
	run := func(args ...string) result {
		all := []string{"bench", "--backend", "sim", "--model", "demo", "--size", "64x48", "-d", window.String(), "--warmup", "100ms", "-c", "4", "--timeout", "2m"}
		return runProgram(t, command(t, state, append(all, args...)...))
	}
	for window < patience { // long enough for some answers
		if r := run("--assert", "requests>50"); r.code == exitOK {
			break
		}
		window *= 4
	}
	r := run("--json", report, "--html", page, "--csv", table, "--assert", "errors==0", "--assert", "cache_hits>=100%", "--assert", "cpu>0", "--assert", "batch>=1")
	if r.code != exitOK {
		t.Fatalf("exit code %d\n%s\n%s", r.code, r.stderr, r.stdout)
	}
	for _, s := range []string{"4 clients", "backend sim (simulated)", "decode", "encode-wait", "answer", "A run of the device takes"} {
		if !strings.Contains(r.stdout, s) {
			t.Errorf("no %q in:\n%s", s, r.stdout)
		}
	}
	var saved struct {
		Steps []struct {
			Rate float64
		}
	}
	if b, err := os.ReadFile(report); err != nil || json.Unmarshal(b, &saved) != nil || len(saved.Steps) != 1 || saved.Steps[0].Rate <= 0 {
		t.Errorf("%v, %+v", err, saved)
	}
	for _, name := range []string{page, table} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c := runProgram(t, command(t, state, "bench", "--compare", report, report)); c.code != exitOK || !strings.Contains(c.stdout, "1.000") {
		t.Errorf("compare: %+v", c)
	}
	if r := run("--assert", "requests<1"); r.code != exitFailed || !strings.Contains(r.stderr, "requests<1 does not hold") {
		t.Errorf("a wrong assertion: %+v", r)
	}
	if entries, err := os.ReadDir(state); err != nil || len(entries) != 0 {
		t.Errorf("left in the state folder: %v, %v", entries, err)
	}
}

func TestBenchArguments(t *testing.T) {
	for says, args := range map[string][]string{
		"there is no < <=":      {"--assert", "p99"},
		"is none of rate":       {"--slo", "p98=1ms"},
		"not of the form":       {"--size", "640"},
		"out of bounds: 16 to":  {"--size", "8x8"},
		"prompts: 1001":         {"--prompts", "1001"},
		"load of 0 clients":     {"-c", "0"},
		"a search needs a goal": {"--search", "rate"},
		"duration 1ms":          {"-d", "1ms"},
		"for --compare only":    {"a.json"},
		"takes two reports":     {"--compare", "a.json"},
		"--timeout: 0s":         {"--timeout", "0s"},
		"is not of the form":    {"--url", "localhost:5000"},
	} {
		r := runProgram(t, command(t, t.TempDir(), append([]string{"bench"}, args...)...))
		if r.code != exitUsage || !strings.Contains(r.stderr, says) {
			t.Errorf("%q: exit code %d, %q in %s", args, r.code, says, r.stderr)
		}
	}
	for _, flag := range []string{"--backend=cpu", "--model=demo", "--config=/dev/null"} {
		r := runProgram(t, command(t, t.TempDir(), "bench", "--url", "http://127.0.0.1:1", flag))
		if r.code != exitUsage || !strings.Contains(r.stderr, "of no use with --url") {
			t.Errorf("%s with a URL: %+v", flag, r)
		}
	}
	for _, flag := range []string{"--json", "--csv", "--html"} {
		r := runProgram(t, command(t, t.TempDir(), "bench", "--url", "http://127.0.0.1:1", flag, filepath.Join(t.TempDir(), "no", "folder")))
		if r.code != exitFailed || !strings.Contains(r.stderr, "no such file") {
			t.Errorf("%s that cannot be written: %+v", flag, r)
		}
	}
	if r := runProgram(t, command(t, t.TempDir(), "bench", "--help")); !strings.Contains(r.stdout, "bench run --help") || !strings.Contains(r.stdout, "--search rate --slo") {
		t.Errorf("help: %+v", r)
	}
	if r := runProgram(t, command(t, t.TempDir(), "bench", "--nonsense")); r.code != exitUsage || !strings.Contains(r.stderr, "hailo-clip bench run --help") {
		t.Errorf("hint: %+v", r)
	}
	r := runProgram(t, command(t, t.TempDir(), "bench", "--url", "http://127.0.0.1:1", "-d", "100ms"))
	if r.code != exitFailed || !strings.Contains(r.stderr, "connection refused") {
		t.Errorf("nobody there: %+v", r)
	}
	r = runProgram(t, command(t, t.TempDir(), "bench", "--model", "no-such-model", "-d", "100ms"))
	if r.code == exitOK || !strings.Contains(r.stderr, "the service ended at its start") {
		t.Errorf("a service that does not start: %+v", r)
	}
}

func TestBenchProfile(t *testing.T) {
	cpu, heap := filepath.Join(t.TempDir(), "cpu.out"), filepath.Join(t.TempDir(), "heap.out")
	r := runProgram(t, command(t, t.TempDir(), "bench", "profile", "--backend", "sim", "--model", "demo", "--size", "64x48,96x64",
		"-d", "100ms", "--cpu-profile", cpu, "--heap-profile", heap))
	if r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	for _, s := range []string{"64x48", "96x64", "decode", "resize", "encode", "score", "whole way"} {
		if !strings.Contains(r.stdout, s) {
			t.Errorf("no %q in:\n%s", s, r.stdout)
		}
	}
	for _, name := range []string{cpu, heap} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
