package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"hailoclip/api/fleet"
)

// brokerTime is how long a command waits for the broker.
const brokerTime = 10 * time.Second

// withBroker has a command speak to the broker of the configuration.
func withBroker(ctx context.Context, g *globals, work func(ctx context.Context, c *fleet.Conn) error) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	if !p.cfg.Fleet.On() {
		return usageError{errors.New("there is no fleet: fleet.url in the configuration is empty")}
	}
	p.quiet()
	c, err := fleet.Dial(p.cfg.Fleet, stderr.logger(p.cfg.Logging))
	if err != nil {
		return err
	}
	defer c.Close()
	waiting, cancel := context.WithTimeout(ctx, brokerTime)
	defer cancel()
	if err := c.Await(waiting); err != nil {
		return err
	}
	return work(ctx, c)
}

type fleetCamerasCmd struct {
	Add  fleetCamerasAddCmd  `cmd:"" help:"Add a camera, or change it."`
	Rm   fleetCamerasRmCmd   `cmd:"" help:"Remove a camera."`
	List fleetCamerasListCmd `cmd:"" help:"List the cameras, and the nodes that cannot reach them."`
}

func (c *fleetCamerasCmd) Help() string {
	return `A camera of the fleet is a stream that one of its nodes pulls: one with fleet.cameras that is healthy and can reach it, faster
ones more of them. When a node goes, its cameras move to others. "fleet status" shows which node has which.

Examples:
  hailo-clip fleet cameras add door door.json
  hailo-clip fleet cameras list
  hailo-clip fleet cameras rm door`
}

type fleetCamerasAddCmd struct {
	Name string `arg:"" help:"Name of the camera."`
	File string `arg:"" default:"-" help:"Definition as JSON, as PUT /v1/streams/{id} takes it, with a source; -: standard input."`
}

func (c *fleetCamerasAddCmd) Help() string {
	return `The definition lies with the broker as it is, also the password of the source. Nodes need the source's host in fetch.allow. The
file of the first example:
  {"prompt_set": "door", "source": "rtsp://camera.lan/main", "fps": 2, "events": {"hold_ms": 500}}

Examples:
  hailo-clip fleet cameras add door door.json
  hailo-clip fleet cameras add door < door.json`
}

// maxDefinition is how many bytes of a definition are read.
const maxDefinition = 1 << 20

func (c *fleetCamerasAddCmd) Run(ctx context.Context, g *globals) error {
	f := os.Stdin
	if c.File != "-" {
		var err error
		if f, err = os.Open(c.File); err != nil {
			return usageError{err}
		}
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(f, maxDefinition))
	if err != nil {
		return err
	}
	return withBroker(ctx, g, func(ctx context.Context, conn *fleet.Conn) error {
		return conn.PutCamera(ctx, c.Name, text)
	})
}

type fleetCamerasRmCmd struct {
	Name string `arg:"" help:"Name of the camera."`
}

func (c *fleetCamerasRmCmd) Help() string {
	return `Its events stay where they are.

Example:
  hailo-clip fleet cameras rm door`
}

func (c *fleetCamerasRmCmd) Run(ctx context.Context, g *globals) error {
	return withBroker(ctx, g, func(ctx context.Context, conn *fleet.Conn) error { return conn.RemoveCamera(ctx, c.Name) })
}

type fleetCamerasListCmd struct {
	JSON bool `name:"json" help:"Print JSON, with the definitions."`
}

func (c *fleetCamerasListCmd) Help() string {
	return `Example:
  hailo-clip fleet cameras list
  hailo-clip fleet cameras list --json | jq '.[].name'`
}

func (c *fleetCamerasListCmd) Run(ctx context.Context, g *globals) error {
	return withBroker(ctx, g, func(ctx context.Context, conn *fleet.Conn) error {
		all, err := conn.Cameras(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(all)
		}
		for _, one := range all {
			line := one.Name
			if nodes := slices.Sorted(maps.Keys(one.Unreachable)); len(nodes) > 0 {
				line += "  unreachable at " + strings.Join(nodes, ", ")
			}
			fmt.Fprintln(stdout, line)
		}
		return nil
	})
}
