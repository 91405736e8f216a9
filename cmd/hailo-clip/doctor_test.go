package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo"
	"hailoclip/hailo/doctor"
)

func TestModelCheck(t *testing.T) {
	for zoo, want := range map[string]string{"": "", "v5.2.0": "5.2", "v10.11.12": "10.11"} {
		if got := modelCheck("m", "npu", hailo.FileState{Name: "i.hef", Bytes: 5, Zoo: zoo}).HailoRT; got != want {
			t.Errorf("zoo %q is for HailoRT %q, want %q", zoo, got, want)
		}
	}
}

// TestDoctorRoot examines a system in a folder: nothing of this machine is in the report.
func TestDoctorRoot(t *testing.T) {
	r := runProgram(t, command(t, t.TempDir(), "doctor", "--json", "--root", t.TempDir()))
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != exitOK {
		t.Fatal(r.code, err, r.stderr)
	}
	if report.Versions.Kernel != "" {
		t.Errorf("this machine's kernel: %+v", report.Versions)
	}
	for _, f := range report.Findings {
		if slices.Contains([]string{"onnxruntime", "libturbojpeg", "model", "backend", "cpu-models"}, f.Check) {
			t.Errorf("of this machine: %+v", f)
		}
	}
}

// TestDoctorHiddenState has a state folder of another user.
func TestDoctorHiddenState(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may look into every folder")
	}
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "models"), 0); err != nil {
		t.Fatal(err)
	}
	r := runProgram(t, command(t, state, "doctor"))
	if !strings.Contains(r.stdout, "may not look into") || !strings.Contains(r.stdout, "sudo hailo-clip doctor --state-dir "+state) {
		t.Error(r.stdout, r.stderr)
	}
}
