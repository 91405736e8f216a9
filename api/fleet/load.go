package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Load is what a node tells the others of itself, five times a second.
type Load struct {
	Node     string   `json:"node"`
	Instance string   `json:"instance"` // random, of the process: two nodes of the same name differ in it
	Site     string   `json:"site,omitempty"`
	Version  string   `json:"version"`
	Model    string   `json:"model"`
	Digests  []string `json:"digests"` // of the image encoders that it may answer with, the first of them the one in use
	Prep     string   `json:"prep"`    // clip.Engine.Preparation: vectors are equal only with the same
	Rate     float64  `json:"rate"`    // images a second that it can encode; 0: not known
	Batch    int      `json:"batch"`   // images of a full run of its encoder
	Queued   int      `json:"queued"`  // images that wait
	InFlight int      `json:"in_flight"`
	Free     int      `json:"free"`    // images that it would take now
	Health   string   `json:"health"`  // healthy, degraded, unhealthy or stopping
	Spill    bool     `json:"spill"`   // it takes images of other nodes
	Bulk     bool     `json:"bulk"`    // it encodes bulk work
	Cameras  bool     `json:"cameras"` // it takes streams that the fleet places
	UnixMs   int64    `json:"unix_ms"` // of its clock, for doctor; nothing is decided by it
	Sequence uint64   `json:"sequence"`
}

// Values of Load.Health beside those of clip.State.
const (
	healthy  = "healthy"
	stopping = "stopping" // it takes nothing more
)

// Limits of what other nodes tell of themselves.
const (
	maxLoadBytes = 4 << 10
	maxDigests   = 8
	maxText      = 256     // bytes of a text
	maxRate      = 1e6     // images a second
	maxImages    = 1 << 20 // of any kind
)

// parseLoad reads what a node has told, which must be the one that the subject names. Nothing of data is kept.
func parseLoad(node string, data []byte) (l Load, err error) {
	if len(data) > maxLoadBytes {
		return Load{}, fmt.Errorf("%d bytes, the limit is %d", len(data), maxLoadBytes)
	}
	d := json.NewDecoder(bytes.NewReader(data)) // newer nodes may tell more
	if err := d.Decode(&l); err != nil {
		return Load{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Load{}, errors.New("more than one value")
	}
	return l, l.check(node)
}

// check says what is wrong with a load.
func (l *Load) check(node string) error {
	switch {
	case l.Node != node || !name.MatchString(node):
		return fmt.Errorf("the node is %.80q, but %.80q in the subject", l.Node, node)
	case l.Site != "" && !name.MatchString(l.Site):
		return fmt.Errorf("site %.80q is no name", l.Site)
	case len(l.Digests) == 0 || len(l.Digests) > maxDigests:
		return fmt.Errorf("%d digests, want 1 to %d", len(l.Digests), maxDigests)
	case !(l.Rate >= 0 && l.Rate <= maxRate):
		return fmt.Errorf("rate %v is out of bounds", l.Rate)
	case !slices.Contains([]string{healthy, "degraded", "unhealthy", stopping}, l.Health):
		return fmt.Errorf("health %.80q is not known", l.Health)
	}
	for _, n := range []int{l.Batch, l.Queued, l.InFlight, l.Free} {
		if n < 0 || n > maxImages {
			return fmt.Errorf("%d images are out of bounds", n)
		}
	}
	for _, text := range append([]string{l.Instance, l.Version, l.Model, l.Prep}, l.Digests...) {
		if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("a text is too long, or has control characters")
		}
	}
	if l.UnixMs < 0 || l.UnixMs > math.MaxInt64/1_000_000 {
		return fmt.Errorf("time %d is out of bounds", l.UnixMs)
	}
	return nil
}

// load is what this node tells of itself now.
func (n *Node) load() Load {
	e := n.parts.Engine
	now := e.Load()
	l := Load{
		Node: n.Config.Node, Instance: n.instance, Site: n.Config.Site, Version: n.parts.Version, Model: e.Model(),
		Digests: []string{e.ImageDigest()}, Prep: e.Preparation(), Rate: now.Rate, Batch: now.Batch, Queued: now.Waiting, InFlight: now.InFlight,
		Free: now.Room, Health: e.State().String(), Spill: n.Config.Spill, Bulk: n.Config.Bulk,
		Cameras: n.places(),
	}
	if n.leaving.Load() {
		l.Health, l.Free = stopping, 0
	}
	return l
}
