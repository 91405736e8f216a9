package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"hailoclip/hailo/model"
)

var update = flag.Bool("update", false, "write the golden files")

// cases are machines, what doctor must find on each at least, and its exit code. Checks not named
// in want must be ok or info. The whole text is in testdata.
var cases = []struct {
	name    string
	machine files
	env     func(*Env)
	want    map[string]Level
	skipped string // checks that must be named as skipped
	device  bool   // there is one with a node
	exit    int
}{
	{name: "healthy-5.1.1", machine: pi(), device: true},
	{name: "healthy-5.3.0", machine: pi().with(release530), device: true, env: workerOf("5.3.0")},
	{name: "healthy-npu-demanded", machine: pi(), env: backend("npu"), device: true, want: map[string]Level{"cpu-models": Warn}},
	{name: "pc", machine: files{
		"/sys/class/dmi/id/sys_vendor": "ACME", "/sys/class/dmi/id/product_name": "Tower 9",
		"/proc/sys/kernel/osrelease": "6.12.0-amd64", "/sys/bus/pci/devices/0000:00:00.0/vendor": "0x8086",
	}, env: noModels},
	{name: "pc-npu-demanded", machine: files{"/proc/sys/kernel/osrelease": "6.12.0-amd64"},
		env: backend("npu"), want: map[string]Level{"pci-device": Fail, "cpu-models": Warn}, exit: 1},
	{name: "pi-without-hat", machine: pi().without("/sys/bus/pci/devices/"+addr, "/sys/class/", "/dev/", "/sys/module/", "/usr/lib/libhailort", "/var/lib/dpkg"),
		env: kernelLogOf("[    0.5] brcm-pcie 1000110000.pcie: link down\n")},
	{name: "hat-not-found", machine: pi().without("/sys/bus/pci/devices/"+addr, "/sys/class/", "/dev/"),
		env: kernelLogOf("[    0.5] brcm-pcie 1000110000.pcie: link down\n"), want: map[string]Level{"pci-device": Warn}},
	{name: "hailo8", machine: pi().with(files{"/sys/bus/pci/devices/" + addr + "/device": "0x2864"}),
		want: map[string]Level{"pci-device": Warn}},
	{name: "wrong-stack", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/", "/usr/lib/libhailort", "/lib/modules/", "/sys/bus/pci/drivers").with(files{
		"/usr/lib/libhailort.so.4.23.0": "library", "/sys/module/hailo_pci/version": "4.23.0",
		"/sys/bus/pci/devices/" + addr + "/driver": remove,
		"/var/lib/dpkg/status":                     dpkg("hailo-all 5.1.1", "hailort 4.23.0", "hailort-pcie-driver 4.23.0"),
	}), want: map[string]Level{"stack": Fail}, skipped: "kernel-module", exit: 1},
	{name: "not-installed", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/", "/usr/lib/libhailort", "/lib/modules/", "/usr/include", "/sys/bus/pci/drivers").with(files{
		"/var/lib/dpkg/status": dpkg(), "/sys/bus/pci/devices/" + addr + "/driver": remove,
	}), env: noWorker, want: map[string]Level{"stack": Warn}, skipped: "kernel-module"},
	{name: "module-missing", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/", "/lib/modules/"+kernel+"/", "/usr/sbin/dkms").with(files{
		"/lib/modules/6.12.47+rpt-rpi-2712/kernel/drivers/misc/hailo1x_pci.ko.xz": "module",
		"/sys/bus/pci/devices/" + addr + "/driver":                                remove,
	}), want: map[string]Level{"kernel-module": Fail}, skipped: "driver", exit: 1},
	{name: "module-does-not-compile", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/", "/lib/modules/"+kernel+"/updates").with(files{
		"/var/lib/dkms/hailo1x_pci/5.3.0/build/make.log": "monitor.c:53:5: error: implicit declaration of function 'del_timer_sync'\n",
		"/sys/bus/pci/devices/" + addr + "/driver":       remove,
	}), want: map[string]Level{"kernel-module": Fail}, skipped: "driver", exit: 1},
	{name: "module-without-dkms", machine: pi().without("/lib/modules/" + kernel + "/updates").with(files{
		"/lib/modules/" + kernel + "/kernel/drivers/misc/hailo1x_pci.ko.xz": "module",
	}), want: map[string]Level{"kernel-module": Warn}, device: true},
	{name: "blacklisted", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/").with(files{
		"/etc/modprobe.d/local.conf": "# mine\nblacklist hailo1x-pci\n", "/sys/bus/pci/devices/" + addr + "/driver": remove,
	}), want: map[string]Level{"driver": Fail}, skipped: "device-node", exit: 1},
	{name: "firmware-missing", machine: pi().without("/sys/class/hailo", "/dev/", "/lib/firmware/hailo/hailo10h/fitImage").with(files{
		"/lib/firmware/hailo/hailo10h/scu_fw.bin": "", "/sys/bus/pci/devices/" + addr + "/driver": remove,
	}), env: kernelLogOf("[ 5.0] hailo1x 0001:01:00.0: Failed to load mandatory firmware file hailo/hailo10h/scu_fw.bin, error: -2\n"),
		want: map[string]Level{"firmware": Fail}, skipped: "device-node", exit: 1},
	{name: "did-not-boot", machine: pi().without("/sys/class/hailo", "/dev/").with(files{"/sys/bus/pci/devices/" + addr + "/driver": remove}),
		env:  kernelLogOf("<6>[ 4.1] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n<3>[ 9.9] hailo1x 0001:01:00.0: Timeout waiting for firmware file\n<3>[ 9.9] hailo1x 0001:01:00.0: probe with driver hailo1x failed with error -110\n"),
		want: map[string]Level{"kernel-log": Fail}, skipped: "device-node", exit: 1},
	{name: "still-booting", machine: pi().without("/sys/class/hailo", "/dev/").with(files{"/proc/uptime": "12.34 40.00"}),
		want: map[string]Level{"device-node": Warn}, skipped: "permissions"},
	{name: "old-image-on-chip", machine: pi(), device: true,
		env:  kernelLogOf("[ 4.1] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n[ 5.0] hailo1x 0001:01:00.0: Mismatch Driver version pcie driver 5:1:1 pci_ep driver 5:1:0\n"),
		want: map[string]Level{"kernel-log": Fail}, exit: 1},
	{name: "log-overcome", machine: pi(), device: true,
		env: kernelLogOf("[ 2.0] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n[ 3.0] hailo1x: Timeout waiting for firmware file\n[ 4.1] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n[ 6.7] Firmware loaded in 2607 ms\n")},
	{name: "node-not-in-dev", machine: pi().without("/dev/"), want: map[string]Level{"device-node": Fail}, skipped: "permissions", exit: 1},
	{name: "container-without-device", machine: pi().without("/dev/", "/lib/").with(files{"/.dockerenv": ""}),
		want: map[string]Level{"device-node": Fail}, exit: 1},
	{name: "container-mounts-nothing", machine: pi().without("/dev/", "/usr/lib/libhailort", "/lib/").with(files{
		"/.dockerenv": "", "/dev/hailo0/": folder, "/usr/lib/libhailort.so.5.1.1/": folder}),
		want: map[string]Level{"device-node": Fail, "library": Fail}, exit: 1},
	{name: "versions-differ", machine: pi().with(files{"/sys/module/hailo1x_pci/version": "5.2.0"}), device: true,
		want: map[string]Level{"versions": Fail}, exit: 1},
	{name: "versions-differ-over-5.3", machine: pi().with(release530).with(files{"/usr/lib/libhailort.so.5.3.0": remove, "/usr/lib/libhailort.so.5.2.0": "library", "/usr/lib/libhailort.so": remove}),
		env: workerOf("5.2.0"), device: true, want: map[string]Level{"versions": Fail}, exit: 1},
	{name: "driver-not-restarted", machine: pi().with(files{
		"/usr/lib/libhailort.so.5.1.1": remove, "/usr/lib/libhailort.so.5.2.0": "library", "/usr/lib/libhailort.so": remove,
		"/var/lib/dpkg/status": dpkg("h10-hailort 5.2.0", "h10-hailort-pcie-driver 5.2.0"),
	}), device: true, want: map[string]Level{"versions": Fail, "worker": Fail, "npu-models": Warn}, exit: 1},
	{name: "held", machine: pi().with(files{
		"/proc/777/comm": "hailo-ollama", "/proc/777/fd/3": link + "/dev/hailo0", "/proc/777/fd/0": link + "/dev/null",
		"/proc/4242/comm": "python3", "/proc/4242/fd/9": link + "/dev/hailo0 (deleted)",
	}), device: true, want: map[string]Level{"in-use": Warn}},
	{name: "held-npu-demanded", machine: pi().with(files{"/proc/777/comm": "python3", "/proc/777/fd/3": link + "/dev/hailo0"}),
		env: func(e *Env) { e.Backend, e.Model = "npu", nil }, device: true, want: map[string]Level{"in-use": Fail}, exit: 1},
	{name: "held-but-shared", machine: pi().with(files{"/proc/777/comm": "python3", "/proc/777/fd/3": link + "/dev/hailo0"}),
		env: func(e *Env) { e.Backend, e.Model, e.Shared = "npu", nil, true }, device: true, want: map[string]Level{"in-use": Warn}},
	{name: "held-by-our-worker", machine: pi().with(files{
		"/proc/99/comm": "hailo-clip-npu", "/proc/99/fd/7": link + "/dev/hailo0"}), device: true},
	{name: "permission-denied", machine: pi().with(files{"/dev/hailo0": mode(0o600)}), device: true,
		want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "permission-no-rule", machine: pi().without("/lib/udev").with(files{"/dev/hailo0": mode(0o600)}), device: true,
		want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "container-driver-not-loaded", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/", "/lib/").with(files{
		"/sys/bus/pci/devices/" + addr + "/driver": remove}), want: map[string]Level{"kernel-module": Fail}, skipped: "driver", exit: 1},
	{name: "permission-service-user", machine: pi().with(files{"/dev/hailo0": mode(0o660),
		"/etc/passwd": passwd + "hailo-clip:x:990:990::/:/usr/sbin/nologin\n"}), device: true,
		env: func(e *Env) { e.UID = 0 }, want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "permission-dynamic-user", machine: pi().with(files{"/dev/hailo0": mode(0o660), "/etc/group": hailoGroup,
		"/etc/systemd/system/hailo-clip.service": "[Service]\nDynamicUser=yes\n"}), device: true,
		want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "permission-supplementary-group", machine: pi().with(files{"/dev/hailo0": mode(0o660), "/etc/group": hailoGroup,
		"/usr/lib/systemd/system/hailo-clip.service":             "[Service]\nDynamicUser=yes\n",
		"/etc/systemd/system/hailo-clip.service.d/override.conf": "[Service]\nSupplementaryGroups=hailo\n"}), device: true},
	{name: "chip-identified", machine: pi(), env: identifies(identified, nil), device: true},
	{name: "chip-of-5.1.0", machine: pi(), env: identifies(strings.Replace(identified, "5.1.1", "5.1.0", 1), nil), device: true,
		want: map[string]Level{"chip-software": Fail}, exit: 1},
	{name: "chip-silent", machine: pi(), env: identifies("", context.DeadlineExceeded), device: true, want: map[string]Level{"chip-software": Warn}},
	{name: "chip-in-another-form", machine: pi(), env: identifies("Firmware: five\n", nil), device: true},
	{name: "chip-served", machine: pi().with(files{"/proc/99/comm": "hailo-clip-npu", "/proc/99/fd/7": link + "/dev/hailo0"}), device: true,
		env: func(e *Env) {
			identifies("", errors.New("the chip is held"))(e)
			e.Service = served(Service{Temperature: []float64{48.2, 49.7}, Rate: 331})
		}},
	{name: "chip-hot-and-slow", machine: pi(), device: true, want: map[string]Level{"chip-temperature": Warn, "chip-rate": Warn},
		env: func(e *Env) {
			e.Service = served(Service{Temperature: []float64{96, 97}, Zone: 1, Throttling: 2, Rate: 36,
				Reason: "the device is hot: zone orange; the device encodes 36 images/s where it did 71 at first (1 in flight): reboot the host"})
		}},
	{name: "chip-too-hot", machine: pi(), device: true, want: map[string]Level{"chip-temperature": Warn},
		env: func(e *Env) { e.Service = served(Service{Zone: 2, Throttling: 6}) }},
	{name: "permission-cgroup", machine: pi(), device: true, want: map[string]Level{"permissions": Fail}, exit: 1,
		env: func(e *Env) { e.Access = func(string) error { return syscall.EPERM } }},
	{name: "gen2", machine: pi().with(files{"/sys/bus/pci/devices/" + addr + "/current_link_speed": "5.0 GT/s PCIe",
		"/boot/firmware/config.txt": "[all]\ndtparam=pciex1_gen=2\n"}), device: true, want: map[string]Level{"pcie-link": Warn}},
	{name: "off-the-bus", machine: pi().with(files{"/sys/bus/pci/devices/" + addr + "/current_link_speed": "Unknown"}), device: true,
		want: map[string]Level{"pcie-link": Warn}},
	{name: "weak-supply-hot-cma", machine: pi().without("/sys/devices/platform").with(files{
		"/sys/class/thermal/thermal_zone0/temp": "84100", "/boot/firmware/cmdline.txt": "console=tty1 cma=1G rootwait", "/proc/meminfo": "CmaTotal:              0 kB\n"}),
		env: func(e *Env) {
			e.Command = func(_ context.Context, name string, args ...string) ([]byte, error) {
				if name != "vcgencmd" {
					return nil, exec.ErrNotFound
				}
				return []byte("throttled=0x50005\n"), nil
			}
		}, device: true, want: map[string]Level{"power": Warn, "temperature": Warn, "memory": Warn}},
	{name: "no-worker-no-headers", machine: pi().without("/usr/include"), env: noWorker, device: true,
		want: map[string]Level{"worker": Warn, "headers": Warn}},
	{name: "worker-of-5.2", machine: pi(), env: workerOf("5.2.0"), device: true, want: map[string]Level{"worker": Fail}, exit: 1},
	{name: "hefs-missing", machine: pi(), device: true, want: map[string]Level{"npu-models": Warn}, env: func(e *Env) {
		e.Model = modelOf("clip-vit-b-32", []model.FileState{{Name: "clip_vit_b_32_image_encoder.hef"}, {Name: "clip_vit_b_32_text_encoder.hef"}}, nil)
	}},
	{name: "hefs-bad", machine: pi().with(files{"/m/a.hef": "<Error>AccessDenied</Error>", "/m/b.hef": ""}), device: true,
		want: map[string]Level{"npu-models": Fail}, exit: 1, env: func(e *Env) {
			e.Model = modelOf("m", []model.FileState{{Name: "a.hef", Path: "/m/a.hef", Bytes: 27},
				{Name: "b.hef", Path: "/m/b.hef", Err: errors.New("0 bytes of 81920000")}}, nil)
		}},
	{name: "hefs-of-5.2", machine: pi(), device: true, want: map[string]Level{"npu-models": Warn}, env: func(e *Env) {
		e.Model = modelOf("m", []model.FileState{{Name: "image.hef", Path: "/models/image.hef", Bytes: 7, SHA256: "1", Zoo: "v5.2.0"}}, nil)
	}},
	{name: "cpu-files-unpinned", machine: pi(), device: true, env: func(e *Env) {
		day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.Local) }
		e.Model = modelOf("m", nil, []model.FileState{{Name: "i.onnx", Bytes: 7, SHA256: "1", Recorded: day(25)},
			{Name: "t.onnx", Bytes: 7, SHA256: "1", Recorded: day(26)}})
	}},
	{name: "npu-broken-but-cpu-configured", machine: pi().with(files{"/dev/hailo0": mode(0o600)}), env: backend("cpu"), device: true,
		want: map[string]Level{"permissions": Warn}},
	{name: "sim-on-pc", machine: files{"/proc/sys/kernel/osrelease": "6.12.0-amd64"}, env: func(e *Env) { noModels(e); e.Backend = "sim" }},
	{name: "pc-with-library", machine: files{"/lib/modules/": folder, "/usr/lib/x86_64-linux-gnu/libhailort.so.5.2.0": "library"}, env: noModels,
		want: map[string]Level{"pci-device": Warn}},
	{name: "pc-with-chip", machine: pi().without("/proc/device-tree", "/sys/class/hailo", "/dev/", "/sys/module/", "/usr/lib/libhailort", "/lib/modules/", "/lib/firmware", "/var/lib/dpkg").with(files{
		"/sys/class/dmi/id/sys_vendor": "ACME", "/lib/modules/": folder}), want: map[string]Level{"stack": Warn}},
	{name: "bookworm", machine: pi().with(files{"/etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n"}), device: true, want: map[string]Level{"machine": Warn}},
	{name: "old-stack-left-over", machine: pi().with(files{"/var/lib/dpkg/status": dpkg("h10-hailort 5.1.1", "h10-hailort-pcie-driver 5.1.1", "python3-hailort 4.23.0")}),
		device: true, want: map[string]Level{"stack": Warn}},
	{name: "module-gone-from-disk", machine: pi().without("/lib/modules/" + kernel + "/updates"), device: true, want: map[string]Level{"kernel-module": Warn}},
	{name: "module-not-loaded", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/").with(files{"/sys/bus/pci/devices/" + addr + "/driver": remove}),
		want: map[string]Level{"driver": Fail}, skipped: "device-node", exit: 1},
	{name: "module-not-signed", machine: pi().without("/sys/class/hailo", "/dev/", "/sys/module/").with(files{"/sys/bus/pci/devices/" + addr + "/driver": remove}),
		env: kernelLogOf("[ 3.0] Loading of module with unavailable key is rejected\n[ 3.1] hailo1x_pci: Key was rejected by service\n"), want: map[string]Level{"driver": Fail}, exit: 1},
	{name: "another-driver", machine: pi().without("/sys/class/hailo", "/dev/").with(files{"/sys/bus/pci/devices/" + addr + "/driver": link + "../../../bus/pci/drivers/vfio-pci"}),
		want: map[string]Level{"driver": Fail}, skipped: "device-node", exit: 1},
	{name: "gave-up-without-reason", machine: pi().without("/sys/class/hailo", "/dev/").with(files{"/sys/bus/pci/devices/" + addr + "/driver": remove}),
		env: func(e *Env) { e.KernelLog = nil }, want: map[string]Level{"driver": Fail}, skipped: "device-node", exit: 1},
	{name: "booted-but-firmware-gone", machine: pi().without("/lib/firmware/hailo"), device: true, want: map[string]Level{"firmware": Warn}},
	{name: "no-node-after-long", machine: pi().without("/sys/class/hailo", "/dev/"), want: map[string]Level{"device-node": Fail}, skipped: "in-use", exit: 1},
	{name: "stopped-answering", machine: pi(), device: true, want: map[string]Level{"kernel-log": Warn},
		env: kernelLogOf("[ 4.1] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n[ 999.0] hailo1x 0001:01:00.0: Timeout waiting for soc control (timeout_ms=1000)\n")},
	{name: "two-libraries", machine: pi().with(files{"/usr/local/lib/libhailort.so.5.2.0": "library"}), device: true, want: map[string]Level{"library": Warn}},
	{name: "library-missing", machine: pi().without("/usr/lib/libhailort"), device: true, want: map[string]Level{"library": Fail}, exit: 1},
	{name: "package-is-newer", machine: pi().with(files{"/var/lib/dpkg/status": dpkg("h10-hailort 5.1.1", "h10-hailort-pcie-driver 5.2.0")}), device: true,
		want: map[string]Level{"versions": Warn}},
	{name: "permission-group", machine: pi().with(files{"/dev/hailo0": mode(0o660)}), device: true, env: func(e *Env) { e.GIDs = append(e.GIDs, os.Getgid()) }},
	{name: "permission-join-group", machine: pi().with(files{"/dev/hailo0": mode(0o660), "/etc/group": strings.Replace(group, "root", "hailo", 1)}), device: true,
		want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "permission-service-join-group", machine: pi().with(files{"/dev/hailo0": mode(0o660), "/etc/group": strings.Replace(group, "root", "hailo", 1),
		"/etc/passwd": passwd + "hailo-clip:x:990:990::/:/usr/sbin/nologin\n"}), device: true, env: func(e *Env) { e.UID = 0 },
		want: map[string]Level{"permissions": Fail}, exit: 1},
	{name: "permission-of-root-only", machine: pi().with(files{"/dev/hailo0": mode(0o600)}), device: true, env: func(e *Env) { e.UID = 0 },
		want: map[string]Level{"permissions": Warn}},
	{name: "permission-of-everyone", machine: pi(), device: true, env: func(e *Env) { e.UID = 0 }},
	{name: "others-hidden", machine: pi().with(files{"/proc/1/fd/0": remove, "/proc/1/fd/": folder}), device: true},
	{name: "supply-by-hwmon", machine: pi().without("/sys/devices/platform").with(files{"/sys/class/hwmon/hwmon2/name": "rpi_volt", "/sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1"}),
		device: true, want: map[string]Level{"power": Warn}},
	{name: "supply-was-weak", machine: pi().with(files{"/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50000"}),
		device: true, want: map[string]Level{"power": Warn}},
	{name: "was-hot", machine: pi().with(files{"/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "e0008"}),
		device: true, want: map[string]Level{"power": Warn}},
	{name: "worker-without-headers", machine: pi().without("/usr/include"), device: true},
	{name: "worker-is-text", machine: pi().with(files{"/bin/w": "#!/bin/sh"}), device: true, env: func(e *Env) { e.Worker = "keep /bin/w" },
		want: map[string]Level{"worker": Fail}, exit: 1},
	{name: "worker-not-executable", machine: pi().with(files{"/my bin/w": string(elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1"))}), device: true, env: func(e *Env) { e.Worker = "keep /my bin/w" },
		want: map[string]Level{"worker": Fail}, exit: 1},
	{name: "worker-without-library", machine: pi().with(files{"/bin/w": string(elfFile(elf.DT_NEEDED, "libc.so.6")) + perm}), device: true, env: func(e *Env) { e.Worker = "keep /bin/w" },
		want: map[string]Level{"worker": Fail}, exit: 1},
	{name: "worker-of-another-machine", machine: pi().with(files{"/bin/w": strings.Replace(string(elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1")), "\x03\x00"+string(machineBytes()), "\x03\x00\xf3\x00", 1) + perm}),
		device: true, env: func(e *Env) { e.Worker = "keep /bin/w" }, want: map[string]Level{"worker": Fail}, exit: 1},
	{name: "other-findings", machine: pi(), device: true, exit: 1, want: map[string]Level{"onnxruntime": Fail}, env: func(e *Env) {
		e.Extra = func(context.Context) []Finding {
			return []Finding{{Check: "onnxruntime", Level: Fail, What: "ONNX Runtime is \x1b[2Jmissing.", Remedy: "hailo-clip setup"},
				{Check: "backend", Level: OK, What: "auto chooses the NPU."}}
		}
	}},
}

func TestRun(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := Run(t.Context(), c.machine.env(t, c.env))
			for _, f := range r.Findings {
				want, named := c.want[f.Check]
				if named && f.Level != want || !named && f.Level != OK && f.Level != Info {
					t.Errorf("%s: level %s, want %s: %s", f.Check, f.Level, want, f.What)
				}
				if f.Level == OK && f.Remedy != "" || f.What == "" {
					t.Errorf("%s: ok with a remedy, or empty: %+v", f.Check, f)
				}
			}
			for check := range c.want {
				if finding(r, check) == nil {
					t.Errorf("no finding %s", check)
				}
			}
			if s := finding(r, "skipped"); c.skipped != "" && (s == nil || !strings.Contains(s.What, " "+c.skipped)) {
				t.Errorf("%s is not named as skipped: %+v", c.skipped, s)
			}
			if (r.Device != nil) != c.device {
				t.Errorf("device %+v", r.Device)
			}
			if r.ExitCode() != c.exit {
				t.Errorf("exit code %d, want %d", r.ExitCode(), c.exit)
			}
			var b bytes.Buffer
			if err := r.WriteText(&b, false); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name+".txt", b.Bytes())
			checkText(t, r, b.String())
		})
	}
}

// checkText holds the text to its rules: 80 columns but for commands, nothing that moves a cursor.
func checkText(t *testing.T, r Report, text string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if utf8.RuneCountInString(line) > columns && strings.Contains(line, " ") && !strings.Contains(r.remedies(), strings.TrimSpace(line)) {
			t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
		}
		if strings.TrimRight(line, " ") != line || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
			t.Errorf("bad line %q", line)
		}
	}
	for line := range strings.SplitSeq(r.remedies(), "\n") {
		if strings.HasPrefix(line, "#") && len(line) > columns-indent {
			t.Errorf("comment too long: %s", line)
		}
	}
}

func (r Report) remedies() string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.Remedy)
	}
	return strings.Join(all, "\n")
}

