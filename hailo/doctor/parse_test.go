package doctor

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"strings"
	"testing"

	"hailoclip/hailo/device"
)

func TestDevice(t *testing.T) {
	other := "/sys/bus/pci/devices/0000:03:00.0"
	eight := files{other + "/vendor": "0x1e60", other + "/device": "0x2864"}
	cases := []struct {
		name    string
		machine files
		want    string // node, driver, library; "": not present
	}{
		{"5.1.1", pi(), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"5.3.0", pi().with(release530), "/dev/h1x-0, 5.3.0, 5.3.0"},
		{"nothing", files{}, ""},
		{"no node", pi().without("/dev/"), ""},
		{"a stray file without a driver behind it", pi().without("/sys/class"), ""},
		{"Hailo-8", pi().with(files{"/sys/bus/pci/devices/" + addr + "/device": "0x2864"}), ""},
		{"a folder for a node", pi().with(files{"/dev/hailo0": remove, "/dev/hailo0/": folder}), ""},
		{"a Hailo-8 as board 0", pi().with(eight).with(files{
			"/sys/class/hailo_chardev/hailo0/board_location": "0000:03:00.0", "/sys/class/hailo_chardev/hailo1/board_location": addr, "/dev/hailo1": mode(0o666),
		}), "/dev/hailo1, 5.1.1, 5.1.1"},
		{"the first of two nodes is missing", pi().with(files{
			"/dev/hailo0": remove, "/sys/class/hailo_chardev/hailo1/board_location": addr, "/dev/hailo1": mode(0o666),
		}), "/dev/hailo1, 5.1.1, 5.1.1"},
		{"address by the link only", pi().with(eight).with(files{
			"/sys/class/hailo_chardev/hailo0/board_location": remove, "/sys/class/hailo_chardev/hailo0/device": link + "../../../" + addr,
		}), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"no address, one chip", pi().with(files{"/sys/class/hailo_chardev/hailo0/board_location": remove}), "/dev/hailo0, 5.1.1, 5.1.1"},
		{"no address, two chips", pi().with(eight).with(files{"/sys/class/hailo_chardev/hailo0/board_location": remove}), ""},
		{"no library", pi().without("/usr/lib/libhailort"), "/dev/hailo0, 5.1.1, "},
		{"library under its short name", pi().without("/usr/lib/libhailort").with(files{
			"/usr/local/lib/libhailort.so": string(elfFile(elf.DT_SONAME, "libhailort.so.5.1.0")),
		}), "/dev/hailo0, 5.1.1, 5.1.0"},
		{"the newest of two libraries", pi().with(files{"/sys/module/hailo1x_pci/version": "5.9.0",
			"/usr/lib/aarch64-linux-gnu/libhailort.so.5.10.0": "library"}), "/dev/hailo0, 5.9.0, 5.10.0"},
		{"the driver's of two libraries", pi().with(files{"/usr/local/lib/libhailort.so.5.2.0": "library"}), "/dev/hailo0, 5.1.1, 5.1.1"},
	}
	for _, c := range cases {
		got, ok := device.Read(c.machine.write(t)).Device()
		text := strings.TrimPrefix(strings.Join([]string{got.Node, got.DriverVersion, got.LibraryVersion}, ", "), ", , ")
		if text != c.want || ok != (c.want != "") || ok != (got.PCIAddress == addr) {
			t.Errorf("%s: %+v, present %v", c.name, got, ok)
		}
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
		if got := device.Read(c.machine.write(t)).Library(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
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

func TestReadLog(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	log, err := readLog(t.Context(), func(context.Context) ([]byte, error) {
		return []byte(strings.Repeat(line, device.MaxLog/50) + "last \xff\n"), nil
	})
	if err != nil || len(log) > device.MaxLog/50 || log[len(log)-2] != "last ?" {
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
		strings.Repeat("é", 200): `"` + strings.Repeat("é", 160) + `..."`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestOwn(t *testing.T) {
	for state, want := range map[string]string{
		"":                  "hailo-clip models pull m",
		device.ServiceState: "sudo hailo-clip models pull m --state-dir /var/lib/hailo-clip",
		"/my models":        "hailo-clip models pull m --state-dir '/my models'",
	} {
		if got := (Env{State: state}).Own("models pull m"); got != want {
			t.Errorf("state %q: %s", state, got)
		}
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
