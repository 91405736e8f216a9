package doctor

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

func checkMachine(e *exam) {
	what := cmp.Or(e.Name, "Unknown machine")
	if e.Kernel != "" {
		what += ", kernel " + e.Kernel
	}
	if e.Container {
		what += ", in a container"
	}
	if e.p.Address != "" && e.Pi && e.Codename == "bookworm" {
		e.add(Warn, what+". Raspberry Pi OS 12 (bookworm) has no packages for Hailo-10H.", "# install Raspberry Pi OS 13 (trixie)")
		return
	}
	e.add(OK, what+".")
}

func checkPCI(e *exam) {
	if e.p.Address != "" {
		e.reached = chip
		e.add(OK, "Hailo-10H (1e60:45c4) at "+e.p.Address+".")
		return
	}
	// What serves when there is no NPU.
	instead, named := map[string]string{
		"npu": "",
		"cpu": " The configuration asks for the CPU backend, which needs none.",
		"sim": " The configuration asks for the simulated chip, which needs none.",
	}[e.env.Backend]
	if !named {
		instead = " The CPU backend will be used."
	}
	if len(e.PCI) > 0 {
		p, name := e.PCI[0], e.PCI[0].Name()
		e.add(e.absent, fmt.Sprintf("%s (1e60:%s) at %s is not supported by this service, which needs a Hailo-10H.%s",
			strings.ToUpper(name[:1])+name[1:], strings.TrimPrefix(p.ID, "0x"), p.Address, instead))
		return
	}
	linkDown := ""
	if line := find(e.log, "link down", "pcie"); line != "" {
		linkDown = " The kernel says: " + line + "."
	}
	lost := "HailoRT is installed, but there is no Hailo device on the PCI bus."
	if e.env.Backend == "npu" {
		lost = "The configuration asks for the NPU, but there is no Hailo device on the PCI bus."
	}
	expected := e.Loaded || len(e.Libraries) > 0 || e.packages[driverPackages[0]] != "" || e.env.Backend == "npu"
	switch {
	case expected && e.Pi:
		e.add(e.absent, lost+linkDown, seatBoard)
	case expected:
		e.add(e.absent, lost, "# power off, reseat the module, and in a virtual machine pass it through")
	case e.Pi:
		e.add(Info, "No Hailo device."+instead+linkDown, "# if an AI HAT+ 2 is mounted:", seatBoard)
	default:
		e.add(Info, "No Hailo device."+instead)
	}
}

// checkLink looks at the speed of the PCIe link. One lane is what a Raspberry Pi has; Gen 3 is
// found without any setting.
func checkLink(e *exam) {
	speed, width := e.Read(e.p.Dir()+"/current_link_speed"), orUnknown(e.Read(e.p.Dir()+"/current_link_width"))
	number, _, _ := strings.Cut(speed, " ")
	gts, err := strconv.ParseFloat(number, 64)
	switch {
	case speed == "":
		e.add(Info, "The speed of the PCIe link is not known.")
	case err != nil:
		e.add(e.absent, "The PCIe link has no speed ("+speed+"): the chip may have dropped off the bus.", coldStart)
	case gts < 8:
		gen, why, fix := "Gen 1", "", "# power off, reseat the ribbon and the HAT"
		if gts >= 5 {
			gen = "Gen 2"
		}
		if setting := e.SlowLink(); setting != "" {
			why = "; /boot/firmware/config.txt says " + setting
			fix = "sudo sed -i '/^ *dtparam=pciex1_gen=[12]/d' /boot/firmware/config.txt\nsudo reboot"
		}
		e.add(Warn, fmt.Sprintf("The PCIe link runs at %s (%s, x%s) instead of Gen 3 (8.0 GT/s)%s.", speed, gen, width, why), fix)
	default:
		e.add(OK, fmt.Sprintf("The PCIe link runs at %s, x%s.", speed, width))
	}
}

// checkPower asks the Raspberry Pi's firmware whether the supply is weak. Bits of the answer: 0
// under-voltage, 1 and 2 slowed down, 3 hot; the same from 16 on: since the start.
func checkPower(e *exam) {
	if !e.Pi {
		return
	}
	text := e.Throttled()
	if text == "" && e.env.Command != nil {
		out, _ := e.env.Command(e.ctx, "vcgencmd", "get_throttled")
		_, text, _ = strings.Cut(strings.TrimSpace(string(out)), "=0x") // "throttled=0x50005"
	}
	bits, err := strconv.ParseUint(text, 16, 32)
	switch {
	case err != nil && (e.Undervoltage() || find(e.log, "Undervoltage detected") != ""):
		e.add(Warn, "The supply voltage is too low.", strongSupply)
	case err != nil:
		e.add(Info, "The state of the power supply is not known.")
	case bits&1 != 0:
		e.add(Warn, fmt.Sprintf("The supply voltage is too low now (get_throttled 0x%x).", bits), strongSupply)
	case bits&(1<<16) != 0:
		e.add(Warn, fmt.Sprintf("The supply voltage was too low since the start (get_throttled 0x%x).", bits), strongSupply)
	case bits != 0:
		e.add(Warn, fmt.Sprintf("The processor is or was slowed down, most likely by heat (get_throttled 0x%x).", bits), coolDown)
	default:
		e.add(OK, "No under-voltage and no throttling since the start.")
	}
}

// checkTemperature looks at the computer; see checkChipTemperature for the chip.
func checkTemperature(e *exam) {
	const hot = 80 // degrees C of the processor: from here on a Raspberry Pi 5 slows down
	milli, err := strconv.Atoi(e.Read("/sys/class/thermal/thermal_zone0/temp"))
	switch {
	case err != nil || milli < -100_000 || milli > 200_000:
		e.add(Info, "The temperature of the processor is not known.")
	case milli/1000 >= hot:
		e.add(Warn, fmt.Sprintf("The processor has %d °C and slows down from %d °C on; the chip is close to it.", milli/1000, hot), coolDown)
	case e.service != nil:
		e.add(OK, fmt.Sprintf("The processor has %d °C.", milli/1000))
	default:
		e.add(OK, fmt.Sprintf("The processor has %d °C. The chip's own is in /v1/stats while the service runs.", milli/1000))
	}
}

// checkMemory looks at the contiguous memory of the kernel. CLIP needs next to none of it, so only
// a setting that failed is worth a word.
func checkMemory(e *exam) {
	total, setting := e.CMA()
	switch {
	case setting != "":
		e.add(Warn, "cmdline.txt sets "+setting+", which can break the Raspberry Pi's firmware interface (contiguous memory now: "+orUnknown(total)+").",
			"sudo sed -i 's/ *cma=[^ ]*//' /boot/firmware/cmdline.txt", "sudo reboot")
	case total == "":
		e.add(Info, "The kernel does not tell about contiguous memory (CMA).")
	case total == "0 kB":
		e.add(Warn, "The kernel has no contiguous memory (CmaTotal is 0).", moreCMA)
	default:
		e.add(OK, "Contiguous memory: "+total+"; CLIP needs next to none.")
	}
}
