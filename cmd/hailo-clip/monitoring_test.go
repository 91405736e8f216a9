package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"hailoclip/api/fleet/broker"
)

const monitoring = "../../configs/monitoring/"

// What a service on the simulated chip has no values of; TestEveryMetricIsDescribed in api/admin has them all.
var ofRealDevices = regexp.MustCompile(`^clip_(device_utilization_ratio|device_memory|worker_|mqtt_)`)

// What only a node of a fleet has, as that of TestMonitoring.
var ofFleets = regexp.MustCompile(`^clip_fleet_`)

// What does not move, or only where something is broken that is not broken here, or (held) when callers come back in time.
var unmoved = regexp.MustCompile(`^(.*_info|.*_limit|.*_limit_bytes|process_(start_time_seconds|max_fds)|clip_(ready|stage_workers|stage_stuck_workers|` +
	`device_baseline_images_per_second|device_held_runs_total|device_hold_seconds_total|device_overcurrent|text_cache_disk_state|prompt_sets_lost|prompt_set_texts_waiting|events_lost|` +
	`stream_events_unstored_total|streams_degraded|stream_lag_max_seconds|notifications_queued|connections_(refused|evicted)_total|log_lines_dropped_total))$`)

// watched is a service on the simulated chip whose metrics are read.
type watched struct {
	*running
	chip  chip
	admin string // URL of its metrics, without the path
	notes atomic.Int64
}

// serveWatched serves with much of what can be measured: a chip, one that stands in, small caches and queues, a webhook; and more
// settings.
func serveWatched(t *testing.T, more string) *watched {
	t.Helper()
	w := &watched{}
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { w.notes.Add(1) }))
	t.Cleanup(hook.Close)
	w.chip, w.running = serveSim(t, "sim:\n  vectors: model\n  arguments: CONTROL\nperformance:\n  max_queue_size: 2\ntext_embedding:\n"+
		"  cache_max_entries: 8\n  cache_list_bytes: 65536\nlogging:\n  requests: 10\nnotify:\n  webhooks: [{url: "+hook.URL+"}]\n"+more)
	w.admin = w.adminURL(t)
	return w
}

// scrape reads the metrics: the samples of each family, one a line.
func (w *watched) scrape(t testing.TB) (text string, families map[string]string) {
	t.Helper()
	response, err := http.Get(w.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := string(must(io.ReadAll(response.Body)))
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Fatalf("%s %s", response.Status, body)
	}
	families = map[string]string{}
	family := ""
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			family, _, _ = strings.Cut(rest, " ")
		} else if !strings.HasPrefix(line, "#") {
			families[family] += line
		}
	}
	return body, families
}

// loaded has clients of many kinds, until stop is called, which waits for them.
func (w *watched) loaded(t *testing.T) (stop func()) {
	t.Helper()
	definition := `{"prompts": ["a photo of a cat", "a photo of a pizza"], "policy": "queue", "events": {"min_frames": 1, "thumbnails": true}}`
	for path, body := range map[string]string{"/v1/streams/gate": definition, "/v1/prompt-sets/pets": `{"labels": [{"name": "cat"}, {"name": "dog"}]}`} {
		request := must(http.NewRequest(http.MethodPut, w.url+path, strings.NewReader(body)))
		request.Header.Set("Content-Type", "application/json")
		if a, err := read(http.DefaultClient.Do(request)); err != nil || a.status != http.StatusCreated {
			t.Fatalf("%s: %v %s", path, err, a.raw)
		}
	}
	stopping := make(chan struct{})
	var clients sync.WaitGroup
	every := func(pace time.Duration, do func(n int) error) {
		clients.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := 0; ; n++ {
				if err := do(n); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stopping:
					return
				case <-tick.C:
				}
			}
		})
	}
	cat := sample(t, "cat.jpg")
	for client := range 12 { // for a queue of two
		every(40*time.Millisecond, func(n int) error {
			_, err := w.post("/v1/classify", map[string]any{"image": cat, "prompts": []string{"a cat", fmt.Sprint("number ", n+client/2)}})
			return err
		})
	}
	every(50*time.Millisecond, func(n int) error {
		request := must(http.NewRequest(http.MethodPost, w.url+"/v1/embed/text", strings.NewReader(fmt.Sprintf(`{"text": "late %d"}`, n))))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Request-Timeout-Ms", "1")
		_, err := read(http.DefaultClient.Do(request))
		return err
	})
	every(100*time.Millisecond, func(int) error {
		_, err := read(http.Get(w.url + "/nowhere"))
		return err
	})
	// A camera that shows now a cat and now a pizza, and somebody who listens for the changes.
	images := [][]byte{must(os.ReadFile(samples + "cat.jpg")), must(os.ReadFile(samples + "pizza.jpg"))}
	from, to := io.Pipe()
	every(40*time.Millisecond, func(n int) error {
		_, err := to.Write(images[n/4%2])
		select {
		case <-stopping: // which closes the pipe, also while a write waits for its reader
			return nil
		default:
			return err
		}
	})
	clients.Go(func() {
		if a, err := read(http.Post(w.url+"/v1/streams/gate/frames", "image/jpeg", from)); err != nil || a.status != http.StatusOK {
			t.Errorf("pushed: %v %s", err, a.raw)
		}
		from.Close()
	})
	request := must(http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v1/streams/gate/events", nil))
	request.Header.Set("Accept", "text/event-stream")
	listening, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	clients.Go(func() { _, _ = io.Copy(io.Discard, listening.Body) })
	return sync.OnceFunc(func() {
		close(stopping)
		to.Close()
		listening.Body.Close()
		clients.Wait()
	})
}

