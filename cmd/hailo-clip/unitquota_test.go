package main

import (
	"strings"
	"testing"
)

// TestUnitQuota reads what systemd would: the unit that counts, and then what is added to it, in order of names.
func TestUnitQuota(t *testing.T) {
	const etc, lib = "etc/systemd/system/", "usr/lib/systemd/system/"
	for _, c := range []struct {
		files map[string]string
		want  string // where; "": nothing
	}{
		{nil, ""},
		{map[string]string{etc + "hailo-clip.service.d/a.conf": "[Service]\nCPUQuota=80%\n"}, ""}, // there is no unit
		{map[string]string{lib + unitName: "[Service]\n# CPUQuota=80%\nMemoryMax=3G\n"}, ""},
		{map[string]string{lib + unitName: "[Service]\nCPUQuota=80%\n"}, lib + unitName + ": line 2: CPUQuota=80%"},
		{map[string]string{lib + unitName: "[Service]\nCPUQuota=80%\n", etc + unitName: "[Service]\n"}, ""},
		{map[string]string{lib + unitName: "CPUQuota=80%\n", etc + unitName + ".d/z.conf": "[Service]\nCPUQuota=\n"}, ""},
		{map[string]string{lib + unitName: "", lib + unitName + ".d/50.conf": "CPUQuota=300%\n", etc + unitName + ".d/50.conf": "\n CPUQuota = 150%\n"},
			etc + unitName + ".d/50.conf: line 2: CPUQuota=150%"},
		{map[string]string{lib + unitName: "", "etc/systemd/system.control/" + unitName + ".d/50-CPUQuota.conf": "[Service]\nCPUQuota=20%\n"},
			"system.control/" + unitName + ".d/50-CPUQuota.conf: line 2: CPUQuota=20%"},
	} {
		root := t.TempDir()
		put(t, root, c.files)
		got := strings.Join(unitQuota(root), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.files, got, c.want)
		}
	}
}
