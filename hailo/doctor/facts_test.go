package doctor

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo/device"
	"hailoclip/hailo/internal/assert"
)

func TestDevice(t *testing.T) {
	const board0, board1, other = "/sys/class/hailo_chardev/hailo0/", "/sys/class/hailo_chardev/hailo1/", "/sys/bus/pci/devices/0000:03:00.0"
	eight := files{other + "/vendor": "0x1e60", other + "/device": "0x2864"}
	cases := []struct {
		name    string
		machine files
		want    string // node, driver, library
	}{
		{"5.1.1", pi(), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"5.3.0", pi().with(release530), "/dev/h1x-0, 5.3.0, 5.3.0"},
		{"nothing", files{}, ", , "},
		{"no node", pi().without("/dev/"), ", 5.1.1, 5.1.1"},
		{"no chip at all", pi().without("/sys/", "/dev/"), ", , 5.1.1"},
		{"a stray file without a driver behind it", pi().without("/sys/class"), ", 5.1.1, 5.1.1"},
		{"Hailo-8", pi().with(files{dev + "/device": "0x2864"}), ", 5.1.1, 5.1.1"},
		{"a folder for a node", pi().with(files{"/dev/hailo0": remove, "/dev/hailo0/": folder}), ", 5.1.1, 5.1.1"},
		{"a Hailo-8 as board 0", pi().with(eight).with(files{
			board0 + "board_location": "0000:03:00.0", board1 + "board_location": addr, "/dev/hailo1": mode(0o666)}), "/dev/hailo1, 5.1.1, 5.1.1"},
		{"the first of two nodes is missing", pi().with(files{
			"/dev/hailo0": remove, board1 + "board_location": addr, "/dev/hailo1": mode(0o666)}), "/dev/hailo1, 5.1.1, 5.1.1"},
		{"address by the link only", pi().with(eight).with(files{
			board0 + "board_location": remove, board0 + "device": link + "../../../" + addr}), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"no address, one chip", pi().with(files{board0 + "board_location": remove}), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"no address, two chips", pi().with(eight).with(files{board0 + "board_location": remove}), ", 5.1.1, 5.1.1"},
		{"no library", pi().without("/usr/lib/libhailort"), "/dev/hailo0, 5.1.1, "},
		{"library under its short name", pi().without("/usr/lib/libhailort").with(files{
			"/usr/local/lib/libhailort.so": elfFile(elf.DT_SONAME, "libhailort.so.5.1.0")}), "/dev/hailo0, 5.1.1, 5.1.0"},
		{"the newest of two libraries", pi().with(files{"/sys/module/hailo1x_pci/version": "5.9.0",
			"/usr/lib/aarch64-linux-gnu/libhailort.so.5.10.0": "library"}), "/dev/hailo0, 5.9.0, 5.10.0"},
		{"the driver's of two libraries", pi().with(files{"/usr/local/lib/libhailort.so.5.2.0": "library"}), "/dev/hailo0, 5.1.1, 5.1.1"},
	}
	for _, c := range cases {
		m := device.Read(c.machine.write(t))
		got, ok := m.Device()
		assert.Equal(t, got.Node+", "+m.Driver+", "+m.Library(), c.want, "%s", c.name)
		assert.True(t, ok == (got.Node != "") && ok == (got.PCIAddress == addr), "%s: %+v, present %v", c.name, got, ok)
	}
}

func TestBlacklisted(t *testing.T) {
	cases := map[string]struct {
		file, text, cmdline string
		want                bool
	}{
		"nothing":            {"a.conf", "options hailo1x_pci no_power_mode=Y", "", false},
		"dashes":             {"a.conf", "blacklist hailo1x-pci", "", true},
		"install":            {"a.conf", "install hailo1x_pci /bin/false", "", true},
		"comment":            {"a.conf", "# blacklist hailo1x_pci", "", false},
		"another module":     {"a.conf", "blacklist hailo_pci", "", false},
		"not a conf":         {"a.conf.bak", "blacklist hailo1x_pci", "", false},
		"kernel":             {"", "", "quiet module_blacklist=foo,hailo1x_pci splash", true},
		"modprobe":           {"", "", "modprobe.blacklist=hailo1x-pci", true},
		"kernel, another":    {"", "", "module_blacklist=hailo_pci", false},
		"without line break": {"a.conf", "x\nblacklist\thailo1x_pci", "", true},
	}
	for name, c := range cases {
		m := device.Read(files{"/proc/cmdline": c.cmdline, "/etc/modprobe.d/" + cmp.Or(c.file, "none.conf"): c.text}.write(t))
		assert.Equal(t, m.Blacklisted() != "", c.want, "%s", name)
	}
}

