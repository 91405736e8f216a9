package report

import (
	"bytes"
	"math"
	"slices"
	"strconv"
)

// Kinds of numbers, for their units.
const (
	kindCount = iota // a plain number
	kindTime         // milliseconds
	kindShare        // 0..1
	kindBytes
)

// metric is a number of a step by the name that it has in conditions, CSV and comparisons.
type metric struct {
	name   string
	kind   int
	higher bool                // is better
	value  func(*Step) float64 // NaN: not known
}

// metrics are all of them, in the order of reports.
var metrics = []metric{
	{"rate", kindCount, true, func(s *Step) float64 { return s.Rate }},
	{"requests", kindCount, true, func(s *Step) float64 { return float64(s.Requests) }},
	{"errors", kindCount, false, func(s *Step) float64 { return float64(s.Failed()) }},
	{"error_ratio", kindShare, false, func(s *Step) float64 { return float64(s.Failed()) / knownIf(s.Requests > 0, float64(s.Requests)) }},
	{"mean", kindTime, false, latency(func(l *Latency) float64 { return l.Mean })},
	{"p50", kindTime, false, latency(func(l *Latency) float64 { return l.P50 })},
	{"p90", kindTime, false, latency(func(l *Latency) float64 { return l.P90 })},
	{"p99", kindTime, false, latency(func(l *Latency) float64 { return l.P99 })},
	{"p99.9", kindTime, false, latency(func(l *Latency) float64 { return l.P999 })},
	{"max", kindTime, false, latency(func(l *Latency) float64 { return l.Max })},
	{"cpu", kindTime, false, service(func(u *ServiceUse) float64 { return positive(u.CPU) })},
	{"cores", kindCount, false, service(func(u *ServiceUse) float64 { return positive(u.Cores) })},
	{"gc", kindShare, false, service(func(u *ServiceUse) float64 { return knownIf(u.Cores != 0, u.GC) })},
	{"rss", kindBytes, false, service(func(u *ServiceUse) float64 { return positive(u.RSS) })},
	{"heap", kindBytes, false, service(func(u *ServiceUse) float64 { return positive(u.Heap) })},
	{"allocated", kindBytes, false, service(func(u *ServiceUse) float64 { return positive(u.Allocated) })},
	{"mallocs", kindCount, false, service(func(u *ServiceUse) float64 { return positive(u.Mallocs) })},
	{"batch", kindCount, true, service(func(u *ServiceUse) float64 { return positive(u.Batch) })},
	{"device", kindTime, false, service(func(u *ServiceUse) float64 { return positive(u.Device) })},
	{"cache_hits", kindShare, true, service(func(u *ServiceUse) float64 {
		if u.CacheHits == nil {
			return math.NaN()
		}
		return *u.CacheHits
	})},
	{"lag_p50", kindTime, false, streams(func(u *StreamUse) float64 { return knownIf(u.Lag.Max > 0, u.Lag.P50) })},
	{"lag_p99", kindTime, false, streams(func(u *StreamUse) float64 { return knownIf(u.Lag.Max > 0, u.Lag.P99) })},
	{"lag_max", kindTime, false, streams(func(u *StreamUse) float64 { return knownIf(u.Lag.Max > 0, u.Lag.Max) })},
	{"share_min", kindShare, true, streams(func(u *StreamUse) float64 { return knownIf(u.ShareMax > 0, u.ShareMin) })},
	{"share_max", kindShare, false, streams(func(u *StreamUse) float64 { return positive(u.ShareMax) })},
	{"reused", kindShare, true, streams(func(u *StreamUse) float64 { return u.Reused })},
	{"memory_growth", kindShare, false, streams(func(u *StreamUse) float64 { g, known := u.growth(); return knownIf(known, g) })},
	{"client_cpu", kindTime, false, func(s *Step) float64 { return s.ClientCPU }},
	{"lag", kindTime, false, func(s *Step) float64 { return knownIf(s.Offered > 0 || s.Streams != nil && s.Streams.FPS > 0, s.Lag) }},
}

func knownIf(known bool, v float64) float64 {
	if known {
		return v
	}
	return math.NaN()
}

// latency is not known without a good answer.
func latency(f func(*Latency) float64) func(*Step) float64 {
	return func(s *Step) float64 { return knownIf(s.Latency.Max > 0, f(&s.Latency)) }
}

// service is not known where the service does not tell.
func service(f func(*ServiceUse) float64) func(*Step) float64 {
	return func(s *Step) float64 {
		if s.Service == nil {
			return math.NaN()
		}
		return f(s.Service)
	}
}

// streams is not known where there were requests.
func streams(f func(*StreamUse) float64) func(*Step) float64 {
	return func(s *Step) float64 {
		if s.Streams == nil {
			return math.NaN()
		}
		return f(s.Streams)
	}
}

// positive is for what is not known where it is 0.
func positive(v float64) float64 { return knownIf(v > 0, v) }

// metricNamed returns nil where there is none.
func metricNamed(name string) *metric {
	if i := slices.Index(MetricNames(), name); i >= 0 {
		return &metrics[i]
	}
	return nil
}

// MetricNames are the names that conditions know.
func MetricNames() []string {
	names := make([]string, len(metrics))
	for i, m := range metrics {
		names[i] = m.name
	}
	return names
}

// of is the metric of a step for people, with its unit; "-" where it is not known.
func (m *metric) of(s *Step) string {
	v := m.value(s)
	switch {
	case math.IsNaN(v):
		return "-"
	case m.kind == kindTime:
		return ms(v)
	case m.kind == kindShare:
		return significant(100*v) + " %"
	case m.kind == kindBytes && v < 1e6:
		return significant(v/1e3) + " kB"
	case m.kind == kindBytes:
		return significant(v/1e6) + " MB"
	}
	return significant(v)
}

func ms(v float64) string { return significant(v) + " ms" }

// significant has three digits that mean something, and never an exponent.
func significant(v float64) string {
	digits := 0
	for limit := 100.0; digits < 3 && v < limit && v != 0; limit /= 10 {
		digits++
	}
	b := strconv.AppendFloat(nil, v, 'f', digits, 64)
	if bytes.ContainsRune(b, '.') {
		b = bytes.TrimRight(bytes.TrimRight(b, "0"), ".")
	}
	return string(b)
}
