package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"hailoclip/hailo/device"
)

// Service is what the running service tells of the chip that it holds.
type Service struct {
	Reason      string    // of /health, with "; " between several; "" when all is well
	Temperature []float64 // degrees C, of what the chip tells
	Throttling  uint32    // 0 none ... 5 streams off, 6 overheat
	Zone        uint32    // 0 green, 1 orange, 2 red
	Rate        float64   // images/s of late; 0: not known
}

// checkNode looks for what programs open. The driver gives up after a minute: 40 s for the chip and some for the files.
func checkNode(e *exam) {
	b, ok := e.board, e.running
	start := "# start the container again with --device " + b.Node
	switch {
	case ok && b.Info != nil && b.Info.IsDir():
		e.add(Fail, b.Node+" is a folder: a container was started with a device that was not there.", start)
	case ok && b.Info != nil:
		e.reached = hasNode
		e.add(OK, b.Node+" is there.")
	case ok && e.Container:
		e.add(Fail, "The driver has a device "+b.Node+", but this container was not given it.", start)
	case ok:
		e.add(Fail, "The driver has a device "+b.Node+", but it is not in /dev.",
			"sudo udevadm control --reload-rules\nsudo udevadm trigger --subsystem-match="+b.Class)
	case e.Uptime() < time.Minute:
		e.add(Warn, "The driver has made no device node yet; the computer started "+e.Uptime().String()+" ago.",
			"# wait a minute, then run hailo-clip doctor again")
	default:
		e.add(Fail, "The driver has made no device node: the chip did not boot.", bootFailed)
	}
}

// checkPermissions asks whether a user may open the device: the one the service runs as where it
// is installed or root asks, else the one who runs doctor.
func checkPermissions(e *exam) {
	b := e.board
	mode, uid, gid := uint32(b.Info.Mode().Perm()), -1, -1
	if s, ok := b.Info.Sys().(*syscall.Stat_t); ok {
		uid, gid = int(s.Uid), int(s.Gid)
	}
	group := e.AccountName("/etc/group", gid)
	what := fmt.Sprintf("%s has mode %04o and belongs to %s:%s", b.Node, mode, e.AccountName("/etc/passwd", uid), group)
	e.permitted = allowed(mode, uid, gid, e.env.UID, e.env.GIDs)

	// An errno other than EACCES is not about the mode: a device cgroup answers EPERM.
	if e.env.Access != nil && errors.Is(e.env.Access(e.Path(b.Node)), syscall.EPERM) {
		e.permitted = false
		e.add(Fail, what+", yet the kernel refuses it to this process (EPERM): the service or container was started when the driver was not loaded, or was not given the device.",
			"sudo systemctl restart hailo-clip\n# a container: create it again with --device "+b.Node)
		return
	}
	name, user, groups := "this user", e.env.UID, e.env.GIDs
	unit := e.Unit()
	known, service := unit.Installed, unit.Installed || user == 0
	if service {
		name, user, groups = "an ordinary user", -1, nil
		if unit.Installed {
			name = "the service" // a dynamic user, who owns nothing
		}
		if id, gids, ok := e.User(unit.User); ok {
			name, user, groups, known = "user "+unit.User, id, gids, true
		}
		for _, g := range unit.Groups {
			groups = append(groups, e.Group(g))
		}
	}
	if allowed(mode, uid, gid, user, groups) {
		e.add(OK, what+": "+name+" may use it.")
		return
	}
	allow, level := e.applyRule(b.Class), Fail
	if mode&0o060 == 0o060 && group != "root" { // somebody wanted it so: join the group
		allow = "sudo usermod -aG " + shell(group) + " $USER\n# then log in again"
		if service { // usermod knows no dynamic user
			allow = joinGroup(group)
		}
	}
	if service && !known {
		level = Warn
	}
	e.add(level, what+": "+name+" may not use it.", allow)
}

