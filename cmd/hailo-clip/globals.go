package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hailoclip/configs"
	"hailoclip/configs/models"
	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/open"
)

// globals are the flags of every command.
type globals struct {
	ConfigFile string `name:"config" placeholder:"FILE" help:"Configuration file (default ${config_file} if it exists)."`
	StateDir   string `name:"state-dir" placeholder:"DIR" env:"${state_variable}" help:"Folder of cache and models (default: ${service_state} for a service, else the user's cache folder)."`
	Model      string `name:"model" placeholder:"NAME" help:"Model to use: auto, or a name of \"models list\" (clip.model)."`
	Backend    string `name:"backend" placeholder:"KIND" help:"Where to encode: auto, npu, cpu or sim (clip.backend)."`
}

// read reads the configuration with the flags on top.
func (g *globals) read(flags ...configs.Override) (configs.Loaded, error) {
	for _, f := range []configs.Override{
		{Key: "clip.model", Value: g.Model, Source: "--model"},
		{Key: "clip.backend", Value: g.Backend, Source: "--backend"},
	} {
		if f.Value != "" {
			flags = append(flags, f)
		}
	}
	c, err := configs.Read(g.ConfigFile, os.Environ(), flags)
	if err != nil {
		err = usageError{err}
	}
	return c, err
}

// state is the state folder, which need not exist yet: models/, lib/ with ONNX Runtime, and the prompt cache, which
// text_embedding.cache_file names. It is, in this order, that of --state-dir or HAILO_CLIP_STATE_DIR, that of the
// systemd unit, or one in the user's cache folder.
func (g *globals) state() (string, error) {
	if g.StateDir != "" {
		return filepath.Abs(g.StateDir)
	}
	if dir := unitState(); dir != "" {
		return dir, nil
	}
	dir, err := userState()
	if err != nil {
		err = fmt.Errorf("no folder for cache and models: %w; give one with --state-dir", err)
	}
	return dir, err
}

// unitState is the folder that systemd gives to a unit with StateDirectory=, which may be a list; "" outside of one.
func unitState() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return first
}

func userState() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "hailo-clip"), err
}

// libraryDirs are where ONNX Runtime is looked for: where "setup" puts it in this state folder, and in those that it
// takes by itself; then the Debian package's.
func libraryDirs(state string) []string {
	dirs := []string{filepath.Join(state, "lib")}
	if user, err := userState(); err == nil {
		dirs = append(dirs, filepath.Join(user, "lib"))
	}
	return append(dirs, filepath.Join(device.ServiceState, "lib"), npu.PackageDir)
}

func modelsDir(state string) string { return filepath.Join(state, "models") }

// catalog finds the models in the state folder.
func (g *globals) catalog() (*model.Catalog, error) {
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	return catalogIn(state)
}

func catalogIn(state string) (*model.Catalog, error) {
	return open.Catalog(modelsDir(state), models.FS)
}

// place is what a command works with.
type place struct {
	cfg     configs.Config
	file    string // the configuration came from; "": built in
	state   string // folder; it need not exist yet
	catalog *model.Catalog

	again func() (configs.Loaded, error) // loads the configuration anew, see reloader; nil: it stays as it is
}

// place loads the configuration, with the flags on top, and finds the state folder.
func (g *globals) place(flags ...configs.Override) (p place, err error) {
	c, err := g.read(flags...)
	if err != nil {
		return p, err
	}
	p.cfg, p.file = c.Config, c.File
	if p.state, err = g.state(); err == nil {
		p.catalog, err = catalogIn(p.state)
	}
	return p, err
}

// model finds the configured model, and says why it is this one.
func (g *globals) model(ctx context.Context) (m *model.Model, why string, p place, err error) {
	if p, err = g.place(); err == nil {
		m, why, err = p.catalog.Resolve(ctx, p.cfg.CLIP.Model)
	}
	return m, why, p, err
}

// installed is what is there of a model that the catalog has.
func (p place) installed(ctx context.Context, name string) (found model.Installed, err error) {
	all, err := p.catalog.List(ctx)
	if i := slices.IndexFunc(all, func(in model.Installed) bool { return in.Manifest.Name == name }); i >= 0 {
		found = all[i]
	}
	return found, err
}

// opener finds the configured model. Its errors stop a start.
func (p place) opener(ctx context.Context, log *slog.Logger) (*open.Opener, error) {
	return open.New(ctx, p.encoders(), p.catalog, p.cfg.CLIP.Model, log)
}

// encoders is what the configuration says about them.
func (p place) encoders() open.Config {
	c := p.cfg.CLIP.Config
	c.ProbeInterval, c.Warmup, c.LibraryDirs = p.cfg.Health.ProbeInterval, 1, libraryDirs(p.state)
	if p.cfg.Performance.WarmupEnabled {
		c.Warmup = p.cfg.Performance.WarmupIterations
	}
	c.CPU, c.NPU, c.Sim = p.cfg.CPU, p.cfg.NPU, p.cfg.Sim
	return c
}
