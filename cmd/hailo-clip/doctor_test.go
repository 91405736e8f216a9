package main

import (
	"testing"

	"hailoclip/hailo"
)

func TestModelCheck(t *testing.T) {
	for zoo, want := range map[string]string{"": "", "v5.2.0": "5.2", "v10.11.12": "10.11"} {
		if got := modelCheck("m", "npu", hailo.FileState{Name: "i.hef", Bytes: 5, Zoo: zoo}).HailoRT; got != want {
			t.Errorf("zoo %q is for HailoRT %q, want %q", zoo, got, want)
		}
	}
}
