package onnx

import (
	"strings"
	"testing"
)

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want []string
	}{
		{"zero", Config{}, nil},
		{"bounds", Config{Threads: 256, Batch: 32}, nil},
		{"over", Config{Threads: 257, Batch: 33}, []string{"threads is 257", "batch is 33, must be 0 to 32"}},
		{"under", Config{Threads: -1, Batch: -1}, []string{"threads is -1, must be 0 to 256", "batch is -1"}},
	} {
		err := tt.c.Validate()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v lacks %q", tt.name, err, want)
			}
		}
	}
}
