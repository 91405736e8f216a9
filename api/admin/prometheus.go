package admin

import (
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"

	"hailoclip/api/stream"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

const (
	requestDuration = "clip_request_duration_seconds"
	stageDuration   = "clip_stage_duration_seconds"
)

const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// WriteMetrics writes the metrics in the text format of Prometheus. It leaves out those of parts that the service does not have,
// such as the device, and with a nil Recorder those of requests and durations. s.Server has the counts of the same Recorder.
func (r *Recorder) WriteMetrics(w io.Writer, s Snapshot) {
	p := &page{}
	p.health(s)
	if r != nil {
		p.requests(r, s.Server)
	}
	p.line(s.Stats)
	p.encoders(s)
	p.textCache(s.Stats)
	p.promptSets(s.Sets)
	if s.Streams != nil {
		p.streams(s.Streams)
	}
	p.events(s.Stats)
	if s.NPU != nil {
		p.device(s.NPU)
	}
	if s.Fleet != nil && s.Fleet.Enabled {
		p.fleet(s.Fleet)
	}
	p.server(s.Server)
	p.process(s.Process)
	_, _ = w.Write(p.b)
}

func (p *page) health(s Snapshot) {
	p.family("clip_build_info", gauge, "The version of the program; always 1.")
	p.value(1, "version", s.Version, "goversion", runtime.Version())
	p.family("clip_model_info", gauge, "The model; always 1.")
	p.value(1, "model", s.Health.Model)
	p.family("clip_backend_info", gauge, "Where images are encoded: npu, cpu or sim; always 1.")
	p.value(1, "backend", s.Health.Backend, "runtime_mode", s.Health.RuntimeMode)
	p.one("clip_ready", gauge, "Whether the service can serve: 1, or 0 where GET /health answers 503.", truth(s.Health.State != clip.Unhealthy))
	p.family("clip_health_state", gauge, "1 for the state that GET /health tells, 0 for the others.")
	p.oneOf(s.Health.State.String(), []string{"healthy", "degraded", "unhealthy"}, "state")
}

func (p *page) requests(r *Recorder, s ServerStats) {
	p.family("clip_requests_total", counter, "Answers by path of the route and status; those that no route took have the endpoint other.")
	paths := slices.Sorted(maps.Keys(s.Requests))
	for _, path := range paths {
		for _, code := range slices.Sorted(maps.Keys(s.Requests[path])) {
			p.value(float64(s.Requests[path][code]), "endpoint", path, "code", code)
		}
	}
	p.family(requestDuration, histogram, "Time from the head of a request to its answer, without requests that last as long as the client likes.")
	for _, path := range paths {
		r.Endpoint(path).set.WritePrometheus(p)
	}
	p.family("clip_rejected_total", counter, "Requests and images that were refused or dropped, by reason.")
	for _, reason := range slices.Sorted(maps.Keys(s.Rejected)) {
		p.value(float64(s.Rejected[reason]), "reason", reason)
	}
	p.family(stageDuration, histogram, "Time that an image or a request spent in a stage, or (-wait) in the queue before it.")
	r.stageSet.WritePrometheus(p)
}

func (p *page) line(s Stats) {
	stages := func(value func(*pipeline.StageStats) int) {
		for i := range s.Stages {
			p.value(float64(value(&s.Stages[i])), "stage", s.Stages[i].Stage)
		}
	}
	p.family("clip_queue_depth", gauge, "Jobs that wait in front of a stage; of stage text: prompts that wait for the encoder.")
	stages(func(s *pipeline.StageStats) int { return s.Queued })
	p.value(float64(s.Cache.Pending), "stage", "text")
	p.family("clip_queue_limit", gauge, "Jobs that may wait in front of a stage; beyond that of the first stage (performance.max_queue_size) requests get 429.")
	stages(func(s *pipeline.StageStats) int { return s.Capacity })
	p.value(float64(s.Cache.PendingLimit), "stage", "text")
	p.family("clip_stage_workers", gauge, "Workers of a stage.")
	stages(func(s *pipeline.StageStats) int { return s.Workers })
	p.family("clip_stage_busy_workers", gauge, "Workers of a stage that are at work.")
	stages(func(s *pipeline.StageStats) int { return s.Busy })
	p.family("clip_stage_stuck_workers", gauge, "Workers of a stage that are past the deadline of their jobs.")
	stages(func(s *pipeline.StageStats) int { return s.Stuck })
	p.family("clip_stage_jobs_total", counter, "Jobs by what became of them in a stage: passed, failed or expired.")
	for _, stage := range s.Stages {
		p.value(float64(stage.Passed), "stage", stage.Stage, "outcome", "passed")
		p.value(float64(stage.Failed), "stage", stage.Stage, "outcome", "failed")
		p.value(float64(stage.Expired), "stage", stage.Stage, "outcome", "expired")
	}
}

func (p *page) encoders(s Snapshot) {
	device := s.Health.Backend
	p.family("clip_encodes_total", counter, "Images and texts that were encoded, by backend, without prompts that were in the cache.")
	if n := s.NPU; n != nil {
		p.value(float64(n.Images), "modality", "image", "backend", device)
		p.value(float64(n.Texts), "modality", "text", "backend", device)
	}
	if c := s.CPU; c != nil {
		p.value(float64(c.Images), "modality", "image", "backend", "cpu")
		p.value(float64(c.Texts), "modality", "text", "backend", "cpu")
	}
	p.family("clip_encode_failures_total", counter, "Images and texts that an encoder failed on, by backend.")
	if s.NPU != nil {
		p.value(float64(s.NPU.Failed), "backend", device)
	}
	if s.CPU != nil {
		p.value(float64(s.CPU.Failed), "backend", "cpu")
	}
	p.family("clip_batch_size", histogram, "Images that were encoded in one run, by backend.")
	if s.NPU != nil {
		runs := slices.Clone(s.NPU.ImageBatches)
		for n := range runs {
			runs[n] /= uint64(max(n, 1)) // of runs of n it has the images
		}
		p.batches(runs, device)
	}
	if s.CPU != nil {
		p.batches(s.CPU.ImageBatches, "cpu")
	}
	p.one("clip_failover", gauge, "1 while the device is lost and images are encoded on the CPU.", truth(s.StandingIn))
}

// batches writes a histogram of runs[n] runs of n images.
func (p *page) batches(runs []uint64, backend string) {
	var count, images uint64
	at := 1
	for _, bound := range []int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64} {
		for ; at <= bound && at < len(runs); at++ {
			count += runs[at]
			images += runs[at] * uint64(at)
		}
		p.suffixed("_bucket", float64(count), "backend", backend, "le", fmt.Sprint(bound))
	}
	p.suffixed("_bucket", float64(count), "backend", backend, "le", "+Inf")
	p.suffixed("_sum", float64(images), "backend", backend)
	p.suffixed("_count", float64(count), "backend", backend)
}

