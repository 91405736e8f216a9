package bench

import (
	"encoding/json"
	"time"

	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// maxStats bounds the answer of /v1/stats.
const maxStats = 1 << 20

// snapshot is what a service says of itself. Sections that it does not have are zero.
type snapshot struct {
	at time.Time
	clip.Stats
}

// snapshot returns nil where the service has no /v1/stats: it is another program.
func (t *Target) snapshot() *snapshot {
	status, body, err := t.get("/v1/stats", maxStats)
	s := &snapshot{at: time.Now()}
	if err != nil || status != 200 || json.Unmarshal(body, &s.Stats) != nil {
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

	runs, busy float64 // of the device, and seconds in which it had images; 0: it does not tell

	batches []uint64 // runs of the device, or else calls of the encoder, by their number of images; nil: not known

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
	if b, a := before.Process, after.Process; b != (clip.ProcessStats{}) && a != (clip.ProcessStats{}) {
		if a.CPUSeconds < b.CPUSeconds || a.Mallocs < b.Mallocs {
			return nil
		}
		u.process = true
		u.cpu, u.gc = a.CPUSeconds-b.CPUSeconds, a.GCCPUSeconds-b.GCCPUSeconds
		u.allocated, u.mallocs = float64(a.AllocatedBytes)-float64(b.AllocatedBytes), float64(a.Mallocs-b.Mallocs)
		u.rss, u.heap = float64(a.RSSBytes), float64(a.HeapBytes)
	}
	u.addDevice(before, after)
	u.batches = batches(before, after)
	b, a := before.Cache, after.Cache
	u.listHits = float64(a.ListHits - b.ListHits)
	u.promptHits = float64(a.MemoryHits - b.MemoryHits + a.DiskHits - b.DiskHits)
	u.encoded = float64(a.Encoded - b.Encoded + a.Shared - b.Shared + a.Failed - b.Failed)
	return u
}

func (u *serviceUse) addDevice(before, after *snapshot) {
	b, a := before.NPU, after.NPU
	if b == nil || a == nil {
		return
	}
	u.runs, u.busy = max(0, a.ImageRuns-b.ImageRuns), max(0, a.ImageBusy-b.ImageBusy)
	if w := a.Worker; w != nil {
		u.cpu += w.CPUSeconds
		u.rss += float64(w.RSSBytes)
		if v := b.Worker; v != nil && v.PID == w.PID { // else it was started in between
			u.cpu -= min(v.CPUSeconds, w.CPUSeconds)
		}
	}
}

// encodeStage is the stage of the pipeline that works in batches.
const encodeStage = "encode"

// batches counts runs by their number of images: those of the device where it tells, because the
// encoder hands it single images, else the calls of the encoder.
func batches(before, after *snapshot) []uint64 {
	if before.NPU != nil && after.NPU != nil {
		images := differences(before.NPU.ImageBatches, after.NPU.ImageBatches)
		for n, count := range images {
			images[n] = (count + uint64(n)/2) / max(uint64(n), 1)
		}
		if most(images) > 0 {
			return images[:min(most(images)+1, maxBatches)]
		}
	}
	find := func(stages []pipeline.StageStats) []uint64 {
		for _, s := range stages {
			if s.Stage == encodeStage {
				return s.Batches
			}
		}
		return nil
	}
	calls := differences(find(before.Stages), find(after.Stages))
	return calls[:min(len(calls), maxBatches)]
}

// maxBatches bounds what a service can make us plot.
const maxBatches = 257

// most is the last index with a count.
func most(counts []uint64) int {
	for n := len(counts) - 1; n > 0; n-- {
		if counts[n] > 0 {
			return n
		}
	}
	return 0
}

// differences is nil for lists of different lengths.
func differences(before, after []uint64) []uint64 {
	if len(before) != len(after) || len(after) == 0 {
		return nil
	}
	list := make([]uint64, len(after))
	for n := range list {
		if after[n] > before[n] {
			list[n] = after[n] - before[n]
		}
	}
	return list
}

// hitRatio is the share of prompts that needed no encoder, where requests have so many.
func (u *serviceUse) hitRatio(prompts int) (float64, bool) {
	hits := u.listHits*float64(prompts) + u.promptHits
	if hits+u.encoded <= 0 {
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
	sum.listHits, sum.promptHits, sum.encoded = u.listHits+o.listHits, u.promptHits+o.promptHits, u.encoded+o.encoded
	sum.runs, sum.busy = u.runs+o.runs, u.busy+o.busy
	sum.batches = make([]uint64, max(len(u.batches), len(o.batches)))
	for _, part := range [][]uint64{u.batches, o.batches} {
		for n, count := range part {
			sum.batches[n] += count
		}
	}
	return &sum
}
