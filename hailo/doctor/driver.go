package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// checkPCI looks for the chip.
func checkPCI(e *exam) {
	if p, ok := e.ten(); ok {
		e.reached = chip
		e.add(OK, "Hailo-10H (1e60:45c4) at "+p.address+".", "")
		return
	}
	if len(e.pci) > 0 {
		p := e.pci[0]
		e.add(e.absent(), fmt.Sprintf("%s (1e60:%s) at %s is not supported by this service, which needs a Hailo-10H.%s",
			upperFirst(p.name()), strings.TrimPrefix(p.id, "0x"), p.address, e.instead()), "")
		return
	}
	expected := e.loaded || len(e.libs) > 0 || e.packages[driverPackages[0]] != "" || e.env.Backend == "npu"
	linkDown := ""
	if line := find(e.log, "link down", "pcie"); line != "" {
		linkDown = " The kernel says: " + line + "."
	}
	lost := "HailoRT is installed, but there is no Hailo device on the PCI bus."
	if e.env.Backend == "npu" {
		lost = "The configuration asks for the NPU, but there is no Hailo device on the PCI bus."
	}
	switch {
	case expected && e.pi:
		e.add(e.absent(), lost+linkDown, seatBoard)
	case expected:
		e.add(e.absent(), lost, "# power off, reseat the module, and in a virtual machine pass it through")
	case e.pi:
		e.add(Info, "No Hailo device."+e.instead()+linkDown, "# if an AI HAT+ 2 is mounted:\n"+seatBoard)
	default:
		e.add(Info, "No Hailo device."+e.instead(), "")
	}
}

const seatBoard = "sudo rpi-eeprom-update -a\n" +
	"sudo poweroff\n" +
	"# unplug the power; reseat the ribbon and the HAT (lit LEDs prove\n" +
	"# nothing). If it is still not found, add this line to\n" +
	"# /boot/firmware/config.txt: dtparam=pciex1"