func (p *page) textCache(s Stats) {
	c := &s.Cache
	p.one("clip_text_cache_requests_total", counter, "Lists of prompts that were asked for.", float64(c.Requests))
	p.family("clip_text_cache_hits_total", counter, "What was found in the cache: whole lists (tier list), or else single prompts (tiers memory and disk).")
	p.value(float64(c.ListHits), "tier", "list")
	p.value(float64(c.MemoryHits), "tier", "memory")
	p.value(float64(c.DiskHits), "tier", "disk")
	p.one("clip_text_cache_misses_total", counter, "Prompts that were not found and had to be encoded.", float64(c.Encoded+c.Failed))
	p.one("clip_text_cache_shared_total", counter, "Prompts that another request was waiting for already.", float64(c.Shared))
	p.one("clip_text_cache_failures_total", counter, "Prompts that could not be encoded, cancelled ones included.", float64(c.Failed))
	p.family("clip_text_cache_evictions_total", counter, "Lists and prompts that left the memory to make room; of tier disk, prompts that were not kept.")
	p.value(float64(c.ListsGone), "tier", "list")
	p.value(float64(c.Evicted), "tier", "memory")
	p.value(float64(c.Disk.Dropped), "tier", "disk")
	p.family("clip_text_cache_entries", gauge, "Prompts in memory and on disk.")
	p.value(float64(c.Vectors), "tier", "memory")
	p.value(float64(c.Disk.Vectors), "tier", "disk")
	p.family("clip_text_cache_bytes", gauge, "Memory of whole lists, of the vectors of single prompts, and the size of the file.")
	p.value(float64(c.ListBytes), "tier", "list")
	p.value(float64(c.VectorBytes), "tier", "memory")
	p.value(float64(c.Disk.Bytes), "tier", "disk")
	p.family("clip_text_cache_limit_bytes", gauge, "What clip_text_cache_bytes may grow to; the file is started anew there.")
	p.value(float64(c.ListLimit), "tier", "list")
	p.value(float64(c.Disk.Limit), "tier", "disk")
	p.family("clip_text_cache_disk_state", gauge, "1 for the state of the file: ok, paused (a write failed) or off (memory only).")
	p.oneOf(c.Disk.State, []string{"ok", "paused", "off"}, "state")
}

