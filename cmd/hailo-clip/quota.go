package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hailoclip/configs"
)

// quotaInForce warns of a quota that systemd has put on this service, whatever file it is from.
func quotaInForce() []string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	group, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "0::") // version 2 alone
	if !ok {
		return nil
	}
	limit, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, "cpu.max"))
	return quotaOf(string(limit))
}

// quotaOf reads a cpu.max: microseconds of one core in a period of so many, or "max".
func quotaOf(limit string) []string {
	var quota, period int
	if n, _ := fmt.Sscan(limit, &quota, &period); n != 2 || period <= 0 {
		return nil
	}
	percent := fmt.Sprintf("%d%%", 100*quota/period)
	if !configs.LowQuota(percent) {
		return nil
	}
	return []string{"the control group's limit of CPU time: " + configs.QuotaWarning(percent) + "; in a systemd unit write CPUQuota= (no limit), or at least CPUQuota=200%"}
}
