package doctor

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo/device"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/model"
)

// files is a fake root: path -> content, or one of the prefixes below.
type files map[string]string

const (
	link   = "-> "     // a symbolic link to what follows
	folder = "(dir)"   // an empty folder; the path ends with /
	remove = "(gone)"  // in with: there is no such file
	perm   = "(mode) " // a device node, stood for by an empty file of that mode; at the end: a program
)

func mode(m os.FileMode) string { return fmt.Sprintf("%s%o", perm, m) }

const (
	addr   = "0001:01:00.0"
	dev    = "/sys/bus/pci/devices/" + addr
	kernel = "6.18.50+rpt-rpi-2712"
	worker = "/usr/libexec/hailo-clip-npu"
)

// passwd and group give the owner of the test's files the name root, so that the output is the
// same on every machine.
var (
	passwd = fmt.Sprintf("root:x:%d:%d:root:/root:/bin/bash\n", os.Getuid(), os.Getgid())
	group  = fmt.Sprintf("root:x:%d:\n", os.Getgid())

	hailoGroup = fmt.Sprintf("hailo:x:%d:\n", os.Getgid())
)

// pi is a Raspberry Pi 5 with AI HAT+ 2 and HailoRT 5.1.1 from the Raspberry Pi archive, all well.
func pi() files {
	f := files{
		"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.1\x00", "/proc/sys/kernel/osrelease": kernel + "\n",
		"/proc/uptime": "86400.00 300000.00\n", "/proc/cmdline": "console=tty1 rootwait\n", "/proc/meminfo": "MemTotal: 8 kB\nCmaTotal:          65536 kB\n",
		"/proc/1/comm": "systemd\n", "/proc/1/fd/0": link + "/dev/null",
		"/etc/os-release": "VERSION_CODENAME=trixie\n", "/etc/passwd": passwd, "/etc/group": group,

		dev + "/vendor": "0x1e60\n", dev + "/device": "0x45c4\n", dev + "/driver": link + "../../../bus/pci/drivers/hailo1x",
		dev + "/current_link_speed": "8.0 GT/s PCIe\n", dev + "/current_link_width": "1\n",
		"/sys/bus/pci/devices/0001:00:00.0/vendor": "0x14e4\n", "/sys/bus/pci/drivers/hailo1x/": folder,
		"/sys/class/hailo_chardev/hailo0/board_location": addr + "\n", "/sys/class/hailo_chardev/hailo0/device_id": "1e60:45c4\n",
		"/sys/module/hailo1x_pci/version": "5.1.1\n", "/dev/hailo0": mode(0o666),
		"/sys/class/thermal/thermal_zone0/temp":                                      "48350\n",
		"/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",

		"/lib/modules/" + kernel + "/updates/dkms/hailo1x_pci.ko.xz": "module", "/lib/modules/" + kernel + "/build/": folder, "/usr/sbin/dkms": "",
		"/usr/lib/libhailort.so.5.1.1": "library", "/usr/lib/libhailort.so": link + "libhailort.so.5.1.1",
		"/lib/udev/rules.d/51-hailo-udev.rules": `SUBSYSTEM=="hailo_chardev", MODE="0666"`,
		"/usr/include/hailo/hailort.hpp":        "header", "/models/image.hef": "\x01HEF...", "/models/text.hef": "\x01HEF...",
		"/var/lib/dpkg/status": dpkg("hailo-h10-all 5.1.1", "h10-hailort 5.1.1", "h10-hailort-pcie-driver 5.1.1", "dkms 3.2.2-1"),
	}
	maps.Copy(f, workerOf("5.1.1"))
	for _, name := range []string{"customer_certificate.bin", "scu_fw.bin", "u-boot-6.dtb.signed", "u-boot-spl.bin", "u-boot-tfa.itb", "fitImage", "image-fs"} {
		f[device.FirmwareDir+"/"+name] = "firmware"
	}
	return f
}

