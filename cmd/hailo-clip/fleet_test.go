package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hailoclip/api/fleet"
	"hailoclip/api/fleet/broker"
)

// TestFleetStatus asks a service that is in a fleet, then one whose broker is away, then one that is in none.
func TestFleetStatus(t *testing.T) {
	t.Parallel()
	b, err := broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom})
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			b.Close()
		}
		ended = true
	}
	defer end()
	config := configFile(t, "fleet: {url: \""+b.URL()+"\", node: porch}\n")
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu", "--config", config)
	var s fleet.Status
	until(t, "the service hears itself", func() bool {
		s = fleet.Status{}
		return json.Unmarshal([]byte(hailoClip(t, "fleet", "status", "--json", "--url", r.url).stdout), &s) == nil && len(s.Nodes) == 1 && len(s.Queues) == 3
	})
	if n := s.Nodes[0]; n.Node != "porch" || !n.Self || !n.Alive || n.Health != "healthy" || n.Model != "demo" || s.Node != "porch" || !s.Broker.Connected {
		t.Errorf("%+v", s)
	}
	hailoClip(t, "fleet", "status", "--url", r.url).expect(t, exitOK, "fleet as porch sees it", "porch * healthy", "CLIP_BULK 0 0 0 0 0 B", "nats-server")
	hailoClip(t, "doctor", "--config", config, "--json").expect(t, exitOK, `"check":"fleet-broker"`, `"fleet-payload","level":"ok"`, `"fleet-clock","level":"ok"`,
		`Nodes that are heard: porch.`, `All nodes have the same version`, `"fleet-sync"`)
	end()
	until(t, "the loss of the broker", func() bool { return !strings.Contains(r.get(t, "/v1/fleet").raw, `"connected":true`) })
	hailoClip(t, "fleet", "status", "--url", r.url).expect(t, exitFailed, "no broker at", "the broker of the fleet cannot be reached")
	if config := r.get(t, "/console/config.json").raw; !strings.Contains(config, `"fleet":true`) {
		t.Error(config)
	}
	alone := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu")
	hailoClip(t, "fleet", "status", "--url", alone.url).expect(t, exitFailed, "in no fleet", "fleet.url")
}

// TestFleetTable: columns are aligned, what is not there has no part, what is wrong is said, and nothing of others commands a terminal.
func TestFleetTable(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := &fleet.Status{
		Enabled: true, Node: "a", Broker: &fleet.BrokerStatus{Connected: true, URL: "tls://hub:4222", Version: "2.15.2", TLS: true, RTTMS: 0.4},
		Nodes: []fleet.NodeStatus{
			{Load: fleet.Load{Node: "a", Version: "1.0", Model: "clip", Rate: 335, Queued: 12, InFlight: 8, Free: 52, Health: "healthy"}, Self: true, Alive: true},
			{Load: fleet.Load{Node: "b\x1b[2J", Version: "1.0", Model: "clip", Health: "healthy"}, Seen: 125},
			{Load: fleet.Load{Node: "c", Health: "degraded"}, Alive: true, Twice: true},
		},
		Queues: []fleet.QueueStatus{{Stream: fleet.BulkStream, Pending: 1200, AckPending: 64, Bytes: 25_300_000, Limit: 2 << 30}, {Stream: fleet.DeadStream, Messages: 2, Limit: -1}},
		Jobs: []fleet.JobStatus{
			{Job: "0123456789abcdef", State: "running", Found: 100_000, Done: 40_000, Failed: 3, Rate: 640, Left: 94, Source: "/photos", Changed: now.Add(-time.Minute)},
			{Job: "x", State: "done", Found: 5, Done: 5, All: true},
		},
		Dead:    []fleet.DeadLetter{{Key: "00ff", Job: "x", Reason: "no node could\x1b[2J encode it", Node: "b", Tries: 5, Time: now.Add(-3 * time.Minute)}},
		Cameras: []fleet.CameraStatus{{Name: "gate", Owner: "a"}, {Name: "yard", Unreachable: []string{"a", "b"}}},
		Worker:  &fleet.WorkerStatus{Encoded: 40_000, Duplicates: 7}, Faults: []string{"jobs: away"},
	}
	lines, all := fleetTable(s, now), ""
	for _, line := range lines {
		all += strings.TrimRight(paint(line, 200, false), " ") + "\n"
	}
	want := `fleet as a sees it  broker tls://hub:4222 (nats-server 2.15.2, TLS), 0.4 ms
! jobs: away

node        health             rate  queued  in flight  free  model  version   seen
a *         healthy           335/s      12          8    52  clip   1.0      0.0 s
`
	if !strings.HasPrefix(all, want) || strings.ContainsRune(all, '\x1b') {
		t.Errorf("%s\nwant\n%s", all, want)
	}
	for _, want := range []string{
		"silent", "2m5s", "name taken twice", "CLIP_BULK     1200            64      0     0  25.3 MB  2.1 GB", "CLIP_DEAD        0             0      0     2", "running, 1m0s ago  40000  100000+", "640/s  1m34s",
		"done", "yard    none  a, b", "00ff         x        5  b     3m0s  \"no node could", "this node: 40000 encoded in bulk, 0 bad, 7 twice",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if painted := paint(lines[4], 200, true); !strings.Contains(painted, "\x1b[32mhealthy") {
		t.Errorf("%q", painted)
	}
	if lines := fleetTable(&fleet.Status{Enabled: true, Node: "a", Broker: &fleet.BrokerStatus{URL: "nats://x", LastError: "refused"}}, now); len(lines) != 1 {
		t.Errorf("%v", lines)
	}
}
