package bench

import (
	"encoding/json"
	"time"

	"hailoclip/cache"
	"hailoclip/pipeline"
)

// maxStats bounds the answer of /v1/stats.
const maxStats = 1 << 20

// snapshot is what a service says of itself, the counters of GET /v1/stats. Sections that it
// does not have are nil.
type snapshot struct {
	at      time.Time
	Stages  []pipeline.StageStats `json:"stages"`
	Cache   *cache.Stats          `json:"cache"`
	Process *struct {
		CPUSeconds     float64 `json:"cpu_seconds"`
		RSSBytes       float64 `json:"rss_bytes"`
		HeapBytes      float64 `json:"heap_bytes"`
		GCCPUSeconds   float64 `json:"gc_cpu_seconds"`
		AllocatedBytes float64 `json:"allocated_bytes"`
		Mallocs        float64 `json:"mallocs"`
	} `json:"process"`
	NPU *struct {
		Images    float64 `json:"images"`
		ImageRuns float64 `json:"image_runs"`
	} `json:"npu"`
}

// snapshot returns nil where the service has no /v1/stats: it is another program.
func (t *Target) snapshot() *snapshot {
	status, body, err := t.get("/v1/stats", maxStats)
	s := &snapshot{at: time.Now()}
	if err != nil || status != 200 || json.Unmarshal(body, s) != nil {
		return nil
	}
	return s
}

// serviceUse is what a service used up between two snapshots.
type serviceUse struct {
	seconds float64 // between them

	process                     bool // the next ones are known
	cpu, gc, allocated, mallocs float64
	rss, heap                   float64 // at the end

	batches      []uint64 // calls of the encoder by their number of images; nil: not known
	images, runs float64  // of the device; 0: it does not tell

	cached     bool    // the next ones are known
	listHits   float64 // requests whose prompts were known as a whole
	promptHits float64 // prompts of the other requests that were known
	encoded    float64 // prompts that an encoder was asked for
}

// used is nil when either snapshot is missing, or the service started anew in between.
func used(before, after *snapshot) *serviceUse {
	if before == nil || after == nil {
		return nil
	}
	u := &serviceUse{seconds: after.at.Sub(before.at).Seconds()}
	if b, a := before.Process, after.Process; b != nil && a != nil {
		if a.CPUSeconds < b.CPUSeconds || a.Mallocs < b.Mallocs {
			return nil
		}
		u.process = true
		u.cpu, u.gc = a.CPUSeconds-b.CPUSeconds, a.GCCPUSeconds-b.GCCPUSeconds
		u.allocated, u.mallocs = a.AllocatedBytes-b.AllocatedBytes, a.Mallocs-b.Mallocs
		u.rss, u.heap = a.RSSBytes, a.HeapBytes
	}
	u.batches = batches(before.Stages, after.Stages)
	if b, a := before.NPU, after.NPU; b != nil && a != nil {
		u.images, u.runs = a.Images-b.Images, a.ImageRuns-b.ImageRuns
	}
	if b, a := before.Cache, after.Cache; b != nil && a != nil {
		u.cached = true
		u.listHits = float64(a.ListHits - b.ListHits)
		u.promptHits = float64(a.MemoryHits - b.MemoryHits + a.DiskHits - b.DiskHits)
		u.encoded = float64(a.Encoded - b.Encoded + a.Shared - b.Shared + a.Failed - b.Failed)
	}
	return u
}

// encodeStage is the stage of the pipeline that works in batches.
const encodeStage = "encode"

func batches(before, after []pipeline.StageStats) []uint64 {
	find := func(stages []pipeline.StageStats) []uint64 {
		for _, s := range stages {
			if s.Stage == encodeStage {
				return s.Batches
			}
		}
		return nil
	}
	b, a := find(before), find(after)
	if len(a) == 0 || len(a) != len(b) {
		return nil
	}
	calls := make([]uint64, len(a))
	for n := range calls {
		if a[n] >= b[n] {
			calls[n] = a[n] - b[n]
		}
	}
	return calls
}

// hitRatio is the share of prompts that needed no encoder, where requests have so many.
func (u *serviceUse) hitRatio(prompts int) (float64, bool) {
	hits := u.listHits*float64(prompts) + u.promptHits
	if !u.cached || hits+u.encoded <= 0 {
		return 0, false
	}
	return hits / (hits + u.encoded), true
}

// plus adds a later window of the same service. Both are nil where the service does not tell.
func (u *serviceUse) plus(o *serviceUse) *serviceUse {
	if u == nil || o == nil {
		return nil
	}
	sum := *o // the last state of what is a state
	sum.seconds += u.seconds
	sum.cpu, sum.gc, sum.allocated, sum.mallocs = u.cpu+o.cpu, u.gc+o.gc, u.allocated+o.allocated, u.mallocs+o.mallocs
	sum.images, sum.runs = u.images+o.images, u.runs+o.runs
	sum.listHits, sum.promptHits, sum.encoded = u.listHits+o.listHits, u.promptHits+o.promptHits, u.encoded+o.encoded
	sum.batches = nil
	if len(u.batches) == len(o.batches) {
		for n := range o.batches {
			sum.batches = append(sum.batches, u.batches[n]+o.batches[n])
		}
	}
	return &sum
}
