package report

import (
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	hits := 0.95
	s := Step{Rate: 318, Requests: 1000, Errors: map[string]int64{"429": 1}, Latency: Latency{P50: 20, P99: 50, P999: 60, Max: 70},
		Service: &ServiceUse{RSS: 64e6, CPU: 1.8, CacheHits: &hits}}
	for text, want := range map[string]bool{
		"p99<50ms": false, "p99<=50ms": true, "p99=50ms": true, "p99==50": true, "p99<0.051s": true, "p50 > 19999us": true, "p99.9<61": true,
		"rate>=318": true, "rate>318/s": false, "rate=318": true, "errors==0": false, "errors<=1": true, "error_ratio<0.2%": true,
		"rss<64MB": false, "rss<=64MB": true, "rss<62MiB": true, "cpu<=1.8ms": true, "cache_hits>=95%": true,
		"batch>=0": false, "lag<1h": false, // not measured
	} {
		c, err := ParseCondition(text)
		if text == "lag<1h" {
			if err == nil {
				t.Errorf("%s has no unit of ours", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.Holds(&s) != want {
			t.Errorf("%s holds: %v", text, !want)
		}
	}
	for text, says := range map[string]string{
		"": "there is no <", "p99": "there is no <", "p98<1ms": `"p98" is none of rate`, "p99<": "not a number", "p99<1MB": `"MB" is no unit`,
		"p99<NaN": "unit", "rss<5ms": `"ms" is no unit`, "p99!=3": `"p99!" is none`, "rate<1e999": "not a number", "<5": `"" is none`,
	} {
		if _, err := ParseCondition(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want one with %q", text, err, says)
		}
	}
}

// TestGoal judges steps by numbers and by errors. A step that proves nothing meets no goal and no assertion.
func TestGoal(t *testing.T) {
	step := func(p99 float64, failed int64) Step {
		return Step{Rate: 200, Requests: 1000, Errors: map[string]int64{"429": failed}, Latency: Latency{P99: p99, Max: p99}}
	}
	for _, c := range []struct {
		goal string
		step Step
		says string // "" if it is good
	}{
		{"p99=50ms, rate>=100", step(50, 1), ""},
		{"p99=50ms, rate>=100", step(50, 2), "2 of 1000 requests failed"},
		{"p99=50ms, rate>=100", step(51, 0), "p99=50ms does not hold: p99 is 51 ms"},
		{"p99=50ms,error_ratio<=50%", step(50, 500), ""},
		{"p99=50ms,error_ratio<=50%", step(50, 501), "error_ratio<=50% does not hold: error_ratio is 50.1 %"},
		{"p99<50ms,errors<3000", step(5, 900), ""},
		{"errors==0", Step{}, "no request"},
		{"errors==0", Step{Requests: 1}, ""},
	} {
		g, err := ParseGoal(c.goal)
		if err != nil || g.String() != strings.ReplaceAll(c.goal, " ", "") {
			t.Fatalf("%v, %v", g, err)
		}
		err = (&Report{Steps: []*Step{&c.step}}).Assert(g)
		if good := c.says == ""; g.Met(&c.step) != good || (err == nil) != good || !good && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: met %v, error %v, want one with %q", c.goal, g.Met(&c.step), err, c.says)
		}
	}
}

func FuzzCondition(f *testing.F) {
	for _, s := range []string{"p99<50ms", "rate>=318", "errors==0", "p99=5", "rss<64MiB", "<", "p99<<=1µs", "error_ratio<1%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCondition(text)
		if err != nil {
			return
		}
		again, err := ParseCondition(c.String())
		if err != nil || again.op != c.op || again.value != c.value || again.metric.name != c.metric.name {
			t.Errorf("%q is %+v, and its own text %+v, %v", text, c, again, err)
		}
		c.Holds(&Step{})
	})
}

func TestMachine(t *testing.T) {
	m := ThisMachine()
	if m.Cores < 1 || m.Memory < 1<<20 || m.Kernel == "" || m.CPU == "" {
		t.Errorf("%+v", m)
	}
	for want, text := range map[string]string{
		"Intel(R) Xeon(R)": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\n",
		"Cortex-A76":       "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5\n",
		"CPU part 0x123":   "CPU part : 0x123", "unknown CPU": "nonsense",
	} {
		if got := cpuName(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
