package bench

import "slices"

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
	higher bool // is better
	value  func(*Step) (float64, bool)
}

// metrics are all of them, in the order of reports.
var metrics = []metric{
	{"rate", kindCount, true, always(func(s *Step) float64 { return s.Rate })},
	{"requests", kindCount, true, always(func(s *Step) float64 { return float64(s.Requests) })},
	{"errors", kindCount, false, always(func(s *Step) float64 { return float64(s.failed()) })},
	{"error_ratio", kindShare, false, func(s *Step) (float64, bool) {
		return float64(s.failed()) / float64(max(s.Requests, 1)), s.Requests > 0
	}},
	{"mean", kindTime, false, latency(func(l Latency) float64 { return l.Mean })},
	{"p50", kindTime, false, latency(func(l Latency) float64 { return l.P50 })},
	{"p90", kindTime, false, latency(func(l Latency) float64 { return l.P90 })},
	{"p99", kindTime, false, latency(func(l Latency) float64 { return l.P99 })},
	{"p99.9", kindTime, false, latency(func(l Latency) float64 { return l.P999 })},
	{"max", kindTime, false, latency(func(l Latency) float64 { return l.Max })},
	{"cpu", kindTime, false, service(func(u *ServiceUse) float64 { return u.CPU })},
	{"cores", kindCount, false, service(func(u *ServiceUse) float64 { return u.Cores })},
	{"gc", kindShare, false, func(s *Step) (float64, bool) {
		if s.Service == nil || s.Service.Cores == 0 {
			return 0, false
		}
		return s.Service.GC, true
	}},
	{"rss", kindBytes, false, service(func(u *ServiceUse) float64 { return u.RSS })},
	{"heap", kindBytes, false, service(func(u *ServiceUse) float64 { return u.Heap })},
	{"allocated", kindBytes, false, service(func(u *ServiceUse) float64 { return u.Allocated })},
	{"mallocs", kindCount, false, service(func(u *ServiceUse) float64 { return u.Mallocs })},
	{"batch", kindCount, true, service(func(u *ServiceUse) float64 { return u.Batch })},
	{"device", kindTime, false, service(func(u *ServiceUse) float64 { return u.Device })},
	{"cache_hits", kindShare, true, func(s *Step) (float64, bool) {
		if s.Service == nil || s.Service.CacheHits == nil {
			return 0, false
		}
		return *s.Service.CacheHits, true
	}},
	{"client_cpu", kindTime, false, always(func(s *Step) float64 { return s.ClientCPU })},
	{"lag", kindTime, false, func(s *Step) (float64, bool) { return s.Lag, s.Offered > 0 }},
}

func always(f func(*Step) float64) func(*Step) (float64, bool) {
	return func(s *Step) (float64, bool) { return f(s), true }
}

// latency is not known without a good answer.
func latency(f func(Latency) float64) func(*Step) (float64, bool) {
	return func(s *Step) (float64, bool) { return f(s.Latency), s.Latency.Max > 0 }
}

// service is not known where the service does not tell, which is 0: none of these can be.
func service(f func(*ServiceUse) float64) func(*Step) (float64, bool) {
	return func(s *Step) (float64, bool) {
		if s.Service == nil {
			return 0, false
		}
		v := f(s.Service)
		return v, v > 0
	}
}

func metricNamed(name string) (metric, bool) {
	i := slices.IndexFunc(metrics, func(m metric) bool { return m.name == name })
	if i < 0 {
		return metric{}, false
	}
	return metrics[i], true
}

// MetricNames are the names that conditions know.
func MetricNames() []string {
	names := make([]string, len(metrics))
	for i, m := range metrics {
		names[i] = m.name
	}
	return names
}
