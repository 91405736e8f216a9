package main

import (
	"hailoclip/hailo/open"
	"hailoclip/hailo/sim"
)

type npuSimCmd struct {
	Args []string `arg:"" optional:"" help:"Flags of the simulated chip; --help lists them."`
}

// Run is a worker process. With --vectors=model it computes the demo model's vectors.
func (c *npuSimCmd) Run(g *globals) error {
	code := sim.Main(c.Args, func() (sim.Encoders, error) {
		state, err := g.state()
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
