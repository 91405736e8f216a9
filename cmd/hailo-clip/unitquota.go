package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"hailoclip/configs"
	"hailoclip/hailo/safefile"
)

// unitName is the service's unit.
const unitName = "hailo-clip.service"

// unitDirs are where systemd looks for units and for what is added to them, the one that counts most first.
var unitDirs = []string{
	"etc/systemd/system.control", "run/systemd/system.control", "run/systemd/transient", "etc/systemd/system", "run/systemd/system",
	"usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system",
}

// maxUnit bounds the file of a unit.
const maxUnit = 1 << 20

// unitQuota warns of a CPUQuota in the installed unit of the service, or in what is added to it (hailo-clip.service.d/*.conf), with file
// and line. root is "/", but in tests.
func unitQuota(root string) []string {
	var files []string
	dropIns := map[string]string{} // by name: the first one counts
	for _, dir := range unitDirs {
		dir = filepath.Join(root, dir)
		if _, err := safefile.ReadFile(filepath.Join(dir, unitName), maxUnit); err == nil && len(files) == 0 {
			files = append(files, filepath.Join(dir, unitName))
		}
		for _, d := range []string{"service.d", unitName + ".d"} { // the first is for all services
			found, _ := filepath.Glob(filepath.Join(dir, d, "*.conf")) // the pattern is right
			for _, path := range found {
				if name := filepath.Base(path); dropIns[name] == "" {
					dropIns[name] = path
				}
			}
		}
	}
	if len(files) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		files = append(files, dropIns[name])
	}
	where, quota := "", ""
	for _, path := range files {
		text, _ := safefile.ReadFile(path, maxUnit) // one that is gone says nothing
		lines := bufio.NewScanner(bytes.NewReader(text))
		for n := 1; lines.Scan(); n++ {
			if key, value, ok := strings.Cut(lines.Text(), "="); ok && strings.TrimSpace(key) == "CPUQuota" {
				where, quota = fmt.Sprintf("%s: line %d", path, n), strings.TrimSpace(value)
			}
		}
	}
	if low := configs.QuotaWarning(quota); low != "" {
		return []string{where + ": CPUQuota=" + low + `; write CPUQuota= (none), or at least CPUQuota=200%, and run "systemctl daemon-reload"`}
	}
	return nil
}