// release530 turns pi into one with HailoRT 5.3.0, which renamed class and node.
var release530 = files{
	"/sys/class/hailo_chardev/hailo0/board_location": remove, "/sys/class/hailo_chardev/hailo0/device_id": remove, "/dev/hailo0": remove,
	"/sys/class/hailo1x/h1x-0/device_id": addr + "\n", "/dev/h1x-0": mode(0o666), "/sys/module/hailo1x_pci/version": "5.3.0\n",
	"/usr/lib/libhailort.so.5.1.1": remove, "/usr/lib/libhailort.so.5.3.0": "library", "/usr/lib/libhailort.so": link + "libhailort.so.5.3.0",
	"/var/lib/dpkg/status": dpkg("hailort 5.3.0", "hailort-pcie-driver 5.3.0"), worker: workerOf("5.3.0")[worker],
}

// dpkg returns a package database.
func dpkg(packages ...string) string {
	s := "Package: bash\nStatus: install ok installed\nVersion: 5.2.37-2\n\n" +
		"Package: hailo-old\nStatus: deinstall ok config-files\nVersion: 4.20.0\n\n"
	for _, p := range packages {
		name, version, _ := strings.Cut(p, " ")
		s += "Package: " + name + "\nStatus: install ok installed\nPriority: optional\nVersion: " + version + "\nDescription: x\n more\n\n"
	}
	return s
}

func (f files) with(more files) files {
	out := maps.Clone(f)
	maps.Copy(out, more)
	maps.DeleteFunc(out, func(_, content string) bool { return content == remove })
	return out
}

func (f files) without(prefixes ...string) files {
	out := maps.Clone(f)
	maps.DeleteFunc(out, func(path, _ string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p) })
	})
	return out
}

// write makes the root in a temporary folder.
func (f files) write(t testing.TB) string {
	root := t.TempDir()
	f.writeTo(t, root)
	return root
}

func (f files) writeTo(t testing.TB, root string) {
	for path, content := range f {
		file, m := filepath.Join(root, path), os.FileMode(0o644)
		to, isLink := strings.CutPrefix(content, link)
		content, isProgram := strings.CutSuffix(content, perm)
		isNode, _ := fmt.Sscanf(content, perm+"%o", &m)
		assert.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		switch {
		case content == folder:
			assert.Must(t, os.MkdirAll(file, 0o755))
		case isLink:
			assert.Must(t, os.Symlink(to, file))
		case isNode == 1:
			assert.Must(t, os.WriteFile(file, nil, 0o600), os.Chmod(file, m))
		case isProgram:
			assert.Must(t, os.WriteFile(file, []byte(content), 0o755))
		default:
			assert.Must(t, os.WriteFile(file, []byte(content), m))
		}
	}
}

// env writes the root and returns an Env of it: good models, a quiet log, and an ordinary user who owns no file.
func (f files) env(t testing.TB, edit func(*Env)) Env {
	env := Env{Root: f.write(t), Version: "1.2.3", UID: 54321, GIDs: []int{54321}, Worker: worker}
	kernelLogOf("[ 0.0] Booting Linux\n")(&env)
	modelOf("clip-vit-b-32", []model.FileState{
		{Name: "image.hef", Path: "/models/image.hef", Bytes: 7, SHA256: "1", Zoo: "v5.1.0"},
		{Name: "text.hef", Path: "/models/text.hef", Bytes: 7},
	}, []model.FileState{{Name: "vision_model.onnx", Path: "/models/v.onnx", Bytes: 7, SHA256: "1"}})(&env)
	if edit != nil {
		edit(&env)
	}
	return env
}

// workerOf is a worker that was built for a version of HailoRT.
func workerOf(version string) files {
	return files{worker: elfFile(elf.DT_NEEDED, "libc.so.6", "libhailort.so."+version) + perm}
}

