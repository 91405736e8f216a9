package main

import (
	"cmp"
	"fmt"
	"runtime"

	"hailoclip/api/stream/notify"
	"hailoclip/configs"
	"hailoclip/stages/clip"
)

type configCmd struct {
	Show  configShowCmd  `cmd:"" help:"Print the configuration in force, or with --default the commented default file."`
	Check configCheckCmd `cmd:"" help:"Check a configuration file."`
	Unit  configUnitCmd  `cmd:"" help:"Print the systemd unit, with resource_limits in it."`
}

func (c *configCmd) Help() string {
	return `Examples:
  hailo-clip config show --default > my.yaml
  hailo-clip config check my.yaml
  hailo-clip config show`
}

type configUnitCmd struct {
	Arch string `enum:",amd64,arm64" default:"" help:"For this architecture instead of this machine's (amd64, arm64)."`
}

func (c *configUnitCmd) Help() string {
	return `Example:
  hailo-clip config unit | sudo tee /etc/systemd/system/hailo-clip.service`
}

func (c *configUnitCmd) Run(g *globals) error {
	cfg, _, err := g.load()
	if err == nil {
		fmt.Fprint(stdout, cfg.ResourceLimits.Unit(configs.UnitProgram, cmp.Or(c.Arch, runtime.GOARCH)))
	}
	return err
}

type configShowCmd struct {
	Default bool `help:"Print the built-in file with its comments: a good start for your own."`
}

func (c *configShowCmd) Help() string {
	return `The configuration in force is the built-in file, then the configuration file, then the environment, then flags.

Examples:
  hailo-clip config show
  hailo-clip config show --default > my.yaml
  HAILO_CLIP_SERVER_PORT=8080 hailo-clip config show`
}

func (c *configShowCmd) Run(g *globals) error {
	if c.Default {
		fmt.Fprintf(stdout, "%s", configs.Default)
		return nil
	}
	cfg, file, err := g.load()
	if err != nil {
		return err
	}
	text, err := cfg.YAML()
	fmt.Fprintf(stdout, "# file: %s\n%s", cmp.Or(file, "none"), text)
	return err
}

type configCheckCmd struct {
	File string `arg:"" optional:"" type:"path" help:"The file (default: the one that serve would read)."`
}

func (c *configCheckCmd) Help() string {
	return `What is wrong is told with file, line and bound, and what makes the service slow with advice.

Examples:
  hailo-clip config check
  hailo-clip config check my.yaml`
}

// Run checks a named file by itself; without one, what serve would run with.
func (c *configCheckCmd) Run(g *globals) error {
	cfg, file, err := g.load()
	if c.File != "" {
		cfg, file, err = configs.Load(c.File, nil, nil)
	}
	if err == nil {
		_, err = clip.ReadPrompts(cfg.TextEmbedding, cfg.Server.MaxPromptBytes)
	}
	if err == nil {
		_, err = notify.New(cfg.Notify, notify.Parts{}) // reads the files of secrets and certificates
	}
	if err != nil {
		return usageError{err}
	}
	file = cmp.Or(file, "no file, built-in defaults")
	for _, warning := range cfg.Warnings() {
		complain("%s: warning: %s", file, warning)
	}
	fmt.Fprintf(stdout, "%s: ok\n", file)
	return nil
}
