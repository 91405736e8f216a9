package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"hailoclip/configs"
	"hailoclip/configs/models"
	"hailoclip/hailo/model"
	"hailoclip/hailo/open"
	"hailoclip/hailo/sim"
)

// openCatalog finds the models folder in the state folder.
func openCatalog(state string) (*model.Catalog, error) {
	return open.Catalog(filepath.Join(state, "models"), models.FS)
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
	clip, npu, warmup := cfg.CLIP, cfg.NPU, 1
	if cfg.Performance.WarmupEnabled {
		warmup = cfg.Performance.WarmupIterations
	}
	if clip.Device != "0" { // the former service's index of the only device
		npu.Device = clip.Device
	}
	return open.Config{
		Backend: clip.Backend, TextEncoder: clip.TextEncoder, OnDeviceLoss: clip.OnDeviceLoss,
		ImageSize: clip.ImageSize, EmbeddingDimension: clip.EmbeddingDimension,
		BatchSize: clip.Batch(), DeviceTimeout: time.Duration(clip.DeviceTimeoutMS) * time.Millisecond,
		ProbeInterval: cfg.Health.ProbeInterval.Std(), Warmup: warmup,
		CPU: cfg.CPU, NPU: npu, Sim: open.Sim(cfg.Sim), LibraryDirs: libraryDirs(state),
	}
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