func workerIs(path string) func(*Env) { return func(e *Env) { e.Worker = path } }

func noModel(e *Env) { e.Model = nil }

func backend(name string) func(*Env) {
	return func(e *Env) {
		e.Backend = name
		if name == "npu" {
			modelOf("m", nil, []model.FileState{{Name: "vision_model.onnx"}})(e)
		}
	}
}

func noModels(e *Env) { e.Model, e.Worker, e.KernelLog = nil, "", nil }

// modelOf is a model with files for the NPU and the CPU.
func modelOf(name string, npu, cpu []model.FileState) func(*Env) {
	in := &model.Installed{Manifest: model.Manifest{Name: name}, Files: append(npu, cpu...)}
	if npu != nil {
		in.Manifest.NPU = &model.NPUFiles{Image: npu[0].Name, Text: npu[len(npu)-1].Name}
	}
	if cpu != nil {
		in.Manifest.CPU = &model.CPUFiles{Image: cpu[0].Name, Text: cpu[len(cpu)-1].Name}
	}
	return func(e *Env) { e.Model = in }
}

func kernelLogOf(s string) func(*Env) {
	return func(e *Env) {
		e.KernelLog = func(context.Context) ([]byte, error) { return []byte(s), nil }
	}
}

// elfFile returns a program for this machine with the tagged names of libraries, in the least number of bytes
// that debug/elf takes.
func elfFile(tag elf.DynTag, libraries ...string) string {
	const head = 64
	names, dynamic := "\x00", []elf.Dyn64{}
	for _, l := range libraries {
		dynamic = append(dynamic, elf.Dyn64{Tag: int64(tag), Val: uint64(len(names))})
		names += l + "\x00"
	}
	dynamic = append(dynamic, elf.Dyn64{})
	at := head + uint64(len(names))
	size := 16 * uint64(len(dynamic))
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: binary.LittleEndian.Uint16(machineBytes()), Version: 1, Ehsize: head,
		Shoff: at + size, Shentsize: 64, Shnum: 3, Shstrndx: 1,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b []byte
	for _, part := range []any{h, []byte(names), dynamic, []elf.Section64{
		{},
		{Type: uint32(elf.SHT_STRTAB), Off: head, Size: uint64(len(names))},
		{Type: uint32(elf.SHT_DYNAMIC), Off: at, Size: size, Link: 1, Entsize: 16},
	}} {
		b, _ = binary.Append(b, binary.LittleEndian, part)
	}
	return string(b)
}

// machineBytes is the number of this machine's processor in an ELF file.
func machineBytes() []byte {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	return binary.LittleEndian.AppendUint16(nil, uint16(machine))
}

// identified is what the vendor's tool prints of a healthy chip.
const identified = `Executing on device: 0001:01:00.0
Identifying board
Control Protocol Version: 2
Firmware Version: 5.1.1 (release,app)
Logger Version: 0
Device Architecture: HAILO10H
`

// identifies makes the vendor's tool answer so.
func identifies(answer string, err error) func(*Env) { return answers("hailortcli", answer, err) }

// answers makes a program answer so. Every other one is missing.
func answers(program, answer string, err error) func(*Env) {
	return func(e *Env) {
		e.Command = func(_ context.Context, name string, args ...string) ([]byte, error) {
			if name != program {
				return nil, exec.ErrNotFound
			}
			return []byte(answer), err
		}
	}
}

func served(s Service) func(*Env) {
	return func(e *Env) { e.Service = func(context.Context) *Service { return &s } }
}

// heldBy is a machine whose device a process holds.
func heldBy(pid, name string) files {
	return pi().with(files{"/proc/" + pid + "/comm": name, "/proc/" + pid + "/fd/7": link + "/dev/hailo0"})
}

// ofMode is a machine whose device has the mode.
func ofMode(m os.FileMode) files { return pi().with(files{"/dev/hailo0": mode(m)}) }
