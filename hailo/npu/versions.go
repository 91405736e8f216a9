package npu

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"hailoclip/hailo/npu/wire"
)

// chipArchitecture is what a worker calls the only chip that this program knows.
const chipArchitecture = "HAILO10H"

// driverFile is where the kernel tells the version of the driver that is loaded.
const driverFile = "/sys/module/hailo1x_pci/version"

var threeNumbers = regexp.MustCompile(`^\d+\.\d+\.\d+`)

// driverVersion is that of the driver between us and the device; "" if it is not known, or there is
// none: a device named by its IP address is reached over the network.
func driverVersion(device string) string {
	if _, err := netip.ParseAddr(device); err == nil {
		return ""
	}
	b, _ := os.ReadFile(driverFile)
	return strings.TrimSpace(string(b))
}

// mismatch says how the versions on the way to the chip differ, "" if they do not. HailoRT wants x.y.z
// of library, driver and the chip's software to be equal; what is not known, or all zeros, counts as equal.
func mismatch(h *wire.Hello, driver string) string {
	library := threeNumbers.FindString(h.Runtime.String())
	for _, other := range []string{driver, h.Firmware.String()} {
		other = threeNumbers.FindString(other)
		if library == "" || other == "" || other == "0.0.0" || other == library {
			continue
		}
		return fmt.Sprintf("the versions differ: HailoRT's library %s, driver %s, software of the chip %s; "+
			"install all of one version, then switch the machine off and on",
			library, cmp.Or(driver, "(unknown)"), cmp.Or(h.Firmware.String(), "(unknown)"))
	}
	return ""
}

// checkHello says whether the device of a hello, which was opened with the id given or "", is one to go on
// with.
func checkHello(h *wire.Hello, device string) error {
	if h.Device.String() != "" {
		device = h.Device.String()
	}
	why := mismatch(h, driverVersion(device))
	switch {
	case h.Status != wire.Success:
		text := h.Text.String()
		if why != "" {
			text += "; " + why
		}
		return refused("open the device", h.Status, text)
	case h.Simulated != 0:
		return nil
	case h.Architecture.String() != chipArchitecture:
		return fmt.Errorf("device %s is of %s, this program needs a Hailo-10H (%s)", h.Device, h.Architecture, chipArchitecture)
	case why != "":
		return fmt.Errorf("device %s: %s", h.Device, why)
	}
	return nil
}
