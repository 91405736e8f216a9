package doctor

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"unicode"
)

const (
	maxLog  = 1 << 20 // bytes of the kernel's log that are looked at
	maxLine = 160     // characters of a line that a finding quotes
)

// readLog returns the last lines of the kernel's log.
func readLog(ctx context.Context, read func(context.Context) ([]byte, error)) ([]string, error) {
	if read == nil {
		return nil, errors.New("there is no access to it")
	}
	b, err := read(ctx)
	if err != nil {
		return nil, err
	}
	if len(b) > maxLog {
		b = b[len(b)-maxLog:]
	}
	return strings.Split(string(bytes.ToValidUTF8(b, []byte("?"))), "\n"), nil
}

// find returns the last line that has all of the texts, cut to what a person wants to read.
func find(log []string, texts ...string) string {
next:
	for i := len(log) - 1; i >= 0; i-- {
		for _, text := range texts {
			if !strings.Contains(log[i], text) {
				continue next
			}
		}
		return quote(log[i])
	}
	return ""
}

// quote takes priority and time off a line of the log, and what would upset a terminal.
func quote(line string) string {
	if rest, ok := strings.CutPrefix(line, "<"); ok {
		if _, after, ok := strings.Cut(rest, ">"); ok {
			line = after
		}
	}
	if strings.HasPrefix(line, "[") {
		if _, after, ok := strings.Cut(line, "] "); ok {
			line = after
		}
	}
	line = strings.TrimSpace(printable(line))
	if r := []rune(line); len(r) > maxLine {
		line = string(r[:maxLine]) + "..."
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
	remedy string // ADDRESS stands for that of the chip
}

const orColdStart = "# if that does not help: sudo poweroff, then unplug the power for\n# ten seconds"

// resetChip is the remedy that boots the chip anew without the host. Alternatives to the first
// steps are comments: a remedy may be pasted as a whole.
func resetChip(address string) string {
	return "sudo systemctl stop hailo-clip # and whatever else uses the chip\n" +
		"echo 1 | sudo tee " + deviceDir + "/" + address + "/reset\n" +
		"sudo systemctl start hailo-clip\n" + orColdStart
}

// orReset is the remedy for a chip that no longer answers the service.
func orReset(address string) string {
	return "sudo systemctl restart hailo-clip\n" +
		"# if that does not help: sudo systemctl stop hailo-clip, then\n" +
		"# echo 1 | sudo tee " + deviceDir + "/" + address + "/reset\n" + orColdStart
}

// symptoms of the driver hailo1x 5.x, most telling first: of several, only the first is reported.
var symptoms = []symptom{
	{[]string{"Failed to load mandatory firmware file"}, true, Fail,
		"The driver did not find a firmware file.", "sudo apt install --reinstall h10-hailort-pcie-driver\n" + coldStart},
	{[]string{"Mismatch Driver version", "hailo_soc_get_driver_info has failed"}, false, Fail,
		"The chip still runs the software of another version, so nothing can use it.", resetChip("ADDRESS")},
	{[]string{"Failed PCI reset: board still active"}, true, Fail,
		"The chip did not take a reset.", coldStart},
	{[]string{"Timeout waiting for firmware file", "Failed writing SOC firmware on stage", "hailo1x failed with error -110"}, true, Fail,
		"The chip did not boot.", bootFailed},
	{[]string{"Device disconnected while opening device", "Failed reading device BARs"}, false, Fail,
		"The chip dropped off the bus.", coldStart + "\n# if it happens again: rpi-eeprom-update, the official 27 W power supply,\n# pcie_aspm=off in /boot/firmware/cmdline.txt"},
	{[]string{"hailo1x failed with error"}, true, Fail,
		"The driver could not start the chip.", bootFailed},
	{[]string{"Timeout waiting for soc control", "num-available HW mismatch"}, false, Warn,
		"The software on the chip stopped answering.", orReset("ADDRESS")},
	{[]string{"not a sufficient amount of CMA memory", "out of CMA memory"}, false, Warn,
		"The kernel ran out of contiguous memory for the chip.", moreCMA},
	{[]string{"cannot create duplicate filename '/class/hailo"}, false, Warn,
		"The drivers of Hailo-8 and Hailo-10H got in each other's way.",
		"echo blacklist hailo_pci | sudo tee /etc/modprobe.d/no-hailo8.conf\nsudo depmod && sudo reboot"},
}

// checkLog looks for what the driver complained about since it last found the chip.
func checkLog(e *exam) {
	p, _ := e.ten()
	_, _, running := e.entry() // the driver lists a board once it has booted
	found := e.symptom()
	if found != nil && found.boot && running {
		found = nil // overcome
	}
	bootFault := e.firmwareBad || p.driver == "" || found != nil && found.boot
	if running || !bootFault {
		e.reached = booted
	}
	switch {
	case found != nil && found.boot && e.firmwareBad:
		e.add(Info, "The kernel says the same: "+find(e.recent(), e.hit(found))+".", "")
	case found != nil:
		e.add(found.level, found.what+" The kernel says: "+find(e.recent(), e.hit(found))+".",
			strings.ReplaceAll(found.remedy, "ADDRESS", p.address))
	case e.logErr != nil:
		e.add(Info, "The kernel's log was not read: "+e.logErr.Error()+".", "sudo hailo-clip doctor")
	default:
		e.add(OK, "The driver has no complaint in the kernel's log.", "")
	}
}

// recent returns the log from the last time on that the driver found the chip: what came before
// was overcome.
func (e *exam) recent() []string {
	for i := len(e.log) - 1; i > 0; i-- {
		if strings.Contains(e.log[i], "Probing on: 1e60:45c4") {
			return e.log[i:]
		}
	}
	return e.log
}

func (e *exam) symptom() *symptom {
	for i := range symptoms {
		if e.hit(&symptoms[i]) != "" {
			return &symptoms[i]
		}
	}
	return nil
}

// hit returns the text of the symptom that is in the log.
func (e *exam) hit(s *symptom) string {
	for _, text := range s.texts {
		for _, line := range e.recent() {
			if strings.Contains(line, text) {
				return text
			}
		}
	}
	return ""
}
