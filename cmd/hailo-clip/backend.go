package main

import (
	"context"
	"log/slog"

	"hailoclip/configs"
	"hailoclip/configs/models"
	"hailoclip/hailo/model"
	"hailoclip/hailo/open"
	"hailoclip/hailo/sim"
)

// openCatalog finds the models folder in the state folder.
func openCatalog(state string) (*model.Catalog, error) {
	return open.Catalog(modelsDir(state), models.FS)
}

// newOpener finds the configured model. Its errors stop a start.
func newOpener(ctx context.Context, cfg configs.Config, state string, log *slog.Logger) (*open.Opener, error) {
	catalog, err := openCatalog(state)
	if err != nil {
		return nil, err
	}
	return open.New(ctx, openConfig(cfg, state), catalog, cfg.CLIP.Model, log)
}

// openConfig is what the configuration says about encoders.
func openConfig(cfg configs.Config, state string) open.Config {
	c := cfg.CLIP.Config
	c.ProbeInterval, c.Warmup, c.LibraryDirs = cfg.Health.ProbeInterval, 1, libraryDirs(state)
	if cfg.Performance.WarmupEnabled {
		c.Warmup = cfg.Performance.WarmupIterations
	}
	c.CPU, c.NPU, c.Sim = cfg.CPU, cfg.NPU, cfg.Sim
	return c
}

type npuSimCmd struct {
	Args []string `arg:"" optional:"" help:"Flags of the simulated chip; --help lists them."`
}

// Run is a worker process. With --vectors=model it computes the demo model's vectors.
func (c *npuSimCmd) Run(g *globals) error {
	code := sim.Main(c.Args, func() (sim.Encoders, error) {
		state, err := g.stateDir()
		if err != nil {
			return sim.Encoders{}, err
		}
		return open.SimEncoders(libraryDirs(state))
	})
	if code != exitOK {
		return exitError(code)
	}
	return nil
}
