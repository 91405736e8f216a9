package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDevice(t *testing.T) {
	other := "/sys/bus/pci/devices/0000:03:00.0"
	eight := files{other + "/vendor": "0x1e60", other + "/device": "0x2864"}
	cases := []struct {
		name    string
		machine files
		want    Device // zero: not present
	}{
		{"5.1.1", pi(), Device{"/dev/hailo0", addr, "5.1.1", "5.1.1"}},
		{"5.3.0", pi().with(release530), Device{"/dev/h1x-0", addr, "5.3.0", "5.3.0"}},
		{"nothing", files{}, Device{}},
		{"no node", pi().without("/dev/"), Device{}},
		{"a stray file without a driver behind it", pi().without("/sys/class"), Device{}},
		{"Hailo-8", pi().with(files{"/sys/bus/pci/devices/" + addr + "/device": "0x2864"}), Device{}},
		{"a folder for a node", pi().with(files{"/dev/hailo0": remove, "/dev/hailo0/": folder}), Device{}},
		{"a Hailo-8 as board 0", pi().with(eight).with(files{
			"/sys/class/hailo_chardev/hailo0/board_location": "0000:03:00.0", "/sys/class/hailo_chardev/hailo1/board_location": addr, "/dev/hailo1": mode(0o666),
		}), Device{"/dev/hailo1", addr, "5.1.1", "5.1.1"}},
		{"the first of two nodes is missing", pi().with(files{
			"/dev/hailo0": remove, "/sys/class/hailo_chardev/hailo1/board_location": addr, "/dev/hailo1": mode(0o666),
		}), Device{"/dev/hailo1", addr, "5.1.1", "5.1.1"}},
		{"address by the link only", pi().with(eight).with(files{
			"/sys/class/hailo_chardev/hailo0/board_location": remove, "/sys/class/hailo_chardev/hailo0/device": link + "../../../" + addr,
		}), Device{"/dev/hailo0", addr, "5.1.1", "5.1.1"}},
		{"no address, one chip", pi().with(files{"/sys/class/hailo_chardev/hailo0/board_location": remove}), Device{"/dev/hailo0", addr, "5.1.1", "5.1.1"}},
		{"no address, two chips", pi().with(eight).with(files{"/sys/class/hailo_chardev/hailo0/board_location": remove}), Device{}},
		{"no library", pi().without("/usr/lib/libhailort"), Device{"/dev/hailo0", addr, "5.1.1", ""}},
		{"library under its short name", pi().without("/usr/lib/libhailort").with(files{
			"/usr/local/lib/libhailort.so": string(elfFile(elf.DT_SONAME, "libhailort.so.5.1.0")),
		}), Device{"/dev/hailo0", addr, "5.1.1", "5.1.0"}},
		{"the newest of two libraries", pi().with(files{"/sys/module/hailo1x_pci/version": "5.9.0",
			"/usr/lib/aarch64-linux-gnu/libhailort.so.5.10.0": "library"}), Device{"/dev/hailo0", addr, "5.9.0", "5.10.0"}},
		{"the driver's of two libraries", pi().with(files{"/usr/local/lib/libhailort.so.5.2.0": "library"}), Device{"/dev/hailo0", addr, "5.1.1", "5.1.1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, ok := newSurvey(tree(c.machine.write(t))).device()
			if ok != (c.want != Device{}) {
				t.Errorf("present: %v", ok)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The library is found before there is a node, and where there is no chip at all.
func TestLibraryVersion(t *testing.T) {
	for _, c := range []struct {
		machine files
		want    string
	}{
		{pi().without("/dev/"), "5.1.1"},
		{pi().without("/sys/", "/dev/"), "5.1.1"},
		{pi().without("/usr/lib/libhailort"), ""},
	} {
		if got := LibraryVersion(c.machine.write(t)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestVersions(t *testing.T) {
	for in, want := range map[string][3]int{
		"5.1.1": {5, 1, 1}, "5.1.1-2": {5, 1, 1}, "6.18.50+rpt-rpi-2712": {6, 18, 50}, "5.2": {5, 2, 0},
		"": {}, "v5": {}, "5": {}, "99999999999999999999.1.1": {},
	} {
		if got := numbers(in); got != want {
			t.Errorf("numbers(%q) = %v", in, got)
		}
	}
	if !newer("5.10.0", "5.9.9") || newer("5.1.1", "5.1.1") || newer("5.1.1", "5.2.0") {
		t.Error("newer")
	}
	for in, want := range map[string]string{"libhailort.so.5.1.1": "5.1.1", "libhailort.so": "", "libhailort.so.5": "", "libhailort.so.5.1.1.bak": ""} {
		if got := versionAtEnd(in); got != want {
			t.Errorf("versionAtEnd(%q) = %q", in, got)
		}
	}
}

func TestShell(t *testing.T) {
	for in, want := range map[string]string{"/usr/bin/x-1.2": "/usr/bin/x-1.2", "a b": "'a b'", "a'; rm": `'a'\''; rm'`, "": "''"} {
		if got := shell(in); got != want {
			t.Errorf("shell(%q) = %s, want %s", in, got, want)
		}
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
		f := files{"/proc/cmdline": c.cmdline}
		if c.file != "" {
			f["/etc/modprobe.d/"+c.file] = c.text
		}
		e := exam{survey: survey{t: tree(f.write(t))}}
		if got := e.blacklisted(); (got != "") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestUser(t *testing.T) {
	root := tree(files{
		"/etc/passwd": "root:x:0:0::/:/bin/sh\nbad line\nodd:x:y:z::/:\nhailo-clip:x:990:991::/:/bin/false\n",
		"/etc/group":  "root:x:0:\nvideo:x:44:pi,hailo-clip\nhailo:x:985:hailo-clip2\nbad:x:y:hailo-clip\nnet:x:101:hailo-clip",
	}.write(t))
	uid, gids, ok := root.user("hailo-clip")
	if uid != 990 || !cmp.Equal(gids, []int{991, 44, 101}) || !ok {
		t.Error(uid, gids, ok)
	}
	for _, name := range []string{"nobody", "odd", ""} {
		if _, _, ok := root.user(name); ok {
			t.Errorf("user %q", name)
		}
	}
	if root.account("/etc/group", 44) != "video" || root.account("/etc/group", 45) != "45" || root.account("/etc/none", 0) != "0" {
		t.Error("account")
	}
}

func TestAllowed(t *testing.T) {
	cases := []struct {
		mode                 uint32
		owner, group, isRoot bool
		want                 bool
	}{
		{0o666, false, false, false, true},
		{0o660, false, false, false, false},
		{0o660, false, true, false, true},
		{0o664, false, false, false, false},
		{0o600, true, false, false, true},
		{0o066, true, true, false, false}, // the owner's bits decide
		{0o606, false, true, false, false},
		{0o000, false, false, true, true},
	}
	for _, c := range cases {
		if got := allowed(c.mode, c.owner, c.group, c.isRoot); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestPackages(t *testing.T) {
	long := "Package: long\nDescription: " + strings.Repeat("x", 1<<20) + "\n\n"
	f := files{"/var/lib/dpkg/status": dpkg() + long + "Package: h10-hailort\nVersion: 5.1.1-3\nStatus: install ok installed"}
	want := map[string]string{"h10-hailort": "5.1.1-3"}
	if diff := cmp.Diff(want, installedPackages(tree(f.write(t)))); diff != "" {
		t.Error(diff)
	}
}

func TestReadLog(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	log, err := readLog(t.Context(), func(context.Context) ([]byte, error) {
		return []byte(strings.Repeat(line, maxLog/50) + "last \xff\n"), nil
	})
	if err != nil || len(log) > maxLog/50 || log[len(log)-2] != "last ?" {
		t.Errorf("%d lines, %v, %q", len(log), err, log[len(log)-2:])
	}
	if _, err := readLog(t.Context(), nil); err == nil {
		t.Error("no error without a log")
	}
	boom := errors.New("boom")
	if _, err := readLog(t.Context(), func(context.Context) ([]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"<3>[    9.912345] hailo1x: x": `"hailo1x: x"`, "plain": `"plain"`, "[no time": `"[no time"`, "a\x1b[31mb\u202ec": `"a?[31mb?c"`,
		strings.Repeat("é", 200): `"` + strings.Repeat("é", maxLine) + `..."`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestCommand(t *testing.T) {
	out, err := command(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero")
	if err != nil || len(out) != maxRead {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := command(ctx, "sleep", "600"); err == nil {
		t.Error("a program that takes too long is no error")
	}
	if _, err := command(t.Context(), "hailo-clip-no-such-program"); err == nil {
		t.Error("a missing program is no error")
	}
}

// FuzzRun puts the same bytes into every file that is parsed: no panic, a whole report, clean text.
func FuzzRun(f *testing.F) {
	for _, s := range []string{"", dpkg("hailort 4.23.0"), "0x1e60", addr, "5.0 GT/s PCIe", "throttled=0x50005", "a:b:c:d\n::::\n",
		"blacklist hailo1x_pci", "Failed to load mandatory firmware file", "\x00\xff\x1b[2J", string(elfFile(elf.DT_NEEDED, "libhailort.so.5.1.1"))} {
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
		if err := r.WriteText(&b, false); err != nil || finding(r, "pci-device") == nil || finding(r, "cpu-models") == nil {
			t.Fatalf("%v %+v", err, r)
		}
		for line := range strings.SplitSeq(b.String(), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("control character in %q", line)
			}
		}
	})
}
