package configs

import (
	_ "embed"
	"regexp"
)

//go:embed hailo-clip.service
var unit string

var memoryMaxLine = regexp.MustCompile(`(?m)^MemoryMax=.*\n`)

// Unit is the systemd unit with the limits of r.
func (r ResourceLimits) Unit() string {
	limits := ""
	if r.MemoryMax != "" {
		limits += "MemoryMax=" + r.MemoryMax + "\n"
	}
	if r.CPUQuota != "" {
		limits += "CPUQuota=" + r.CPUQuota + "\n"
	}
	return memoryMaxLine.ReplaceAllLiteralString(unit, limits)
}
