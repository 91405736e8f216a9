package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// sampleReport is a sweep with all that a report can have.
func sampleReport(rate float64) *Report {
	r := &Report{Format: Format, Program: "v1", Command: []string{"bench", "-c", "<1>"}, Started: time.Unix(0, 0).UTC(), Goal: "p99<=50ms",
		Machine: Machine{CPU: "Cortex-A76", Cores: 4}, Services: []string{"http://a.example: hailo-clip & co"}, Request: "POST /v1/classify"}
	hits, yes, no := 1.0, true, false
	for i, clients := range []int{1, 8, 64} {
		scale := float64(i + 1)
		s := &Step{Load: map[int]string{1: "1 client", 8: "8 clients", 64: "64 clients"}[clients], Clients: clients, Seconds: 10, Requests: 1000, Errors: map[string]int64{}, Rate: rate * scale,
			Latency:      Latency{Mean: 20 * scale, P50: 20 * scale, P90: 22 * scale, P99: 24 * scale, P999: 25 * scale, Max: 30 * scale},
			Distribution: [][2]float64{{10 * scale, 0}, {20 * scale, 0.5}, {24 * scale, 0.99}, {30 * scale, 1}}, Met: &yes,
			Stages:  []StageLatency{{"queue", 1, 1, 2}, {"decode", 2, 2, 3}, {"encode-wait", 3, 3, 4}, {"encode", 10 * scale, 10, 20}},
			Outside: 1, Service: &ServiceUse{CPU: 1.8, Cores: .5, GC: .01, RSS: 5e7, Heap: 1e7, Allocated: 3000, Mallocs: 20,
				Batches: []uint64{0, 1, 0, 3}, Batch: 2.5, CacheHits: &hits}}
		for n := range 10 {
			s.Timeline = append(s.Timeline, Moment{At: 20*scale + float64(n), Rate: rate, P50: 20, P99: 24})
		}
		r.Steps = append(r.Steps, s)
	}
	r.Steps[2].Errors["429"], r.Steps[2].Met = 100, &no
	r.Finish()
	return r
}

func TestBest(t *testing.T) {
	r := sampleReport(100)
	if r.Best != "8 clients" || r.Main() != r.Steps[1] {
		t.Errorf("best %q, main %q", r.Best, r.Main().Load)
	}
	one := func(text string) Goal { g, _ := ParseGoal(text); return g }
	if err := r.Assert(one("p99<50ms,error_ratio<1")); err == nil || err.Error() != "p99<50ms does not hold: p99 is 72 ms at 64 clients" {
		t.Errorf("error %v", err)
	}
	r.Searched = "clients" // only the best one counts
	if err := r.Assert(one("p99<50ms")); err != nil {
		t.Error(err)
	}
	r.Best = ""
	if err := r.Assert(nil); err == nil {
		t.Error("a search that found nothing is good")
	}
}

func TestJSONAndCSV(t *testing.T) {
	r := sampleReport(100)
	var file bytes.Buffer
	if err := r.WriteJSON(&file); err != nil {
		t.Fatal(err)
	}
	again, err := Read(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := errors.Join(r.WriteCSV(&a), again.WriteCSV(&b)); err != nil || a.String() != b.String() {
		t.Errorf("%v\n%s\n%s", err, &a, &b)
	}
	rows, err := csv.NewReader(&a).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%v, %d lines", err, len(rows))
	}
	for name, want := range map[string]string{"load": "64 clients", "rate": "300", "errors": "100", "p99": "72", "rss": "50000000", "lag": "",
		"error:429": "100", "stage:encode:mean": "30", "stage:decode:p99": "3", "stage:queue:p50": "1", "outside": "1", "batch:1": "1", "batch:3": "3"} {
		if got := rows[3][slices.Index(rows[0], name)]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, text := range []string{"", "{}", "[]", `{"format":1}`, `{"format":2,"steps":[{}]}`, `{"format":1,"steps":[null]}`} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q is a report", text)
		}
	}
}

func TestCompare(t *testing.T) {
	a, b := sampleReport(100), sampleReport(150)
	b.Steps = b.Steps[1:]
	b.Steps[0].Service.CPU = 3.6
	compare := func(want []string, not ...string) {
		t.Helper()
		var out strings.Builder
		err := Compare(&out, a, b)
		got := "\n" + regexp.MustCompile(" +").ReplaceAllString(out.String(), " ")
		if (err == nil) != (want != nil) || slices.ContainsFunc(not, func(s string) bool { return strings.Contains(got, s) }) {
			t.Errorf("error %v, or one of %q in %s", err, not, got)
		}
		for _, s := range want {
			if !strings.Contains(got, "\n"+s) {
				t.Errorf("no %q in %s", s, got)
			}
		}
	}
	compare([]string{"8 clients a b b/a\n", "rate 200 300 1.500 better\n", "p99 48 ms 48 ms 1.000\n", "cpu 1.8 ms 3.6 ms 2.000 worse\n",
		"errors 0 0 -\n", "64 clients a b b/a\n"}, "best of", "different", "1 client ")
	a.Searched, b.Searched, b.Steps[0].Load = "clients", "clients", "9 clients"
	compare([]string{"best of clients: 8 clients and 9 clients"})
	a.Searched, b.Searched, b.Steps[0].Load, b.Machine.Cores = "", "", "8 clients", 2
	compare([]string{"These are different machines"})
	b.Steps[0].Load, b.Steps[1].Load = "9 clients", "10 clients"
	compare(nil)
}