// instead says what serves when there is no NPU.
func (e *exam) instead() string {
	switch e.env.Backend {
	case "npu":
		return ""
	case "cpu":
		return " The configuration asks for the CPU backend, which needs none."
	case "sim":
		return " The configuration asks for the simulated chip, which needs none."
	default:
		return " The CPU backend will be used."
	}
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// moduleDirs below /lib/modules/KERNEL: DKMS's, that of a plain build, and what distributions use.
var moduleDirs = []string{"updates/dkms", "updates", "extra", "kernel/drivers/misc"}

// moduleFiles returns where the driver for a kernel is.
func (e *exam) moduleFiles(kernel string) []string {
	var out []string
	for _, dir := range moduleDirs {
		dir = path.Join("/lib/modules", kernel, dir)
		for _, name := range e.t.list(dir, "hailo1x_pci.ko*") {
			out = append(out, path.Join(dir, name))
		}
	}
	return out
}

// checkModule looks for the driver's file for the running kernel.
func checkModule(e *exam) {
	files := e.moduleFiles(e.kernel)
	switch {
	case e.loaded:
		e.reached = built
		e.keptModule(files)
	case e.hidden:
		e.add(Fail, "The driver is not loaded, and why cannot be seen from here (a container?).", "# run hailo-clip doctor on the host")
	case len(files) > 0:
		e.reached = built
		e.add(OK, "The driver for kernel "+e.kernel+" is on disk.", "")
	default:
		e.add(Fail, "There is no driver (hailo1x_pci) for the running kernel "+e.kernel+e.whyNotBuilt()+".", e.buildModule())
	}
}

// keptModule judges whether the driver that is loaded now will be there after the next start.
func (e *exam) keptModule(files []string) {
	switch {
	case len(files) == 0 && e.hidden:
		e.add(Info, "The driver is loaded; its file is not visible from here (a container?).", "")
	case len(files) == 0:
		e.add(Warn, "The driver is loaded, but its file for kernel "+e.kernel+" is gone: the NPU will be missing after the next start.", e.buildModule())
	case strings.Contains(files[0], "/updates/dkms/"):
		e.add(OK, "The driver for kernel "+e.kernel+" is built by DKMS, so it survives kernel updates.", "")
	default:
		e.add(Warn, "The driver was built for kernel "+e.kernel+" only, without DKMS: the NPU will be gone after the next kernel update.", e.buildModule())
	}
}

// whyNotBuilt adds what the disk tells about a driver that is missing for this kernel.
func (e *exam) whyNotBuilt() string {
	var why []string
	var others []string
	for _, k := range e.t.list("/lib/modules", "*") {
		if len(e.moduleFiles(k)) > 0 {
			others = append(others, k)
		}
	}
	if len(others) > 0 {
		why = append(why, "there is one for "+strings.Join(others, ", "))
	}
	if !e.t.exists("/usr/sbin/dkms") {
		why = append(why, "DKMS is not installed")
	}
	if !e.t.exists("/lib/modules/" + e.kernel + "/build") {
		why = append(why, "the headers of this kernel are not installed")
	}
	if v := e.tooOldForKernel(); v != "" {
		why = append(why, "driver "+v+" does not compile on kernels from 6.15 on (del_timer_sync)")
	}
	if len(why) == 0 {
		return ""
	}
	return ": " + strings.Join(why, "; ")
}

// tooOldForKernel returns the version of a driver whose build failed over a function that newer
// kernels do not have; the vendor's 5.3.0 alone is known for it.
func (e *exam) tooOldForKernel() string {
	for _, v := range e.t.list("/var/lib/dkms/hailo1x_pci", "*") {
		found := false
		e.t.lines("/var/lib/dkms/hailo1x_pci/"+v+"/build/make.log", func(line string) bool {
			found = strings.Contains(line, "del_timer_sync")
			return !found
		})
		if found {
			return v
		}
	}
	return ""
}

func (e *exam) buildModule() string {
	if e.tooOldForKernel() != "" {
		return "# install driver and library 5.1.1 from the Raspberry Pi archive, or\n" +
			"# 5.4.0 from the vendor; both of the same version"
	}
	name, _ := e.installed(driverPackages)
	if !e.pi {
		return remedy("sudo apt install dkms linux-headers-$(uname -r)", "sudo apt install --reinstall "+name)
	}
	return remedy("sudo apt install dkms linux-headers-rpi-2712", "sudo apt install --reinstall "+name,
		"dkms status # must say \"installed\" for "+e.kernel)
}

// checkDriver looks whether the driver is loaded and has taken the chip.
func checkDriver(e *exam) {
	p, _ := e.ten()
	if !e.loaded {
		if where := e.blacklisted(); where != "" {
			e.add(Fail, "The driver is not loaded: it is blacklisted in "+where+".",
				"# remove that entry, then:\nsudo depmod && sudo modprobe hailo1x_pci")
			return
		}
		if line := find(e.log, "Key was rejected"); line != "" {
			e.add(Fail, "The kernel refuses to load the driver: "+line,
				"# sign the module, or switch Secure Boot off in the firmware setup")
			return
		}
		e.add(Fail, "The driver is on disk but not loaded.", "sudo depmod && sudo modprobe hailo1x_pci\nsudo dmesg | grep -i hailo | tail -20")
		return
	}
	switch p.driver {
	case "hailo1x":
		e.reached = driver
		e.add(OK, "Driver "+orUnknown(e.module)+" is loaded and has the chip.", "")
	case "":
		e.reached = driver
		what := "Driver " + orUnknown(e.module) + " is loaded but could not start the chip"
		if found := e.symptom(); found != nil && found.boot || len(e.missingFirmware()) > 0 {
			e.add(Info, what+"; the reason follows.", "")
			return
		}
		e.add(Fail, what+".", bootFailed)
	default:
		e.add(Fail, "Another driver has the chip: "+p.driver+".",
			"echo "+p.address+" | sudo tee /sys/bus/pci/drivers/"+path.Base(p.driver)+"/unbind\n"+
				"echo "+p.address+" | sudo tee /sys/bus/pci/drivers/hailo1x/bind")
	}
}

func orUnknown(v string) string {
	if v == "" {
		return "(version unknown)"
	}
	return v
}

// blacklisted returns the file that keeps modprobe from loading the driver, "" if none.
func (e *exam) blacklisted() string {
	for _, dir := range []string{"/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d"} {
		for _, name := range e.t.list(dir, "*.conf") {
			hit := false
			e.t.lines(dir+"/"+name, func(line string) bool {
				// modprobe takes - and _ for the same.
				f := strings.Fields(strings.ReplaceAll(line, "-", "_"))
				hit = len(f) >= 2 && f[1] == "hailo1x_pci" && (f[0] == "blacklist" || f[0] == "install")
				return !hit
			})
			if hit {
				return dir + "/" + name
			}
		}
	}
	for _, arg := range strings.Fields(e.t.read("/proc/cmdline")) {
		key, value, _ := strings.Cut(arg, "=")
		names := strings.Split(strings.ReplaceAll(value, "-", "_"), ",")
		if (key == "module_blacklist" || key == "modprobe.blacklist") && slices.Contains(names, "hailo1x_pci") {
			return "the kernel command line"
		}
	}
	return ""
}
