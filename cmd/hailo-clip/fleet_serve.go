package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"hailoclip/api/fleet/broker/flags"
	"hailoclip/api/fleet/members"
	"hailoclip/hailo/device"
)

// fleetServeCmd runs the broker, which is a program of its own, because it would make this one twice as large.
type fleetServeCmd struct {
	flags.Serve
}

// brokerProgram is installed beside this one, or on the PATH.
const brokerProgram = "hailo-clip-fleet"

// errNoBrokerProgram says what to install.
var errNoBrokerProgram = errors.New(`there is no ` + brokerProgram + ` beside this program or on the PATH: install the Debian package ` +
	brokerProgram + `, or build it with "make build"`)

func (c *fleetServeCmd) Help() string {
	return `Runs ` + brokerProgram + `, a NATS server with JetStream, until SIGTERM or Ctrl-C. On loopback it serves every program of this host.
On any other address it asks for TLS 1.3 and the key of a node: it makes a certificate authority in its folder at the first start, and
certificates for the names and addresses of this host, which it renews by itself. "fleet add-node" lets a node in.

Files are synced after --sync-interval: a power cut can lose what came in that time, and "index" sends that again. A message may have 8 MB.

Examples:
  hailo-clip fleet serve
  hailo-clip fleet serve --listen 0.0.0.0:4222 --advertise broker.example.org
  hailo-clip fleet serve --listen 0.0.0.0:4222 --leaves 0.0.0.0:7422
  hailo-clip fleet serve --name north --credentials north.creds      # the broker of another site, of which only it need reach the main one`
}

// Run replaces this process by the broker.
func (c *fleetServeCmd) Run(g *globals) error {
	program, err := findBroker()
	if err != nil {
		return err
	}
	args := append([]string{brokerProgram}, c.Args()...)
	if c.Store == "" {
		dir, err := brokerFolder(g, "")
		if err != nil {
			return err
		}
		args = append(args, "--store="+dir)
	}
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, args, os.Environ()))
}

func findBroker() (string, error) {
	if own, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(own), brokerProgram); isFile(beside) {
			return beside, nil
		}
	}
	program, err := exec.LookPath(brokerProgram)
	if err != nil {
		return "", errNoBrokerProgram
	}
	return program, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// brokerFolder is where the broker of this host has its files: what --store says, else that of the installed broker, if it has been
// started, else that of one that the user has started.
func brokerFolder(g *globals, store string) (string, error) {
	if store != "" {
		return filepath.Abs(store)
	}
	if installed := device.ServiceState + "-fleet"; g.StateDir == "" && os.Geteuid() == 0 {
		if _, err := os.Stat(installed); err == nil {
			return installed, nil
		}
	}
	state, err := g.state()
	return filepath.Join(state, "fleet"), err
}

// brokerFlags are those of commands that work on the folder of a broker, running or not.
type brokerFlags struct {
	Store string `placeholder:"DIR" help:"Folder of the broker (default: that of the installed broker for root, else fleet in the state folder)."`
}

func (b brokerFlags) dir(g *globals) (members.Dir, error) {
	dir, err := brokerFolder(g, b.Store)
	return members.Dir(dir), err
}

type fleetAddNodeCmd struct {
	brokerFlags
	Name string `arg:"" help:"Name of the node: up to 64 letters, digits, - and _"`
	Out  string `short:"o" placeholder:"FILE" help:"File for the credentials, which must not be there yet (default: standard output)."`
	Leaf bool   `help:"It is a broker with nodes of its own: a leaf."`
	URL  string `placeholder:"URL" help:"Where it reaches the broker, tls://host:port (default: what the broker advertises)."`
}

func (c *fleetAddNodeCmd) Help() string {
	return `Run it where the broker's folder is. It makes a key for the node and one file with all that the node needs: the key, the broker's
certificate authority and address. Whoever has the file is that node; it is stored nowhere else. Only a broker that asks for keys has
nodes. A running broker lets the node in within a second.

Examples:
  hailo-clip fleet add-node kitchen -o kitchen.creds
  hailo-clip fleet add-node north --leaf -o north.creds
  sudo hailo-clip fleet add-node kitchen --url tls://192.168.1.10:4222 -o kitchen.creds`
}

func (c *fleetAddNodeCmd) Run(g *globals) error {
	dir, err := c.dir(g)
	if err != nil {
		return err
	}
	if c.Out != "" {
		if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
			return usageError{fmt.Errorf("%s is there already: name another file", c.Out)}
		}
	}
	own, err := dir.Add(c.Name, c.Leaf, c.URL)
	if err != nil {
		return err
	}
	if c.Out == "" {
		_, err = stdout.Write(own.Text())
		return err
	}
	if err := members.WriteSecret(c.Out, own.Text()); err != nil {
		return errors.Join(err, dir.Remove(c.Name)) // nobody has its key
	}
	complain("The node reaches the broker at %s. Copy %s to it, readable by its service alone, and set there:", own.URL, c.Out)
	if c.Leaf {
		complain("  hailo-clip fleet serve --name %s --credentials FILE", own.Node)
	} else {
		complain("  fleet.credentials: FILE")
	}
	return nil
}

type fleetRemoveNodeCmd struct {
	brokerFlags
	Name string `arg:"" help:"Name of the node."`
}

func (c *fleetRemoveNodeCmd) Help() string {
	return `Run it where the broker's folder is. A running broker closes the node's connection within a second and lets its key in no more.
What the node had taken to encode goes to others.

Examples:
  hailo-clip fleet remove-node kitchen`
}

func (c *fleetRemoveNodeCmd) Run(g *globals) error {
	dir, err := c.dir(g)
	if err != nil {
		return err
	}
	return dir.Remove(c.Name)
}

type fleetNodesCmd struct {
	brokerFlags
}

func (c *fleetNodesCmd) Help() string {
	return `Lists the nodes that the broker lets in: name, kind, when it was added, and the public half of its key. "fleet status" shows
those that are there.

Examples:
  hailo-clip fleet nodes
  sudo hailo-clip fleet nodes`
}

func (c *fleetNodesCmd) Run(g *globals) error {
	dir, err := c.dir(g)
	if err != nil {
		return err
	}
	nodes, err := dir.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		kind := "node"
		if n.Leaf {
			kind = "leaf"
		}
		if _, err := fmt.Fprintf(stdout, "%-24s %s  %s  %s\n", n.Name, kind, n.Added.Format("2006-01-02 15:04:05Z"), n.Key); err != nil {
			return err
		}
	}
	return nil
}