func TestUser(t *testing.T) {
	r := device.Root(files{
		"/etc/passwd": "root:x:0:0::/:/bin/sh\nbad line\nodd:x:y:z::/:\nhailo-clip:x:990:991::/:/bin/false\n",
		"/etc/group":  "root:x:0:\nvideo:x:44:pi,hailo-clip\nhailo:x:985:hailo-clip2\nbad:x:y:hailo-clip\nnet:x:101:hailo-clip",
	}.write(t))
	uid, gids, ok := r.User("hailo-clip")
	assert.True(t, uid == 990 && slices.Equal(gids, []int{991, 44, 101}) && ok, "%v %v %v", uid, gids, ok)
	for _, name := range []string{"nobody", "odd", ""} {
		_, _, ok := r.User(name)
		assert.True(t, !ok, "user %q", name)
	}
	assert.Equal(t, r.AccountName("/etc/group", 44), "video")
	assert.Equal(t, r.AccountName("/etc/group", 45), "45")
	assert.Equal(t, r.AccountName("/etc/none", 0), "0")
}

func TestPackages(t *testing.T) {
	long := "Package: long\nDescription: " + strings.Repeat("x", 1<<20) + "\n\n"
	f := files{"/var/lib/dpkg/status": dpkg() + long + "Package: h10-hailort\nVersion: 5.1.1-3\nStatus: install ok installed"}
	assert.Diff(t, map[string]string{"h10-hailort": "5.1.1-3"}, device.Root(f.write(t)).Packages())
}

func TestHasService(t *testing.T) {
	for _, c := range []struct {
		machine files
		want    bool
	}{
		{pi(), false},
		{files{"/etc/systemd/system/hailo-clip.service": "[Service]\n"}, true},
		{files{"/var/lib/hailo-clip/": folder}, true},
		{files{"/var/lib/hailo-clip": link + "private/hailo-clip"}, true}, // with a dynamic user, which only root can follow
	} {
		assert.Equal(t, device.Root(c.machine.write(t)).HasService(), c.want, "%v", c.machine)
	}
}

func TestAllowed(t *testing.T) {
	const owner, group, other = 1, 2, 3
	for _, c := range []struct {
		mode       uint32
		user, with int // a group of the user
		want       bool
	}{
		{0o666, other, other, true},
		{0o660, other, other, false},
		{0o660, other, group, true},
		{0o664, other, other, false},
		{0o600, owner, other, true},
		{0o066, owner, group, false}, // the owner's bits decide
		{0o606, other, group, false},
		{0o000, 0, other, true},
	} {
		assert.Equal(t, allowed(c.mode, owner, group, c.user, []int{4, c.with}), c.want, "%+v", c)
	}
}

func TestReadLog(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	log, err := readLog(t.Context(), func(context.Context) ([]byte, error) {
		return []byte(strings.Repeat(line, device.MaxLog/50) + "last \xff\n"), nil
	})
	assert.Must(t, err)
	assert.True(t, len(log) <= device.MaxLog/50 && log[len(log)-2] == "last ?", "%d lines, %q", len(log), log[len(log)-2:])
	assert.Error(t, assert.Err(readLog(t.Context(), nil)), "no error without a log")
	boom := errors.New("boom")
	_, err = readLog(t.Context(), func(context.Context) ([]byte, error) { return nil, boom })
	assert.ErrorIs(t, err, boom)
}

func TestTexts(t *testing.T) {
	const own = "models pull m"
	for _, c := range []struct{ got, want string }{
		{shell("/usr/bin/x-1.2"), "/usr/bin/x-1.2"}, {shell("a b"), "'a b'"}, {shell("a'; rm"), `'a'\''; rm'`}, {shell(""), "''"},
		{Env{}.Own(own), "hailo-clip models pull m"},
		{Env{State: device.ServiceState}.Own(own), "sudo hailo-clip models pull m --state-dir /var/lib/hailo-clip"},
		{Env{State: "/my models"}.Own(own), "hailo-clip models pull m --state-dir '/my models'"},
		{quote("<3>[    9.912345] hailo1x: x"), `"hailo1x: x"`}, {quote("plain"), `"plain"`}, {quote("[no time"), `"[no time"`},
		{quote("a\x1b[31mb\u202ec"), `"a?[31mb?c"`}, {quote(strings.Repeat("é", 200)), `"` + strings.Repeat("é", 160) + `..."`},
	} {
		assert.True(t, c.got == c.want, "got %s, want %s", c.got, c.want)
	}
}

