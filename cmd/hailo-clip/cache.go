package main

import (
	"errors"
	"fmt"
	"io/fs"

	"hailoclip/cache"
)

type cacheCmd struct {
	Stats cacheStatsCmd `cmd:"" help:"Show what the cache file holds."`
	Clear cacheClearCmd `cmd:"" help:"Remove the cache file; prompts are encoded again."`
}

func (c *cacheCmd) Help() string {
	return `The cache has the vectors of prompts, so that each is encoded once. It can be removed at any time while no service runs.

Examples:
  hailo-clip cache stats
  hailo-clip cache clear`
}

// cacheFile is the name of the configured cache file.
type cacheFile string

func (g *globals) cacheFile() (cacheFile, error) {
	p, err := g.place()
	file := cacheFile(p.cfg.TextEmbedding.Path(p.state))
	if err == nil && file == "" {
		err = errors.New("there is no cache file: see text_embedding.cache_enabled and cache_file")
	}
	return file, err
}

type cacheStatsCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *cacheStatsCmd) Help() string {
	return `Example:
  hailo-clip cache stats --json`
}

func (c *cacheStatsCmd) Run(file cacheFile) error {
	info, err := cache.Inspect(string(file))
	missing := errors.Is(err, fs.ErrNotExist)
	if errors.Is(err, cache.ErrDamaged) {
		return fmt.Errorf("%s: %w; a service that finds it sets it aside; \"hailo-clip cache clear\" removes it", file, err)
	}
	if err != nil && !missing {
		return err
	}
	if c.JSON {
		return printJSON(info)
	}
	if missing {
		fmt.Fprintf(stdout, "%s: not there yet\n", file)
		return nil
	}
	fmt.Fprintf(stdout, "%s: %.1f MB, written %s\n", info.Path, float64(info.Bytes)/1e6, info.Modified.Format("2006-01-02 15:04:05"))
	if info.Locked {
		fmt.Fprintln(stdout, "  held by a running service, so its content cannot be read now")
	}
	for _, n := range info.Namespaces {
		damaged := ""
		if n.Damaged > 0 {
			damaged = fmt.Sprintf(", %d damaged", n.Damaged)
		}
		fmt.Fprintf(stdout, "  text encoder %.12s: %d prompts%s\n", n.Namespace, n.Vectors, damaged)
	}
	for _, aside := range info.SetAside {
		fmt.Fprintf(stdout, "  set aside because it was damaged: %s\n", aside)
	}
	return nil
}

type cacheClearCmd struct{}

func (c *cacheClearCmd) Help() string {
	return `Example:
  hailo-clip cache clear`
}

func (c *cacheClearCmd) Run(file cacheFile) error {
	if err := cache.ClearFile(string(file)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: empty\n", file)
	return nil
}