// allowed says whether a user may read and write a file: the first class of its mode that fits decides.
func allowed(mode uint32, owner, group, user int, groups []int) bool {
	switch {
	case user == 0:
		return true
	case user == owner:
		mode >>= 6
	case slices.Contains(groups, group):
		mode >>= 3
	}
	return mode&6 == 6
}

// checkInUse looks through the open files of all processes for the device.
func checkInUse(e *exam) {
	var others, stop []string
	b, ours := e.board, ""
	holders, hidden := e.Holders(b.Node)
	for _, p := range holders {
		switch p.Name {
		case "hailo-clip-npu":
			ours = p.ID
			continue
		case "hailo-ollama":
			stop = append(stop, "sudo systemctl stop hailo-ollama")
		default:
			stop = append(stop, "ps -fp "+p.ID+" # then stop it: sudo kill "+p.ID)
		}
		others = append(others, fmt.Sprintf("%s (process %s)", orUnknown(p.Name), p.ID))
	}
	switch {
	case len(others) > 0:
		e.held = others[0] + " holds it"
		level := e.absent // the service with the NPU only answers 503
		if e.env.Shared {
			level = Warn
		}
		e.add(level, b.Node+" is held by "+strings.Join(others, ", ")+"; one process at a time can use the chip, unless all give the same HailoRT group id.", stop...)
	case ours != "":
		e.held = "the service holds it"
		e.add(OK, b.Node+" is held by the worker of hailo-clip (process "+ours+").")
	case hidden > 0 && e.env.UID != 0:
		e.held = "a process of another user may hold it"
		e.add(Info, b.Node+" is not held by a process of this user; those of others cannot be seen.", "sudo hailo-clip doctor")
	default:
		e.add(OK, b.Node+" is held by nobody else.")
	}
}

// checkSoftware asks the chip what it runs, which no file tells. The tool opens the device, so
// this is left out where that would fail or be in somebody's way.
func checkSoftware(e *exam) {
	if e.env.Command == nil || !e.permitted {
		return
	}
	if e.held != "" {
		e.add(Info, "The chip was not asked for its software, because "+e.held+".")
		return
	}
	out, err := e.env.Command(e.ctx, "hailortcli", "fw-control", "identify")
	if errors.Is(err, exec.ErrNotFound) {
		return // the worker does without it
	}
	_, version, _ := strings.Cut(string(out), "Firmware Version:") // "Firmware Version: 5.1.1 (release,app)"
	e.Versions.Chip = device.VersionAtStart(strings.TrimSpace(version))
	name, want := "the driver", e.Driver
	if want == "" {
		name, want = "the library", e.Library()
	}
	switch {
	case err == nil && e.Versions.Chip == "":
		e.add(Info, "The version of the chip's software was not found in what hailortcli prints.")
	case e.Versions.Chip == "":
		e.add(Warn, "The chip does not tell its software (hailortcli fw-control identify).", e.orReset())
	case want != "" && e.Versions.Chip != cmp.Or(device.VersionAtStart(want), want):
		e.add(Fail, "The chip runs software "+e.Versions.Chip+", but "+name+" is "+want+", so nothing can use it.", e.resetChip())
	default:
		e.add(OK, "The chip runs software "+e.Versions.Chip+".")
	}
}

// checkRate looks whether the chip has become slow without heat, as some releases do until the host is started anew.
func checkRate(e *exam) {
	const slowMark = "images/s where it did" // in what the service says of such a chip (package npu, rateWatch)
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
		e.add(OK, fmt.Sprintf("The chip encodes %.0f images/s, no slower than at first.", e.service.Rate))
	}
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
	state := fmt.Sprintf("(zone %s, throttling state %d).", []string{"green", "orange", "red"}[min(s.Zone, 2)], s.Throttling)
	switch {
	case s.Throttling >= 5:
		e.add(Warn, what+": it is too hot to work "+state, coolDown)
	case s.Throttling > 0 || s.Zone > 0:
		e.add(Warn, what+": it is too hot for its full speed "+state, coolDown)
	case list == nil:
		e.add(Info, what+".")
	default:
		e.add(OK, what+".")
	}
}
