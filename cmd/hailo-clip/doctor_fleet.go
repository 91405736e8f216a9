package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hailoclip/api/fleet"
	"hailoclip/hailo/doctor"
)

const (
	brokerTimeout = 5 * time.Second
	clockApart    = 2 * time.Second // beyond which clocks are said to differ
	payloadNeeded = 1 << 20         // bytes of a message with an image and its headers
)

// fleet looks at the fleet of the configuration from outside: as a process that is none of its nodes.
func (f *findings) fleet(ctx context.Context) {
	cfg := f.cfg.Fleet
	if !cfg.On() {
		return
	}
	if err := cfg.CheckCredentials(); err != nil {
		f.add("fleet-credentials", doctor.Fail, err.Error()+": who has the file is this node to the broker.", "sudo chmod 600 "+cfg.Credentials)
	} else if cfg.Credentials != "" {
		f.add("fleet-credentials", doctor.OK, "fleet.credentials is private: "+cfg.Credentials+".", "")
	}
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	e, err := fleet.Examine(ctx, cfg)
	if e == nil {
		f.add("fleet-broker", doctor.Fail, fmt.Sprintf("The broker %s cannot be used, and the service would serve as if alone: %v", cfg.URL, err),
			"# is hailo-clip-fleet running there (systemctl status hailo-clip-fleet), are fleet.url and fleet.credentials right, does a firewall let 4222 through?")
		return
	}
	f.fleetBroker(e, err)
	f.fleetNodes(e.Heard)
}

// fleetBroker judges the broker. err is what could not be found out of it.
func (f *findings) fleetBroker(e *fleet.Examination, err error) {
	b := &e.Broker
	tls := "not encrypted"
	if b.TLS {
		tls = "encrypted"
	}
	f.add("fleet-broker", doctor.OK, fmt.Sprintf("The broker %s answers in %.1f ms: nats-server %s, %s.", b.URL, b.RTTMS, b.Version, tls), "")
	if err != nil {
		f.add("fleet-broker", doctor.Warn, "The broker answers, and its streams do not: "+err.Error(),
			"# JetStream must be on in a nats-server of your own (hailo-clip-fleet has it), fleet.domain must be its domain, and a cluster has three brokers, not two")
	}
	if b.MaxPayload < payloadNeeded {
		f.add("fleet-payload", doctor.Warn, fmt.Sprintf("The broker takes messages of %d bytes at most: images over that fail.", b.MaxPayload),
			"# max_payload: 8MB in the configuration of nats-server")
	} else {
		f.add("fleet-payload", doctor.OK, fmt.Sprintf("The broker takes messages up to %s.", size(uint64(b.MaxPayload))), "")
	}
	f.add("fleet-sync", doctor.Info, "What the broker has acknowledged is on its disk only after its sync interval: hailo-clip-fleet has 10 s, a nats-server of your "+
		"own 2 minutes unless sync_interval says otherwise. A power cut loses what came since then. No row of an index is lost by that: what is missing is sent again.", "")
	if e.ClockKnown {
		f.clock("fleet-clock", "the broker", e.Clock)
	}
	for _, q := range e.Queues {
		if q.Stream == fleet.DeadStream && q.Messages > 0 {
			f.add("fleet-dead", doctor.Warn, fmt.Sprintf("%d images of indexes were tried too often and given up.", q.Messages), "hailo-clip index status")
		}
	}
}

func (f *findings) clock(check, whose string, d time.Duration) {
	if d.Abs() < clockApart {
		f.add(check, doctor.OK, fmt.Sprintf("The clock of %s agrees with this one.", whose), "")
		return
	}
	f.add(check, doctor.Warn, fmt.Sprintf("The clock of %s differs from this one by %s: times in logs and of events are wrong on one of both. Nothing is decided by them.",
		whose, d.Round(time.Second)), "timedatectl set-ntp true  # on both")
}

// fleetNodes judges what nodes tell of themselves.
func (f *findings) fleetNodes(heard []fleet.Heard) {
	if len(heard) == 0 {
		f.add("fleet-nodes", doctor.Info, "No node of the fleet is heard: no service with fleet.url runs, not even here.", "")
		return
	}
	versions, digests := map[string][]string{}, map[string][]string{}
	count := map[string]int{}
	for i := range heard {
		h := &heard[i]
		if count[h.Node]++; count[h.Node] > 1 {
			continue
		}
		versions[h.Version] = append(versions[h.Version], h.Node)
		if len(h.Digests) > 0 {
			what := fmt.Sprintf("%s (%.8s, %s)", h.Model, h.Digests[0], h.Prep)
			digests[what] = append(digests[what], h.Node)
		}
		if h.Clock.Abs() >= clockApart {
			f.clock("fleet-clock", "node "+h.Node, h.Clock)
		}
	}
	f.add("fleet-nodes", doctor.OK, fmt.Sprintf("Nodes that are heard: %s.", strings.Join(slices.Sorted(maps.Keys(count)), ", ")), "")
	for _, node := range slices.Sorted(maps.Keys(count)) {
		if count[node] > 1 {
			f.add("fleet-nodes", doctor.Fail, fmt.Sprintf("%d services call themselves %s: what is sent to one of them may reach the other.", count[node], node),
				"# give each its own fleet.node; with credentials, each its own: hailo-clip-fleet add-node NAME")
		}
	}
	f.alike("fleet-versions", "version of the program", versions, "# upgrade the others: one node at a time, the fleet goes on")
	f.alike("fleet-models", "image encoder", digests,
		"# only nodes with the same take requests and indexed images from each other: clip.model, clip.fit, and hailo-clip models list on each")
}

// alike says whether all nodes have the same.
func (f *findings) alike(check, what string, nodes map[string][]string, remedy string) {
	if len(nodes) <= 1 {
		for value := range nodes {
			f.add(check, doctor.OK, fmt.Sprintf("All nodes have the same %s: %s.", what, value), "")
		}
		return
	}
	var parts []string
	for _, value := range slices.Sorted(maps.Keys(nodes)) {
		parts = append(parts, value+" on "+strings.Join(nodes[value], ", "))
	}
	f.add(check, doctor.Warn, "Nodes differ in the "+what+": "+strings.Join(parts, "; ")+".", remedy)
}
