package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"hailoclip/configs"
	"hailoclip/hailo/device"
	"hailoclip/hailo/safefile"
)

type serviceCmd struct {
	Install   serviceInstallCmd   `cmd:"" help:"Install this program as a service of systemd, and start it."`
	Uninstall serviceUninstallCmd `cmd:"" help:"Stop the service, and remove the unit that install has written."`
	Status    serviceStatusCmd    `cmd:"" help:"Say whether the service is installed, runs and can serve."`
}

func (c *serviceCmd) Help() string {
	return `For who has the program without the Debian package, which does the same.

Examples:
  sudo hailo-clip service install
  hailo-clip service status`
}

type serviceInstallCmd struct {
	DryRun bool `help:"Only print what would be done."`
}

func (c *serviceInstallCmd) Help() string {
	return `Makes the system user hailo-clip, writes ` + configs.SystemFile + ` where it is missing and the unit ` + unitFile + `
with the resource_limits of the configuration, enables it and starts it anew. Files that it has not written itself, or
that have been changed since, it does not touch. The program must lie where the service can see it: not in a home
folder, but in /usr/local/bin, for example (sudo install hailo-clip /usr/local/bin/).

Examples:
  sudo hailo-clip service install
  hailo-clip service install --dry-run`
}

func (c *serviceInstallCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := g.read()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return err
	}
	return host(c.DryRun).install(ctx, program, cfg.ResourceLimits)
}

type serviceUninstallCmd struct {
	DryRun bool `help:"Only print what would be done."`
}

func (c *serviceUninstallCmd) Help() string {
	return `Configuration, models, prompt sets and the user stay. What the Debian package brings goes with it: sudo apt remove hailo-clip

Examples:
  sudo hailo-clip service uninstall
  hailo-clip service uninstall --dry-run`
}

func (c *serviceUninstallCmd) Run(ctx context.Context) error { return host(c.DryRun).uninstall(ctx) }

type serviceStatusCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *serviceStatusCmd) Help() string {
	return `Exit code 1 when the service does not run or cannot serve. "hailo-clip verify" tries more.

Examples:
  hailo-clip service status
  hailo-clip service status --json`
}

func (c *serviceStatusCmd) Run(ctx context.Context, p place) error {
	v, err := newVerification(p, "", "")
	if err != nil {
		return err
	}
	defer v.service.Close()
	v.unit(ctx, device.Root("/"))
	if v.port(ctx) {
		v.health(ctx)
	}
	return printReport(v.report(), c.JSON)
}

const unitFile = "/etc/systemd/system/" + device.ServiceName

// installer changes the system below root, or with dry says how.
type installer struct {
	root device.Root
	dry  bool
	user int // that this process is
	out  io.Writer
	run  func(ctx context.Context, name string, args ...string) error
}

func host(dry bool) installer {
	return installer{root: "/", dry: dry, user: os.Geteuid(), out: stdout, run: func(ctx context.Context, name string, args ...string) error {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return err
	}}
}

