package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api/access"
)

// logged is a line of a request.
type logged struct {
	Msg, Method, Path, Client, Code, Level string
	Status                                 int
	RequestID                              string `json:"request_id"`
	TraceID                                string `json:"trace_id"`
	Stages                                 map[string]float64
	Unlogged                               uint64
}

// lines are those of requests in the log, but for /health.
func (s *service) lines(t testing.TB) (all []logged) {
	t.Helper()
	for line := range strings.Lines(s.log.String()) {
		var l logged
		noError(t, json.Unmarshal([]byte(line), &l))
		if l.Msg == "request" {
			all = append(all, l)
		}
	}
	return all
}

// TestLogIsSampled: of the successes of each route one in so many, of failures that are alike the first ones.
func TestLogIsSampled(t *testing.T) {
	s := serve(t, func(_ *Config, svc *Service) { svc.LogEvery = 3 })
	for range 7 {
		s.post(t, "/v1/embed/text", `{"text":"x"}`).wantOK(t)
	}
	for range 2 {
		s.do(t, "GET", "/v1/stats", "").wantOK(t)
	}
	const wrong = 30
	for range wrong {
		s.post(t, "/v1/embed/text", `{}`).wantError(t, 400, "invalid_request", "text")
	}
	s.do(t, "GET", "/nowhere", "").wantError(t, 404, "not_found", "")
	s.post(t, "/v1/embed/text", `{"text":"`+unencodableText+`"}`).wantError(t, 500, "encode_failed", "")
	of := map[string]int{}
	for _, l := range s.lines(t) {
		of[fmt.Sprint(l.Path, " ", l.Status)]++
	}
	if of["/v1/embed/text 200"] != 3 || of["/v1/stats 200"] != 1 || of["/nowhere 404"] != 1 || of["/v1/embed/text 500"] != 1 ||
		of["/v1/embed/text 400"] < failuresLogged || of["/v1/embed/text 400"] > wrong/2 {
		t.Errorf("%v", of)
	}
	if left := s.Stats().Server.Log.Unlogged; left != uint64(4+1+wrong-of["/v1/embed/text 400"]) {
		t.Errorf("%d are told as left out, of %v", left, of)
	}
	s.SetLogEvery(0)
	before := len(s.lines(t))
	s.post(t, "/v1/embed/text", `{"text":"x"}`).wantOK(t)
	if len(s.lines(t)) != before {
		t.Error("a success is logged with 0")
	}
	s.post(t, "/v1/embed/batch", `{"texts":["x","`+unencodableText+`"]}`).wantOK(t)
	if all := s.lines(t); len(all) != before+1 || all[before].Status != 200 || all[before].Code != "encode_failed" {
		t.Errorf("what an item has failed with is not logged: %+v", all[before:])
	}
	s.SetLogEvery(1)
	s.post(t, "/v1/embed/text", `{"text":"x"}`).wantOK(t)
	if len(s.lines(t)) != before+2 {
		t.Error("a success is not logged with 1")
	}
}

// TestFailuresAreBounded has a thousand a second: the log gets few, and tells how many it did not get.
func TestFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lines
		var logged, told uint64
		const seconds, each = 60, 1000
		for range seconds * each {
			if ok, left := l.failed(429, time.Now()); ok {
				logged++
				told += left
			}
			time.Sleep(time.Second / each)
		}
		if logged != failuresLogged*seconds/10 {
			t.Errorf("%d lines", logged)
		}
		if ok, left := l.failed(503, time.Now()); !ok || left != 0 {
			t.Error("another status waits for the first")
		}
		time.Sleep(failuresTime)
		ok, left := l.failed(429, time.Now())
		if total := logged + told + left; !ok || total != seconds*each {
			t.Errorf("%v, %d of %d are told", ok, total, seconds*each)
		}
	})
}

