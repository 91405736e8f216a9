package doctor

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const firmwareDir = "/lib/firmware/hailo/hailo10h"

// firmware is what the driver sends to the chip at every start. There is one device tree for each
// board; which one the chip wants is known only when it starts. u-boot-tfa.itb is optional.
var firmware = []string{"customer_certificate.bin", "scu_fw.bin", "u-boot-*.dtb.signed", "u-boot-spl.bin", "fitImage", "image-fs"}

func (e *exam) missingFirmware() []string {
	var missing []string
	for _, pattern := range firmware {
		ok := slices.ContainsFunc(e.t.list(firmwareDir, pattern), func(name string) bool {
			info, ok := e.t.stat(firmwareDir + "/" + name)
			return ok && info.Size() > 0
		})
		if !ok {
			missing = append(missing, pattern)
		}
	}
	return missing
}

func checkFirmware(e *exam) {
	missing := e.missingFirmware()
	list := strings.Join(missing, ", ") + " in " + firmwareDir
	_, _, running := e.entry() // the driver lists a board once it has booted
	switch {
	case len(missing) == 0:
		e.add(OK, "The firmware files are in "+firmwareDir+".", "")
	case e.hidden:
		e.add(Info, "The firmware files are not visible from here (a container?).", "")
	case running:
		e.add(Warn, "The chip runs, but firmware files are missing or empty, so it will not start again: "+list+".",
			e.reinstall(driverPackages))
	default:
		e.firmwareBad = true
		e.add(Fail, "Firmware files are missing or empty: "+list+".", remedy(e.reinstall(driverPackages), coldStart))
	}
}

// bootTime is how long the driver may work on the chip before it gives up: 40 s for the chip and
// some for the files.
const bootTime = time.Minute

// checkNode looks for what programs open.
func checkNode(e *exam) {
	n, _, ok := e.entry()
	switch {
	case ok && n.info != nil && n.info.IsDir():
		e.add(Fail, n.path+" is a folder: a container was started with a device that was not there.",
			"# start the container again with --device "+n.path)
	case ok && n.info != nil:
		e.reached = hasNode
		e.add(OK, n.path+" is there.", "")
	case ok && e.container:
		e.add(Fail, "The driver has a device "+n.path+", but this container was not given it.",
			"# start the container again with --device "+n.path)
	case ok:
		e.add(Fail, "The driver has a device "+n.path+", but it is not in /dev.",
			"sudo udevadm control --reload-rules\nsudo udevadm trigger --subsystem-match="+n.class)
	case e.uptime() < bootTime:
		e.add(Warn, "The driver has made no device node yet; the computer started "+e.uptime().String()+" ago.",
			"# wait a minute, then run hailo-clip doctor again")
	default:
		e.add(Fail, "The driver has made no device node: the chip did not boot.", bootFailed)
	}
}

const bootFailed = "sudo rpi-eeprom-update -a\n" + coldStart +
	"\n# if it happens again: the official 27 W power supply"

// uptime returns how long the computer runs; very long if that is not known.
func (e *exam) uptime() time.Duration {
	s, err := strconv.ParseFloat(first(strings.Fields(e.t.read("/proc/uptime"))), 64)
	if err != nil || s < 0 || s > 1e8 {
		return 1 << 62
	}
	return time.Duration(s) * time.Second
}
