package doctor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// checkPermissions asks whether a user may open the device: the one the service runs as where it
// is installed or root asks, else the one who runs doctor.
func checkPermissions(e *exam) {
	n, _, _ := e.entry()
	mode := n.info.Mode().Perm()
	uid, gid := owner(n)
	group := e.t.account("/etc/group", gid)
	what := fmt.Sprintf("%s has mode %04o and belongs to %s:%s", n.path, mode, e.t.account("/etc/passwd", uid), group)
	allow := e.applyRule(n.class)
	e.permitted = allowed(uint32(mode), e.env.UID == uid, slices.Contains(e.env.GIDs, gid), e.env.UID == 0)

	// An errno other than EACCES is not about the mode: a device cgroup answers EPERM.
	if e.env.Access != nil {
		if err := e.env.Access(e.t.path(n.path)); errors.Is(err, syscall.EPERM) {
			e.permitted = false
			e.add(Fail, what+", yet the kernel refuses it to this process (EPERM): the service or container was started when the driver was not loaded, or was not given the device.",
				"sudo systemctl restart hailo-clip\n# a container: create it again with --device "+n.path)
			return
		}
	}
	name, user, groups := "this user", e.env.UID, e.env.GIDs
	u, installed := e.t.serviceUnit()
	service := installed || user == 0
	if service {
		name, user, groups = "an ordinary user", -1, nil
		if installed {
			name = "the service" // a dynamic user, who owns nothing
		}
		if id, gids, ok := e.t.user(u.user); ok {
			name, user, groups, installed = "user "+u.user, id, gids, true
		}
		for _, g := range u.groups {
			groups = append(groups, e.t.group(g))
		}
	}
	if allowed(uint32(mode), user == uid, slices.Contains(groups, gid), user == 0) {
		e.add(OK, what+": "+name+" may use it.", "")
		return
	}
	if mode&0o060 == 0o060 && group != "root" { // somebody wanted it so: join the group
		allow = "sudo usermod -aG " + shell(group) + " $USER\n# then log in again"
		if service { // usermod knows no dynamic user
			allow = joinGroup(group)
		}
	}
	level := Fail
	if service && !installed {
		level = Warn
	}
	e.add(level, what+": "+name+" may not use it.", allow)
}

// applyRule is the remedy that gives the node the mode of the vendor's udev rule, or of one like
// it where that is missing.
func (e *exam) applyRule(class string) string {
	apply := "sudo udevadm control --reload-rules\nsudo udevadm trigger --subsystem-match=" + class
	for _, dir := range []string{"/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/etc/udev/rules.d"} {
		for _, name := range e.t.list(dir, "*hailo*.rules") {
			if strings.Contains(e.t.read(dir+"/"+name), `"`+class+`"`) {
				return apply
			}
		}
	}
	return `echo 'SUBSYSTEM=="` + class + `", MODE="0666"' | sudo tee /etc/udev/rules.d/70-hailo.rules` + "\n" + apply
}

// allowed applies the mode the way the kernel does: the first class that fits decides.
func allowed(mode uint32, isOwner, isGroup, isRoot bool) bool {
	switch {
	case isRoot:
		return true
	case isOwner:
		return mode&0o600 == 0o600
	case isGroup:
		return mode&0o060 == 0o060
	default:
		return mode&0o006 == 0o006
	}
}

func owner(n node) (uid, gid int) {
	if s, ok := n.info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return -1, -1
}

// account returns the name of a number in /etc/passwd or /etc/group, the number if it has none.
func (t tree) account(file string, id int) string {
	name := strconv.Itoa(id)
	t.lines(file, func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[2] != strconv.Itoa(id) {
			return true
		}
		name = f[0]
		return false
	})
	return name
}

// user returns the number and the groups of a user.
func (t tree) user(name string) (uid int, gids []int, ok bool) {
	t.lines("/etc/passwd", func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 4 || f[0] != name {
			return true
		}
		id, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		uid, gids, ok = id, []int{gid}, err1 == nil && err2 == nil
		return false
	})
	t.lines("/etc/group", func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			return true
		}
		if gid, err := strconv.Atoi(f[2]); err == nil {
			gids = append(gids, gid)
		}
		return true
	})
	return uid, gids, ok
}

// checkInUse looks through the open files of all processes for the device.
func checkInUse(e *exam) {
	n, _, _ := e.entry()
	var holders []string
	var stop []string
	ours, hidden := "", 0
	for _, pid := range e.t.list("/proc", "[1-9]*") {
		if e.ctx.Err() != nil {
			return
		}
		holds, ok := e.holds("/proc/"+pid+"/fd", n.path)
		if !ok {
			hidden++
		}
		if !holds {
			continue
		}
		comm := e.t.read("/proc/" + pid + "/comm")
		if comm == "hailo-clip-npu" {
			ours = pid
			continue
		}
		holders = append(holders, fmt.Sprintf("%s (process %s)", orUnknown(comm), pid))
		if comm == "hailo-ollama" {
			stop = append(stop, "sudo systemctl stop hailo-ollama")
		} else {
			stop = append(stop, "ps -fp "+pid+" # then stop it: sudo kill "+pid)
		}
	}
	switch {
	case len(holders) > 0:
		e.held = holders[0] + " holds it"
		e.add(e.taken(), n.path+" is held by "+strings.Join(holders, ", ")+"; one process at a time can use the chip, unless all give the same HailoRT group id.",
			remedy(stop...))
	case ours != "":
		e.held = "the service holds it"
		e.add(OK, n.path+" is held by the worker of hailo-clip (process "+ours+").", "")
	case hidden > 0 && e.env.UID != 0:
		e.held = "a process of another user may hold it"
		e.add(Info, n.path+" is not held by a process of this user; those of others cannot be seen.", "sudo hailo-clip doctor")
	default:
		e.add(OK, n.path+" is held by nobody else.", "")
	}
}

// taken is the level of a chip that another process holds: the service with the NPU only answers
// 503, unless the two share the chip.
func (e *exam) taken() Level {
	if e.env.Shared {
		return Warn
	}
	return e.absent()
}

// holds says whether a folder of descriptors has the file, and whether the folder could be read.
func (e *exam) holds(dir, file string) (holds, ok bool) {
	fds := e.t.list(dir, "*")
	if fds == nil {
		return false, false
	}
	for _, fd := range fds {
		to := strings.TrimSuffix(e.t.link(path.Join(dir, fd)), " (deleted)")
		if to == file {
			return true, true
		}
	}
	return false, true
}
