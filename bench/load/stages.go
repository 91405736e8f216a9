package load

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"hailoclip/bench/report"
)

// maxStages and maxStageName bound what a service can make us remember.
const (
	maxStages    = 32
	maxStageName = 40
)

// stageTimes are the times of sampled answers in each stage, in the order of the service.
type stageTimes struct {
	stages []*stageTime
	n      int64         // answers
	total  time.Duration // their latency
}

type stageTime struct {
	name  string
	total time.Duration
	times *hdrhistogram.Histogram
}

// serverTiming finds name and duration of each metric in the header (W3C Server Timing: name;dur=milliseconds;desc=..., ...).
var serverTiming = regexp.MustCompile(fmt.Sprintf(`(?:^|,)\s*([A-Za-z0-9_.-]{1,%d})\s*(?:;[^,]*?)?;\s*dur=([^;,]*)`, maxStageName))

// add reads a Server-Timing header and skips what has no duration.
func (s *stageTimes) add(header []byte, latency time.Duration) {
	s.n++
	s.total += latency
	for _, m := range serverTiming.FindAllSubmatch(header, -1) {
		if ms, err := strconv.ParseFloat(string(m[2]), 64); err == nil && ms >= 0 && ms < 1e7 {
			s.addTime(string(m[1]), time.Duration(ms*float64(time.Millisecond)))
		}
	}
}

// addTime makes a new stage while there is room.
func (s *stageTimes) addTime(name string, d time.Duration) {
	i := slices.IndexFunc(s.stages, func(t *stageTime) bool { return t.name == name })
	if i < 0 && len(s.stages) == maxStages {
		return
	}
	if i < 0 {
		i = len(s.stages)
		s.stages = append(s.stages, &stageTime{name: name, times: newHistogram(2)})
	}
	s.stages[i].total += d
	observe(s.stages[i].times, d)
}

// latencies sums up the stages.
func (s *stageTimes) latencies() []report.StageLatency {
	var list []report.StageLatency
	for _, t := range s.stages {
		list = append(list, report.StageLatency{Stage: t.name, Mean: ms(t.total.Microseconds()) / float64(s.n),
			P50: ms(t.times.ValueAtQuantile(50)), P99: ms(t.times.ValueAtQuantile(99))})
	}
	return list
}

// outside is the mean latency less all stages, in milliseconds.
func (s *stageTimes) outside() float64 {
	rest := s.total
	for _, t := range s.stages {
		rest -= t.total
	}
	return max(0, ms(rest.Microseconds())/float64(s.n))
}
