package doctor

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"hailoclip/hailo/device"
)

// Remedies are lines for a shell, and prose as comments. One may be pasted as a whole, so alternatives to its first steps
// are comments.
const (
	coldStart    = "sudo poweroff\n# then unplug the power for ten seconds; a reboot is not enough"
	orColdStart  = "# if that does not help: sudo poweroff, then unplug the power for\n# ten seconds"
	bootFailed   = "sudo rpi-eeprom-update -a\n" + coldStart + "\n# if it happens again: the official 27 W power supply"
	strongSupply = "# use the official 27 W power supply; nothing power-hungry on USB"
	coolDown     = "# mount the active cooler, and let air at the HAT"
	moreCMA      = `printf '[all]\ndtoverlay=cma,cma-512\n' | sudo tee -a /boot/firmware/config.txt` + "\nsudo reboot"

	seatBoard = "sudo rpi-eeprom-update -a\n" +
		"sudo poweroff\n" +
		"# unplug the power; reseat the ribbon and the HAT (lit LEDs prove\n" +
		"# nothing). If it is still not found, add this line to\n" +
		"# /boot/firmware/config.txt: dtparam=pciex1"
)

// makeWorker is the remedy that builds the worker and puts it where the service looks: beside the program, or where the
// Debian package has it.
func (e *exam) makeWorker() string {
	if e.Exists("/usr/share/hailo-clip/worker/Makefile") {
		return "sudo apt install g++ make\nsudo make -C /usr/share/hailo-clip/worker\nsudo systemctl restart hailo-clip"
	}
	return "# in the source folder of hailo-clip:\nmake npu\nsudo install bin/hailo-clip-npu /usr/bin/"
}

// The same thing has another package name in the Raspberry Pi archive and at Hailo.
var (
	driverPackages  = []string{"h10-hailort-pcie-driver", "hailort-pcie-driver"}
	libraryPackages = []string{"h10-hailort", "hailort"}
)

// installed returns the one of the packages that is installed, and its version without the packaging part.
func (e *exam) installed(names []string) (name, version string) {
	for _, n := range names {
		if v, ok := e.packages[n]; ok {
			return n, cmp.Or(device.VersionAtStart(v), v)
		}
	}
	return names[0], ""
}

// reinstall is the remedy that puts the files of a package back.
func (e *exam) reinstall(names []string) string {
	name, version := e.installed(names)
	if !e.Pi && version == "" {
		return e.installStack()
	}
	return "sudo apt install --reinstall " + name
}

// installStack is the remedy that brings HailoRT 5.
func (e *exam) installStack() string {
	if e.Pi {
		return "sudo apt update\nsudo apt install dkms linux-headers-rpi-2712\nsudo apt install hailo-h10-all\n" + coldStart
	}
	return "# install HailoRT 5 and its PCIe driver for Hailo-10H,\n# from https://hailo.ai/developer-zone"
}

// buildModule is the remedy that brings a driver for the running kernel.
func (e *exam) buildModule() string {
	name, _ := e.installed(driverPackages)
	switch {
	case e.TooOldForKernel() != "":
		return "# install driver and library 5.1.1 from the Raspberry Pi archive, or\n# 5.4.0 from the vendor; both of the same version"
	case e.Pi:
		return "sudo apt install dkms linux-headers-rpi-2712\nsudo apt install --reinstall " + name + "\n" +
			"dkms status # must say \"installed\" for " + e.Kernel
	}
	return "sudo apt install dkms linux-headers-$(uname -r)\nsudo apt install --reinstall " + name
}

// resetChip is the remedy that boots the chip anew without the host.
func (e *exam) resetChip() string {
	return "sudo systemctl stop hailo-clip # and whatever else uses the chip\n" +
		"echo 1 | sudo tee " + e.p.Dir() + "/reset\n" +
		"sudo systemctl start hailo-clip\n" + orColdStart
}

// orReset is the remedy for a chip that no longer answers the service.
func (e *exam) orReset() string {
	return "sudo systemctl restart hailo-clip\n" +
		"# if that does not help: sudo systemctl stop hailo-clip, then\n" +
		"# echo 1 | sudo tee " + e.p.Dir() + "/reset\n" + orColdStart
}

// applyRule is the remedy that gives the nodes of a class the mode of the vendor's udev rule, or of one like it where
// that is missing.
func (e *exam) applyRule(class string) string {
	apply := "sudo udevadm control --reload-rules\nsudo udevadm trigger --subsystem-match=" + class
	for _, name := range e.Glob("/usr/lib/udev/rules.d/*hailo*.rules", "/lib/udev/rules.d/*hailo*.rules", "/etc/udev/rules.d/*hailo*.rules") {
		if strings.Contains(e.Read(name), `"`+class+`"`) {
			return apply
		}
	}
	return `echo 'SUBSYSTEM=="` + class + `", MODE="0666"' | sudo tee /etc/udev/rules.d/70-hailo.rules` + "\n" + apply
}

// joinGroup is the remedy that puts the service into a group, whether its user is dynamic or not.
func joinGroup(group string) string {
	dropIns := "/etc/systemd/system/" + device.ServiceName + ".d"
	return "sudo mkdir -p " + dropIns + "\n" +
		"printf '[Service]\\nSupplementaryGroups=%s\\n' " + shell(group) + " | sudo tee " + dropIns + "/device.conf\n" +
		"sudo systemctl daemon-reload\nsudo systemctl restart hailo-clip"
}

// Own returns the command line of hailo-clip that does args to the state folder that was examined.
func (e Env) Own(args string) string {
	command := "hailo-clip " + args
	if e.State != "" {
		command += " --state-dir " + shell(e.State)
	}
	if e.State == device.ServiceState {
		command = "sudo " + command
	}
	return command
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// shell returns a word as a shell reads it back.
func shell(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func orUnknown(v string) string { return cmp.Or(v, "(version unknown)") }

// plural returns "1 problem", "2 problems".
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