// FuzzRun puts the same bytes into every file that is parsed: no panic, a whole report, clean text.
func FuzzRun(f *testing.F) {
	for _, s := range []string{"", dpkg("hailort 4.23.0"), "0x1e60", addr, "5.0 GT/s PCIe", "throttled=0x50005", "a:b:c:d\n::::\n",
		"blacklist hailo1x_pci", "Failed to load mandatory firmware file", "\x00\xff\x1b[2J", elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1")} {
		f.Add([]byte(s))
	}
	machine := pi()
	base := machine.env(f, nil)
	names := []string{"/var/lib/dpkg/status", "/etc/passwd", "/etc/group", "/proc/cmdline", "/proc/meminfo", "/proc/uptime", "/etc/os-release",
		"/sys/module/hailo1x_pci/version", "/sys/class/hailo_chardev/hailo0/board_location", "/sys/bus/pci/devices/" + addr + "/current_link_speed",
		"/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "/sys/class/thermal/thermal_zone0/temp",
		"/proc/device-tree/model", "/proc/sys/kernel/osrelease", "/usr/local/lib/libhailort.so", "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt", worker}
	f.Fuzz(func(t *testing.T, data []byte) {
		env := base
		env.KernelLog = func(context.Context) ([]byte, error) { return data, nil }
		m := files{}
		for _, n := range names {
			m[n] = string(data)
		}
		m.writeTo(t, env.Root)
		r := Run(t.Context(), env)
		var b bytes.Buffer
		assert.Must(t, r.WriteText(&b, false))
		assert.MustTrue(t, finding(r, "pci-device") != nil && finding(r, "cpu-models") != nil, "%+v", r)
		for line := range strings.SplitSeq(b.String(), "\n") {
			control := strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f })
			assert.MustTrue(t, !control, "control character in %q", line)
		}
	})
}

// TestUnitInForce: what lies in /etc goes before what the package brings.
func TestUnitInForce(t *testing.T) {
	const ours, etc = "/usr/lib/systemd/system/hailo-clip.service", "/etc/systemd/system/hailo-clip.service"
	for _, c := range []struct {
		machine      files
		file, hidden string
	}{
		{files{}, "", ""},
		{files{ours: "[Service]\n"}, ours, ""},
		{files{etc: "[Service]\n"}, etc, ""},
		{files{ours: "[Service]\n", etc: "[Service]\nUser=old\n"}, etc, ours},
		{files{ours: "[Service]\n", etc: link + "../../.." + ours}, etc, ""}, // systemctl link
		{files{ours: "[Service]\n", "/etc/systemd/system/hailo-clip.service.d/x.conf": "[Service]\nUser=x\n"}, ours, ""},
	} {
		u := device.Root(c.machine.write(t)).Unit()
		assert.Equal(t, u.File, c.file, "%v", c.machine)
		assert.Equal(t, u.Hidden, c.hidden, "%v", c.machine)
	}
}

// TestUnitSettings: the unit that counts, and then what is added to it in the order of names, of which the first one counts.
func TestUnitSettings(t *testing.T) {
	const lib, etc, control = "/usr/lib/systemd/system/hailo-clip.service", "/etc/systemd/system/hailo-clip.service",
		"/etc/systemd/system.control/hailo-clip.service"
	u := device.Root(files{
		lib:               "[Service]\nUser=old\nSupplementaryGroups=video\n",
		lib + ".d/a.conf": "[Service]\nUser=hidden\n", // by the next one
		etc + ".d/a.conf": "[Service]\nUser = clip\nSupplementaryGroups=\nSupplementaryGroups=hailo render\n",
		"/usr/lib/systemd/system/service.d/b.conf": "[Service]\nCPUQuota=50%\n",
		control + ".d/50-CPUQuota.conf":            "# by systemctl set-property\n[Service]\nCPUQuota=20%\n",
	}.write(t)).Unit()
	assert.Equal(t, u.User, "clip", "user")
	assert.Equal(t, strings.Join(u.Groups, " "), "hailo render", "groups")
	assert.Equal(t, u.Quota+" "+u.QuotaAt, "50% /usr/lib/systemd/system/service.d/b.conf: line 2", "quota")
}

// TestDeviceGroup: a node that is not there is none.
func TestDeviceGroup(t *testing.T) {
	for _, m := range []files{{}, {"/dev/hailo0": link + "nowhere"}} {
		assert.Equal(t, device.Root(m.write(t)).DeviceGroup(), "", "%v", m)
	}
}
