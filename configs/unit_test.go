package configs

import (
	"strings"
	"testing"
)

func TestUnit(t *testing.T) {
	cases := []struct {
		limits   ResourceLimits
		has, not []string
	}{
		{ResourceLimits{MemoryMax: "2G", CPUQuota: "80%"}, []string{"\nMemoryMax=2G\nCPUQuota=80%\n"}, []string{"MemoryMax=3G"}},
		{ResourceLimits{MemoryMax: "infinity"}, []string{"\nMemoryMax=infinity\n"}, []string{"CPUQuota"}},
		{ResourceLimits{}, []string{"StateDirectory=hailo-clip\n", "Type=notify\n", "WatchdogSec=30\n"}, []string{"\nMemoryMax", "CPUQuota"}},
	}
	for _, c := range cases {
		u := c.limits.Unit()
		for _, s := range c.has {
			if !strings.Contains(u, s) {
				t.Errorf("%+v: no %q in\n%s", c.limits, s, u)
			}
		}
		for _, s := range c.not {
			// The comment at the top names the keys.
			if _, body, _ := strings.Cut(u, "[Unit]"); strings.Contains(body, s) {
				t.Errorf("%+v: %q in\n%s", c.limits, s, u)
			}
		}
	}
}
