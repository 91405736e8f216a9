package doctor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Service is what the running service tells of the chip that it holds.
type Service struct {
	Reason      string    // of /health, with "; " between several; "" when all is well
	Temperature []float64 // degrees C, of what the chip tells
	Throttling  uint32    // 0 none ... 5 streams off, 6 overheat
	Zone        uint32    // 0 green, 1 orange, 2 red
	Rate        float64   // images/s of late; 0: not known
}

// identifyTime bounds the vendor's tool, which opens the device.
const identifyTime = 5 * time.Second

// checkSoftware asks the chip what it runs, which no file tells. The tool opens the device, so
// this is left out where that would fail or be in somebody's way.
func checkSoftware(e *exam) {
	if e.env.Command == nil || !e.permitted {
		return
	}
	if e.held != "" {
		e.add(Info, "The chip was not asked for its software, because "+e.held+".", "")
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, identifyTime)
	defer cancel()
	out, err := e.env.Command(ctx, "hailortcli", "fw-control", "identify")
	if errors.Is(err, exec.ErrNotFound) {
		return // the worker does without it
	}
	e.software = chipSoftware(string(out))
	name, version := "the driver", e.module
	if version == "" {
		name, version = "the library", e.library()
	}
	p, _ := e.ten()
	switch {
	case err == nil && e.software == "":
		e.add(Info, "The version of the chip's software was not found in what hailortcli prints.", "")
	case e.software == "":
		e.add(Warn, "The chip does not tell its software (hailortcli fw-control identify).", orReset(p.address))
	case version != "" && e.software != upstream(version):
		e.add(Fail, "The chip runs software "+e.software+", but "+name+" is "+version+", so nothing can use it.", resetChip(p.address))
	default:
		e.add(OK, "The chip runs software "+e.software+".", "")
	}
}

// chipSoftware finds the version in what identify prints, such as
// "Firmware Version: 5.1.1 (release,app)".
func chipSoftware(text string) string {
	for line := range strings.Lines(text) {
		if _, v, ok := strings.Cut(line, "Firmware Version:"); ok {
			return versionStart.FindString(strings.TrimSpace(v))
		}
	}
	return ""
}

// checkChipTemperature judges what the service was told by the chip.
func checkChipTemperature(e *exam) {
	s := e.service
	if s == nil {
		return
	}
	var list []string
	for _, t := range s.Temperature {
		list = append(list, fmt.Sprintf("%.0f °C", t))
	}
	what := "The chip has " + strings.Join(list, " and ")
	if list == nil {
		what = "The chip does not tell its temperature"
	}
	zone := map[uint32]string{0: "green", 1: "orange"}[s.Zone]
	if zone == "" {
		zone = "red"
	}
	switch {
	case s.Throttling >= 5:
		e.add(Warn, fmt.Sprintf("%s: it is too hot to work (zone %s, throttling state %d).", what, zone, s.Throttling), coolDown)
	case s.Throttling > 0 || s.Zone > 0:
		e.add(Warn, fmt.Sprintf("%s: it is too hot for its full speed (zone %s, throttling state %d).", what, zone, s.Throttling), coolDown)
	case list == nil:
		e.add(Info, what+".", "")
	default:
		e.add(OK, what+".", "")
	}
}

// slowMark is in what the service says of a chip that became slow (package npu, rateWatch).
const slowMark = "images/s where it did"

// checkRate looks whether the chip has become slow without heat, as some releases do until the host
// is started anew.
func checkRate(e *exam) {
	if e.service == nil {
		return
	}
	for reason := range strings.SplitSeq(e.service.Reason, "; ") {
		if strings.Contains(reason, slowMark) {
			e.add(Warn, "The chip has become slow: "+reason+".", "sudo reboot")
			return
		}
	}
	if e.service.Rate > 0 {
		e.add(OK, fmt.Sprintf("The chip encodes %.0f images/s, no slower than at first.", e.service.Rate), "")
	}
}