// TestStreamLinesAreBounded: of streams that end, too, the log gets few lines, and the next one tells how many were left out.
func TestStreamLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var ended lines
		l := &lasting{server: &Server{svc: Service{Log: slog.New(slog.NewJSONHandler(&log, nil))}}, grant: &access.Grant{}}
		end := func() { l.logEnd(&ended, "/v1/stream", time.Second, errGone) }
		for range failuresLogged + 3 {
			end()
		}
		time.Sleep(failuresTime)
		end()
		all := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(all) != failuresLogged+1 || !strings.Contains(all[failuresLogged], `"unlogged":3`) || strings.Contains(all[0], "unlogged") {
			t.Errorf("%d lines: %s", len(all), log.String())
		}
		if n := l.server.unlogged.Load(); n != 3 {
			t.Errorf("%d are counted as left out", n)
		}
	})
}

func TestLogNamesClientAndTrace(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.TrustedProxies = []string{"127.0.0.1"} })
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x"), "X-Forwarded-For", "10.1.2.3, 2001:db8::7", "Traceparent", parent).wantOK(t)
	s.post(t, "/v1/classify", `{`, "Traceparent", strings.ToUpper(parent)).wantError(t, 400, "invalid_json", "")
	all := s.lines(t)
	if len(all) != 2 {
		t.Fatalf("%+v", all)
	}
	good, bad := all[0], all[1]
	if good.Client != "2001:db8::7" || good.TraceID != trace || good.Stages["decode"] <= 0 || good.Stages["answer"] <= 0 || len(good.Stages) < 6 {
		t.Errorf("%+v", good)
	}
	if bad.Client != "127.0.0.1" || bad.TraceID != "" || bad.Code != "invalid_json" {
		t.Errorf("%+v", bad)
	}
	if raw := s.log.String(); strings.Contains(raw, `"stages":{}`) || strings.Contains(raw, "10.1.2.3") {
		t.Error("there is an empty group, or what a client made up: ", raw)
	}
}

