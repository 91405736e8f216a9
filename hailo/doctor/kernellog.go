package doctor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"hailoclip/hailo/device"
)

// readLog returns the last lines of the kernel's log.
func readLog(ctx context.Context, read func(context.Context) ([]byte, error)) ([]string, error) {
	if read == nil {
		return nil, errors.New("there is no access to it")
	}
	b, err := read(ctx)
	b = b[max(0, len(b)-device.MaxLog):]
	return strings.Split(string(bytes.ToValidUTF8(b, []byte("?"))), "\n"), err
}

// find returns the last line that has all of the texts, cut to what a person wants to read.
func find(log []string, texts ...string) string {
	for _, line := range slices.Backward(log) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			return quote(line)
		}
	}
	return ""
}

// logMark is the priority and the time of a line of the log.
var logMark = regexp.MustCompile(`^(<\w*>)?(\[[^\]]*\] )?`)

// quote takes off a line of the log what people do not want to read, and what would upset a terminal.
func quote(line string) string {
	const longest = 160 // characters
	line = strings.TrimSpace(printable(line[len(logMark.FindString(line)):]))
	if r := []rune(line); len(r) > longest {
		line = string(r[:longest]) + "..."
	}
	return "\"" + line + "\""
}

// printable replaces what is not a character that can be seen.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r) {
			return r
		}
		return '?'
	}, s)
}

// symptom is a text in the kernel's log that has one known cause.
type symptom struct {
	texts  []string // any of them
	boot   bool     // the chip does not come up with it
	level  Level
	what   string
	remedy string // "reset" stands for resetChip, "restart" for orReset
}

// symptoms of the driver hailo1x 5.x, most telling first: of several, only the first is reported.
var symptoms = []symptom{
	{[]string{"Failed to load mandatory firmware file"}, true, Fail,
		"The driver did not find a firmware file.", "sudo apt install --reinstall h10-hailort-pcie-driver\n" + coldStart},
	{[]string{"Mismatch Driver version", "hailo_soc_get_driver_info has failed"}, false, Fail,
		"The chip still runs the software of another version, so nothing can use it.", "reset"},
	{[]string{"Failed PCI reset: board still active"}, true, Fail, "The chip did not take a reset.", coldStart},
	{[]string{"Timeout waiting for firmware file", "Failed writing SOC firmware on stage", "hailo1x failed with error -110"}, true, Fail,
		"The chip did not boot.", bootFailed},
	{[]string{"Device disconnected while opening device", "Failed reading device BARs"}, false, Fail,
		"The chip dropped off the bus.", coldStart + "\n# if it happens again: rpi-eeprom-update, the official 27 W power supply,\n# pcie_aspm=off in /boot/firmware/cmdline.txt"},
	{[]string{"hailo1x failed with error"}, true, Fail, "The driver could not start the chip.", bootFailed},
	{[]string{"Timeout waiting for soc control", "num-available HW mismatch"}, false, Warn,
		"The software on the chip stopped answering.", "restart"},
	{[]string{"not a sufficient amount of CMA memory", "out of CMA memory"}, false, Warn,
		"The kernel ran out of contiguous memory for the chip.", moreCMA},
	{[]string{"cannot create duplicate filename '/class/hailo"}, false, Warn,
		"The drivers of Hailo-8 and Hailo-10H got in each other's way.",
		"echo blacklist hailo_pci | sudo tee /etc/modprobe.d/no-hailo8.conf\nsudo depmod && sudo reboot"},
}

// checkLog looks for what the driver complained about since it last found the chip.
func checkLog(e *exam) {
	found, line := e.symptom()
	if found != nil && found.boot && e.running {
		found = nil // overcome
	}
	if bootFault := e.firmwareBad || e.p.Driver == "" || found != nil && found.boot; e.running || !bootFault {
		e.reached = booted
	}
	switch {
	case found != nil && found.boot && e.firmwareBad:
		e.add(Info, "The kernel says the same: "+line+".")
	case found != nil:
		remedies := map[string]string{"reset": e.resetChip(), "restart": e.orReset()}
		e.add(found.level, found.what+" The kernel says: "+line+".", cmp.Or(remedies[found.remedy], found.remedy))
	case e.logErr != nil:
		e.add(Info, "The kernel's log was not read: "+e.logErr.Error()+".", "sudo hailo-clip doctor")
	default:
		e.add(OK, "The driver has no complaint in the kernel's log.")
	}
}

// symptom returns the first of the symptoms that is in the log since the driver last found the chip, as what came before
// was overcome, and its last line; nil if there is none.
func (e *exam) symptom() (found *symptom, line string) {
	recent := e.log
	for i, line := range slices.Backward(e.log) {
		if strings.Contains(line, "Probing on: 1e60:45c4") {
			recent = e.log[i:]
			break
		}
	}
	for i, s := range symptoms {
		for _, text := range s.texts {
			if line = find(recent, text); line != "" {
				return &symptoms[i], line
			}
		}
	}
	return nil, ""
}