func finding(r Report, check string) *Finding {
	for i := range r.Findings {
		if r.Findings[i].Check == check {
			return &r.Findings[i]
		}
	}
	return nil
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", file, diff)
	}
}

func TestJSON(t *testing.T) {
	r := Run(t.Context(), pi().env(t, nil))
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "healthy-5.1.1.json", append(b, '\n'))
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Error(diff)
	}
}

func TestColor(t *testing.T) {
	var plain, colored bytes.Buffer
	r := Run(t.Context(), pi().with(files{"/dev/hailo0": mode(0o600)}).env(t, nil))
	if r.WriteText(&plain, false) != nil || r.WriteText(&colored, true) != nil {
		t.Fatal("write")
	}
	s := colored.String()
	if !strings.Contains(s, colors[Fail]+"FAIL"+noColor) {
		t.Error("no color")
	}
	for _, code := range []string{colors[OK], colors[Info], colors[Warn], colors[Fail], remedyColor, noColor} {
		s = strings.ReplaceAll(s, code, "")
	}
	if s != plain.String() {
		t.Error("color changes more than the color")
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Run(ctx, pi().env(t, nil))
	if f := finding(r, "interrupted"); f == nil || r.ExitCode() != 1 || len(r.Findings) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestPipes has a pipe in the place of every file: nothing may wait for a writer.
func TestPipes(t *testing.T) {
	env := pi().env(t, nil)
	err := filepath.WalkDir(env.Root, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := os.Remove(p); err != nil {
			return err
		}
		return syscall.Mkfifo(p, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := Run(t.Context(), env); r.Device != nil {
		t.Errorf("a pipe counts as a device: %+v", r.Device)
	}
}

// TestHost runs on the machine at hand: whatever it is, the report must be whole.
func TestHost(t *testing.T) {
	env := Host()
	r := Run(t.Context(), env)
	var text strings.Builder
	if err := r.WriteText(&text, false); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if finding(r, "machine") == nil || finding(r, "pci-device") == nil || r.Summary == "" || r.Versions.Kernel == "" {
		t.Errorf("%+v", r)
	}
	if err := env.Access(t.TempDir()); err != nil {
		t.Error("access to a folder of one's own:", err)
	}
	if err := env.Access("/nonexistent"); err == nil {
		t.Error("access to nothing")
	}
}
