// Package device tells facts about a machine and the Hailo devices in it: what is on the PCI bus, which driver, library
// and packages are installed, who may use the device. It reads sysfs, /proc, /dev, /usr, /etc and the package database
// below one root folder, opens no device node, and judges nothing: package doctor does.
package device

import (
	"cmp"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Machine is a computer with, or without, Hailo devices, as [Read] found it. Its methods look at more files. Safe for
// concurrent use.
type Machine struct {
	Root
	Name      string // model of the computer, "" if it does not tell
	Kernel    string // release of the running one
	Pi        bool   // a Raspberry Pi
	Codename  string // of the Linux distribution, such as "trixie"
	Container bool   // this is inside of one
	Hidden    bool   // files of driver and firmware cannot be seen from here

	PCI           []PCI     // devices of Hailo
	Loaded        bool      // the driver hailo1x_pci is
	Driver        string    // its version, "" if unknown
	Boards        []Board   // of the driver
	Libraries     []Library // libhailort, one of each version
	LibraryFolder string    // a folder in its place, which container engines make of a mount whose source is missing
}

// PCI is a Hailo device on the bus.
type PCI struct {
	Address string // "0001:01:00.0"
	ID      string // "0x45c4" is a Hailo-10H
	Driver  string // that has taken it, "" if none
}

// Name returns what the vendor calls the chip, "an unknown Hailo device" for one that is not known.
func (p PCI) Name() string {
	// The driver hailo1x also knows the Hailo-12L and -15L.
	names := map[string]string{hailo10H: "Hailo-10H", "0x2864": "Hailo-8", "0x43a2": "Hailo-15L", "0x26a2": "Hailo-12L"}
	return cmp.Or(names[p.ID], "an unknown Hailo device")
}

// Dir returns the folder of the device in sysfs.
func (p PCI) Dir() string { return "/sys/bus/pci/devices/" + p.Address }

// Board is a device that the driver has booted, with the node in /dev that belongs to it.
type Board struct {
	Node    string      // "/dev/hailo0" up to HailoRT 5.2, "/dev/h1x-0" from 5.3 on
	Class   string      // of the driver, for udev: "hailo_chardev", "hailo1x"
	Address string      // on the PCI bus
	Info    os.FileInfo // of the node; nil: it is not in /dev
}

// Library is a libhailort on disk.
type Library struct{ Path, Version string }

// Device is a Hailo-10H that a process could open.
type Device struct {
	Node           string `json:"node"`                      // see Board
	PCIAddress     string `json:"pci_address"`               // "0001:01:00.0"
	DriverVersion  string `json:"driver_version,omitempty"`  // of the loaded kernel module
	LibraryVersion string `json:"library_version,omitempty"` // of libhailort on disk; "": not installed
}

const (
	hailoVendor = "0x1e60"
	hailo10H    = "0x45c4"
	moduleDir   = "/sys/module/hailo1x_pci"
)

// Read looks at the machine below root.
func Read(root string) *Machine {
	m := &Machine{Root: Root(root)}
	pc := strings.TrimSpace(m.Read("/sys/class/dmi/id/sys_vendor") + " " + m.Read("/sys/class/dmi/id/product_name"))
	m.Name = cmp.Or(m.Read("/proc/device-tree/model"), pc)
	m.Kernel = m.Read("/proc/sys/kernel/osrelease")
	m.Codename = strings.Trim(m.setting("/etc/os-release", "VERSION_CODENAME="), `"'`)
	m.Pi = strings.HasPrefix(m.Name, "Raspberry Pi")
	m.Container = m.Exists("/.dockerenv") || m.Exists("/run/.containerenv") || m.Exists("/run/systemd/container")
	// Every host has the folder, images of containers do not (nor do some tell what they are).
	m.Hidden = m.Container || !m.IsDir("/lib/modules")
	for _, dir := range m.Glob("/sys/bus/pci/devices/*") {
		if m.Read(dir+"/vendor") != hailoVendor {
			continue
		}
		_, driver := path.Split(m.Link(dir + "/driver"))
		m.PCI = append(m.PCI, PCI{path.Base(dir), m.Read(dir + "/device"), driver})
	}
	m.Driver, m.Loaded = m.Read(moduleDir+"/version"), m.IsDir(moduleDir)
	// The first class up to driver 5.2 (and 4.x), the second from 5.3 on.
	for _, entry := range m.Glob("/sys/class/hailo_chardev/*", "/sys/class/hailo1x/*") {
		node := "/dev/" + path.Base(entry)
		m.Boards = append(m.Boards, Board{node, path.Base(path.Dir(entry)), m.boardAddress(entry), m.Stat(node)})
	}
	m.readLibraries()
	return m
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// boardAddress returns the PCI address of a class entry: board_location has it up to driver 5.2, device_id from 5.3 on
// (before, that was the PCI id), and the link of the device always.
func (m *Machine) boardAddress(entry string) string {
	for _, s := range []string{m.Read(entry + "/board_location"), m.Read(entry + "/device_id"), path.Base(m.Link(entry + "/device"))} {
		if pciAddress.MatchString(s) {
			return s
		}
	}
	return ""
}

// Chip returns the first Hailo-10H on the bus. Its driver may still be booting it, for up to a minute after the
// machine's start: then it has no board yet.
func (m *Machine) Chip() (p PCI, ok bool) {
	if i := slices.IndexFunc(m.PCI, func(p PCI) bool { return p.ID == hailo10H }); i >= 0 {
		return m.PCI[i], true
	}
	return PCI{}, false
}

// Board returns that of a Hailo-10H, one with a node in /dev if there is any.
func (m *Machine) Board() (found Board, ok bool) {
	for _, b := range m.Boards {
		for _, p := range m.PCI {
			its := p.Address == b.Address || b.Address == "" && len(m.PCI) == 1
			if its && p.ID == hailo10H && found.Info == nil {
				found, ok = b, true
				found.Address = p.Address
			}
		}
	}
	return found, ok
}

// Device returns the Hailo-10H that has a node. Nothing is opened, so it says nothing about permissions, about who else
// uses it, or whether it works.
func (m *Machine) Device() (Device, bool) {
	b, ok := m.Board()
	if !ok || b.Info == nil || b.Info.IsDir() {
		return Device{}, false
	}
	return Device{Node: b.Node, PCIAddress: b.Address, DriverVersion: m.Driver, LibraryVersion: m.Library()}, true
}

// Uptime returns how long the computer runs; very long if that is not known.
func (m *Machine) Uptime() time.Duration {
	first, _, _ := strings.Cut(m.Read("/proc/uptime"), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil || !(s >= 0 && s <= 1e8) {
		return 1 << 62
	}
	return time.Duration(s) * time.Second
}

// CMA returns the kernel's contiguous memory, such as "65536 kB", and the argument cma= in cmdline.txt.
func (m *Machine) CMA() (total, setting string) {
	for _, arg := range strings.Fields(m.Read("/boot/firmware/cmdline.txt")) {
		if strings.HasPrefix(arg, "cma=") {
			setting = arg
		}
	}
	return m.setting("/proc/meminfo", "CmaTotal:"), setting
}

// SlowLink returns the setting in config.txt that keeps the PCIe link from its full speed, "" if there is none.
func (m *Machine) SlowLink() string {
	for line := range m.Lines("/boot/firmware/config.txt") {
		if f := strings.TrimSpace(line); strings.HasPrefix(f, "dtparam=pciex1_gen=") && f != "dtparam=pciex1_gen=3" {
			return f
		}
	}
	return ""
}

// Throttled returns what the Raspberry Pi's firmware says of power and heat in sysfs, such as "50005"; "" if nothing.
func (m *Machine) Throttled() string {
	for _, name := range m.Glob("/sys/devices/platform/soc*/soc*:firmware/get_throttled") {
		return m.Read(name)
	}
	return ""
}

// Undervoltage says whether the Raspberry Pi's sensor sees too low a voltage.
func (m *Machine) Undervoltage() bool {
	return slices.ContainsFunc(m.Glob("/sys/class/hwmon/hwmon*"), func(dir string) bool {
		return m.Read(dir+"/name") == "rpi_volt" && m.Read(dir+"/in0_lcrit_alarm") == "1"
	})
}

// Process is one that runs.
type Process struct{ ID, Name string }

// Holders looks through the open files of all processes for a file. hidden is how many cannot be looked into.
func (m *Machine) Holders(file string) (holders []Process, hidden int) {
	for _, dir := range m.Glob("/proc/[1-9]*") {
		open := m.Glob(dir + "/fd/*")
		if open == nil {
			hidden++
		}
		if slices.ContainsFunc(open, func(fd string) bool { return strings.TrimSuffix(m.Link(fd), " (deleted)") == file }) {
			holders = append(holders, Process{path.Base(dir), m.Read(dir + "/comm")})
		}
	}
	return holders, hidden
}
