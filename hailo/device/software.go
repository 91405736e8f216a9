package device

import (
	"debug/elf"
	"path"
	"runtime"
	"slices"
	"strings"
)

// FirmwareDir is where the driver finds what it sends to the chip at every start.
const FirmwareDir = "/lib/firmware/hailo/hailo10h"

// MissingFirmware lists the files that are missing or empty, as patterns. There is one device tree for each board; which
// one the chip wants is known only when it starts. u-boot-tfa.itb is optional.
func (m *Machine) MissingFirmware() (missing []string) {
	for _, pattern := range []string{"customer_certificate.bin", "scu_fw.bin", "u-boot-*.dtb.signed", "u-boot-spl.bin", "fitImage", "image-fs"} {
		if !slices.ContainsFunc(m.Glob(FirmwareDir+"/"+pattern), func(name string) bool {
			info := m.Stat(name)
			return info != nil && info.Size() > 0
		}) {
			missing = append(missing, pattern)
		}
	}
	return missing
}

// ModuleFiles returns where the driver for a kernel is: DKMS's, that of a plain build, and what distributions use.
func (m *Machine) ModuleFiles(kernel string) []string {
	dir := "/lib/modules/" + kernel
	return m.Glob(dir+"/updates/dkms/hailo1x_pci.ko*", dir+"/updates/hailo1x_pci.ko*", dir+"/extra/hailo1x_pci.ko*",
		dir+"/kernel/drivers/misc/hailo1x_pci.ko*")
}

// KernelsWithModule returns the installed kernels that have a driver.
func (m *Machine) KernelsWithModule() (kernels []string) {
	for _, dir := range m.Glob("/lib/modules/*") {
		if kernel := path.Base(dir); len(m.ModuleFiles(kernel)) > 0 {
			kernels = append(kernels, kernel)
		}
	}
	return kernels
}

// TooOldForKernel returns the version of a driver whose build failed over a function that newer kernels do not have; the
// vendor's 5.3.0 alone is known for it.
func (m *Machine) TooOldForKernel() string {
	for _, log := range m.Glob("/var/lib/dkms/hailo1x_pci/*/build/make.log") {
		for line := range m.Lines(log) {
			if strings.Contains(line, "del_timer_sync") {
				return path.Base(path.Dir(path.Dir(log)))
			}
		}
	}
	return ""
}

// Blacklisted returns what keeps modprobe from loading the driver, "" if nothing does.
func (m *Machine) Blacklisted() string {
	// modprobe takes - and _ for the same.
	const module = "hailo1x_pci"
	for _, name := range m.Glob("/etc/modprobe.d/*.conf", "/run/modprobe.d/*.conf", "/usr/lib/modprobe.d/*.conf") {
		for line := range m.Lines(name) {
			f := strings.Fields(strings.ReplaceAll(line, "-", "_"))
			if len(f) >= 2 && f[1] == module && (f[0] == "blacklist" || f[0] == "install") {
				return name
			}
		}
	}
	for _, arg := range strings.Fields(m.Read("/proc/cmdline")) {
		key, value, _ := strings.Cut(arg, "=")
		names := strings.Split(strings.ReplaceAll(value, "-", "_"), ",")
		if (key == "module_blacklist" || key == "modprobe.blacklist") && slices.Contains(names, module) {
			return "the kernel command line"
		}
	}
	return ""
}

// readLibraries finds libhailort; the vendor's package uses the first folder. Its file name ends with the whole version;
// that is its soname too.
func (m *Machine) readLibraries() {
	for _, name := range m.Glob("/usr/lib/libhailort.so*", "/usr/local/lib/libhailort.so*", "/usr/lib/aarch64-linux-gnu/libhailort.so*",
		"/usr/lib/x86_64-linux-gnu/libhailort.so*") {
		if info := m.Stat(name); info == nil || !info.Mode().IsRegular() {
			if info != nil && info.IsDir() && m.LibraryFolder == "" {
				m.LibraryFolder = name
			}
			continue
		}
		v := VersionAtEnd(name)
		if v == "" && m.Link(name) == "" { // somebody copied it under its short name
			p, _ := m.Program(name)
			v = VersionAtEnd(p.Soname)
		}
		if v != "" && !m.HasLibrary(v) {
			m.Libraries = append(m.Libraries, Library{name, v})
		}
	}
}

// Library returns the version of libhailort that counts: the driver's own if it is there, else the newest; "" without any.
func (m *Machine) Library() (version string) {
	for _, l := range m.Libraries {
		if l.Version == m.Driver {
			return l.Version
		}
		if version == "" || Newer(l.Version, version) {
			version = l.Version
		}
	}
	return version
}

// HasLibrary says whether there is a libhailort of that version.
func (m *Machine) HasLibrary(version string) bool {
	return slices.ContainsFunc(m.Libraries, func(l Library) bool { return l.Version == version })
}

// Program is what an ELF file tells the dynamic loader.
type Program struct {
	Native  bool   // for the processor that this program was built for
	Machine string // "EM_AARCH64"
	Soname  string // of a library
	HailoRT string // soname of the libhailort that it asks for; "": it asks for none
}

const maxELF = 256 << 20 // bytes of a program or library that is looked into

// Program reads an ELF file; false if it is none.
func (r Root) Program(name string) (p Program, ok bool) {
	f, err := r.Open(name)
	if err != nil {
		return p, false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxELF {
		return p, false
	}
	x, err := elf.NewFile(f)
	if err != nil {
		return p, false
	}
	native := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	p.Native, p.Machine = x.Machine == native, x.Machine.String()
	if names, _ := x.DynString(elf.DT_SONAME); len(names) > 0 {
		p.Soname = names[0]
	}
	needed, _ := x.DynString(elf.DT_NEEDED)
	if i := slices.IndexFunc(needed, func(n string) bool { return strings.HasPrefix(n, "libhailort.so") }); i >= 0 {
		p.HailoRT = needed[i]
	}
	return p, true
}

// Packages reads from dpkg's database which Hailo packages, and DKMS, are installed, and their versions.
func (r Root) Packages() map[string]string {
	packages := map[string]string{}
	var name, version string
	installed := false
	for line := range r.Lines("/var/lib/dpkg/status") {
		switch key, value, _ := strings.Cut(line, ": "); key {
		case "Package":
			name, version, installed = value, "", false
		case "Version":
			version = value
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		}
		if installed && version != "" && (strings.Contains(name, "hailo") || name == "dkms") && len(packages) < 100 {
			packages[name] = version
		}
	}
	return packages
}
