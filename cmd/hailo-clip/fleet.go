package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/term"

	"hailoclip/api/client"
	"hailoclip/api/fleet"
)

type fleetCmd struct {
	Status     fleetStatusCmd     `cmd:"" help:"Show the nodes of the fleet, its queues, jobs and cameras."`
	Cameras    fleetCamerasCmd    `cmd:"" help:"Add, remove and list the cameras that the fleet places."`
	Serve      fleetServeCmd      `cmd:"" help:"Run the broker of a fleet until SIGTERM or Ctrl-C."`
	AddNode    fleetAddNodeCmd    `cmd:"" name:"add-node" help:"Let a node into the fleet, and write its credentials."`
	RemoveNode fleetRemoveNodeCmd `cmd:"" name:"remove-node" help:"Shut a node out of the fleet."`
	Nodes      fleetNodesCmd      `cmd:"" help:"List the nodes that the broker lets in."`
}

func (c *fleetCmd) Help() string {
	return `A fleet is several services around a broker (fleet.url): they take requests from each other, share prompt sets, and index
images together.

Examples:
  hailo-clip fleet serve --listen 0.0.0.0:4222
  hailo-clip fleet add-node kitchen -o kitchen.creds
  hailo-clip fleet status
  hailo-clip fleet status --watch --url http://pi:5000`
}

type fleetStatusCmd struct {
	asks
	Watch   bool `help:"Show it again every second until Ctrl-C; in a terminal as a table in place."`
	JSON    bool `name:"json" help:"Print JSON, with --watch one object a line."`
	NoColor bool `help:"Without colors, as with NO_COLOR in the environment."`
}

func (c *fleetStatusCmd) Help() string {
	return `What one service of the fleet knows, by default that of this machine. Nodes tell of themselves five times a second: rate is the
images a second that a node can encode, seen the time since it was heard last.

Examples:
  hailo-clip fleet status
  hailo-clip fleet status --watch
  hailo-clip fleet status --json --url http://pi:5000 | jq '.nodes[] | {node, rate, queued}'

Exit code 1 when the service is in no fleet, or cannot reach the broker.`
}

// fleetEvery is the time between two looks of --watch.
const fleetEvery = time.Second

func (c *fleetStatusCmd) Run(ctx context.Context, g *globals) error {
	return c.service(ctx, g, func(s *client.Client) error {
		if !c.Watch {
			return c.once(ctx, s, time.Now)
		}
		return c.watch(ctx, s)
	})
}

// status asks the service.
func (c *fleetStatusCmd) status(ctx context.Context, s *client.Client) (*fleet.Status, error) {
	var st fleet.Status
	if err := s.Fleet(ctx, &st); err != nil {
		return nil, err
	}
	if !st.Enabled {
		return nil, errors.New("the service is in no fleet: fleet.url in its configuration is empty")
	}
	return &st, nil
}

func (c *fleetStatusCmd) once(ctx context.Context, s *client.Client, now func() time.Time) error {
	st, err := c.status(ctx, s)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(st)
	} else {
		for _, line := range fleetTable(st, now()) {
			text := paint(line, math.MaxInt, stdout.color() && !c.NoColor)
			if _, err := stdout.raw([]byte(strings.TrimRight(text, " ") + "\n")); err != nil {
				return err
			}
		}
	}
	if err == nil && (st.Broker == nil || !st.Broker.Connected) {
		err = fleet.ErrNoBroker
	}
	return err
}

// watch shows the status again and again. A service that does not answer is waited for.
func (c *fleetStatusCmd) watch(ctx context.Context, s *client.Client) error {
	inPlace := stdout.terminal && !c.JSON
	if inPlace {
		_, _ = stdout.raw([]byte(screenBegin))
		defer func() { _, _ = stdout.raw([]byte(screenEnd)) }()
	}
	tick := time.NewTicker(fleetEvery)
	defer tick.Stop()
	for stdout.lost == nil {
		st, err := c.status(ctx, s)
		switch {
		case ctx.Err() != nil:
			return nil
		case inPlace:
			c.draw(st, err)
		case err != nil:
			return err
		case c.JSON:
			err = printJSON(st)
		default:
			for _, line := range fleetTable(st, time.Now()) {
				fmt.Fprintln(stdout, strings.TrimRight(paint(line, math.MaxInt, false), " "))
			}
			fmt.Fprintln(stdout)
		}
		if err != nil && !inPlace {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return stdout.lost
}

// draw fills the screen.
func (c *fleetStatusCmd) draw(st *fleet.Status, err error) {
	width, height, sizeErr := term.GetSize(int(stdout.to.Fd()))
	if sizeErr != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	lines := [][]span{{{styleBad, fmt.Sprint(err)}}}
	if err == nil {
		lines = fleetTable(st, time.Now())
	}
	text := drawBegin
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			text += "\r\n"
		}
		text += paint(line, width, stdout.color() && !c.NoColor) + lineEnd
	}
	_, _ = stdout.raw([]byte(text + drawEnd))
}
