package admin

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hailoclip/api/fleet"
	"hailoclip/api/stream"
	"hailoclip/api/stream/event"
	"hailoclip/api/stream/notify"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// everything is a snapshot that has all there can be.
func everything() Snapshot {
	load := 0.5
	return Snapshot{
		Fleet: &fleet.Status{
			Enabled: true, Broker: &fleet.BrokerStatus{Connected: true}, Faults: []string{"x"},
			Nodes: []fleet.NodeStatus{
				{Load: fleet.Load{Node: "a", Rate: 335, Health: "healthy"}, Alive: true}, {Load: fleet.Load{Node: "b", Health: "unhealthy"}, Seen: 7, ClockMS: -1500},
			},
			Queues:  []fleet.QueueStatus{{Stream: fleet.BulkStream, Pending: 5, AckPending: 2, Messages: 7, Limit: 9}, {Stream: fleet.DeadStream, Messages: 1, Limit: -1}},
			Jobs:    []fleet.JobStatus{{State: "running"}, {State: "x"}},
			Cameras: []fleet.CameraStatus{{Name: "gate", Owner: "a"}, {Name: "yard"}},
			Spill:   &fleet.SpillStatus{Sent: 3, Failed: map[string]uint64{"busy": 2}}, Worker: &fleet.WorkerStatus{Encoded: 4}, Share: &fleet.ShareStatus{TextHits: 6},
		},
		Version: "1.2.3", Health: clip.Health{State: clip.Degraded, Model: `a "model"`, Backend: "npu", RuntimeMode: "real"},
		Stats: Stats{
			Stats: clip.Stats{
				Stages: []pipeline.StageStats{{Stage: "decode", Workers: 2, Queued: 3, Capacity: 10}},
				NPU: &clip.NPUStats{
					Images: 22, ImageBatches: []uint64{0, 2, 4, 0, 16}, Temperature: []*float64{&load, nil}, NNCore: &load, MemoryBytes: 8, BaselineRate: 335,
					Worker: &clip.WorkerStats{CPUSeconds: 1.5},
				},
				CPU: &clip.CPUStats{Images: 5, ImageBatches: []uint64{0, 1, 2}},
			},
			Streams: &stream.HubStats{ByName: []stream.LabelledStats{
				{Stream: "gate", State: stream.StateFed, Stats: stream.Stats{Counts: stream.Counts{Frames: 7}}}, {Stream: stream.OtherStreams},
			}},
			Events: &event.Stats{Events: 1},
			Notify: &notify.Stats{Webhooks: []notify.WebhookStats{{URL: "https://a"}, {URL: "https://b"}}, MQTT: &notify.MQTTStats{}},
		},
	}
}

// pageOf is /metrics with a request of each kind recorded.
func pageOf(s Snapshot) string {
	r := NewRecorder()
	r.Endpoint("/v1/classify").Count(200)
	r.Endpoint("/v1/classify").Took(3 * time.Millisecond)
	var b strings.Builder
	r.WriteMetrics(&b, counted(r, s))
	return b.String()
}

// counted is a snapshot with what a recorder has counted.
func counted(r *Recorder, s Snapshot) Snapshot {
	s.Server.Requests, s.Server.Rejected = r.Requests(), r.Rejections()
	return s
}

// TestEveryMetricIsDescribed compares the metrics with the table in the README of configs/monitoring, both ways.
func TestEveryMetricIsDescribed(t *testing.T) {
	text := pageOf(everything())
	var there, described []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
		if there = append(there, m[1]); !regexp.MustCompile(`(?m)^` + m[1] + `(_count)?[ {]`).MatchString(text) {
			t.Errorf("%s has no samples", m[1])
		}
	}
	readme, err := os.ReadFile("../../configs/monitoring/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				described = append(described, m[1])
			}
		}
	}
	slices.Sort(there)
	slices.Sort(described)
	for _, name := range there {
		if !slices.Contains(described, name) {
			t.Errorf("%s is not described", name)
		}
	}
	for _, name := range described {
		if !slices.Contains(there, name) {
			t.Errorf("%s is described, and not there", name)
		}
	}
	if len(slices.Compact(there)) != strings.Count(text, "# TYPE") || len(there) < 80 {
		t.Error("a family is there twice, or few are there at all")
	}
}

