package configs

import (
	"strings"
	"testing"
)

func TestUnitOfAnArchitecture(t *testing.T) {
	limits := ResourceLimits{MemoryMax: "512M", CPUQuota: "300%"}
	for _, c := range []struct{ program, arch string }{{UnitProgram, "amd64"}, {"/usr/local/bin/hailo-clip", "arm64"}} {
		text := limits.Unit(c.program, c.arch)
		for _, line := range []string{"MemoryMax=512M", "CPUQuota=300%", "ExecStart=" + c.program + " serve"} {
			if strings.Count(text, "\n"+line+"\n") != 1 {
				t.Errorf("%s: no line %s in\n%s", c.arch, line, text)
			}
		}
		if denied := strings.Contains(text, "\nMemoryDenyWriteExecute=yes\n"); denied != (c.arch == "arm64") {
			t.Errorf("%s: MemoryDenyWriteExecute=yes is there: %v", c.arch, denied)
		}
	}
}
