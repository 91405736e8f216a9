package admin

import (
	"maps"
	"slices"

	"hailoclip/api/fleet"
)

// fleet has what the service knows of its fleet: of the others, what they tell; of itself, counters since the start.
func (p *page) fleet(s *fleet.Status) {
	if b := s.Broker; b != nil {
		p.one("clip_fleet_broker_connected", gauge, "Whether the broker of the fleet is connected.", truth(b.Connected))
		p.one("clip_fleet_broker_reconnects_total", counter, "Connections to the broker that were made again.", float64(b.Reconnects))
		p.one("clip_fleet_broker_rtt_seconds", gauge, "Time of a message to the broker and back.", b.RTTMS/1000)
	}
	p.fleetNodes(s.Nodes)
	p.fleetQueues(s.Queues)
	p.fleetJobs(s.Jobs)
	p.family("clip_fleet_cameras", gauge, "Streams that the fleet places, by the node that should have them; node \"\": no node can.")
	cameras := map[string]int{}
	for _, c := range s.Cameras {
		cameras[c.Owner]++
	}
	for _, owner := range slices.Sorted(maps.Keys(cameras)) {
		p.value(float64(cameras[owner]), "node", owner)
	}
	p.one("clip_fleet_faults", gauge, "Parts of the fleet of which the service could not find out how they are.", float64(len(s.Faults)))
	if c := s.Spill; c != nil {
		p.family("clip_fleet_spilled_total", counter, "Images that went to another node, by what became of them: answered, or why they came back.")
		p.value(float64(c.Sent), "outcome", "answered")
		for _, reason := range slices.Sorted(maps.Keys(c.Failed)) {
			p.value(float64(c.Failed[reason]), "outcome", reason)
		}
		p.one("clip_fleet_spill_in_flight", gauge, "Images that are at another node.", float64(c.InFlight))
		p.family("clip_fleet_taken_total", counter, "Images of other nodes: answered, or why they were refused.")
		p.value(float64(c.Taken), "outcome", "answered")
		for _, reason := range slices.Sorted(maps.Keys(c.RefusedFor)) {
			p.value(float64(c.RefusedFor[reason]), "outcome", reason)
		}
	}
	if c := s.Worker; c != nil {
		p.family("clip_fleet_bulk_images_total", counter,
			"Images from the bulk queue that this node has dealt with: encoded, bad (for good), returned (for others to try), dead (tried too often).")
		for outcome, n := range map[string]uint64{"encoded": c.Encoded, "bad": c.Failed, "returned": c.Returned, "dead": c.Dead} {
			p.value(float64(n), "outcome", outcome)
		}
		p.one("clip_fleet_bulk_in_flight", gauge, "Images from the bulk queue that this node has.", float64(c.InFlight))
		p.one("clip_fleet_bulk_bytes_total", counter, "Bytes of images that came from the bulk queue.", float64(c.Bytes))
		p.one("clip_fleet_bulk_redelivered_total", counter, "Images from the bulk queue that had been given to a worker before.", float64(c.Redelivered))
		p.one("clip_fleet_duplicates_total", counter, "Images that were encoded although their result was there: they cost time, never a row.", float64(c.Duplicates))
	}
	if c := s.Share; c != nil {
		p.family("clip_fleet_sets_total", counter, "Changes of prompt sets: taken from other nodes, given to them, or conflict: another node came first.")
		for what, n := range map[string]uint64{"taken": c.SetsTaken, "given": c.SetsGiven, "conflict": c.Conflicts} {
			p.value(float64(n), "what", what)
		}
		p.family("clip_fleet_texts_total", counter, "Vectors of texts: hit (another node has encoded it), miss, or given to the others.")
		for what, n := range map[string]uint64{"hit": c.TextHits, "miss": c.TextMisses, "given": c.TextGiven} {
			p.value(float64(n), "what", what)
		}
	}
}

func (p *page) fleetNodes(nodes []fleet.NodeStatus) {
	each := func(name, help string, value func(*fleet.NodeStatus) float64) {
		p.family(name, gauge, help)
		for i := range nodes {
			p.value(value(&nodes[i]), "node", nodes[i].Node)
		}
	}
	each("clip_fleet_node_alive", "Whether a node was heard within the last second.", func(n *fleet.NodeStatus) float64 { return truth(n.Alive) })
	each("clip_fleet_node_seen_seconds", "Time since a node was heard last.", func(n *fleet.NodeStatus) float64 { return n.Seen })
	each("clip_fleet_node_images_per_second", "Images a second that a node can encode, as it tells.", func(n *fleet.NodeStatus) float64 { return n.Rate })
	each("clip_fleet_node_queued", "Images that wait at a node.", func(n *fleet.NodeStatus) float64 { return float64(n.Queued) })
	each("clip_fleet_node_in_flight", "Images that a node encodes.", func(n *fleet.NodeStatus) float64 { return float64(n.InFlight) })
	each("clip_fleet_node_clock_seconds", "The clock of a node less ours; nothing is decided by it.", func(n *fleet.NodeStatus) float64 { return n.ClockMS / 1000 })
	p.family("clip_fleet_node_health", gauge, "1 for the state that a node tells of itself, 0 for the others.")
	for i := range nodes {
		p.oneOf(nodes[i].Health, []string{"healthy", "degraded", "unhealthy", "stopping"}, "state", "node", nodes[i].Node)
	}
}

func (p *page) fleetQueues(queues []fleet.QueueStatus) {
	p.family("clip_fleet_queue_messages", gauge, "Messages of a stream of the broker: pending (nobody has them), unacknowledged (a worker has them), kept (all).")
	for _, q := range queues {
		p.value(float64(q.Pending), "stream", q.Stream, "state", "pending")
		p.value(float64(q.AckPending), "stream", q.Stream, "state", "unacknowledged")
		p.value(float64(q.Messages), "stream", q.Stream, "state", "kept")
	}
	p.family("clip_fleet_queue_bytes", gauge, "Bytes of a stream of the broker.")
	for _, q := range queues {
		p.value(float64(q.Bytes), "stream", q.Stream)
	}
	p.family("clip_fleet_queue_limit_bytes", gauge, "What clip_fleet_queue_bytes may grow to: the one of images takes no more then.")
	for _, q := range queues {
		if q.Limit > 0 {
			p.value(float64(q.Limit), "stream", q.Stream)
		}
	}
	p.family("clip_fleet_queue_redelivered", gauge, "Messages of a stream that are out again, because a worker has not acknowledged them in time.")
	for _, q := range queues {
		p.value(float64(q.Redelivers), "stream", q.Stream)
	}
}

// fleetJobs adds jobs that run: one that is done would be there for ever.
func (p *page) fleetJobs(jobs []fleet.JobStatus) {
	p.family("clip_fleet_jobs", gauge, "Indexes that are made through the broker, by state.")
	count := map[string]int{"running": 0, "stale": 0, "done": 0}
	for _, j := range jobs {
		if _, ok := count[j.State]; ok {
			count[j.State]++
		}
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		p.value(float64(count[state]), "state", state)
	}
}
