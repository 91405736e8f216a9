package configs

import (
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                      nil,
		existing:                                {"clip.batch_size: 1 makes the NPU 4.7 times slower", "resource_limits.cpu_quota: 80%"},
		"clip:\n  batch_size: 4\n":              {"clip.batch_size: 4 makes the NPU slower"},
		"clip:\n  batch_size: auto\n":           nil,
		"clip:\n  batch_size: \"0\"\n":          nil,
		"clip:\n  batch_size: 16\n":             nil,
		"resource_limits:\n  cpu_quota: 199%\n": {"resource_limits.cpu_quota: 199%"},
		"resource_limits:\n  cpu_quota: 200%\n": nil,
	} {
		got := mustLoad(t, text).Warnings()
		if len(got) != len(want) {
			t.Fatalf("%s: %q, want %q", text, got, want)
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) || !strings.Contains(got[i], "; write ") {
				t.Errorf("%s: %q, want %q", text, got[i], want[i])
			}
		}
	}
}

func TestAuto(t *testing.T) {
	for text, want := range map[string]int{"auto": 8, "AUTO": 8, "0": 8, "1": 1, "0x10": 16, "32": 32} {
		c := mustLoad(t, "", "HAILO_CLIP_CLIP_BATCH_SIZE="+text)
		if c.CLIP.Batch() != want {
			t.Errorf("%s: %d", text, c.CLIP.Batch())
		}
		shown, err := c.YAML()
		if again := mustLoad(t, string(shown)); err != nil || again.CLIP.BatchSize != c.CLIP.BatchSize {
			t.Errorf("%s is shown as\n%s%v", text, shown, err)
		}
	}
	for _, text := range []string{"", "automatic", "-1", "33", "1.5"} {
		if c, err := Read(write(t, ""), []string{"HAILO_CLIP_CLIP_BATCH_SIZE=" + text}, nil); err == nil {
			t.Errorf("%q is taken as %d", text, c.CLIP.BatchSize)
		}
	}
}

func TestUnit(t *testing.T) {
	for _, c := range []struct {
		limits   ResourceLimits
		has, not string // lines
	}{
		{ResourceLimits{MemoryMax: "2G", CPUQuota: "80%"}, "MemoryMax=2G\nCPUQuota=80%\n", "MemoryMax=3G"},
		{ResourceLimits{MemoryMax: "infinity"}, "MemoryMax=infinity\n", "CPUQuota"},
		{ResourceLimits{}, "StateDirectory=hailo-clip\n", "CPUQuota"},
		{ResourceLimits{}, "Type=notify\n", "\nMemoryMax"},
		{ResourceLimits{}, "WatchdogSec=30\n", "\nMemoryMax"},
	} {
		_, body, _ := strings.Cut(c.limits.Unit(UnitProgram, "arm64"), "[Unit]") // the comment at the top names the keys
		if !strings.Contains(body, "\n"+c.has) || strings.Contains(body, c.not) {
			t.Errorf("%+v: no %q, or %q, in\n%s", c.limits, c.has, c.not, body)
		}
	}
}
