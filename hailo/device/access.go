package device

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account returns the first line of /etc/passwd or /etc/group whose field has the value, nil if there is none.
func (r Root) account(file string, field int, value string) []string {
	for line := range r.Lines(file) {
		if f := strings.Split(line, ":"); len(f) >= 4 && f[field] == value {
			return f
		}
	}
	return nil
}

// AccountName returns the name of a number in /etc/passwd or /etc/group, the number if it has none.
func (r Root) AccountName(file string, id int) string {
	number := strconv.Itoa(id)
	if f := r.account(file, 2, number); f != nil {
		return f[0]
	}
	return number
}

// User returns the number and the groups of a user.
func (r Root) User(name string) (uid int, gids []int, ok bool) {
	f := r.account("/etc/passwd", 0, name)
	if f == nil {
		return 0, nil, false
	}
	uid, err1 := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	gids = []int{gid}
	for line := range r.Lines("/etc/group") {
		f := strings.Split(line, ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			continue
		}
		if gid, err := strconv.Atoi(f[2]); err == nil {
			gids = append(gids, gid)
		}
	}
	return uid, gids, err1 == nil && err2 == nil
}

// Group returns the number of a group given by name or number, -2 if there is none: no file belongs to that.
func (r Root) Group(name string) int {
	for _, field := range []int{0, 2} {
		if f := r.account("/etc/group", field, name); f != nil {
			if gid, err := strconv.Atoi(f[2]); err == nil {
				return gid
			}
		}
	}
	return -2
}

// ServiceName is that of the service's unit.
const ServiceName = "hailo-clip.service"

// ServiceState is the state folder of the service when systemd runs it. With a dynamic user it is a link into a folder
// that only root may enter.
const ServiceState = "/var/lib/hailo-clip"

// HasService says whether the service's unit or its state folder is there.
func (r Root) HasService() bool {
	return r.Unit().Installed || r.IsDir(ServiceState) || r.Link(ServiceState) != ""
}

// Unit is what the service's unit, with its drop-ins, says of whom it runs as.
type Unit struct {
	Installed bool
	File      string   // the one that counts; systemd prefers /etc to /run to /usr/lib
	Hidden    string   // the package's, where File goes before it; "" is none
	User      string   // with DynamicUser= it is not in /etc/passwd
	Groups    []string // SupplementaryGroups=
	Quota     string   // CPUQuota=, such as "80%"
}

// Unit reads the service's unit and its drop-ins.
func (r Root) Unit() Unit {
	u := Unit{User: strings.TrimSuffix(ServiceName, ".service")}
	var units, dropIns []string // least important first
	for _, dir := range []string{"/lib/systemd/system/", "/usr/lib/systemd/system/", "/run/systemd/system/", "/etc/systemd/system/"} {
		units = append(units, dir+ServiceName)
		dropIns = append(dropIns, dir+ServiceName+".d/*.conf")
	}
	units = r.Glob(units...)
	if u.Installed = len(units) > 0; u.Installed {
		u.File = units[len(units)-1]
		if first := units[0]; u.File != first && strings.Contains(first, "/lib/") && !strings.Contains(u.File, "/lib/") && !r.same(first, u.File) {
			u.Hidden = first
		}
	}
	for _, file := range append(units[max(len(units)-1, 0):], r.Glob(dropIns...)...) {
		for line := range r.Lines(file) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
			case key == "User" && value != "":
				u.User = value
			case key == "SupplementaryGroups" && value == "":
				u.Groups = nil
			case key == "SupplementaryGroups" || key == "Group":
				u.Groups = append(u.Groups, strings.Fields(value)...)
			case key == "CPUQuota":
				u.Quota = strings.TrimSpace(value)
			}
		}
	}
	return u
}

// same says whether two names lead to one file.
func (r Root) same(a, b string) bool {
	x, y := r.Stat(a), r.Stat(b)
	return x != nil && y != nil && os.SameFile(x, y)
}

// DeviceGroup is the group that the device's node belongs to, or that is called like it; "" where it is root's.
func (r Root) DeviceGroup() string {
	for _, node := range r.Glob("/dev/hailo[0-9]*", "/dev/h1x-[0-9]*") {
		if s, ok := r.Stat(node).Sys().(*syscall.Stat_t); ok && s.Gid != 0 {
			return r.AccountName("/etc/group", int(s.Gid))
		}
	}
	if r.Group("hailo") >= 0 {
		return "hailo"
	}
	return ""
}
