package device

import (
	"fmt"
	"maps"
	"os"
	"path"
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

// unitDirs are where systemd looks for units and for what is added to them, the one that counts most first.
var unitDirs = []string{
	"/etc/systemd/system.control/", "/run/systemd/system.control/", "/run/systemd/transient/", "/etc/systemd/system/",
	"/run/systemd/system/", "/usr/local/lib/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/",
}

// Unit is what the service's unit, with its drop-ins, says.
type Unit struct {
	Installed bool
	File      string   // the one that counts, of those in unitDirs
	Hidden    string   // the package's, where File goes before it; "" is none
	User      string   // with DynamicUser= it is not in /etc/passwd
	Groups    []string // SupplementaryGroups=
	Quota     string   // CPUQuota=, such as "80%"
	QuotaAt   string   // file and line of that
}

// Unit reads the service's unit and then its drop-ins in the order of their names, of which the first one of a name counts.
func (r Root) Unit() Unit {
	u := Unit{User: strings.TrimSuffix(ServiceName, ".service")}
	var files []string
	dropIns := map[string]string{} // by name
	for _, dir := range unitDirs {
		files = append(files, r.Glob(dir+ServiceName)...)
		for _, file := range r.Glob(dir+"service.d/*.conf", dir+ServiceName+".d/*.conf") { // the former is for all services
			if name := path.Base(file); dropIns[name] == "" {
				dropIns[name] = file
			}
		}
	}
	if len(files) > 1 && r.Link(files[0]) == "/dev/null" { // masked, which systemd says
		files = files[1:]
	}
	if len(files) > 0 {
		u.Installed, u.File = true, files[0]
		last := files[len(files)-1]
		if last != u.File && strings.Contains(last, "/lib/") && !strings.Contains(u.File, "/lib/") && !r.same(last, u.File) {
			u.Hidden = last
		}
		files = files[:1]
	}
	for _, name := range slices.Sorted(maps.Keys(dropIns)) {
		files = append(files, dropIns[name])
	}
	for _, file := range files {
		n := 0
		for line := range r.Lines(file) {
			n++
			key, value, _ := strings.Cut(line, "=")
			switch key, value = strings.TrimSpace(key), strings.TrimSpace(value); {
			case key == "User" && value != "":
				u.User = value
			case key == "SupplementaryGroups" && value == "":
				u.Groups = nil
			case key == "SupplementaryGroups" || key == "Group":
				u.Groups = append(u.Groups, strings.Fields(value)...)
			case key == "CPUQuota":
				u.Quota, u.QuotaAt = value, fmt.Sprintf("%s: line %d", file, n)
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
		info := r.Stat(node)
		if info == nil { // a link to nothing, or gone
			continue
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Gid != 0 {
			return r.AccountName("/etc/group", int(s.Gid))
		}
	}
	if r.Group("hailo") >= 0 {
		return "hailo"
	}
	return ""
}
