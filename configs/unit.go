package configs

import (
	_ "embed"
	"strings"
)

//go:embed hailo-clip.service
var unit string

// UnitProgram is where the unit expects the program unless told otherwise.
const UnitProgram = "/usr/bin/hailo-clip"

// Unit is the systemd unit with the limits of r, for a program at a path without white space, on an architecture (a
// GOARCH). Memory that is both written and executed is allowed on amd64 only, where the JSON library compiles at run time.
func (r ResourceLimits) Unit(program, arch string) string {
	limits, jit := "", "MemoryDenyWriteExecute=yes\n"
	if r.MemoryMax != "" {
		limits += "MemoryMax=" + r.MemoryMax + "\n"
	}
	if r.CPUQuota != "" {
		limits += "CPUQuota=" + r.CPUQuota + "\n"
	}
	if arch == "amd64" {
		jit = ""
	}
	return strings.NewReplacer("MemoryMax=3G\n", limits, "MemoryDenyWriteExecute=yes\n", jit,
		"ExecStart="+UnitProgram+" ", "ExecStart="+program+" ").Replace(unit)
}