// described are the metrics in the table of the README of configs/monitoring.
func described(t testing.TB) (names []string) {
	t.Helper()
	for line := range strings.Lines(string(must(os.ReadFile(monitoring + "README.md")))) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				names = append(names, m[1])
			}
		}
	}
	if len(names) < 80 {
		t.Fatalf("only %d metrics are described", len(names))
	}
	return names
}

// TestMetricsMove: every metric that is described is there under load, and moves, but for those that say what is fixed, or
// that something is broken.
func TestMetricsMove(t *testing.T) {
	t.Parallel()
	w := serveWatched(t, "")
	_, first := w.scrape(t)
	moved := map[string]bool{}
	look := func() {
		_, now := w.scrape(t)
		for name, samples := range now {
			moved[name] = moved[name] || samples != first[name]
		}
	}
	stop := w.loaded(t)
	defer stop()
	still := []string{}
	defer func() {
		if t.Failed() {
			t.Log("still: ", still)
		}
	}()
	faults := []struct{ command, moves string }{
		{"heat=3", "clip_device_throttling"}, {"ok", ""}, {"error=7@2", "clip_encode_failures_total"}, {"crash", "clip_device_restarts_total"}, {"ok", ""},
	}
	until(t, "everything moves", func() bool {
		look()
		still = nil
		for _, name := range described(t) {
			if !moved[name] && !unmoved.MatchString(name) && !ofRealDevices.MatchString(name) && !ofFleets.MatchString(name) {
				still = append(still, name)
			}
		}
		for moved["clip_stream_frames_total"] && len(faults) > 0 {
			w.chip.tell(t, faults[0].command)
			until(t, faults[0].command, func() bool {
				look()
				return faults[0].moves == "" || moved[faults[0].moves]
			})
			faults = faults[1:]
		}
		return len(faults) == 0 && len(still) == 0
	})
	_, now := w.scrape(t)
	for _, name := range described(t) {
		if now[name] == "" && !ofRealDevices.MatchString(name) && !ofFleets.MatchString(name) {
			t.Errorf("%s has no samples", name)
		}
	}
	text, _ := w.scrape(t)
	for _, name := range regexp.MustCompile(`clip_[a-z]+(_[a-z]+)*`).FindAllString(string(must(os.ReadFile("../../README.md"))), -1) {
		if now[name] == "" && !ofRealDevices.MatchString(name) && !ofFleets.MatchString(name) {
			t.Errorf("%s, which is in the README, is no metric", name)
		}
	}
	for _, want := range []string{
		`clip_requests_total{endpoint="/v1/classify",code="200"}`, `clip_requests_total{endpoint="other",code="404"}`,
		`clip_requests_total{endpoint="/v1/prompt-sets/{name}",code="201"}`, `clip_rejected_total{reason="queue_full"}`,
		`clip_stream_frames_total{stream="gate",state="answered"}`, `clip_stream_state{stream="gate",state="idle"} 0`,
		`clip_notifications_total{target="webhook0",outcome="delivered"}`, `clip_encodes_total{modality="image",backend="cpu"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	stop()
	text, _ = w.scrape(t)
	if strings.Contains(text, `_count{endpoint="/v1/streams/{id}/frames"} 1`) {
		t.Error("an upload that lasted as long as the test is in the histogram of requests")
	}
	if stats := w.get(t, "/v1/stats").raw; !strings.Contains(stats, `"by_name":[{"stream":"gate"`) || !strings.Contains(stats, `"queue_full"`) {
		t.Errorf("the same is not in /v1/stats: %s", stats)
	}
	w.stop(t)
}

// dashboard is what of Grafana's format is looked at here.
type dashboard struct {
	Title         string
	UID           string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
			Datasource *datasource
		}
	}
	Panels []panel
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Collapsed  *bool
	Datasource *datasource
	GridPos    struct{ H, W, X, Y int }
	Targets    []struct {
		RefID      string
		Expr       string
		Datasource *datasource
	}
	FieldConfig *struct {
		Defaults  map[string]any
		Overrides []any
	}
	Options map[string]any
}

type datasource struct{ Type, UID string }

var ourSource = datasource{"prometheus", "${datasource}"}

func readDashboard(t testing.TB) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal(must(os.ReadFile(monitoring+"dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard holds the dashboard to what Grafana needs to import and draw it.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	if d.Title == "" || d.UID == "" || len(d.UID) > 40 || d.SchemaVersion < 39 {
		t.Errorf("title %q, uid %q, schema %d", d.Title, d.UID, d.SchemaVersion)
	}
	var variables, rows []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" && (v.Datasource == nil || *v.Datasource != ourSource) || v.Type == "datasource" && v.Query != "prometheus" {
			t.Errorf("variable %s: %+v", v.Name, v)
		}
	}
	if !slices.Equal(variables, []string{"datasource", "job", "instance"}) {
		t.Errorf("variables %v", variables)
	}
	ids, titles, taken := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID <= 0 || ids[p.ID] || p.Title == "" || titles[p.Title] {
			t.Errorf("panel %d %q: its id or title is not its own", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		g := p.GridPos
		if g.H < 1 || g.W < 1 || g.X < 0 || g.Y < 0 || g.X+g.W > 24 {
			t.Errorf("%s lies at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			if rows = append(rows, p.Title); p.Collapsed == nil || *p.Collapsed || g.W != 24 || g.H != 1 || len(p.Targets) > 0 {
				t.Errorf("row %s: %+v", p.Title, p)
			}
			continue
		}
		if !slices.Contains([]string{"timeseries", "stat", "state-timeline"}, p.Type) || p.Datasource == nil || *p.Datasource != ourSource ||
			p.FieldConfig == nil || p.FieldConfig.Overrides == nil || p.FieldConfig.Defaults["unit"] == nil || p.Options == nil || len(p.Targets) == 0 {
			t.Errorf("panel %s: %+v", p.Title, p)
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if q.RefID == "" || refs[q.RefID] || q.Expr == "" || q.Datasource == nil || *q.Datasource != ourSource {
				t.Errorf("%s: target %+v", p.Title, q)
			}
			refs[q.RefID] = true
			if strings.Count(q.Expr, "{job=~\"$job\",instance=~\"$instance\"") != len(metricNames(q.Expr)) {
				t.Errorf("%s: a metric of another service may be in %s", p.Title, q.Expr)
			}
		}
	}
	if len(rows) != 5 {
		t.Errorf("rows %v", rows)
	}
}

var metricName = regexp.MustCompile(`\b(?:clip|go|process)_[a-z_]+|\bup\b`)

// metricNames are all in a query, as often as they stand there.
func metricNames(query string) []string { return metricName.FindAllString(query, -1) }

type alert struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations struct{ Summary, Description string }
}

func readAlerts(t testing.TB) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal(must(os.ReadFile(monitoring+"alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	for _, a := range all {
		if a.Alert == "" || a.Annotations.Summary == "" || len(a.Annotations.Description) < 40 || a.Labels["severity"] == "" {
			t.Errorf("%+v: an alert needs a severity, a summary, and a description with its remedy", a)
		}
	}
	return all
}

// prometheusOf starts a Prometheus that scrapes services by the URLs of their metrics, and returns its address.
func prometheusOf(t *testing.T, services ...string) string {
	t.Helper()
	dir := t.TempDir()
	rules := must(filepath.Abs(monitoring + "alerts.yml"))
	put(t, dir, map[string]string{"prometheus.yml": "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}\nrule_files: ['" + rules + "']\n" +
		"scrape_configs: [{job_name: hailo-clip, static_configs: [{targets: [" + strings.ReplaceAll(strings.Join(services, ", "), "http://", "") + "]}]}]\n"})
	c := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:0")
	out := must(c.StderrPipe())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, at, ok := strings.Cut(lines.Text(), `msg="Listening on" address=`); ok {
				address <- strings.TrimSpace(at)
			}
		}
		_ = c.Wait()
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-ended
	})
	select {
	case at := <-address:
		return "http://" + at
	case <-ended:
		t.Fatal("Prometheus has ended at its start")
	}
	return ""
}

// query asks Prometheus, and returns how many series the answer has.
func query(t testing.TB, prometheus, expr string) int {
	t.Helper()
	a, err := read(http.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(expr)))
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK {
		t.Fatalf("%s: %s", expr, a.raw)
	}
	result, _ := a.body["data"].(map[string]any)["result"].([]any)
	return len(result)
}

// TestMonitoring has a real Prometheus scrape two nodes of a fleet, one of them under load, and asks it every query of the dashboard and of
// the alerts. Those of a lost node and of a lost broker are seen to hold in the end.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("HAILO_TEST_REQUIRE_PROMETHEUS") != "" {
				t.Fatal(err)
			}
			t.Skip("Debian: apt install prometheus; ", err)
		}
	}
	tool := func(stdin string, args ...string) {
		t.Helper()
		c := exec.Command("promtool", args...)
		c.Stdin = strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil || stdin != "" && len(out) > 0 {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tool("", "check", "rules", monitoring+"alerts.yml")
	tool("", "check", "config", monitoring+"prometheus.yml")
	b := must(broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom}))
	lost := sync.OnceFunc(b.Close)
	t.Cleanup(lost)
	w := serveWatched(t, "fleet:\n  node: one\n  url: "+b.URL()+"\n")
	_, other := serveSim(t, "sim:\n  vectors: model\nfleet:\n  node: two\n  url: "+b.URL()+"\n")
	until(t, "both are nodes", func() bool {
		_, families := w.scrape(t)
		return strings.Count(families["clip_fleet_node_alive"], "} 1\n") == 2
	})
	stop := w.loaded(t)
	defer stop()
	index := command(t.TempDir(), "index", madeImages(t, 20, 64), "--out", filepath.Join(t.TempDir(), "v.ndjson"), "--model", "demo", "--fleet")
	index.Env = append(index.Env, "HAILO_CLIP_FLEET_URL="+b.URL(), "HAILO_CLIP_FLEET_NODE=index")
	runProgram(t, index).expect(t, exitOK, "20 rows")
	prometheus := prometheusOf(t, w.admin, other.adminURL(t))
	until(t, "the load is there", func() bool {
		_, families := w.scrape(t)
		return strings.Contains(families["clip_notifications_total"], "delivered") && families["clip_requests_total"] != ""
	})
	text, _ := w.scrape(t)
	tool(text, "check", "metrics")

	grafana := strings.NewReplacer("$__rate_interval", "1m", "$job", "hailo-clip", "$instance", ".*")
	queries := 0
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			absent := func(name string) bool { return !ofRealDevices.MatchString(name) }
			if !slices.ContainsFunc(metricNames(target.Expr), absent) {
				query(t, prometheus, grafana.Replace(target.Expr)) // it can be read at least
				continue
			}
			queries++
			until(t, p.Title+": data of "+target.Expr, func() bool { return query(t, prometheus, grafana.Replace(target.Expr)) > 0 })
		}
	}
	alerts := readAlerts(t)
	for _, a := range alerts {
		query(t, prometheus, a.Expr)
		for _, name := range metricNames(a.Expr) {
			if ofRealDevices.MatchString(name) {
				continue
			}
			until(t, a.Alert+": data of "+name, func() bool { return query(t, prometheus, name) > 0 })
		}
	}
	holds := func(name string) {
		i := slices.IndexFunc(alerts, func(a alert) bool { return a.Alert == name })
		until(t, name+" holds", func() bool { return query(t, prometheus, alerts[i].Expr) > 0 })
	}
	other.stop(t)
	holds("HailoClipFleetNodeSilent")
	lost()
	holds("HailoClipFleetBrokerLost")
	t.Logf("%d queries of the dashboard, %d alerts", queries, len(alerts))
	stop()
	w.stop(t)
}
