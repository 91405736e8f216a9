package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hailoclip/configs"
	"hailoclip/hailo/device"
)

// unitQuota warns of a low CPUQuota in the installed unit of the service, or in its drop-ins, with file and line.
func unitQuota(root device.Root) []string {
	u := root.Unit()
	low := configs.QuotaWarning(u.Quota)
	if low == "" || !u.Installed {
		return nil
	}
	return []string{u.QuotaAt + ": CPUQuota=" + low + `; write CPUQuota= (none), or at least CPUQuota=200%, and run "systemctl daemon-reload"`}
}

// quotaInForce warns of a low CPU quota of this process's control group, whichever file it is from.
func quotaInForce() []string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	group, _ := strings.CutPrefix(strings.TrimSpace(string(b)), "0::") // of version 2
	limit, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, "cpu.max"))
	return quotaOf(string(limit))
}

// quotaOf warns of a low quota in the text of cpu.max: "QUOTA PERIOD" in microseconds of one core, or "max PERIOD".
func quotaOf(limit string) []string {
	var quota, period int
	if n, _ := fmt.Sscan(limit, &quota, &period); n != 2 || period <= 0 {
		return nil
	}
	low := configs.QuotaWarning(fmt.Sprintf("%d%%", 100*quota/period))
	if low == "" {
		return nil
	}
	return []string{"the control group's limit of CPU time: " + low +
		"; in a systemd unit write CPUQuota= (no limit), or at least CPUQuota=200%"}
}