func TestTraceparent(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	const zeros = "00000000000000000000000000000000"
	for sent, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01":       id,
		"00-" + id + "-b7ad6b7169203331-ff":       id,
		"cc-" + id + "-b7ad6b7169203331-01":       id, // a later version
		"cc-" + id + "-b7ad6b7169203331-01-more":  id,
		"cc-" + id + "-b7ad6b7169203331-01.more":  "",
		"00-" + id + "-b7ad6b7169203331-01-more":  "",
		"ff-" + id + "-b7ad6b7169203331-01":       "",
		"00-" + zeros + "-b7ad6b7169203331-01":    "",
		"00-" + id + "-0000000000000000-01":       "",
		"00-" + id + "-b7ad6b7169203331-0":        "",
		"00-" + id + "-b7ad6b7169203331-0g":       "",
		"0 -" + id + "-b7ad6b7169203331-01":       "",
		"00-" + id[1:] + "A-b7ad6b7169203331-01":  "",
		"00_" + id + "-b7ad6b7169203331-01":       "",
		"00-" + id[1:] + "\n-b7ad6b7169203331-01": "",
		"":                       "",
		strings.Repeat("0", 55):  "",
		strings.Repeat("-", 999): "",
	} {
		if got := traceID([][]byte{[]byte(sent)}); got != want {
			t.Errorf("%q: %q, want %q", sent, got, want)
		}
	}
	twice := []byte("00-" + id + "-b7ad6b7169203331-01")
	if traceID([][]byte{twice, twice}) != "" || traceID(nil) != "" {
		t.Error("two or none")
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add([]byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	f.Add([]byte("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		id := traceID([][]byte{sent})
		if id == "" {
			return
		}
		if len(id) != 32 || !isID([]byte(id)) || !bytes.Contains(sent, []byte("-"+id+"-")) {
			t.Errorf("%q of %q", id, sent)
		}
	})
}

// TestMetricsOnThePort: with admin.listen main they are where everything is, and what is refused and lasts is counted right.
func TestMetricsOnThePort(t *testing.T) {
	s := serve(t, nil)
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
	s.post(t, "/v1/classify", `{`).wantError(t, 400, "invalid_json", "")
	s.do(t, http.MethodGet, "/nowhere/"+strings.Repeat("x", 100), "").wantError(t, 404, "not_found", "")
	s.do(t, http.MethodPost, "/v1/streams/gate"+queued, string(black), "Content-Type", "image/jpeg").wantOK(t)
	listener := must(http.NewRequest(http.MethodGet, s.url+"/v1/streams/gate/events", nil))
	listener.Header.Set("Accept", mediaEvents)
	must(s.client.Do(listener)).Body.Close()
	s.do(t, http.MethodPost, "/admin/reload", "").wantOK(t)
	var text string
	until(t, func() bool { // a line of the log comes last
		r := s.do(t, http.MethodGet, "/metrics", "")
		text = string(r.body)
		return r.status == 200 && r.header.Get("Content-Type") == "text/plain; version=0.0.4; charset=utf-8" &&
			strings.Contains(text, `clip_requests_total{endpoint="/v1/streams/{id}/events",code="200"} 1`)
	})
	for _, want := range []string{
		`clip_requests_total{endpoint="/v1/classify",code="200"} 1`, `clip_requests_total{endpoint="/v1/classify",code="400"} 1`,
		`clip_requests_total{endpoint="other",code="404"} 1`, `clip_requests_total{endpoint="/v1/streams/{id}/frames",code="200"} 1`,
		`clip_request_duration_seconds_count{endpoint="/v1/classify"} 2`, `clip_request_duration_seconds_count{endpoint="/v1/streams/{id}/frames"} 0`,
		`clip_request_duration_seconds_count{endpoint="/v1/streams/{id}/events"} 0`, `clip_stage_duration_seconds_count{stage="answer"} 1`,
		`clip_stage_duration_seconds_count{stage="decode"} 2`, `clip_stream_frames_total{stream="gate",state="received"} 1`, `clip_ready 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "xxx") || strings.Contains(text, "/v1/streams/gate") {
		t.Error("a path is a label")
	}
	s.lose("no device")
	s.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantError(t, 503, "not_ready", "")
	text = string(s.do(t, http.MethodGet, "/metrics", "").body)
	for _, want := range []string{`clip_ready 0`, `clip_rejected_total{reason="not_ready"} 1`, `clip_health_state{state="unhealthy"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	bare := serve(t, func(_ *Config, svc *Service) { svc.Admin, svc.Recorder = nil, nil })
	bare.do(t, http.MethodGet, "/metrics", "").wantError(t, 404, "not_found", "")
	bare.do(t, http.MethodPost, "/admin/reload", "").wantError(t, 404, "not_found", "")
	bare.post(t, "/v1/classify", classifyBody(goodImage, "", "x")).wantOK(t)
	if st := bare.Stats().Server; st.Requests != nil || st.Rejected != nil || st.Connections.Accepted == 0 {
		t.Errorf("nothing is recorded: %+v", st)
	}
}

// TestRejections: each reason for which work is refused has a name of its own.
func TestRejections(t *testing.T) {
	seen := map[string]bool{}
	all := []error{errBodyMemory, errKeyBusy, errTooManyConns, errNotReady, errReadTimeout, errGone, errDeadline, errNotFound, errInternalFailure}
	for _, k := range kinds {
		all = append(all, fmt.Errorf("somewhere: %w", k.err))
	}
	for _, err := range all {
		o := outcomeOf(err)
		reason := rejection(o)
		switch refused := o.status == 408 || o.status == 429 || o.status == 499 || o.status == 503 || o.status == 504; {
		case refused != (reason != ""):
			t.Errorf("%d %s: %q", o.status, o.code, reason)
		case reason != "":
			seen[reason] = true
		}
	}
	s := newService(t, nil)
	for reason := range seen {
		if _, ok := s.svc.Recorder.Rejections()[reason]; !ok {
			t.Errorf("%s counts as other", reason)
		}
	}
	for _, reason := range []string{"queue_full", "displaced", "superseded", "body_memory", "decode_memory", "text_queue_full", "key_busy", "streams_full"} {
		if !seen[reason] {
			t.Errorf("nothing is %s", reason)
		}
	}
}
