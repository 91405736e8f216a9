package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/configs"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/open"
)

func TestQuotaOf(t *testing.T) {
	for limit, want := range map[string]string{"80000 100000\n": "80%", "150000 100000": "150%", "200000 100000": "", "max 100000": "", "": "", "1 0": ""} {
		got := strings.Join(quotaOf(limit), "")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", limit, got, want)
		}
	}
}

// TestSlowConfiguration has the numbers of the former service's file and unit.
func TestSlowConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "my.yaml")
	if err := os.WriteFile(file, []byte("clip:\n  batch_size: 1\nresource_limits:\n  cpu_quota: 80%\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runProgram(t, command(t, t.TempDir(), "config", "check", file))
	if r.code != exitOK || !strings.Contains(r.stdout, "ok") || !strings.Contains(r.stderr, "4.7 times") || !strings.Contains(r.stderr, "80%") {
		t.Errorf("config check: %d %s%s", r.code, r.stdout, r.stderr)
	}
	r = runProgram(t, command(t, t.TempDir(), "doctor", "--config", file))
	if said := strings.Join(strings.Fields(r.stdout), " "); !strings.Contains(said, "4.7 times") || !strings.Contains(said, "80% counts one core") {
		t.Errorf("doctor: %s", r.stdout)
	}
	s := serve(t, t.TempDir(), "--backend", "cpu", "--config", file)
	if log := s.logged(); !strings.Contains(log, "4.7 times") || !strings.Contains(log, "80% counts one core") {
		t.Errorf("serve: %s", log)
	}

	root := t.TempDir()
	put(t, root, map[string]string{"lib/systemd/system/hailo-clip.service": "[Service]\nCPUQuota=90%\n"})
	of := func() []doctor.Finding {
		f := findings{place: place{cfg: configs.Config{CLIP: configs.CLIP{Config: open.Config{BatchSize: 1}}}}, env: doctor.Env{Root: root}}
		f.configuration()
		return f.all
	}
	if found := of(); len(found) != 2 || !strings.Contains(found[1].What, "90%") || !strings.Contains(found[1].Remedy, "CPUQuota=") {
		t.Errorf("of the unit: %+v", found)
	}
	put(t, root, map[string]string{"etc/systemd/system/hailo-clip.service.d/quota.conf": "[Service]\nCPUQuota=\n"})
	if found := of(); len(found) != 1 {
		t.Errorf("after the remedy: %+v", found)
	}
}

func TestMadeUpVectors(t *testing.T) {
	for vectors, warned := range map[string]bool{"hash": true, "model": false} {
		c := command(t, t.TempDir(), "embed", "text", "a cat", "--backend", "sim", "--model", "demo")
		c.Env = append(c.Env, "HAILO_CLIP_SIM_VECTORS="+vectors)
		needONNX(t)
		if r := runProgram(t, c); r.code != exitOK || strings.Contains(r.stderr, "scores are nonsense") != warned {
			t.Errorf("%s: %d %s", vectors, r.code, r.stderr)
		}
	}
}
