package load

import (
	"math"
	"slices"
	"time"

	"hailoclip/bench/report"
	"hailoclip/stages/clip"
)

// snapshot is what a service says of itself, by any version. Sections that it does not have are zero.
type snapshot struct {
	at time.Time
	clip.Stats
}

// snapshot returns nil where the service has no /v1/stats: it is another program.
func (t *Target) snapshot() *snapshot {
	ctx, cancel := t.beside()
	defer cancel()
	s := new(snapshot)
	err := t.service.Stats(ctx, &s.Stats)
	if s.at = time.Now(); err != nil {
		return nil
	}
	return s
}

// What a service used up between two snapshots. The last three are those of the prompt cache.
const (
	useSeconds = iota // between the snapshots
	useCPU            // seconds, as the next ones
	useGC
	useAllocated // bytes
	useMallocs
	useRuns // of the device
	useBusy // seconds in which the device had images
	useListHits
	usePromptHits
	useEncoded // prompts that an encoder was asked for
	useCount
)

// serviceUse is what a service used up in one window or several.
type serviceUse struct {
	sums      [useCount]float64
	rss, heap float64  // at the end
	batches   []uint64 // runs of the device, or else calls of the encoder, by their number of images; nil: not known
}

// used is nil when either snapshot is missing, or the service started anew in between.
func used(before, after *snapshot) *serviceUse {
	if before == nil || after == nil {
		return nil
	}
	u := &serviceUse{batches: batches(before, after)}
	u.sums[useSeconds] = after.at.Sub(before.at).Seconds()
	p, q := before.Process, after.Process
	known := p != (clip.ProcessStats{}) && q != (clip.ProcessStats{})
	if known {
		if q.CPUSeconds < p.CPUSeconds || q.Mallocs < p.Mallocs {
			return nil
		}
		u.rss, u.heap = float64(q.RSSBytes), float64(q.HeapBytes)
		u.sums[useCPU], u.sums[useGC] = q.CPUSeconds-p.CPUSeconds, q.GCCPUSeconds-p.GCCPUSeconds
		u.sums[useAllocated], u.sums[useMallocs] = float64(q.AllocatedBytes-p.AllocatedBytes), float64(q.Mallocs-p.Mallocs)
	}
	if b, a := before.NPU, after.NPU; b != nil && a != nil {
		u.sums[useRuns], u.sums[useBusy] = max(0, a.ImageRuns-b.ImageRuns), max(0, a.ImageBusy-b.ImageBusy)
		if w := a.Worker; w != nil && known {
			u.rss += float64(w.RSSBytes)
			u.sums[useCPU] += w.CPUSeconds
			if v := b.Worker; v != nil && v.PID == w.PID { // else it was started in between
				u.sums[useCPU] -= min(v.CPUSeconds, w.CPUSeconds)
			}
		}
	}
	b, a := before.Cache, after.Cache
	u.sums[useListHits] = float64(a.ListHits - b.ListHits)
	u.sums[usePromptHits] = float64(a.MemoryHits - b.MemoryHits + a.DiskHits - b.DiskHits)
	u.sums[useEncoded] = float64(a.Encoded - b.Encoded + a.Shared - b.Shared + a.Failed - b.Failed)
	if slices.ContainsFunc(u.sums[:], func(v float64) bool { return math.Abs(v) > 1e18 }) {
		return nil // no service counts so far
	}
	return u
}

// plus adds a later window of the same service. Both are nil where the service does not tell.
func (u *serviceUse) plus(o *serviceUse) *serviceUse {
	if u == nil || o == nil {
		return nil
	}
	sum := *o // the last state of what is a state
	for i := range sum.sums {
		sum.sums[i] += u.sums[i]
	}
	sum.batches = make([]uint64, max(len(u.batches), len(o.batches)))
	for _, part := range [][]uint64{u.batches, o.batches} {
		for n, count := range part {
			sum.batches[n] += count
		}
	}
	return &sum
}

// each is what a good answer cost, where requests have so many prompts. The counters were read a
// little before and after the window of the answers, so their rates are compared.
func (u *serviceUse) each(good int64, seconds float64, prompts int) *report.ServiceUse {
	if u == nil || u.sums[useSeconds] <= 0 {
		return nil
	}
	of := func(a, b float64) float64 { // a/b, 0 where that is not known
		if b <= 0 {
			return 0
		}
		return a / b
	}
	sums, answers := &u.sums, float64(good)/seconds*u.sums[useSeconds]
	s := &report.ServiceUse{Batches: u.batches, RSS: u.rss, Heap: u.heap,
		Cores: sums[useCPU] / sums[useSeconds], GC: of(sums[useGC], sums[useCPU]), CPU: of(1000*sums[useCPU], answers),
		Allocated: of(sums[useAllocated], answers), Mallocs: of(sums[useMallocs], answers), Device: of(1000*sums[useBusy], sums[useRuns])}
	runs, images := 0.0, 0.0
	for n, count := range u.batches {
		runs += float64(count)
		images += float64(n) * float64(count)
	}
	s.Batch = of(images, runs)
	hits := sums[useListHits]*float64(prompts) + sums[usePromptHits]
	if all := hits + sums[useEncoded]; all > 0 {
		ratio := hits / all
		s.CacheHits = &ratio
	}
	return s
}

const (
	encodeStage = "encode" // the stage of the pipeline that works in batches
	maxBatches  = 257      // bounds what a service can make us plot
)

// batches counts runs by their number of images: those of the device where it tells, because the
// encoder hands it single images, else the calls of the encoder.
func batches(before, after *snapshot) []uint64 {
	if before.NPU != nil && after.NPU != nil {
		images, last := differences(before.NPU.ImageBatches, after.NPU.ImageBatches), 0
		for n := 1; n < len(images); n++ {
			if images[n] = (images[n] + uint64(n)/2) / uint64(n); images[n] > 0 {
				last = n
			}
		}
		if last > 0 {
			return images[:last+1]
		}
	}
	for _, b := range before.Stages {
		for _, a := range after.Stages {
			if a.Stage == encodeStage && b.Stage == encodeStage {
				return differences(b.Batches, a.Batches)
			}
		}
	}
	return nil
}

// differences is nil for lists of different lengths.
func differences(before, after []uint64) []uint64 {
	if len(before) != len(after) || len(after) == 0 {
		return nil
	}
	list := make([]uint64, min(len(after), maxBatches))
	for n := range list {
		if after[n] > before[n] {
			list[n] = after[n] - before[n]
		}
	}
	return list
}
