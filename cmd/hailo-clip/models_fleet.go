package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"hailoclip/api/fleet"
	"hailoclip/hailo/model"
)

type modelsShareCmd struct {
	Name string `arg:"" help:"Name of the model."`
}

func (c *modelsShareCmd) Help() string {
	return `All files of the model that are installed are checked, and given to the broker of the fleet (fleet.url), which needs as much room.
"models pull NAME --fleet" fetches them on other nodes. Whether a model's license lets you pass it on is for you to know.

Examples:
  hailo-clip models share clip-vit-b-32
  hailo-clip models pull clip-vit-b-32 --fleet`
}

func (c *modelsShareCmd) Run(ctx context.Context, g *globals, catalog *model.Catalog) error {
	installed, err := catalog.Verify(ctx, c.Name)
	if err != nil {
		return err
	}
	var files []fleet.ModelFile
	for _, f := range installed {
		if f.Path != "" && f.Bytes > 0 {
			files = append(files, fleet.ModelFile{Name: f.Name, Bytes: f.Bytes, SHA256: f.SHA256, Path: f.Path})
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("%w: %s; install it with: hailo-clip models pull %s", model.ErrNotInstalled, c.Name, c.Name)
	}
	return withBroker(ctx, g, func(ctx context.Context, conn *fleet.Conn) error {
		bar := newByteBars()
		err := conn.ShareModel(ctx, c.Name, files, bar.set)
		bar.done(err == nil)
		return err
	})
}

// pullFromFleet is Catalog.Pull with the files that the fleet has: they are fetched beside the models, and checked and installed as
// from a folder.
func pullFromFleet(ctx context.Context, g *globals, catalog *model.Catalog, name string, o model.PullOptions) error {
	m, err := catalog.Manifest(name)
	if err != nil {
		return err
	}
	there, err := catalog.Verify(ctx, name)
	if err != nil && !errors.Is(err, model.ErrFile) { // what is damaged is fetched
		return err
	}
	wanted := func(file string) bool {
		return slices.Contains(m.PartFiles(o.Which), file) &&
			!slices.ContainsFunc(there, func(f model.FileState) bool { return f.Name == file && f.Bytes > 0 && f.Err == nil && !f.Vendor })
	}
	if err := os.MkdirAll(filepath.Dir(catalog.Dir), 0o750); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(catalog.Dir), ".fleet-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left can be removed by hand
	progress := o.Progress
	err = withBroker(ctx, g, func(ctx context.Context, conn *fleet.Conn) error {
		fetched, err := conn.FetchModel(ctx, name, dir, wanted, progress)
		for _, file := range m.PartFiles(o.Which) {
			has := slices.ContainsFunc(fetched, func(f fleet.ModelFile) bool { return f.Name == file })
			if err == nil && wanted(file) && !has && !m.Made(file) {
				err = fmt.Errorf("%w: %s", fleet.ErrNoModel, file)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	o.FromDir, o.Progress = dir, nil
	return catalog.Pull(ctx, name, o)
}