var (
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9_./+-]+$`)                // which a unit takes as it is
	hidden    = regexp.MustCompile(`^/(home|root|tmp|var/tmp|run/user)/`) // from the unit
)

// install is the same as often as it is done.
func (i installer) install(ctx context.Context, program string, limits configs.ResourceLimits) error {
	switch {
	case !plainPath.MatchString(program) || hidden.MatchString(program):
		return usageError{fmt.Errorf("the service cannot run %s: the program must not lie in a home folder or one for temporary files, which are hidden from "+
			"the service, and its path must need no quotes; put it elsewhere first: sudo install %[1]s /usr/local/bin/", program)}
	case i.user != 0 && !i.dry:
		return errors.New("only root may: sudo hailo-clip service install")
	}
	u := i.root.Unit()
	ofPackage := strings.Contains(u.File, "/lib/systemd/")
	if err := i.checkOurs(u); !ofPackage && err != nil {
		return err
	}
	if err := i.makeUser(ctx); err != nil {
		return err
	}
	if !i.root.Exists(configs.SystemFile) && i.root.Link(configs.SystemFile) == "" {
		if err := i.write(configs.SystemFile, configs.Etc); err != nil {
			return err
		}
	}
	if !ofPackage {
		if err := i.write(unitFile, signed(limits.Unit(program, runtime.GOARCH))); err != nil {
			return err
		}
	}
	if err := i.systemctl(ctx, true, "daemon-reload"); err != nil {
		return err
	}
	if err := i.systemctl(ctx, false, "enable", device.ServiceName); err != nil {
		return err
	}
	if err := i.systemctl(ctx, true, "restart", device.ServiceName); err != nil {
		return fmt.Errorf("%w\njournalctl -u hailo-clip -e says why", err)
	}
	return i.say("Installed. Is all well? sudo hailo-clip verify")
}

func (i installer) uninstall(ctx context.Context) error {
	u := i.root.Unit()
	switch {
	case !u.Installed:
		return i.say("There is no unit " + device.ServiceName + ".")
	case strings.Contains(u.File, "/lib/systemd/"):
		return fmt.Errorf("%s is the package's: sudo apt remove hailo-clip", u.File)
	case i.user != 0 && !i.dry:
		return errors.New("only root may: sudo hailo-clip service uninstall")
	}
	if err := i.checkOurs(u); err != nil {
		return err
	}
	if err := i.systemctl(ctx, true, "stop", device.ServiceName); err != nil {
		return err
	}
	if err := i.systemctl(ctx, false, "disable", device.ServiceName); err != nil {
		return err
	}
	if err := i.do("rm "+unitFile, func() error { return os.Remove(i.root.Path(unitFile)) }); err != nil {
		return err
	}
	if err := i.systemctl(ctx, true, "daemon-reload"); err != nil {
		return err
	}
	return i.say("Uninstalled. " + configs.SystemFile + ", " + device.ServiceState + " and the user hailo-clip stay.")
}

// signature begins a unit that install has written: then comes the digest of what follows the line.
const signature = `# Written by "hailo-clip service install", which replaces it as long as it is unchanged: `

func signed(unit string) string {
	sum := sha256.Sum256([]byte(unit))
	return signature + hex.EncodeToString(sum[:]) + "\n" + unit
}

// checkOurs refuses a unit that somebody else has written or changed.
func (i installer) checkOurs(u device.Unit) error {
	if !u.Installed {
		return nil
	}
	text, err := os.ReadFile(i.root.Path(u.File))
	if err == nil {
		_, unit, _ := strings.Cut(string(text), "\n")
		if u.File == unitFile && i.root.Link(u.File) == "" && string(text) == signed(unit) {
			return nil
		}
		err = errors.New("it was not written by \"hailo-clip service install\", or has been changed since")
	}
	return fmt.Errorf("%s is left alone: %w; look at it, and if nobody needs it: sudo systemctl disable --now hailo-clip && sudo rm %[1]s", u.File, err)
}

// makeUser makes the system user, in the group of the device.
func (i installer) makeUser(ctx context.Context) error {
	const name = "hailo-clip"
	if _, _, ok := i.root.User(name); !ok {
		args := []string{"--system", "--user-group", "--no-create-home", "--home-dir", device.ServiceState, "--shell", "/usr/sbin/nologin", name}
		if err := i.command(ctx, "useradd", args...); err != nil {
			return err
		}
	}
	if group := i.root.DeviceGroup(); group != "" {
		return i.command(ctx, "usermod", "-a", "-G", group, name)
	}
	return nil
}

// write makes a file that others may read.
func (i installer) write(name, text string) error {
	return i.do("write "+name, func() error {
		path := i.root.Path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return safefile.Replace(path, strings.NewReader(text))
	})
}

// systemctl runs it; where systemd does not run, only what needs it not.
func (i installer) systemctl(ctx context.Context, needsIt bool, args ...string) error {
	if needsIt && !i.root.IsDir("/run/systemd/system") && !i.dry {
		return nil
	}
	return i.command(ctx, "systemctl", args...)
}

func (i installer) command(ctx context.Context, name string, args ...string) error {
	return i.do(name+" "+strings.Join(args, " "), func() error { return i.run(ctx, name, args...) })
}

// do says what is done, and does it unless dry.
func (i installer) do(what string, act func() error) error {
	fmt.Fprintln(i.out, what)
	if i.dry {
		return nil
	}
	return act()
}

func (i installer) say(text string) error {
	if !i.dry {
		fmt.Fprintln(i.out, text)
	}
	return nil
}
