package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"hailoclip/hailo/device"
	"hailoclip/hailo/doctor"
)

// unit says how the service stands with systemd.
func (v *verification) unit(ctx context.Context, root device.Root) {
	u := root.Unit()
	switch {
	case !u.Installed:
		v.add("unit", doctor.Info, "There is no systemd unit "+device.ServiceName+": the service was started by hand, or is not installed.", "sudo hailo-clip service install")
		return
	case u.Hidden != "":
		v.add("unit", doctor.Fail, u.File+" goes before the unit of the package, "+u.Hidden+": systemd runs that, which another installation has left.",
			"sudo systemctl disable --now hailo-clip\nsudo rm "+u.File+"\nsudo systemctl daemon-reload\nsudo systemctl enable --now hailo-clip")
		return
	case !root.IsDir("/run/systemd/system"):
		v.add("unit", doctor.Info, u.File+" is installed, but systemd does not run here.", "")
		return
	}
	state := systemdSays(ctx)
	switch {
	case state["ActiveState"] == "":
		v.add("unit", doctor.Info, "systemd cannot be asked about "+u.File+".", "")
	case state["LoadState"] == "masked":
		v.add("unit", doctor.Fail, device.ServiceName+" is masked: nobody can start it.", "sudo systemctl unmask hailo-clip\nsudo systemctl enable --now hailo-clip")
	case state["ActiveState"] == "active":
		v.add("unit", doctor.OK, u.File+" is active.", "")
	default:
		v.add("unit", doctor.Fail, fmt.Sprintf("%s is %s (%s; the program ended with %s).", u.File, state["ActiveState"], state["Result"], state["ExecMainStatus"]),
			"journalctl -u hailo-clip -e # why\nsudo systemctl restart hailo-clip")
	}
	if e := state["UnitFileState"]; e == "disabled" {
		v.add("unit", doctor.Warn, "It does not start with the machine: "+device.ServiceName+" is disabled.", "sudo systemctl enable hailo-clip")
	}
	want, _ := v.cfg.ResourceLimits.MemoryBytes() // checked when it was loaded
	if has, err := strconv.ParseInt(state["MemoryMax"], 10, 64); err == nil && has < want && state["ActiveState"] == "active" {
		v.add("unit", doctor.Warn, fmt.Sprintf("The unit allows %d MiB of memory, less than resource_limits.memory_max (%s).", has>>20, v.cfg.ResourceLimits.MemoryMax),
			"sudo mkdir -p /etc/systemd/system/hailo-clip.service.d\n"+
				"printf '[Service]\\nMemoryMax="+v.cfg.ResourceLimits.MemoryMax+"\\n' | sudo tee /etc/systemd/system/hailo-clip.service.d/memory.conf\n"+
				"sudo systemctl daemon-reload\nsudo systemctl restart hailo-clip")
	}
}

// systemdSays is what systemd says of the unit; nothing where it cannot be asked.
func systemdSays(ctx context.Context) map[string]string {
	out, _ := exec.CommandContext(ctx, "systemctl", "show", device.ServiceName,
		"-p", "LoadState,ActiveState,Result,UnitFileState,ExecMainStatus,MemoryMax").Output()
	state := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		state[key] = value
	}
	return state
}
