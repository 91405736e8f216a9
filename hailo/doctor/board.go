package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// machine returns the model of the computer, "" if it does not tell.
func (t tree) machine() string {
	if s := t.read("/proc/device-tree/model"); s != "" {
		return s
	}
	return strings.TrimSpace(t.read("/sys/class/dmi/id/sys_vendor") + " " + t.read("/sys/class/dmi/id/product_name"))
}

func checkMachine(e *exam) {
	name := e.t.machine()
	if name == "" {
		name = "Unknown machine"
	}
	what := name
	if e.kernel != "" {
		what += ", kernel " + e.kernel
	}
	if e.container {
		what += ", in a container"
	}
	codename := ""
	e.t.lines("/etc/os-release", func(line string) bool {
		if v, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"'`)
		}
		return codename == ""
	})
	if _, has := e.ten(); has && e.pi && codename == "bookworm" {
		e.add(Warn, what+". Raspberry Pi OS 12 (bookworm) has no packages for Hailo-10H.", "# install Raspberry Pi OS 13 (trixie)")
		return
	}
	e.add(OK, what+".", "")
}

// checkLink looks at the speed of the PCIe link. One lane is what a Raspberry Pi has; Gen 3 is
// found without any setting.
func checkLink(e *exam) {
	p, _ := e.ten()
	speed, width := e.t.read(p.file("current_link_speed")), e.t.read(p.file("current_link_width"))
	gts, err := strconv.ParseFloat(first(strings.Fields(speed)), 64)
	switch {
	case speed == "":
		e.add(Info, "The speed of the PCIe link is not known.", "")
	case err != nil:
		e.add(e.absent(), "The PCIe link has no speed ("+speed+"): the chip may have dropped off the bus.", coldStart)
	case gts < 8:
		gen := map[bool]string{true: "Gen 2", false: "Gen 1"}[gts >= 5]
		setting := ""
		e.t.lines("/boot/firmware/config.txt", func(line string) bool {
			if f := strings.TrimSpace(line); strings.HasPrefix(f, "dtparam=pciex1_gen=") && f != "dtparam=pciex1_gen=3" {
				setting = f
			}
			return setting == ""
		})
		why, fix := "", "# power off, reseat the ribbon and the HAT"
		if setting != "" {
			why = "; /boot/firmware/config.txt says " + setting
			fix = "sudo sed -i '/^ *dtparam=pciex1_gen=[12]/d' /boot/firmware/config.txt\nsudo reboot"
		}
		e.add(Warn, fmt.Sprintf("The PCIe link runs at %s (%s, x%s) instead of Gen 3 (8.0 GT/s)%s.", speed, gen, orUnknown(width), why), fix)
	default:
		e.add(OK, fmt.Sprintf("The PCIe link runs at %s, x%s.", speed, orUnknown(width)), "")
	}
}

const strongSupply = "# use the official 27 W power supply; nothing power-hungry on USB"

// commandTime bounds a program that a check runs.
const commandTime = 3 * time.Second

// checkPower asks the Raspberry Pi's firmware whether the supply is weak. Bits of the answer: 0
// under-voltage, 1 and 2 slowed down, 3 hot; the same from 16 on: since the start.
func checkPower(e *exam) {
	if !e.pi {
		return
	}
	text := e.throttled()
	text = strings.TrimPrefix(text[strings.LastIndex(text, "=")+1:], "0x")
	bits, err := strconv.ParseUint(text, 16, 32)
	switch {
	case err != nil && e.undervoltage():
		e.add(Warn, "The supply voltage is too low.", strongSupply)
	case err != nil:
		e.add(Info, "The state of the power supply is not known.", "")
	case bits&1 != 0:
		e.add(Warn, fmt.Sprintf("The supply voltage is too low now (get_throttled 0x%x).", bits), strongSupply)
	case bits&(1<<16) != 0:
		e.add(Warn, fmt.Sprintf("The supply voltage was too low since the start (get_throttled 0x%x).", bits), strongSupply)
	case bits != 0:
		e.add(Warn, fmt.Sprintf("The processor is or was slowed down, most likely by heat (get_throttled 0x%x).", bits), coolDown)
	default:
		e.add(OK, "No under-voltage and no throttling since the start.", "")
	}
}

