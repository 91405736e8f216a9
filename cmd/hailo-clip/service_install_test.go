package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hailoclip/configs"
	"hailoclip/hailo/device"
)

// fakeHost is an installer for a root of its own, and the commands that it has run.
func fakeHost(t *testing.T, files map[string]string) (i installer, root string, ran *[]string) {
	t.Helper()
	root, ran = t.TempDir(), new([]string)
	put(t, root, files)
	return installer{root: device.Root(root), out: io.Discard, run: func(_ context.Context, name string, args ...string) error {
		*ran = append(*ran, name+" "+strings.Join(args, " "))
		return nil
	}}, root, ran
}

const program = "/usr/local/bin/hailo-clip"

func TestServiceInstallAndUninstall(t *testing.T) {
	t.Parallel()
	i, root, ran := fakeHost(t, map[string]string{
		"run/systemd/system/x": "", "etc/passwd": "root:x:0:0::/:/bin/sh\n", "etc/group": "hailo:x:44:\n",
	})
	for _, memory := range []string{"2G", "1G"} { // the second time it replaces what it has written
		if err := i.install(t.Context(), program, configs.ResourceLimits{MemoryMax: memory}); err != nil {
			t.Fatal(err)
		}
		unit := string(must(os.ReadFile(filepath.Join(root, unitFile))))
		if !strings.Contains(unit, "\nMemoryMax="+memory+"\n") || !strings.Contains(unit, "\nExecStart="+program+" serve\n") {
			t.Errorf("the unit is\n%s", unit)
		}
		if strings.Join(*ran, "; ") != "useradd --system --user-group --no-create-home --home-dir /var/lib/hailo-clip --shell /usr/sbin/nologin hailo-clip; "+
			"usermod -a -G hailo hailo-clip; systemctl daemon-reload; systemctl enable hailo-clip.service; systemctl restart hailo-clip.service" {
			t.Errorf("ran %q", *ran)
		}
		*ran = nil
	}
	if got := string(must(os.ReadFile(filepath.Join(root, configs.SystemFile)))); got != configs.Etc {
		t.Errorf("the configuration is %q", got)
	}
	if err := i.uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, unitFile)); err == nil {
		t.Error("the unit is still there")
	}
	if _, err := os.Stat(filepath.Join(root, configs.SystemFile)); err != nil {
		t.Error(err)
	}
	if strings.Join(*ran, "; ") != "systemctl stop hailo-clip.service; systemctl disable hailo-clip.service; systemctl daemon-reload" {
		t.Errorf("ran %q", *ran)
	}
	if err := i.uninstall(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// TestServiceLeavesForeignFilesAlone: nothing is written, nothing is run.
func TestServiceLeavesForeignFilesAlone(t *testing.T) {
	t.Parallel()
	ours := configs.ResourceLimits{}.Unit(program, "arm64")
	for name, files := range map[string]map[string]string{
		"the former service's": {unitFile: "[Service]\nExecStart=/usr/bin/python3 app.py\n"},
		"ours, edited":         {unitFile: signed(ours) + "# mine\n"},
		"printed by hand":      {unitFile: ours},
		"transient":            {"run/systemd/system/hailo-clip.service": "[Service]\n"},
	} {
		i, root, ran := fakeHost(t, files)
		for _, err := range []error{i.install(t.Context(), program, configs.ResourceLimits{}), i.uninstall(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), "is left alone") {
				t.Errorf("%s: %v", name, err)
			}
		}
		for file, text := range files {
			if got := string(must(os.ReadFile(filepath.Join(root, file)))); got != text {
				t.Errorf("%s: %s is now %q", name, file, got)
			}
		}
		if _, err := os.Stat(filepath.Join(root, configs.SystemFile)); err == nil || len(*ran) > 0 {
			t.Errorf("%s: ran %q, configuration: %v", name, *ran, err)
		}
	}
}

func TestServiceInstallBesideThePackage(t *testing.T) {
	t.Parallel()
	i, root, ran := fakeHost(t, map[string]string{
		"usr/lib/systemd/system/hailo-clip.service": "[Service]\n", "etc/hailo/hailo-clip.yaml": "server:\n  port: 1\n",
		"etc/passwd": "hailo-clip:x:9:9::/:/bin/sh\n",
	})
	if err := i.install(t.Context(), program, configs.ResourceLimits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, unitFile)); err == nil {
		t.Error("a unit that hides the package's")
	}
	if got := string(must(os.ReadFile(filepath.Join(root, configs.SystemFile)))); !strings.Contains(got, "port: 1") {
		t.Errorf("the configuration is %q", got)
	}
	if !slices.Equal(*ran, []string{"systemctl enable hailo-clip.service"}) { // systemd does not run there
		t.Errorf("ran %q", *ran)
	}
	if err := i.uninstall(t.Context()); err == nil || !strings.Contains(err.Error(), "apt remove") {
		t.Errorf("uninstall: %v", err)
	}
}

func TestServiceInstallRefuses(t *testing.T) {
	t.Parallel()
	i, _, ran := fakeHost(t, nil)
	for _, path := range []string{"/home/me/hailo-clip", "/tmp/hailo-clip", "/root/hailo-clip", "/opt/my programs/hailo-clip", "/opt/%n/hailo-clip", "hailo-clip"} {
		var usage usageError
		if err := i.install(t.Context(), path, configs.ResourceLimits{}); !errors.As(err, &usage) {
			t.Errorf("%s: %v", path, err)
		}
	}
	i.user = 1000
	if err := i.install(t.Context(), program, configs.ResourceLimits{}); err == nil || !strings.Contains(err.Error(), "sudo") {
		t.Errorf("another user: %v", err)
	}
	i.dry = true
	if err := i.install(t.Context(), program, configs.ResourceLimits{}); err != nil || len(*ran) > 0 {
		t.Errorf("dry: %v, ran %q", err, *ran)
	}
	i.dry, i.user = false, 0
	i.run = func(context.Context, string, ...string) error { return errors.New("useradd: no space left") }
	if err := i.install(t.Context(), program, configs.ResourceLimits{}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a command that fails: %v", err)
	}
}
