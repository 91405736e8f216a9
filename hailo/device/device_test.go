package device

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// root makes a folder with files; a name that ends with / is a folder, a text that begins with "-> " a link.
func root(t *testing.T, files map[string]string) Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		to, link := strings.CutPrefix(text, "-> ")
		switch {
		case err != nil:
		case link:
			err = os.Symlink(to, path)
		case strings.HasSuffix(name, "/"):
			err = os.Mkdir(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Root(dir)
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
	if !Newer("5.10.0", "5.9.9") || Newer("5.1.1", "5.1.1") || Newer("5.1.1", "5.2.0") {
		t.Error("newer")
	}
	for in, want := range map[string]string{"libhailort.so.5.1.1": "5.1.1", "libhailort.so": "", "libhailort.so.5": "", "libhailort.so.5.1.1.bak": ""} {
		if got := VersionAtEnd(in); got != want {
			t.Errorf("VersionAtEnd(%q) = %q", in, got)
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
		m := &Machine{Root: root(t, map[string]string{"/proc/cmdline": c.cmdline, "/etc/modprobe.d/" + cmp.Or(c.file, "none.conf"): c.text})}
		if got := m.Blacklisted(); (got != "") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestUser(t *testing.T) {
	r := root(t, map[string]string{
		"/etc/passwd": "root:x:0:0::/:/bin/sh\nbad line\nodd:x:y:z::/:\nhailo-clip:x:990:991::/:/bin/false\n",
		"/etc/group":  "root:x:0:\nvideo:x:44:pi,hailo-clip\nhailo:x:985:hailo-clip2\nbad:x:y:hailo-clip\nnet:x:101:hailo-clip",
	})
	uid, gids, ok := r.User("hailo-clip")
	if uid != 990 || !slices.Equal(gids, []int{991, 44, 101}) || !ok {
		t.Error(uid, gids, ok)
	}
	for _, name := range []string{"nobody", "odd", ""} {
		if _, _, ok := r.User(name); ok {
			t.Errorf("user %q", name)
		}
	}
	if r.AccountName("/etc/group", 44) != "video" || r.AccountName("/etc/group", 45) != "45" || r.AccountName("/etc/none", 0) != "0" {
		t.Error("account")
	}
}

func TestPackages(t *testing.T) {
	status := "Package: hailo-old\nStatus: deinstall ok config-files\nVersion: 4.20.0\n\n" +
		"Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: " + strings.Repeat("x", 1<<20) + "\n\n" +
		"Package: h10-hailort\nVersion: 5.1.1-3\nStatus: install ok installed"
	got := root(t, map[string]string{"/var/lib/dpkg/status": status}).Packages()
	if len(got) != 1 || got["h10-hailort"] != "5.1.1-3" {
		t.Error(got)
	}
}

func TestCommand(t *testing.T) {
	out, err := Command(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero")
	if err != nil || len(out) != maxRead {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Command(ctx, "sleep", "600"); err == nil {
		t.Error("a program that takes too long is no error")
	}
	if _, err := Command(t.Context(), "hailo-clip-no-such-program"); err == nil {
		t.Error("a missing program is no error")
	}
}

func TestHasService(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"nothing": {map[string]string{"/etc/passwd": ""}, false},
		"unit":    {map[string]string{"/etc/systemd/system/hailo-clip.service": "[Service]\n"}, true},
		"models":  {map[string]string{"/var/lib/hailo-clip/": ""}, true},
		"dynamic": {map[string]string{"/var/lib/hailo-clip": "-> private/hailo-clip"}, true}, // which only root can follow
	} {
		if got := root(t, c.files).HasService(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
