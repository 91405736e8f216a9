package main

import (
	"strings"
	"testing"

	"hailoclip/hailo/device"
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
		{map[string]string{lib + device.ServiceName: "[Service]\n# CPUQuota=80%\nMemoryMax=3G\n"}, ""},
		{map[string]string{lib + device.ServiceName: "[Service]\nCPUQuota=80%\n"}, lib + device.ServiceName + ": line 2: CPUQuota=80%"},
		{map[string]string{lib + device.ServiceName: "[Service]\nCPUQuota=80%\n", etc + device.ServiceName: "[Service]\n"}, ""},
		{map[string]string{lib + device.ServiceName: "CPUQuota=80%\n", etc + device.ServiceName + ".d/z.conf": "[Service]\nCPUQuota=\n"}, ""},
		{map[string]string{lib + device.ServiceName: "", lib + device.ServiceName + ".d/50.conf": "CPUQuota=300%\n", etc + device.ServiceName + ".d/50.conf": "\n CPUQuota = 150%\n"},
			etc + device.ServiceName + ".d/50.conf: line 2: CPUQuota=150%"},
		{map[string]string{lib + device.ServiceName: "", "etc/systemd/system.control/" + device.ServiceName + ".d/50-CPUQuota.conf": "[Service]\nCPUQuota=20%\n"},
			"system.control/" + device.ServiceName + ".d/50-CPUQuota.conf: line 2: CPUQuota=20%"},
	} {
		root := t.TempDir()
		put(t, root, c.files)
		got := strings.Join(unitQuota(device.Root(root)), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.files, got, c.want)
		}
	}
}

func TestQuotaOf(t *testing.T) {
	for limit, want := range map[string]string{"80000 100000\n": "80%", "150000 100000": "150%", "200000 100000": "", "max 100000": "", "": "", "1 0": ""} {
		got := strings.Join(quotaOf(limit), "")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", limit, got, want)
		}
	}
}