func TestPage(t *testing.T) {
	text := pageOf(everything())
	for _, want := range []string{
		`clip_model_info{model="a \"model\""} 1`,
		`clip_health_state{state="degraded"} 1`, `clip_health_state{state="healthy"} 0`, "clip_ready 1\n",
		`clip_requests_total{endpoint="/v1/classify",code="200"} 1`,
		`clip_request_duration_seconds_bucket{endpoint="/v1/classify",le="0.002"} 0`,
		`clip_request_duration_seconds_bucket{endpoint="/v1/classify",le="0.005"} 1`,
		`clip_batch_size_bucket{backend="npu",le="1"} 2`, `clip_batch_size_bucket{backend="npu",le="2"} 4`,
		`clip_batch_size_bucket{backend="npu",le="4"} 8`, `clip_batch_size_sum{backend="npu"} 22`, `clip_batch_size_count{backend="npu"} 8`,
		`clip_batch_size_sum{backend="cpu"} 5`, `clip_batch_size_count{backend="cpu"} 3`,
		`clip_device_temperature_celsius{sensor="0"} 0.5`, `clip_stream_frames_total{stream="gate",state="received"} 7`,
		`clip_notifications_total{target="webhook1",outcome="cooldown"} 0`,
		`clip_fleet_node_alive{node="b"} 0`, `clip_fleet_node_health{node="a",state="healthy"} 1`, `clip_fleet_node_clock_seconds{node="b"} -1.5`,
		`clip_fleet_queue_messages{stream="CLIP_BULK",state="unacknowledged"} 2`, `clip_fleet_queue_limit_bytes{stream="CLIP_BULK"} 9`,
		`clip_fleet_jobs{state="running"} 1`, `clip_fleet_cameras{node=""} 1`, `clip_fleet_spilled_total{outcome="busy"} 2`,
		`clip_fleet_bulk_images_total{outcome="encoded"} 4`, `clip_fleet_texts_total{what="hit"} 6`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, not := range []string{`sensor="1"`, "NaN", `clip_stream_state{stream="-"`, `clip_fleet_queue_limit_bytes{stream="CLIP_DEAD"`} {
		if strings.Contains(text, not) {
			t.Errorf("there is %s", not)
		}
	}
	bare := pageOf(Snapshot{})
	for _, not := range []string{"clip_device_", "clip_stream", "clip_events", "clip_notifications", "clip_mqtt", "clip_fleet"} {
		if strings.Contains(bare, not) {
			t.Errorf("without any there is %s", not)
		}
	}
	var b strings.Builder
	(*Recorder)(nil).WriteMetrics(&b, Snapshot{})
	if strings.Contains(b.String(), "clip_requests_total") || !strings.Contains(b.String(), "clip_ready") {
		t.Error("without a recorder")
	}
}

func TestPromtool(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("HAILO_TEST_REQUIRE_PROMETHEUS") != "" {
			t.Fatal(err)
		}
		t.Skip("Debian: apt install prometheus; ", err)
	}
	c := exec.Command("promtool", "check", "metrics")
	c.Stdin = strings.NewReader(pageOf(everything()))
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRecorder has many record at once while it is read.
func TestRecorder(t *testing.T) {
	r := NewRecorder()
	var all sync.WaitGroup
	const each = 200
	for i := range 8 {
		all.Go(func() {
			e := r.Endpoint(fmt.Sprintf("/%d", i%2))
			for n := range each {
				e.Count([]int{200, 429, 99, 1000}[n%4])
				e.Took(time.Millisecond)
				r.Rejected([]string{QueueFull, "made up"}[n%2])
				r.Stage("read", time.Millisecond)
				r.Line([4]pipeline.StageTime{{Stage: "decode", Wait: 1, Work: 2}, {Stage: "score"}})
				r.WriteMetrics(io.Discard, counted(r, Snapshot{}))
			}
		})
	}
	all.Wait()
	want := map[string]uint64{"200": 200, "429": 200, "100": 200, "599": 200}
	if got := r.Requests(); !reflect.DeepEqual(got, map[string]map[string]uint64{"/0": want, "/1": want}) {
		t.Errorf("%v", got)
	}
	if got := r.Rejections(); got[QueueFull] != 800 || got[OtherReason] != 800 || len(got) != len(reasons) {
		t.Errorf("%v", got)
	}
	var b strings.Builder
	r.WriteMetrics(&b, counted(r, Snapshot{}))
	for _, want := range []string{
		`clip_stage_duration_seconds_count{stage="queue"} 1600`, `{stage="score-wait"} 1600`, `{stage="resize"} 0`, `{stage="read"} 1600`,
		`clip_request_duration_seconds_count{endpoint="/1"} 800`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

// startListener serves for the test.
func startListener(t *testing.T, cfg Config, p Parts) (*Server, string) {
	t.Helper()
	p.Metrics = func(w io.Writer) { _, _ = io.WriteString(w, "clip_ready 1\n") }
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	s := Listen(cfg, p)
	if s == nil {
		t.Fatal("no listener")
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		http.DefaultClient.CloseIdleConnections()
	})
	return s, "http://" + s.Addr().String()
}

func TestListener(t *testing.T) {
	reloads := 0
	var broken error
	s, address := startListener(t, Config{Listen: "127.0.0.1:0"}, Parts{Hosts: func() []string {
		return []string{"pi.example", "named.example:99"}
	}, Reload: func(context.Context) (any, error) {
		reloads++
		return map[string]int{"reloads": reloads}, broken
	}})
	ask := func(method, path string, headers ...string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			if headers[i] == "Host" {
				request.Host = headers[i+1]
			} else {
				request.Header.Add(headers[i], headers[i+1])
			}
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	own := s.Addr().String()
	_, port, _ := net.SplitHostPort(own)
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		says         string
	}{
		{"GET", "/metrics", nil, 200, "clip_ready 1"},
		{"HEAD", "/metrics", nil, 200, ""},
		{"POST", "/metrics", nil, 404, "no such path"},
		{"GET", "/", nil, 200, "/metrics"},
		{"GET", "/nowhere", nil, 404, "not_found"},
		{"GET", "/debug/pprof/", nil, 200, "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", nil, 200, "goroutine profile"},
		{"GET", "/debug/pprof/cmdline", nil, 200, "admin.test"},
		{"POST", "/admin/reload", nil, 200, `{"reloads":1}`},
		{"GET", "/admin/reload", nil, 404, "no such path"},
		{"GET", "/metrics", []string{"Host", "localhost:" + port}, 200, "clip_ready"},
		{"GET", "/metrics", []string{"Host", "[::1]:" + port}, 200, "clip_ready"},
		{"GET", "/metrics", []string{"Host", "PI.example:1234"}, 200, "clip_ready"},
		{"GET", "/metrics", []string{"Host", "named.example:99"}, 200, "clip_ready"},
		{"GET", "/metrics", []string{"Host", "named.example"}, 403, "host_not_allowed"},
		{"GET", "/metrics", []string{"Host", "evil.example"}, 403, "host_not_allowed"},
		{"POST", "/admin/reload", []string{"Host", "127.0.0.1.evil.example"}, 403, "host_not_allowed"},
		{"GET", "/metrics", []string{"Origin", "http://" + own}, 200, "clip_ready"},
		{"GET", "/metrics", []string{"Origin", "https://" + own}, 403, "origin_not_allowed"},
		{"GET", "/metrics", []string{"Origin", "http://127.0.0.1:1"}, 403, "origin_not_allowed"},
		{"POST", "/admin/reload", []string{"Origin", "null"}, 403, "origin_not_allowed"},
		{"POST", "/admin/reload", []string{"Origin", "http://" + own, "Origin", "http://evil.example"}, 403, "origin_not_allowed"},
		{"GET", "/debug/pprof/heap", []string{"Sec-Fetch-Site", "cross-site"}, 403, "origin_not_allowed"},
		{"GET", "/debug/pprof/heap", []string{"Sec-Fetch-Site", "same-site"}, 403, "origin_not_allowed"},
		{"GET", "/debug/pprof/heap", []string{"Sec-Fetch-Site", "none"}, 200, ""},
	} {
		if status, body := ask(c.method, c.path, c.headers...); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s %q: %d %.200s", c.method, c.path, c.headers, status, body)
		}
	}
	if reloads != 1 {
		t.Errorf("%d reloads: refused requests have reloaded", reloads)
	}
	broken = errors.New("line 3: <nonsense>")
	status, body := ask("POST", "/admin/reload")
	var said struct{ Error, Code string }
	if err := json.Unmarshal([]byte(body), &said); err != nil || status != 400 || said.Code != "invalid_configuration" || said.Error != broken.Error() {
		t.Errorf("%d %s", status, body)
	}
}

// logged keeps a log that is read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestPortTaken: the listener goes elsewhere, and says so; where it cannot it is not there.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	log := &logged{}
	s, address := startListener(t, Config{Listen: taken.Addr().String()}, Parts{Log: slog.New(slog.NewTextHandler(log, nil))})
	if s.Addr().String() == taken.Addr().String() || !strings.Contains(log.String(), "listening="+s.Addr().String()) {
		t.Errorf("listens on %s; log %s", s.Addr(), log)
	}
	response, err := http.Get(address + "/metrics")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(err, response)
	}
	response.Body.Close()
	for _, none := range []string{"", OnMain, "203.0.113.1:0"} {
		if s := Listen(Config{Listen: none}, Parts{Log: slog.New(slog.DiscardHandler)}); s != nil {
			t.Errorf("%q: listens on %s", none, s.Addr())
		}
	}
}

