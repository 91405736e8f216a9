package report

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what a report was measured on: that of the load generator, and of the service where
// its URL is of this machine.
type Machine struct {
	Board    string  `json:"board,omitempty"` // "Raspberry Pi 5 Model B Rev 1.0", where firmware tells
	CPU      string  `json:"cpu"`
	Cores    int     `json:"cores"` // that this process may use
	Memory   int64   `json:"memory_bytes"`
	Kernel   string  `json:"kernel"`
	Arch     string  `json:"arch"`
	Governor string  `json:"governor,omitempty"` // of the CPU's frequency
	Go       string  `json:"go"`
	Load     float64 `json:"load"` // load average of the last minute before the run
}

// ThisMachine reads what the kernel tells; what it does not stays empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Go: runtime.Version()}
	m.Kernel = strings.TrimSpace(kernelFile("/proc/sys/kernel/ostype") + " " + kernelFile("/proc/sys/kernel/osrelease"))
	m.Board = kernelFile("/proc/device-tree/model")
	m.Governor = kernelFile("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	m.CPU = cpuName(kernelFile("/proc/cpuinfo"))
	if fields := strings.Fields(kernelFile("/proc/loadavg")); len(fields) > 0 {
		m.Load, _ = strconv.ParseFloat(fields[0], 64)
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return m
}

// kernelFile is "" where there is none.
func kernelFile(path string) string {
	b, _ := os.ReadFile(path)
	return strings.Trim(string(bytes.ToValidUTF8(b, []byte("?"))), "\x00\n")
}

// armCores names what ARM kernels give as a number (MIDR part numbers of implementer 0x41).
var armCores = map[string]string{
	"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse N1", "0xd40": "Neoverse V1",
	"0xd49": "Neoverse N2", "0xd4f": "Neoverse V2",
}

func cpuName(cpuinfo string) string {
	part := ""
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "model name":
			return value
		case "CPU part":
			part = value
		}
	}
	if name := armCores[part]; name != "" {
		return name
	}
	if part != "" {
		return "CPU part " + part
	}
	return "unknown CPU"
}

func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d cores, %.1f GB, %s %s", m.CPU, m.Cores, float64(m.Memory)/1e9, m.Kernel, m.Arch)
	if m.Board != "" {
		s = m.Board + ": " + s
	}
	if m.Governor != "" {
		s += ", governor " + m.Governor
	}
	return s + fmt.Sprintf(", load %.1f before", m.Load)
}