func (p *page) promptSets(s clip.SetStats) {
	p.family("clip_prompt_sets", gauge, "Prompt sets by the state of their newest version.")
	p.value(float64(s.Sets-s.Encoding-s.Failed), "state", "ready")
	p.value(float64(s.Encoding), "state", "encoding")
	p.value(float64(s.Failed), "state", "failed")
	p.one("clip_prompt_set_texts_waiting", gauge, "Texts of prompt sets that are not encoded yet.", float64(s.Waiting))
	p.one("clip_prompt_set_texts_total", counter, "Texts of prompt sets that were encoded.", float64(s.Encoded))
	p.one("clip_prompt_set_bytes", gauge, "Memory of what images are compared with by prompt sets.", float64(s.Bytes))
	p.one("clip_prompt_sets_lost", gauge, "1 while the file of the prompt sets cannot be used.", truth(s.Lost != ""))
}

func (p *page) streams(s *stream.HubStats) {
	p.one("clip_streams", gauge, "Streams, defined or open.", float64(s.Streams))
	p.one("clip_streams_fed", gauge, "Streams that get frames.", float64(s.Fed))
	p.one("clip_streams_degraded", gauge, "Streams whose frames come faster than they are answered.", float64(s.Degraded))
	p.one("clip_stream_listeners", gauge, "Listeners to events.", float64(s.Listeners))
	p.family("clip_stream_frames_total", counter,
		"Frames of a stream: received, and by what became of them. The stream \"-\" is all streams without a label of their own.")
	for i := range s.ByName {
		l := &s.ByName[i]
		for _, c := range []struct {
			state string
			n     uint64
		}{
			{"received", l.Frames}, {"answered", l.Answered}, {"reused", l.Reused}, {"superseded", l.Superseded}, {"expired", l.Expired},
			{"bad", l.Bad}, {"rate", l.Rate},
		} {
			p.value(float64(c.n), "stream", l.Stream, "state", c.state)
		}
	}
	p.family("clip_stream_lag_seconds", gauge, "Moving average of the time from the last byte of a frame to its answer.")
	p.each(s, func(l *stream.LabelledStats) float64 { return l.LagMS / 1000 })
	p.family("clip_stream_lag_max_seconds", gauge, "The longest time from the last byte of a frame to its answer in the last ten seconds.")
	p.each(s, func(l *stream.LabelledStats) float64 { return l.LagMaxMS / 1000 })
	p.family("clip_stream_events_total", counter, "Changes of what holds in a stream.")
	p.each(s, func(l *stream.LabelledStats) float64 { return float64(l.Changes) })
	p.family("clip_stream_events_unstored_total", counter, "Changes of what holds in a stream that were to be stored and could not be.")
	p.each(s, func(l *stream.LabelledStats) float64 { return float64(l.Unstored) })
	p.family("clip_stream_state", gauge,
		"1 for the state of a stream: fed, idle, degraded (too many frames), trouble (with its source), gone.")
	for i := range s.ByName {
		if l := &s.ByName[i]; l.State != "" {
			p.oneOf(l.State, []string{stream.StateFed, stream.StateIdle, stream.StateDegraded, stream.StateTrouble, stream.StateGone},
				"state", "stream", l.Stream)
		}
	}
}

// each adds a sample for each stream with a label.
func (p *page) each(s *stream.HubStats, value func(*stream.LabelledStats) float64) {
	for i := range s.ByName {
		p.value(value(&s.ByName[i]), "stream", s.ByName[i].Stream)
	}
}

func (p *page) events(s Stats) {
	if e := s.Events; e != nil {
		p.one("clip_events", gauge, "Events that are kept.", float64(e.Events))
		p.one("clip_events_bytes", gauge, "Bytes of the events that are kept.", float64(e.Bytes))
		p.one("clip_events_lost", gauge, "1 while events cannot be kept.", truth(e.Lost != ""))
	}
	n := s.Notify
	if n == nil || len(n.Webhooks) == 0 && n.MQTT == nil {
		return
	}
	p.family("clip_notifications_total", counter, "Events by target (webhooks by their number) and by what became of them.")
	queued := map[string]int{}
	for i, w := range n.Webhooks {
		target := fmt.Sprintf("webhook%d", i)
		queued[target] = w.Queued
		p.value(float64(w.Delivered), "target", target, "outcome", "delivered")
		p.value(float64(w.Failed), "target", target, "outcome", "failed")
		p.value(float64(w.Dropped), "target", target, "outcome", "dropped")
		p.value(float64(w.Cooldown), "target", target, "outcome", "cooldown")
	}
	if m := n.MQTT; m != nil {
		queued["mqtt"] = m.Queued
		p.value(float64(m.Delivered), "target", "mqtt", "outcome", "delivered")
		p.value(float64(m.Failed), "target", "mqtt", "outcome", "failed")
		p.value(float64(m.Dropped), "target", "mqtt", "outcome", "dropped")
	}
	p.family("clip_notifications_queued", gauge, "Events that wait to be sent to a target.")
	for _, target := range slices.Sorted(maps.Keys(queued)) {
		p.value(float64(queued[target]), "target", target)
	}
	if n.MQTT != nil {
		p.one("clip_mqtt_connected", gauge, "Whether the broker is connected.", truth(n.MQTT.Connected))
		p.one("clip_mqtt_connections_total", counter, "Connections made to the broker.", float64(n.MQTT.Connections))
	}
}

