package doctor

import (
	"strconv"
	"strings"
)

const serviceName = "hailo-clip.service"

// ServiceState is the state folder of the service when systemd runs it. With a dynamic user it is a
// link into a folder that only root may enter.
const ServiceState = "/var/lib/hailo-clip"

// ServiceInstalled says whether the service's unit or its state folder is there below root ("" is /).
func ServiceInstalled(root string) bool {
	t := tree(root)
	_, ok := t.serviceUnit()
	return ok || t.isDir(ServiceState) || t.link(ServiceState) != ""
}

// Own returns the command line of hailo-clip that does args to the state folder that was examined.
func (e Env) Own(args string) string {
	switch e.State {
	case "":
		return "hailo-clip " + args
	case ServiceState:
		return "sudo hailo-clip " + args + " --state-dir " + e.State
	}
	return "hailo-clip " + args + " --state-dir " + shell(e.State)
}

// unitDirs are where systemd looks for units and for their drop-ins, least important first.
var unitDirs = []string{"/lib/systemd/system", "/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system"}

// unit is what the service's unit says of whom it runs as.
type unit struct {
	user   string   // with DynamicUser= it is not in /etc/passwd
	groups []string // SupplementaryGroups=
	quota  string   // CPUQuota=, such as "80%"
}

// serviceUnit reads the service's unit and its drop-ins; false where it is not installed.
func (t tree) serviceUnit() (u unit, installed bool) {
	u.user = strings.TrimSuffix(serviceName, ".service")
	var files []string
	for _, dir := range unitDirs {
		if t.exists(dir + "/" + serviceName) {
			files, installed = []string{dir + "/" + serviceName}, true
		}
	}
	for _, dir := range unitDirs {
		for _, name := range t.list(dir+"/"+serviceName+".d", "*.conf") {
			files = append(files, dir+"/"+serviceName+".d/"+name)
		}
	}
	for _, file := range files {
		t.lines(file, func(line string) bool {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
			case key == "User" && value != "":
				u.user = value
			case key == "SupplementaryGroups" && value == "":
				u.groups = nil
			case key == "CPUQuota":
				u.quota = strings.TrimSpace(value)
			case key == "SupplementaryGroups" || key == "Group":
				u.groups = append(u.groups, strings.Fields(value)...)
			}
			return true
		})
	}
	return u, installed
}

// Quota returns the CPUQuota of the service's unit below root, such as "80%"; "" without one.
func Quota(root string) string {
	u, _ := tree(root).serviceUnit()
	return u.quota
}

// group returns the number of a group, -2 if there is none: no file belongs to that.
func (t tree) group(name string) int {
	gid := -2
	t.lines("/etc/group", func(line string) bool {
		f := strings.Split(line, ":")
		if len(f) < 3 || f[0] != name && f[2] != name {
			return true
		}
		if n, err := strconv.Atoi(f[2]); err == nil {
			gid = n
		}
		return false
	})
	return gid
}

// joinGroup is the remedy that puts the service into a group, whether its user is dynamic or not.
func joinGroup(group string) string {
	dropIns := "/etc/systemd/system/" + serviceName + ".d"
	return "sudo mkdir -p " + dropIns + "\n" +
		"printf '[Service]\\nSupplementaryGroups=%s\\n' " + shell(group) + " | sudo tee " + dropIns + "/device.conf\n" +
		"sudo systemctl daemon-reload\nsudo systemctl restart hailo-clip"
}
