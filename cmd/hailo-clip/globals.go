package main

import (
	"context"
	"os"

	"hailoclip/configs"
	"hailoclip/hailo/model"
)

// globals are the flags of every command.
type globals struct {
	ConfigFile string `name:"config" placeholder:"FILE" help:"Configuration file (default ${config_file} if it exists)."`
	StateDir   string `name:"state-dir" placeholder:"DIR" env:"${state_variable}" help:"Folder of cache and models (default: ${service_state} for a service, else the user's cache folder)."`
	Model      string `name:"model" placeholder:"NAME" help:"Model to use: auto, or a name of \"models list\" (clip.model)."`
	Backend    string `name:"backend" placeholder:"KIND" help:"Where to encode: auto, npu, cpu or sim (clip.backend)."`
}

// load reads the configuration with the flags on top.
func (g *globals) load(more ...configs.Override) (configs.Config, string, error) {
	flags := more
	for _, f := range []configs.Override{
		{Key: "clip.model", Value: g.Model, Source: "--model"},
		{Key: "clip.backend", Value: g.Backend, Source: "--backend"},
	} {
		if f.Value != "" {
			flags = append(flags, f)
		}
	}
	c, file, err := configs.Load(g.ConfigFile, os.Environ(), flags)
	if err != nil {
		return c, file, usageError{err}
	}
	return c, file, nil
}

// place is what a command works with: the configuration and the folder of models and cache.
type place struct {
	cfg   configs.Config
	file  string // the configuration came from; "": built in
	state string // folder; it need not exist yet
}

// place loads the configuration, with the flags on top, and finds the state folder.
func (g *globals) place(flags ...configs.Override) (p place, err error) {
	if p.cfg, p.file, err = g.load(flags...); err != nil {
		return p, err
	}
	p.state, err = g.stateDir()
	return p, err
}

// model is the configured model.
func (g *globals) model(ctx context.Context) (*model.Model, place, error) {
	p, err := g.place()
	if err != nil {
		return nil, p, err
	}
	catalog, err := openCatalog(p.state)
	if err != nil {
		return nil, p, err
	}
	m, _, err := catalog.Resolve(ctx, p.cfg.CLIP.Model)
	return m, p, err
}
