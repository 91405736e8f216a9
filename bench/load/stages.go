package load

import (
	"bytes"
	"math"
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

func (s *stageTimes) add(timing []byte, latency time.Duration) {
	s.n++
	s.total += latency
	eachMetric(timing, s.addTime)
}

func (s *stageTimes) addTime(name []byte, d time.Duration) {
	if t := s.get(name); t != nil {
		t.total += d
		observe(t.times, d)
	}
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

// get returns the stage, a new one while there is room.
func (s *stageTimes) get(name []byte) *stageTime {
	i := slices.IndexFunc(s.stages, func(t *stageTime) bool { return t.name == string(name) })
	if i >= 0 {
		return s.stages[i]
	}
	if len(s.stages) == maxStages {
		return nil
	}
	t := &stageTime{name: string(name), times: newHistogram(2)}
	s.stages = append(s.stages, t)
	return t
}

func (s *stageTimes) merge(o *stageTimes) {
	s.n += o.n
	s.total += o.total
	for _, from := range o.stages {
		if t := s.get([]byte(from.name)); t != nil {
			t.total += from.total
			t.times.Merge(from.times)
		}
	}
}

// eachMetric reads a Server-Timing header (W3C Server Timing: name;dur=milliseconds;desc=..., ...)
// and skips what has no duration. It calls do with a name of letters, digits, "-", "_" and ".".
func eachMetric(header []byte, do func(name []byte, d time.Duration)) {
	for metric := range bytes.SplitSeq(header, []byte{','}) {
		name, parameters, _ := bytes.Cut(metric, []byte{';'})
		name = bytes.TrimSpace(name)
		if len(name) == 0 || len(name) > maxStageName || bytes.ContainsFunc(name, notInName) {
			continue
		}
		for parameter := range bytes.SplitSeq(parameters, []byte{';'}) {
			value, ok := bytes.CutPrefix(bytes.TrimSpace(parameter), []byte("dur="))
			if !ok {
				continue
			}
			if ms, err := strconv.ParseFloat(string(value), 64); err == nil && ms >= 0 && ms < 1e7 && !math.IsNaN(ms) {
				do(name, time.Duration(ms*float64(time.Millisecond)))
			}
			break
		}
	}
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}
