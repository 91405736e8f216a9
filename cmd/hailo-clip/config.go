package main

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"hailoclip/api/stream/notify"
	"hailoclip/configs"
	"hailoclip/stages/clip"
)

type configCmd struct {
	Show  configShowCmd  `cmd:"" help:"Print the configuration in force, or with --default the commented default file."`
	Check configCheckCmd `cmd:"" help:"Check a configuration file."`
	Unit  configUnitCmd  `cmd:"" help:"Print the systemd unit, with resource_limits in it, or that of its socket."`
}

func (c *configCmd) Help() string {
	return `Examples:
  hailo-clip config show --default > my.yaml
  hailo-clip config check my.yaml
  hailo-clip config show`
}

type configUnitCmd struct {
	Arch   string `enum:",amd64,arm64" default:"" help:"For this architecture instead of this machine's (amd64, arm64)."`
	Socket bool   `help:"Print the unit of a socket at server.host and server.port instead, with which restarts lose no request."`
}

func (c *configUnitCmd) Help() string {
	return `Example:
  hailo-clip config unit | sudo tee /etc/systemd/system/hailo-clip.service
  hailo-clip config unit --socket | sudo tee /etc/systemd/system/hailo-clip.socket`
}

func (c *configUnitCmd) Run(g *globals) error {
	cfg, err := g.read()
	if err == nil && c.Socket {
		fmt.Fprint(stdout, cfg.SocketUnit())
	} else if err == nil {
		fmt.Fprint(stdout, cfg.ResourceLimits.Unit(configs.UnitProgram, cmp.Or(c.Arch, runtime.GOARCH)))
	}
	return err
}

type configShowCmd struct {
	Default bool `xor:"what" help:"Print the built-in file with its comments: a good start for your own."`
	Origin  bool `xor:"what" help:"Print each key in a line, with where its value came from: file and line, variable or flag."`
}

func (c *configShowCmd) Help() string {
	return `The configuration in force is the built-in file, then the configuration file, then the environment, then flags.

Examples:
  hailo-clip config show
  hailo-clip config show --default > my.yaml
  hailo-clip config show --origin | grep -v built-in
  HAILO_CLIP_SERVER_PORT=8080 hailo-clip config show`
}

func (c *configShowCmd) Run(g *globals) error {
	if c.Default {
		fmt.Fprintf(stdout, "%s", configs.Default)
		return nil
	}
	cfg, err := g.read()
	if err != nil {
		return err
	}
	text, err := cfg.YAML()
	if c.Origin {
		var lines []string
		lines, err = cfg.Origins()
		text = []byte(strings.Join(lines, "\n") + "\n")
	}
	fmt.Fprintf(stdout, "# file: %s\n%s", cmp.Or(cfg.File, "none"), text)
	return err
}

type configCheckCmd struct {
	File string `arg:"" optional:"" type:"path" help:"The file (default: the one that serve would read)."`
}

func (c *configCheckCmd) Help() string {
	return `What is wrong is told with file, line and bound (exit code 2), and what is allowed but surely not meant with advice (exit
code 0): what makes the service slow, also a CPUQuota in an installed systemd unit, what lets others use it who should not, old names
of keys, and settings that have no effect beside others.

Examples:
  hailo-clip config check
  hailo-clip config check my.yaml`
}

// Run checks a named file by itself; without one, what serve would run with.
func (c *configCheckCmd) Run(g *globals) error {
	cfg, err := g.read()
	if c.File != "" {
		cfg, err = configs.Read(c.File, nil, nil)
	}
	if err == nil {
		err = checkFiles(cfg.Config)
	}
	if err != nil {
		return usageError{err}
	}
	for _, advice := range append(cfg.Advice(), unitQuota("")...) {
		complain("warning: %s", advice)
	}
	if exposure := cfg.Exposure(); exposure != "" {
		complain("note: %s", exposure)
	}
	fmt.Fprintf(stdout, "%s: ok\n", cmp.Or(cfg.File, "no file, built-in defaults"))
	return nil
}

// checkFiles reads the files that a configuration names, of prompts, secrets and certificates.
func checkFiles(c configs.Config) error {
	_, prompts := clip.ReadPrompts(c.TextEmbedding, c.Server.MaxPromptBytes)
	_, secrets := notify.New(c.Notify, notify.Parts{})
	return errors.Join(prompts, secrets, c.Server.TLS.CheckFiles())
}

// checked loads the configuration, with the flags on top, and looks into the files that it names.
func (g *globals) checked(flags ...configs.Override) (configs.Loaded, error) {
	c, err := g.read(flags...)
	if err == nil {
		err = checkFiles(c.Config)
	}
	return c, err
}
