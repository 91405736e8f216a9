package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"hailoclip/hailo/internal/assert"

	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	noNode   = pi().without("/sys/class/hailo", "/dev/")
	freed    = files{dev + "/driver": remove} // no driver has taken the chip
	unloaded = noNode.without("/sys/module/").with(freed)

	probing     = "<6>[ 4.1] hailo1x 0001:01:00.0: Probing on: 1e60:45c4...\n"
	linkDown    = kernelLogOf("[    0.5] brcm-pcie 1000110000.pcie: link down\n")
	asRoot      = func(e *Env) { e.UID = 0 }
	serviceUser = passwd + "hailo-clip:x:990:990::/:/usr/sbin/nologin\n"
	status      = "/var/lib/dpkg/status"
	throttled   = "/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
)

// cases are machines. What doctor must say of each is in testdata, and reviewed there.
var cases = []struct {
	name    string
	machine files
	env     func(*Env)
}{
	{"healthy-5.1.1", pi(), nil},
	{"healthy-5.3.0", pi().with(release530), noModel},
	{"healthy-npu-demanded", pi(), backend("npu")},
	{"pc", files{"/sys/class/dmi/id/sys_vendor": "ACME", "/sys/class/dmi/id/product_name": "Tower 9",
		"/proc/sys/kernel/osrelease": "6.12.0-amd64", "/sys/bus/pci/devices/0000:00:00.0/vendor": "0x8086"}, noModels},
	{"pc-npu-demanded", files{"/proc/sys/kernel/osrelease": "6.12.0-amd64"}, backend("npu")},
	{"pi-without-hat", pi().without(dev, "/sys/class/", "/dev/", "/sys/module/", "/usr/lib/libhailort", "/var/lib/dpkg"), linkDown},
	{"hat-not-found", pi().without(dev, "/sys/class/", "/dev/"), linkDown},
	{"hailo8", pi().with(files{dev + "/device": "0x2864"}), nil},
	{"wrong-stack", unloaded.without("/usr/lib/libhailort", "/lib/modules/", "/sys/bus/pci/drivers").with(files{
		"/usr/lib/libhailort.so.4.23.0": "library", "/sys/module/hailo_pci/version": "4.23.0",
		status: dpkg("hailo-all 5.1.1", "hailort 4.23.0", "hailort-pcie-driver 4.23.0")}), nil},
	{"not-installed", unloaded.without("/usr/lib/libhailort", "/lib/modules/", "/usr/include", "/sys/bus/pci/drivers").with(files{
		status: dpkg()}), workerIs("")},
	{"module-missing", unloaded.without("/lib/modules/"+kernel+"/", "/usr/sbin/dkms").with(files{
		"/lib/modules/6.12.47+rpt-rpi-2712/kernel/drivers/misc/hailo1x_pci.ko.xz": "module"}), nil},
	{"module-does-not-compile", unloaded.without("/lib/modules/" + kernel + "/updates").with(files{
		"/var/lib/dkms/hailo1x_pci/5.3.0/build/make.log": "x.c:53:5: error: implicit declaration of function 'del_timer_sync'\n"}), nil},
	{"module-without-dkms", pi().without("/lib/modules/" + kernel + "/updates").with(files{
		"/lib/modules/" + kernel + "/kernel/drivers/misc/hailo1x_pci.ko.xz": "module"}), nil},
	{"blacklisted", unloaded.with(files{"/etc/modprobe.d/local.conf": "# mine\nblacklist hailo1x-pci\n"}), nil},
	{"firmware-missing", noNode.without(device.FirmwareDir + "/fitImage").with(freed).with(files{device.FirmwareDir + "/scu_fw.bin": ""}),
		kernelLogOf("[ 5.0] hailo1x 0001:01:00.0: Failed to load mandatory firmware file hailo/hailo10h/scu_fw.bin, error: -2\n")},
	{"did-not-boot", noNode.with(freed), kernelLogOf(probing + "<3>[ 9.9] hailo1x 0001:01:00.0: Timeout waiting for firmware file\n" +
		"<3>[ 9.9] hailo1x 0001:01:00.0: probe with driver hailo1x failed with error -110\n")},
	{"still-booting", noNode.with(files{"/proc/uptime": "12.34 40.00"}), nil},
	{"old-image-on-chip", pi(), kernelLogOf(probing +
		"[ 5.0] hailo1x 0001:01:00.0: Mismatch Driver version pcie driver 5:1:1 pci_ep driver 5:1:0\n")},
	{"log-overcome", pi(), kernelLogOf(probing + "[ 3.0] hailo1x: Timeout waiting for firmware file\n" +
		probing + "[ 6.7] Firmware loaded in 2607 ms\n")},
	{"node-not-in-dev", pi().without("/dev/"), nil},
	{"container-without-device", pi().without("/dev/", "/lib/").with(files{"/.dockerenv": ""}), nil},
	{"container-mounts-nothing", pi().without("/dev/", "/usr/lib/libhailort", "/lib/").with(files{
		"/.dockerenv": "", "/dev/hailo0/": folder, "/usr/lib/libhailort.so.5.1.1/": folder}), nil},
	{"versions-differ", pi().with(files{"/sys/module/hailo1x_pci/version": "5.2.0"}), nil},
	{"versions-differ-over-5.3", pi().with(release530).without("/usr/lib/libhailort").with(workerOf("5.2.0")).with(files{
		"/usr/lib/libhailort.so.5.2.0": "library"}), noModel},
	{"driver-not-restarted", pi().without("/usr/lib/libhailort").with(files{"/usr/lib/libhailort.so.5.2.0": "library",
		status: dpkg("h10-hailort 5.2.0", "h10-hailort-pcie-driver 5.2.0")}), nil},
	{"held", heldBy("777", "hailo-ollama").with(files{"/proc/777/fd/0": link + "/dev/null",
		"/proc/4242/comm": "python3", "/proc/4242/fd/9": link + "/dev/hailo0 (deleted)"}), nil},
	{"held-npu-demanded", heldBy("777", "python3"), func(e *Env) { e.Backend, e.Model = "npu", nil }},
	{"held-but-shared", heldBy("777", "python3"), func(e *Env) { e.Backend, e.Model, e.Shared = "npu", nil, true }},
	{"held-by-our-worker", heldBy("99", "hailo-clip-npu"), nil},
	{"permission-denied", ofMode(0o600), nil},
	{"permission-no-rule", ofMode(0o600).without("/lib/udev"), nil},
	{"container-driver-not-loaded", unloaded.without("/lib/"), nil},
	{"permission-service-user", ofMode(0o660).with(files{"/etc/passwd": serviceUser}), asRoot},
	{"permission-dynamic-user", ofMode(0o660).with(files{"/etc/group": hailoGroup,
		"/etc/systemd/system/hailo-clip.service": "[Service]\nDynamicUser=yes\n"}), nil},
	{"permission-supplementary-group", ofMode(0o660).with(files{"/etc/group": hailoGroup,
		"/usr/lib/systemd/system/hailo-clip.service":             "[Service]\nDynamicUser=yes\n",
		"/etc/systemd/system/hailo-clip.service.d/override.conf": "[Service]\nSupplementaryGroups=hailo\n"}), nil},
	{"chip-identified", pi(), identifies(identified, nil)},
	{"chip-of-5.1.0", pi(), identifies(strings.Replace(identified, "5.1.1", "5.1.0", 1), nil)},
	{"chip-silent", pi(), identifies("", context.DeadlineExceeded)},
	{"chip-in-another-form", pi(), identifies("Firmware: five\n", nil)},
	{"chip-served", heldBy("99", "hailo-clip-npu"), func(e *Env) {
		identifies("", errors.New("the chip is held"))(e)
		served(Service{Temperature: []float64{48.2, 49.7}, Rate: 331})(e)
	}},
	{"chip-hot-and-slow", pi(), served(Service{Temperature: []float64{96, 97}, Zone: 1, Throttling: 2, Rate: 36,
		Reason: "the device is hot: zone orange; the device encodes 36 images/s where it did 71 at first (1 in flight): reboot the host"})},
	{"chip-too-hot", pi(), served(Service{Zone: 2, Throttling: 6})},
	{"permission-cgroup", pi(), func(e *Env) { e.Access = func(string) error { return syscall.EPERM } }},
	{"gen2", pi().with(files{dev + "/current_link_speed": "5.0 GT/s PCIe",
		"/boot/firmware/config.txt": "[all]\ndtparam=pciex1_gen=2\n"}), nil},
	{"off-the-bus", pi().with(files{dev + "/current_link_speed": "Unknown"}), nil},
	{"weak-supply-hot-cma", pi().without(throttled).with(files{"/sys/class/thermal/thermal_zone0/temp": "84100",
		"/boot/firmware/cmdline.txt": "console=tty1 cma=1G rootwait", "/proc/meminfo": "CmaTotal:              0 kB\n"}),
		answers("vcgencmd", "throttled=0x50005\n", nil)},
	{"no-worker-no-headers", pi().without("/usr/include"), workerIs("")},
	{"worker-of-5.2", pi().with(workerOf("5.2.0")), noModel},
	{"hefs-missing", pi(), modelOf("clip-vit-b-32", []model.FileState{
		{Name: "clip_vit_b_32_image_encoder.hef"}, {Name: "clip_vit_b_32_text_encoder.hef"}}, nil)},
	{"text-files-not-made", pi(), func(e *Env) {
		modelOf("m", []model.FileState{
			{Name: "image.hef", Path: "/models/image.hef", Bytes: 7, SHA256: "1"}, {Name: "table.npy"}, {Name: "projection.npy"}, {Name: "text.hef"}}, nil)(e)
		m := &e.Model.Manifest
		m.NPU.TokenEmbedding, m.NPU.TextProjection = "table.npy", "projection.npy"
		m.Files = map[string]model.File{"table.npy": {}, "projection.npy": {}, "text.hef": {URL: "https://host/text.hef"}}
	}},
	{"hefs-bad", pi().with(files{"/m/a.hef": "<Error>AccessDenied</Error>", "/m/b.hef": ""}), modelOf("m", []model.FileState{
		{Name: "a.hef", Path: "/m/a.hef", Bytes: 27}, {Name: "b.hef", Path: "/m/b.hef", Err: errors.New("0 bytes of 81920000")}}, nil)},
	{"hefs-of-5.2", pi(), modelOf("m", []model.FileState{
		{Name: "image.hef", Path: "/models/image.hef", Bytes: 7, SHA256: "1", Zoo: "v5.2.0"}}, nil)},
	{"cpu-files-unpinned", pi(), modelOf("m", nil, []model.FileState{
		{Name: "i.onnx", Bytes: 7, SHA256: "1", Recorded: time.Date(2026, 11, 25, 0, 0, 0, 0, time.Local)},
		{Name: "t.onnx", Bytes: 7, SHA256: "1", Recorded: time.Date(2026, 11, 26, 0, 0, 0, 0, time.Local)}})},
	{"npu-broken-but-cpu-configured", ofMode(0o600), backend("cpu")},
	{"sim-on-pc", files{"/proc/sys/kernel/osrelease": "6.12.0-amd64"}, func(e *Env) { noModels(e); e.Backend = "sim" }},
	{"pc-with-library", files{"/lib/modules/": folder, "/usr/lib/x86_64-linux-gnu/libhailort.so.5.2.0": "library"}, noModels},
	{"pc-with-chip", noNode.without("/proc/device-tree", "/sys/module/", "/usr/lib/libhailort", "/lib/", "/var/lib/dpkg").with(files{
		"/sys/class/dmi/id/sys_vendor": "ACME", "/lib/modules/": folder}), nil},
	{"bookworm", pi().with(files{"/etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n"}), nil},
	{"old-stack-left-over", pi().with(files{status: dpkg("h10-hailort 5.1.1", "h10-hailort-pcie-driver 5.1.1", "python3-hailort 4.23.0")}), nil},
	{"module-gone-from-disk", pi().without("/lib/modules/" + kernel + "/updates"), nil},
	{"module-not-loaded", unloaded, nil},
	{"module-not-signed", unloaded, kernelLogOf(
		"[ 3.0] Loading of module with unavailable key is rejected\n[ 3.1] hailo1x_pci: Key was rejected by service\n")},
	{"another-driver", noNode.with(files{dev + "/driver": link + "../../../bus/pci/drivers/vfio-pci"}), nil},
	{"gave-up-without-reason", noNode.with(freed), func(e *Env) { e.KernelLog = nil }},
	{"booted-but-firmware-gone", pi().without("/lib/firmware/hailo"), nil},
	{"no-node-after-long", noNode, nil},
	{"stopped-answering", pi(), kernelLogOf(probing +
		"[ 999.0] hailo1x 0001:01:00.0: Timeout waiting for soc control (timeout_ms=1000)\n")},
	{"two-libraries", pi().with(files{"/usr/local/lib/libhailort.so.5.2.0": "library"}), nil},
	{"library-missing", pi().without("/usr/lib/libhailort"), nil},
	{"package-is-newer", pi().with(files{status: dpkg("h10-hailort 5.1.1", "h10-hailort-pcie-driver 5.2.0")}), nil},
	{"permission-group", ofMode(0o660), func(e *Env) { e.GIDs = append(e.GIDs, os.Getgid()) }},
	{"permission-join-group", ofMode(0o660).with(files{"/etc/group": hailoGroup}), nil},
	{"permission-service-join-group", ofMode(0o660).with(files{"/etc/group": hailoGroup, "/etc/passwd": serviceUser}), asRoot},
	{"permission-of-root-only", ofMode(0o600), asRoot},
	{"permission-of-everyone", pi(), asRoot},
	{"others-hidden", pi().with(files{"/proc/1/fd/0": remove, "/proc/1/fd/": folder}), nil},
	{"supply-by-hwmon", pi().without(throttled).with(files{
		"/sys/class/hwmon/hwmon2/name": "rpi_volt", "/sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1"}), nil},
	{"supply-was-weak", pi().with(files{throttled: "50000"}), nil},
	{"was-hot", pi().with(files{throttled: "e0008"}), nil},
	{"worker-without-headers", pi().without("/usr/include"), nil},
	{"worker-is-text", pi().with(files{"/bin/w": "#!/bin/sh"}), workerIs("/bin/w")},
	{"worker-not-executable", pi().with(files{"/my bin/w": elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1")}), workerIs("/my bin/w")},
	{"worker-without-library", pi().with(files{"/bin/w": elfFile(elf.DT_NEEDED, "libc.so.6") + perm}), workerIs("/bin/w")},
	{"worker-of-another-machine", pi().with(files{"/bin/w": strings.Replace(elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1"),
		"\x03\x00"+string(machineBytes()), "\x03\x00\xf3\x00", 1) + perm}), workerIs("/bin/w")},
	{"other-findings", pi(), func(e *Env) {
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
				assert.True(t, f.What != "" && (f.Level != OK || f.Remedy == ""), "ok with a remedy, or empty: %+v", f)
			}
			has := finding(r, "permissions") != nil // the first check that needs a node
			assert.True(t, (r.Device != nil) == has, "device %+v", r.Device)
			var b bytes.Buffer
			assert.Must(t, r.WriteText(&b, false))
			failed := strings.Contains(b.String(), "FAIL  ")
			assert.True(t, (r.Level == Fail) == failed, "level %s", r.Level) // what the exit code depends on
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
		assert.True(t, !strings.HasPrefix(line, "#") || len(line) <= columns-indent, "comment too long: %s", line)
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
	if i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Check == check }); i >= 0 {
		return &r.Findings[i]
	}
	return nil
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	assert.MustTrue(t, !*update || os.WriteFile(file, got, 0o644) == nil, "not written: %v", file)
	want, err := os.ReadFile(file)
	assert.Diff(t, string(want), string(got), "%s (%v; go test -update writes it anew)", file, err)
}

func TestJSON(t *testing.T) {
	r := Run(t.Context(), pi().env(t, nil))
	b := assert.Value(json.MarshalIndent(r, "", "  "))
	golden(t, "healthy-5.1.1.json", append(b, '\n'))
	var back Report
	assert.NoError(t, json.Unmarshal(b, &back))
	assert.Diff(t, r, back)
}

func TestColor(t *testing.T) {
	var plain, colored bytes.Buffer
	r := Run(t.Context(), pi().with(files{"/dev/hailo0": mode(0o600)}).env(t, nil))
	assert.MustTrue(t, r.WriteText(&plain, false) == nil && r.WriteText(&colored, true) == nil, "write")
	s := colored.String()
	assert.True(t, strings.Contains(s, colors[Fail]+"FAIL"+noColor), "no color")
	assert.Diff(t, plain.String(), regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(s, ""), "color changes more than the color")
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Run(ctx, pi().env(t, nil))
	assert.True(t, finding(r, "interrupted") != nil && r.Level == Fail && len(r.Findings) == 1, "%+v", r)
}

// TestPipes has a pipe in the place of every file: nothing may wait for a writer.
func TestPipes(t *testing.T) {
	env := pi().env(t, nil)
	err := filepath.WalkDir(env.Root, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o644))
	})
	assert.Must(t, err)
	r := Run(t.Context(), env)
	assert.True(t, r.Device == nil, "a pipe counts as a device: %+v", r.Device)
}

// TestHost runs on the machine at hand: whatever it is, the report must be whole.
func TestHost(t *testing.T) {
	env := Host()
	r := Run(t.Context(), env)
	var text strings.Builder
	assert.Must(t, r.WriteText(&text, false))
	t.Log("\n" + text.String())
	assert.True(t, finding(r, "machine") != nil && finding(r, "pci-device") != nil, "%+v", r.Findings)
	assert.True(t, r.Summary != "" && r.Versions.Kernel != "", "%+v", r)
	assert.NoError(t, env.Access(t.TempDir()), "access to a folder of one's own")
	assert.Error(t, env.Access("/nonexistent"), "access to nothing")
}
