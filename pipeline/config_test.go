package pipeline

import (
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func TestDuration(t *testing.T) {
	cases := []struct {
		text string
		want time.Duration
		err  string
	}{
		{"30", 30 * time.Second, ""},
		{"0.5", 500 * time.Millisecond, ""},
		{"250ms", 250 * time.Millisecond, ""},
		{"1m30s", 90 * time.Second, ""},
		{"soon", 0, "not a duration"},
		{"1e300", 0, "out of range"},
		{".nan", 0, "not a duration"},
		{"NaN", 0, "out of range"},
		{"[1]", 0, "cannot unmarshal"},
	}
	for _, c := range cases {
		var v struct{ D Duration }
		err := yaml.Unmarshal([]byte("d: "+c.text), &v)
		if c.err == "" && (err != nil || v.D.Std() != c.want) {
			t.Errorf("%s: %v, %v; want %v", c.text, v.D, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.err)
		}
	}
	out, err := yaml.Marshal(struct{ D Duration }{Duration(90 * time.Second)})
	if err != nil || strings.TrimSpace(string(out)) != "d: 1m30s" {
		t.Errorf("marshalled as %q, %v", out, err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{WorkerThreads: 2, MaxQueueSize: 10, RequestTimeout: Duration(30 * time.Second)}
	if err := good.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	err := Config{WorkerThreads: 1000, RequestTimeout: -1, MaxWait: -1, WarmupIterations: -1}.Validate()
	for _, field := range []string{"worker_threads: 1000", "max_queue_size: 0", "request_timeout", "max_wait", "warmup_iterations"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("no complaint about %s in: %v", field, err)
		}
	}
}