// throttled returns the firmware's answer, "50005" from sysfs or "throttled=0x50005" from its tool.
func (e *exam) throttled() string {
	const platform = "/sys/devices/platform"
	for _, soc := range e.t.list(platform, "soc*") {
		for _, fw := range e.t.list(platform+"/"+soc, "soc*:firmware") {
			if s := e.t.read(platform + "/" + soc + "/" + fw + "/get_throttled"); s != "" {
				return s
			}
		}
	}
	if e.env.Command == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(e.ctx, commandTime)
	defer cancel()
	out, err := e.env.Command(ctx, "vcgencmd", "get_throttled")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func (e *exam) undervoltage() bool {
	const hwmon = "/sys/class/hwmon"
	for _, h := range e.t.list(hwmon, "hwmon*") {
		if e.t.read(hwmon+"/"+h+"/name") == "rpi_volt" && e.t.read(hwmon+"/"+h+"/in0_lcrit_alarm") == "1" {
			return true
		}
	}
	return find(e.log, "Undervoltage detected") != ""
}

const (
	coolDown = "# mount the active cooler, and let air at the HAT"
	hot      = 80 // degrees C of the processor: from here on a Raspberry Pi 5 slows down
)

// checkTemperature looks at the computer; see checkChipTemperature for the chip.
func checkTemperature(e *exam) {
	milli, err := strconv.Atoi(e.t.read("/sys/class/thermal/thermal_zone0/temp"))
	switch {
	case err != nil || milli < -100_000 || milli > 200_000:
		e.add(Info, "The temperature of the processor is not known.", "")
	case milli/1000 >= hot:
		e.add(Warn, fmt.Sprintf("The processor has %d °C and slows down from %d °C on; the chip is close to it.", milli/1000, hot), coolDown)
	case e.service != nil:
		e.add(OK, fmt.Sprintf("The processor has %d °C.", milli/1000), "")
	default:
		e.add(OK, fmt.Sprintf("The processor has %d °C. The chip's own is in /v1/stats while the service runs.", milli/1000), "")
	}
}

const moreCMA = `printf '[all]\ndtoverlay=cma,cma-512\n' | sudo tee -a /boot/firmware/config.txt` + "\nsudo reboot"

// checkMemory looks at the contiguous memory of the kernel. CLIP needs next to none of it, so only
// a setting that failed is worth a word.
func checkMemory(e *exam) {
	total := ""
	e.t.lines("/proc/meminfo", func(line string) bool {
		if v, ok := strings.CutPrefix(line, "CmaTotal:"); ok {
			total = strings.TrimSpace(v)
		}
		return total == ""
	})
	setting := ""
	for _, arg := range strings.Fields(e.t.read("/boot/firmware/cmdline.txt")) {
		if strings.HasPrefix(arg, "cma=") {
			setting = arg
		}
	}
	switch {
	case setting != "":
		e.add(Warn, "cmdline.txt sets "+setting+", which can break the Raspberry Pi's firmware interface (contiguous memory now: "+orUnknown(total)+").",
			"sudo sed -i 's/ *cma=[^ ]*//' /boot/firmware/cmdline.txt\nsudo reboot")
	case total == "":
		e.add(Info, "The kernel does not tell about contiguous memory (CMA).", "")
	case total == "0 kB":
		e.add(Warn, "The kernel has no contiguous memory (CmaTotal is 0).", moreCMA)
	default:
		e.add(OK, "Contiguous memory: "+total+"; CLIP needs next to none.", "")
	}
}
