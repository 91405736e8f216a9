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
	return `For those who have the program without the Debian package, which does the same.

Examples:
  sudo hailo-clip service install
  hailo-clip service status`
}

type serviceInstallCmd struct {
	DryRun bool `help:"Only print what would be done."`
}

func (c *serviceInstallCmd) Help() string {
	return `Creates the system user hailo-clip, writes ` + configs.SystemFile + ` if it is missing and the unit ` + unitFile + `
with the resource_limits of the configuration, and enables and restarts the service. It leaves alone every file that it has
not written itself, or that has been changed since. The program must be where the service can see it: not in a home folder,
but in /usr/local/bin, for example (sudo install hailo-clip /usr/local/bin/).

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
	return `Configuration, models, prompt sets and the user stay. A service that the Debian package has installed is removed with
the package: sudo apt remove hailo-clip

Examples:
  sudo hailo-clip service uninstall
  hailo-clip service uninstall --dry-run`
}

func (c *serviceUninstallCmd) Run(ctx context.Context) error { return host(c.DryRun).uninstall(ctx) }

type serviceStatusCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *serviceStatusCmd) Help() string {
	return `Exit code 1 when the service does not run or cannot serve. "hailo-clip verify" checks more.

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

// installer changes the system below root, or with dry only says what it would do.
type installer struct {
	root device.Root
	dry  bool
	user int // effective user of this process
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
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9_./+-]+$`)                // needs no quotes in a unit
	hidden    = regexp.MustCompile(`^/(home|root|tmp|var/tmp|run/user)/`) // the service cannot see what is there
)

// install can be repeated: the result is the same.
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
	return i.say("Installed. To check it: sudo hailo-clip verify")
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

// signature begins the first line of a unit that install has written. The digest of all lines after that one follows it.
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

// write writes a file that everybody may read, and makes its folder.
func (i installer) write(name, text string) error {
	return i.do("write "+name, func() error {
		path := i.root.Path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return safefile.Replace(path, strings.NewReader(text))
	})
}

// systemctl runs systemctl. Where systemd does not run, it skips what needsIt.
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