// TestAddressFamily: 0.0.0.0 is all of IPv4 and nothing else, as for server.host, whether its port is taken or not.
func TestAddressFamily(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	first := Listen(Config{Listen: "0.0.0.0:0"}, Parts{Log: log})
	defer first.Close()
	second := Listen(Config{Listen: first.Addr().String()}, Parts{Log: log})
	defer second.Close()
	for _, s := range []*Server{first, second} {
		if ip := s.Addr().(*net.TCPAddr).IP; ip.To4() == nil {
			t.Errorf("listens on %s", s.Addr())
		}
	}
}

// TestConnectionsAreFew: those beyond maxConns wait, and are served when others end.
func TestConnectionsAreFew(t *testing.T) {
	s, _ := startListener(t, Config{Listen: "127.0.0.1:0"}, Parts{})
	const request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
	var conns []net.Conn
	for range maxConns {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, request)
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	late, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	_, _ = io.WriteString(late, request)
	_ = late.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := late.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("one more is served")
	}
	conns[0].Close()
	_ = late.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := late.Read(make([]byte, 1)); err != nil {
		t.Errorf("it is not served when there is room: %v", err)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := NewRecorder()
	e := r.Endpoint("/v1/classify")
	times := [4]pipeline.StageTime{{Stage: "decode", Wait: 1e4, Work: 1e6}, {Stage: "resize", Wait: 1e4, Work: 1e5}, {Stage: "encode", Wait: 1e6, Work: 2e7}, {Stage: "score", Wait: 1e4, Work: 1e4}}
	b.ReportAllocs()
	for b.Loop() { // all that a classification is recorded by
		e.Count(200)
		e.Took(23 * time.Millisecond)
		r.Stage("read", 1e5)
		r.Stage("text", 1e4)
		r.Stage("answer", 1e4)
		r.Line(times)
	}
}

func BenchmarkWriteMetrics(b *testing.B) {
	r, s := NewRecorder(), everything()
	r.Endpoint("/v1/classify").Count(200)
	b.ReportAllocs()
	for b.Loop() {
		r.WriteMetrics(io.Discard, counted(r, s))
	}
}
