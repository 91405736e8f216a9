package configs

import (
	_ "embed"
	"strings"
)

//go:embed hailo-clip.service
var unit string

// Unit is the systemd unit with the limits of r.
func (r ResourceLimits) Unit() string {
	limits := ""
	if r.MemoryMax != "" {
		limits += "MemoryMax=" + r.MemoryMax + "\n"
	}
	if r.CPUQuota != "" {
		limits += "CPUQuota=" + r.CPUQuota + "\n"
	}
	return strings.Replace(unit, "MemoryMax=3G\n", limits, 1)
}
