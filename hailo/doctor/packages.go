package doctor

import (
	"slices"
	"sort"
	"strings"
)

// installedPackages reads from dpkg's database which Hailo packages are installed, and their versions.
func installedPackages(t tree) map[string]string {
	out := map[string]string{}
	var name, version string
	installed := false
	flush := func() {
		if installed && version != "" && (strings.Contains(name, "hailo") || name == "dkms") {
			out[name] = version
		}
		name, version, installed = "", "", false
	}
	t.lines("/var/lib/dpkg/status", func(line string) bool {
		switch key, value, _ := strings.Cut(line, ": "); key {
		case "":
			flush()
		case "Package":
			name = value
		case "Version":
			version = value
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
		return len(out) < 100
	})
	flush()
	return out
}

// The same thing has another package name in the Raspberry Pi archive and at Hailo.
var (
	driverPackages  = []string{"h10-hailort-pcie-driver", "hailort-pcie-driver"}
	libraryPackages = []string{"h10-hailort", "hailort"}
)

// installed returns the one of the packages that is installed, and its version without the packaging part.
func (e *exam) installed(names []string) (name, version string) {
	for _, n := range names {
		if v, ok := e.packages[n]; ok {
			return n, upstream(v)
		}
	}
	return names[0], ""
}

// reinstall is the remedy that puts the files of a package back.
func (e *exam) reinstall(names []string) string {
	name, version := e.installed(names)
	if !e.pi && version == "" {
		return installStack(false)
	}
	return "sudo apt install --reinstall " + name
}

// installStack is the remedy that brings HailoRT 5.
func installStack(pi bool) string {
	if !pi {
		return remedy("# install HailoRT 5 and its PCIe driver for Hailo-10H,",
			"# from https://hailo.ai/developer-zone")
	}
	return remedy("sudo apt update",
		"sudo apt install dkms linux-headers-rpi-2712",
		"sudo apt install hailo-h10-all",
		coldStart)
}

const coldStart = "sudo poweroff\n# then unplug the power for ten seconds; a reboot is not enough"

// oldStack returns what is there of HailoRT 4, which is for Hailo-8 only: packages by name, and a
// list for a person.
func (e *exam) oldStack() (packages, evidence []string) {
	for name, v := range e.packages {
		four := numbers(v)[0] == 4 && slices.Contains([]string{"hailort", "hailort-pcie-driver", "python3-hailort"}, name)
		// hailo-all has a version of its own that says nothing about the runtime.
		if four || name == "hailo-all" || name == "hailofw" {
			packages = append(packages, name)
		}
	}
	sort.Strings(packages)
	for _, name := range packages {
		evidence = append(evidence, "package "+name+" "+e.packages[name])
	}
	for _, l := range e.libs {
		if numbers(l.version)[0] == 4 {
			evidence = append(evidence, l.path)
		}
	}
	if e.t.isDir("/sys/module/hailo_pci") && len(e.pci) == 1 {
		evidence = append(evidence, "the loaded module hailo_pci")
	}
	return packages, evidence
}

// newStack says whether anything of HailoRT 5 is there.
func (e *exam) newStack() bool {
	for _, names := range [][]string{driverPackages, libraryPackages} {
		if _, v := e.installed(names); numbers(v)[0] >= 5 {
			return true
		}
	}
	return e.loaded || len(e.moduleFiles(e.kernel)) > 0 ||
		slices.ContainsFunc(e.libs, func(l library) bool { return numbers(l.version)[0] >= 5 })
}

func checkStack(e *exam) {
	packages, old := e.oldStack()
	purge := ""
	if len(packages) > 0 {
		purge = "sudo apt purge " + strings.Join(packages, " ")
	}
	isNew := e.newStack()
	if isNew {
		e.reached = stack
	}
	switch name, v := e.installed(libraryPackages); {
	case isNew && len(old) > 0:
		e.add(Warn, "HailoRT 5 is installed, but something of HailoRT 4, which is for Hailo-8, is left: "+strings.Join(old, ", ")+".",
			remedy("# removing it can delete the firmware too, so reinstall the driver after", purge,
				"sudo apt install --reinstall "+driverPackages[0], coldStart))
	case len(old) > 0:
		e.add(Fail, "The installed HailoRT is for Hailo-8 and does not know this chip: "+strings.Join(old, ", ")+".",
			remedy(purge, installStack(e.pi)))
	case !isNew:
		e.add(e.absent(), "HailoRT is not installed: no driver, no library.", installStack(e.pi))
	case v == "":
		e.add(OK, "HailoRT 5 is installed, but not as a package.", "")
	default:
		e.add(OK, "HailoRT 5 is installed: "+name+" "+e.packages[name]+".", "")
	}
}
