package main

import (
	"errors"
	"fmt"

	"hailoclip/cache"
)

type cacheCmd struct {
	Stats cacheStatsCmd `cmd:"" help:"Show what the cache file holds."`
	Clear cacheClearCmd `cmd:"" help:"Remove the cache file; prompts are encoded again."`
}

// cacheFile is the configured cache file.
func (g *globals) cacheFile() (string, error) {
	p, err := g.place()
	if err != nil {
		return "", err
	}
	if file := p.cfg.TextEmbedding.Path(p.state); file != "" {
		return file, nil
	}
	return "", errors.New("there is no cache file: see text_embedding.cache_enabled and cache_file")
}

type cacheStatsCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *cacheStatsCmd) Run(g *globals) error {
	file, err := g.cacheFile()
	if err != nil {
		return err
	}
	info, err := cache.Inspect(file)
	missing := isMissing(err)
	if errors.Is(err, cache.ErrDamaged) {
		return fmt.Errorf("%s: %w; a service that finds it sets it aside; \"hailo-clip cache clear\" removes it", file, err)
	}
	if err != nil && !missing {
		return err
	}
	if c.JSON {
		return printJSON(stdout, info)
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

func (c *cacheClearCmd) Run(g *globals) error {
	file, err := g.cacheFile()
	if err != nil {
		return err
	}
	if err := cache.ClearFile(file); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: empty\n", file)
	return nil
}
