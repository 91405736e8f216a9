package doctor

import (
	"os"
	"path"
	"regexp"
	"slices"
)

// Device is a Hailo-10H that a process could open.
type Device struct {
	Node           string `json:"node"`                      // "/dev/hailo0" up to HailoRT 5.2, "/dev/h1x-0" from 5.3 on
	PCIAddress     string `json:"pci_address"`               // "0001:01:00.0"
	DriverVersion  string `json:"driver_version,omitempty"`  // of the loaded kernel module
	LibraryVersion string `json:"library_version,omitempty"` // of libhailort on disk; "": not installed
}

// ChipPresent says whether there is a Hailo-10H on the bus below root ("" is /) and where. Its
// driver may still be booting it, for up to a minute after the machine's start: then it has no
// node yet. Safe for concurrent use.
func ChipPresent(root string) (pciAddress string, ok bool) {
	p, ok := newSurvey(tree(root)).ten()
	return p.address, ok
}

// LibraryVersion returns the version of the libhailort below root ("" is /), "" if there is none. It
// asks for no device: just after an installation there is no node yet. Safe for concurrent use.
func LibraryVersion(root string) string { return newSurvey(tree(root)).library() }

const (
	hailoVendor = "0x1e60"
	hailo10H    = "0x45c4"
	moduleDir   = "/sys/module/hailo1x_pci"
	deviceDir   = "/sys/bus/pci/devices"
)

// chips by PCI device id; the driver hailo1x also knows the Hailo-12L and -15L.
var chips = map[string]string{
	hailo10H: "Hailo-10H", "0x2864": "Hailo-8", "0x43a2": "Hailo-15L", "0x26a2": "Hailo-12L",
}

// nodeClasses are the folders of /sys/class in which the driver lists its boards: the first up to
// driver 5.2 (and 4.x), the second from 5.3 on. The node has the name of the entry: hailo0, h1x-0.
var nodeClasses = []string{"hailo_chardev", "hailo1x"}

// libraryDirs are where libhailort is found; the vendor's package uses the first.
var libraryDirs = []string{
	"/usr/lib", "/usr/local/lib", "/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
}

// survey is what sysfs and the library folders tell about Hailo devices.
type survey struct {
	t      tree
	pci    []pciDevice // of Hailo
	module string      // version of the loaded hailo1x_pci, "" if unknown
	loaded bool
	nodes  []node
	libs   []library
}

type pciDevice struct {
	address, id string
	driver      string // that has taken it, "" if none
}

func (p pciDevice) name() string {
	if n := chips[p.id]; n != "" {
		return n
	}
	return "an unknown Hailo device"
}

func (p pciDevice) file(name string) string { return path.Join(deviceDir, p.address, name) }

// node is an entry of a class, with the node in /dev that belongs to it.
type node struct {
	path, class, address string
	info                 os.FileInfo // nil: not in /dev
}

type library struct{ path, version string }

func newSurvey(t tree) survey {
	s := survey{t: t, module: t.read(moduleDir + "/version"), loaded: t.isDir(moduleDir)}
	for _, addr := range t.list(deviceDir, "*") {
		p := pciDevice{address: addr}
		if t.read(p.file("vendor")) != hailoVendor {
			continue
		}
		p.id = t.read(p.file("device"))
		if l := t.link(p.file("driver")); l != "" {
			p.driver = path.Base(l)
		}
		s.pci = append(s.pci, p)
	}
	for _, class := range nodeClasses {
		for _, name := range t.list("/sys/class/"+class, "*") {
			n := node{path: "/dev/" + name, class: class, address: boardAddress(t, "/sys/class/"+class+"/"+name)}
			if info, ok := t.stat(n.path); ok {
				n.info = info
			}
			s.nodes = append(s.nodes, n)
		}
	}
	s.libs = libraries(t)
	return s
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// boardAddress returns the PCI address of a class entry: board_location has it up to driver 5.2,
// device_id from 5.3 on (before, that was the PCI id), and the link of the device always.
func boardAddress(t tree, entry string) string {
	for _, s := range []string{t.read(entry + "/board_location"), t.read(entry + "/device_id"), path.Base(t.link(entry + "/device"))} {
		if pciAddress.MatchString(s) {
			return s
		}
	}
	return ""
}

// ten returns the first Hailo-10H on the bus.
func (s survey) ten() (pciDevice, bool) {
	i := slices.IndexFunc(s.pci, func(p pciDevice) bool { return p.id == hailo10H })
	if i < 0 {
		return pciDevice{}, false
	}
	return s.pci[i], true
}

// entry returns the class entry of a Hailo-10H, one with a node in /dev if there is any.
func (s survey) entry() (node, pciDevice, bool) {
	var found node
	var of pciDevice
	for _, n := range s.nodes {
		for _, p := range s.pci {
			mine := p.address == n.address || n.address == "" && len(s.pci) == 1
			if !mine || p.id != hailo10H || found.info != nil {
				continue
			}
			found, of = n, p
		}
	}
	return found, of, found.path != ""
}

// device returns the Hailo-10H that has a node. Nothing is opened, so it says nothing about
// permissions, about who else uses it, or whether it works.
func (s survey) device() (Device, bool) {
	n, p, ok := s.entry()
	if !ok || n.info == nil || n.info.IsDir() {
		return Device{}, false
	}
	return Device{Node: n.path, PCIAddress: p.address, DriverVersion: s.module, LibraryVersion: s.library()}, true
}

// library returns the version of libhailort that counts: the driver's own if it is there, else
// the newest.
func (s survey) library() string {
	best := ""
	for _, l := range s.libs {
		if l.version == s.module && s.module != "" {
			return l.version
		}
		if best == "" || newer(l.version, best) {
			best = l.version
		}
	}
	return best
}

// libraries finds libhailort. Its file name ends with the whole version; that is its soname too.
func libraries(t tree) []library {
	var out []library
	for _, dir := range libraryDirs {
		for _, name := range t.list(dir, "libhailort.so*") {
			p := dir + "/" + name
			info, ok := t.stat(p)
			if !ok || !info.Mode().IsRegular() {
				continue
			}
			v := versionAtEnd(name)
			if v == "" && t.link(p) == "" { // somebody copied it under its short name
				x, _ := t.program(p)
				v = versionAtEnd(x.soname)
			}
			if v != "" && !slices.ContainsFunc(out, func(l library) bool { return l.version == v }) {
				out = append(out, library{p, v})
			}
		}
	}
	return out
}