func TestVerdict(t *testing.T) {
	step := func(requests, failed int64) *Step {
		return &Step{Requests: requests, Errors: map[string]int64{"429": failed}}
	}
	for _, c := range []struct {
		metric string
		a, b   *Step
		want   string
	}{
		{"errors", step(1000, 0), step(1000, 500), "worse"},
		{"error_ratio", step(1000, 0), step(1000, 500), "worse"},
		{"errors", step(1000, 500), step(1000, 0), "better"},
		{"errors", step(1000, 10), step(2000, 20), ""}, // a longer run
		{"requests", step(1000, 0), step(2000, 0), ""}, // likewise
		{"errors", step(0, 0), step(1000, 1), ""},
		{"rate", &Step{Rate: 100}, &Step{Rate: 101}, ""},
		{"rate", &Step{Rate: 100}, &Step{Rate: 110}, "better"},
		{"rate", &Step{Rate: 100}, &Step{}, "worse"},
	} {
		if got := metricNamed(c.metric).verdict(c.a, c.b); got != c.want {
			t.Errorf("%s of %+v and %+v: %q, want %q", c.metric, c.a, c.b, got, c.want)
		}
	}
}

var (
	scripts    = regexp.MustCompile(`(?s)<script([^>]*)>(.*?)</script>`)
	suspicious = regexp.MustCompile(`(?i)<(script|link|img|iframe)|src=|href=|@import|url\(|NaN|\bInf|Zgotmpl`)
	fetches    = regexp.MustCompile(`@import|url\(|\bimport\b|\bfetch\b|XMLHttpRequest|WebSocket|EventSource|sendBeacon`)
)

// wellFormed reads the page as XML, looks for whatever would be fetched, and returns its figures.
func wellFormed(t *testing.T, page string) (figures []figure) {
	t.Helper()
	if !strings.Contains(page, `content="default-src &#39;none&#39;`) && !strings.Contains(page, `content="default-src 'none'`) {
		t.Error("the browser may fetch something")
	}
	for _, script := range scripts.FindAllStringSubmatch(page, -1) {
		if strings.Contains(script[1], "src") || fetches.MatchString(script[2]) {
			t.Errorf("a script fetches %q: <script%s>", fetches.FindString(script[2]), script[1])
		}
		if strings.Contains(script[1], "json") {
			if err := json.Unmarshal([]byte(script[2]), &figures); err != nil {
				t.Error(err)
			}
		}
	}
	rest := scripts.ReplaceAllString(page, "")
	if bad := suspicious.FindString(rest); bad != "" {
		t.Errorf("there is %q in the page", bad)
	}
	for d := xml.NewDecoder(strings.NewReader(rest)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return figures
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPage(t *testing.T) {
	sweep, sides := sampleReport(100), sampleReport(100)
	sides.Services = append(sides.Services, "B")
	sides.Steps = sides.Steps[:2]
	sides.Steps[0].Target, sides.Steps[1].Target, sides.Steps[1].Load = "A", "B", sides.Steps[0].Load
	silent := &Report{Steps: []*Step{{Load: "5/s", Offered: 5, Requests: 10, Errors: map[string]int64{"refused": 10}, Distribution: [][2]float64{},
		Timeline: []Moment{{At: 1, Bad: 5}}}}}
	many := sampleReport(100)
	for i := range 40 {
		s := *many.Steps[i%3]
		s.Clients, s.Offered, s.Load = 0, 10+i, fmt.Sprintf("%d/s", 10+i)
		many.Steps = append(many.Steps, &s)
	}
	for name, r := range map[string]*Report{"sweep": sweep, "two services": sides, "nobody answered": silent, "many steps": many} {
		t.Run(name, func(t *testing.T) {
			var page strings.Builder
			if err := r.WriteHTML(&page); err != nil {
				t.Fatal(err)
			}
			if n := len(wellFormed(t, page.String())); n < 3 {
				t.Errorf("%d figures", n)
			}
			for _, title := range []string{"Latency distribution", "Rate over time", "Latency over time", "All numbers"} {
				if !strings.Contains(page.String(), title) {
					t.Errorf("no %q", title)
				}
			}
			if text := page.String(); r == sides && (!strings.Contains(text, "A: http://a.example") || !strings.Contains(text, "A and B at")) {
				t.Error("does not say what A and B are, or has no ratios")
			}
			if r != silent && !strings.Contains(page.String(), "Where the time goes") {
				t.Error("no stages")
			}
			if keep := os.Getenv("HAILO_TEST_BENCH_PAGES"); keep != "" { // to look at them
				_ = os.WriteFile(filepath.Join(keep, strings.ReplaceAll(name, " ", "_")+".html"), []byte(page.String()), 0o600)
			}
			r.WriteTable(io.Discard)
		})
	}
}

func TestSignificant(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.01234: "0.012", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 99.96: "100", 5: "5", 1234567: "1234567", 1.5e-9: "0"} {
		if got := significant(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"format":1,"steps":[{}]}`))
	f.Add([]byte(`{"format":1,"steps":[{"load":"8 clients","rate":5,"errors":{"429":1},"latency_ms":{"p99":2,"max":3},"service":{"cpu_ms":1}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		_ = Compare(io.Discard, r, sampleReport(1))
		_ = Compare(io.Discard, r, r) // a report without a first service has nothing to compare
	})
}