func (p *page) device(n *clip.NPUStats) {
	p.one("clip_device_ready", gauge, "Whether the device can encode.", truth(n.Ready))
	p.one("clip_device_restarts_total", counter, "Times that the process holding the device was lost and started again.", float64(n.Restarts))
	p.one("clip_device_images_per_second", gauge, "Images a second while images were in flight, in the last window; 0: not known yet.", n.ImagesPerSec)
	if n.BaselineRate > 0 {
		p.one("clip_device_baseline_images_per_second", gauge, "Images a second that are published for the model on this device, in runs of eight.", n.BaselineRate)
	}
	p.one("clip_device_busy_seconds_total", counter, "Time in which images were in flight: its rate is the utilisation.", n.ImageBusy)
	p.one("clip_device_runs_total", counter, "Runs for images.", n.ImageRuns)
	p.one("clip_device_in_flight", gauge, "Images and texts that the device has.", float64(n.InFlight))
	p.one("clip_device_held_runs_total", counter, "Runs that were held back while the device was free, so that callers who come back share them.", float64(n.HeldRuns))
	p.one("clip_device_hold_seconds_total", counter, "Time for which runs were held back, see clip_device_held_runs_total.", n.HoldSeconds)
	p.family("clip_device_temperature_celsius", gauge, "Temperatures of the chip.")
	for i, t := range n.Temperature {
		p.value(known(t), "sensor", fmt.Sprint(i))
	}
	p.family("clip_device_utilization_ratio", gauge, "Load of the parts of the chip as it reports it, 0 to 1.")
	p.value(known(n.NNCore), "unit", "nn_core")
	p.value(known(n.CPU), "unit", "cpu")
	if n.MemoryBytes > 0 {
		p.one("clip_device_memory_bytes", gauge, "Memory of the chip.", float64(n.MemoryBytes))
		p.one("clip_device_memory_used_bytes", gauge, "Memory of the chip that is in use.", float64(n.MemoryUsed))
	}
	p.one("clip_device_throttling", gauge, "How far the chip is slowed down because of its temperature: 0 not at all, 5 stopped, 6 overheated.", float64(n.Throttling))
	p.one("clip_device_temperature_zone", gauge, "Temperature zone of the chip: 0 green, 1 orange, 2 red.", float64(n.Zone))
	p.one("clip_device_overcurrent", gauge, "Whether the chip reports overcurrent.", truth(n.Overcurrent))
	if w := n.Worker; w != nil {
		p.one("clip_worker_cpu_seconds_total", counter, "CPU time of the process that holds the device; begins anew with it.", w.CPUSeconds)
		p.one("clip_worker_resident_memory_bytes", gauge, "Resident memory of the process that holds the device.", float64(w.RSSBytes))
	}
}

// known returns *v, or NaN, which is not written, where the device does not report the value.
func known(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

func (p *page) server(s ServerStats) {
	p.one("clip_connections", gauge, "Open connections.", float64(s.Connections.Open))
	p.one("clip_connections_limit", gauge, "Connections that may be open (server.max_connections).", float64(s.Connections.Limit))
	p.one("clip_connections_accepted_total", counter, "Connections that were accepted.", float64(s.Connections.Accepted))
	p.one("clip_connections_refused_total", counter, "Connections that there was no room for.", float64(s.Connections.Refused))
	p.one("clip_connections_evicted_total", counter, "Idle and slow connections that made room for others.", float64(s.Connections.Evicted))
	p.one("clip_body_memory_bytes", gauge, "Memory that bodies and frames are received into.", float64(s.BodyMemory.Bytes))
	p.one("clip_body_memory_limit_bytes", gauge, "Memory for bodies and frames (server.max_body_memory_bytes); requests beyond that get 429.", float64(s.BodyMemory.Limit))
	p.one("clip_log_lines_dropped_total", counter, "Lines of the log that nobody read in time, or that could not be written.", float64(s.Log.Dropped))
	p.one("clip_log_requests_unlogged_total", counter, "Requests without a line in the log, see logging.requests.", float64(s.Log.Unlogged))
}
