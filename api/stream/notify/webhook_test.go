package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hailoclip/api/stream/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is one of the specification's examples.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestSignature is the example that the libraries of https://www.standardwebhooks.com test themselves with.
func TestSignature(t *testing.T) {
	for _, s := range []Secret{secret, Secret(secret[len("whsec_"):])} {
		key, err := s.key()
		got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
		if err != nil || got != "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
			t.Errorf("%s, %v", got, err)
		}
	}
}

// feed is a source of events for run.
type feed chan *event.Event

func (f feed) next(ctx context.Context) (*event.Event, int, error) {
	select {
	case e := <-f:
		return e, 0, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// start runs a Notifier until stop is called, which blocks until it has ended.
func start(t *testing.T, n *Notifier) (events feed, stop func()) {
	t.Helper()
	events = make(feed)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.run(ctx, events.next)
	}()
	return events, func() {
		cancel()
		<-ended
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// roundTrip answers requests without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, headers ...string) *http.Response {
	w := httptest.NewRecorder()
	for i := 0; i < len(headers); i += 2 {
		w.Header().Set(headers[i], headers[i+1])
	}
	w.WriteHeader(status)
	return w.Result()
}

// hook is a webhook with the defaults that change sets otherwise.
func hook(change func(*Webhook)) Webhook {
	var w Webhook
	w.SetDefaults()
	w.URL, w.Secret = "https://hook.example/a", secret
	if change != nil {
		change(&w)
	}
	return w
}

func notifier(t *testing.T, p Parts, hooks ...Webhook) *Notifier {
	t.Helper()
	n, err := New(Config{Webhooks: hooks}, p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func enter(id string) *event.Event {
	return &event.Event{ID: id, Stream: "gate", Kind: event.Enter, Label: "open", Score: 0.9, Time: time.Unix(1700000000, 0).UTC()}
}

// verify reads a request as a receiver does that has the secret, by the specification's words.
func verify(t *testing.T, r *http.Request, body []byte) (m map[string]any) {
	t.Helper()
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "." + string(body)))
	if got, want := r.Header.Get("webhook-signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("signature %q, want %q", got, want)
	}
	if seconds, err := strconv.ParseInt(at, 10, 64); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		t.Errorf("timestamp %q", at)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	if id == "" || m["delivery"] != id || r.Method != http.MethodPost || r.Header.Get("content-type") != "application/json" {
		t.Errorf("%s %v: %s", r.Method, r.Header, body)
	}
	return m
}

// TestDelivery goes over a real connection.
func TestDelivery(t *testing.T) {
	got := make(chan map[string]any, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		m := verify(t, r, body)
		if user, password, _ := r.BasicAuth(); user != "me" || password != "word" {
			t.Errorf("as %s, %s", user, password)
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20)) // of which little is read
		got <- m
	}))
	defer server.Close()
	n := notifier(t, Parts{Version: "1.2"}, hook(func(w *Webhook) {
		w.URL, w.Thumbnail = Address(strings.Replace(server.URL, "://", "://me:word@", 1)), "embed"
	}))
	events, stop := start(t, n)
	e := enter("e1")
	e.Thumbnail, e.JPEG, e.Vector = true, []byte{0xff, 0xd8, 0xff}, []float32{1}
	events <- e
	m := <-got
	if m["id"] != "e1" || m["event"] != "enter" || m["label"] != "open" || m["score"] != 0.9 || m["attempt"] != 1.0 || m["jpeg"] != "/9j/" || m["stream"] != "gate" {
		t.Errorf("%v", m)
	}
	stop()
	if s := n.Stats().Webhooks[0]; s.Delivered != 1 || s.Failed+s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRedirectsAreNotFollowed: the address that is asked for is in no list.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	n := notifier(t, Parts{}, hook(func(w *Webhook) { w.URL = Address(server.URL + "/hook") }))
	if n.hooks[0].deliver(t.Context(), t.Context(), enter("a")) || len(paths) != 1 {
		t.Errorf("asked for %s", paths)
	}
	n.hooks[0].client.CloseIdleConnections()
}

func TestRetries(t *testing.T) {
	refused := errors.New("connection refused")
	for _, tt := range []struct {
		name    string
		answers []any // statuses, or errors, or headers behind a status
		taken   bool
		least   time.Duration // that it takes, by the clock of the test
		most    time.Duration
	}{
		{"at once", []any{204}, true, 0, 0},
		{"server errors", []any{500, 503, 502, 200}, true, 3500 * time.Millisecond, 7 * time.Second}, // half to all of 1 + 2 + 4 s
		{"too many requests", []any{429, 200}, true, 500 * time.Millisecond, time.Second},
		{"no connection", []any{refused, 200}, true, 500 * time.Millisecond, time.Second},
		{"never", []any{500, 500, 500, 500}, false, 3500 * time.Millisecond, 7 * time.Second},
		{"refused", []any{400}, false, 0, 0},
		{"gone", []any{410}, false, 0, 0},
		{"redirect", []any{302}, false, 0, 0},
		{"retry after seconds", []any{"429 30", 200}, true, 30 * time.Second, 30 * time.Second},
		{"retry after long", []any{"503 86400", 200}, true, time.Minute, time.Minute},
		{"retry after nonsense", []any{"503 -1", 200}, true, 500 * time.Millisecond, time.Second},
		{"retry after a date", []any{"503 Sat, 01 Jan 2000 00:00:20 GMT", 200}, true, 20 * time.Second, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, ids, attempts := notifier(t, Parts{}, hook(nil)), map[any]bool{}, 0
				n.hooks[0].client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
					body, _ := io.ReadAll(r.Body)
					m := verify(t, r, body)
					ids[m["delivery"]] = true
					if attempts++; m["attempt"] != float64(attempts) {
						t.Errorf("attempt %v, not %d", m["attempt"], attempts)
					}
					switch a := tt.answers[attempts-1].(type) {
					case int:
						return answer(a), nil
					case string:
						status, after, _ := strings.Cut(a, " ")
						code, _ := strconv.Atoi(status)
						return answer(code, "Retry-After", after), nil
					default:
						return nil, a.(error)
					}
				})
				began := time.Now()
				taken := n.hooks[0].deliver(t.Context(), t.Context(), enter("a"))
				if took := time.Since(began); taken != tt.taken || attempts != len(tt.answers) || len(ids) != 1 || took < tt.least || took > tt.most {
					t.Errorf("%v after %d attempts and %s", taken, attempts, took)
				}
			})
		})
	}
}

// collector is a transport that takes all and keeps what it has got.
type collector struct {
	mu  sync.Mutex
	got []string // "event label stream region"
}

func (c *collector) RoundTrip(r *http.Request) (*http.Response, error) {
	var e event.Event
	err := json.NewDecoder(r.Body).Decode(&e)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Label, e.State, " ", e.Stream, " ", e.Region)))
	return answer(200), err
}

func TestFilterAndCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all, cool collector
		n := notifier(t, Parts{}, hook(func(w *Webhook) { w.Streams, w.Events = []string{"gate"}, []string{"enter", "state"} }),
			hook(func(w *Webhook) { w.Cooldown = 10 * time.Second }))
		n.hooks[0].client.Transport, n.hooks[1].client.Transport = &all, &cool
		events, stop := start(t, n)
		tell := func(stream, region string, kind event.Kind, label string) {
			events <- &event.Event{ID: "a", Stream: stream, Region: region, Kind: kind, Label: label}
			synctest.Wait()
		}
		tell("gate", "", event.Enter, "open")
		tell("gate", "", event.Enter, "open")   // cools
		tell("gate", "", event.Exit, "open")    // another message
		tell("gate", "", event.Enter, "closed") // another label
		tell("gate", "left", event.Enter, "open")
		tell("yard", "", event.Enter, "open")
		tell("gate", "", event.Frame, "")
		tell("~0123456789abcdef", "", event.Enter, "open") // of a WebSocket that has given its stream no name
		time.Sleep(10 * time.Second)
		tell("gate", "", event.Enter, "open")
		events <- &event.Event{ID: "a", Stream: "gate", Kind: event.State, State: "open"}
		synctest.Wait()
		if got := strings.Join(all.got, ", "); got != "enter open gate, enter open gate, enter closed gate, enter open gate left, enter open gate, state open gate" {
			t.Error(got)
		}
		if got := strings.Join(cool.got, ", "); got != "enter open gate, exit open gate, enter closed gate, enter open gate left, enter open yard, enter open gate" {
			t.Error(got)
		}
		if s := n.Stats().Webhooks; s[1].Cooldown != 1 || s[1].Delivered != 6 || s[0].Delivered != 6 || s[0].Dropped+s[1].Dropped != 0 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// TestCooldownsAreBounded: streams that end with their feed have ids that never come again.
func TestCooldownsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := notifier(t, Parts{}, hook(func(w *Webhook) { w.Cooldown = time.Hour })).hooks[0]
		for i := range maxCooling + 10 {
			w.cool(cooled{stream: strconv.Itoa(i)}, time.Now())
		}
		if len(w.cooling) != maxCooling {
			t.Error(len(w.cooling))
		}
		time.Sleep(time.Hour)
		if w.cool(cooled{stream: "new"}, time.Now()); len(w.cooling) != 1 {
			t.Error(len(w.cooling))
		}
	})
}

// TestSlowTarget: one that does not answer drops its own events, and is waited for by nobody.
func TestSlowTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var quick collector
		var logged lines
		n := notifier(t, Parts{Log: slog.New(slog.NewTextHandler(&logged, nil))}, hook(func(w *Webhook) { w.Retries = 0 }), hook(nil))
		n.hooks[0].client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		n.hooks[1].client.Transport = &quick
		began := time.Now()
		events, stop := start(t, n)
		const sent = queueLength + 100
		for i := range sent {
			events <- enter(strconv.Itoa(i))
			synctest.Wait()
		}
		s := n.Stats().Webhooks
		if len(quick.got) != sent || time.Since(began) != 0 || s[0].Dropped != sent-queueLength-1 || s[0].Queued != queueLength || s[1].Dropped != 0 {
			t.Errorf("%d after %s: %+v", len(quick.got), time.Since(began), s)
		}
		if lines := strings.Count(logged.String(), "events are dropped"); lines != 1 {
			t.Errorf("%d lines:\n%s", lines, logged.String())
		}
		time.Sleep(10*time.Second + time.Millisecond) // the first attempt ends
		if s := n.Stats().Webhooks[0]; s.Failed != 1 {
			t.Errorf("%+v", s)
		}
		began = time.Now()
		stop()
		if s := n.Stats().Webhooks[0]; time.Since(began) > farewell || s.Failed+s.Dropped != sent || s.Queued != 0 {
			t.Errorf("stopped after %s: %+v", time.Since(began), s)
		}
	})
}

// TestStopWaitsForADelivery, but not longer than a second, and lets the others be.
func TestStopWaitsForADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := notifier(t, Parts{}, hook(nil))
		n.hooks[0].client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(farewell / 2):
				return answer(200), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		events, stop := start(t, n)
		events <- enter("a")
		events <- enter("b")
		synctest.Wait()
		stop()
		if s := n.Stats().Webhooks[0]; s.Delivered != 1 || s.Dropped != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestPanicEndsOneDelivery.
func TestPanicEndsOneDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collector
		n := notifier(t, Parts{}, hook(nil))
		n.hooks[0].client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if n.hooks[0].failed.Load() == 0 {
				panic("boom")
			}
			return c.RoundTrip(r)
		})
		events, stop := start(t, n)
		events <- enter("a")
		events <- enter("b")
		synctest.Wait()
		stop()
		if s := n.Stats().Webhooks[0]; s.Failed != 1 || s.Delivered != 1 || len(c.got) != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestThumbnails: an event brings it along, else it is looked up; without one the event goes out all the same.
func TestThumbnails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jpegs []any
		n := notifier(t, Parts{Thumbnail: func(ctx context.Context, id string) ([]byte, error) {
			if id == "lost" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []byte(id), nil
		}}, hook(func(w *Webhook) { w.Thumbnail = "embed" }), hook(nil))
		for _, w := range n.hooks {
			w.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				var m map[string]any
				err := json.NewDecoder(r.Body).Decode(&m)
				jpegs = append(jpegs, m["jpeg"])
				return answer(200), err
			})
			for _, e := range []*event.Event{
				{ID: "brings", Thumbnail: true, JPEG: []byte("abc")}, {ID: "kept", Thumbnail: true}, {ID: "lost", Thumbnail: true}, {ID: "none"},
			} {
				if !w.deliver(t.Context(), t.Context(), e) {
					t.Error(e.ID)
				}
			}
		}
		if got := fmt.Sprint(jpegs); got != "[YWJj a2VwdA== <nil> <nil> <nil> <nil> <nil> <nil>]" {
			t.Error(got)
		}
	})
}

// TestLogsAreWithoutCredentials, whatever fails.
func TestLogsAreWithoutCredentials(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://other.example/?key=word4")
		w.WriteHeader(http.StatusFound)
	}))
	defer server.Close()
	for _, address := range []string{
		server.URL, "http://127.0.0.1:1", "http://[::1]:1", "https" + strings.TrimPrefix(server.URL, "http"), "http://name.invalid",
	} {
		n := notifier(t, Parts{Log: log}, hook(func(w *Webhook) {
			w.URL = Address(strings.Replace(address, "://", "://me:word1@", 1) + "/word2?key=word3")
			w.Retries = 0
		}))
		if n.hooks[0].deliver(t.Context(), t.Context(), enter("a")) {
			t.Error(address)
		}
		n.hooks[0].client.CloseIdleConnections()
		n.hooks[0].missed(3)
		logged.WriteString(string(marshal(n.Stats())))
	}
	if lines := strings.Count(logged.String(), "has not taken an event"); lines != 5 {
		t.Errorf("%d lines", lines)
	}
	for _, s := range []string{"word1", "word2", "word3", "word4", secret[6:]} {
		if strings.Contains(logged.String(), s) {
			t.Errorf("%s is in\n%s", s, logged.String())
		}
	}
}

func TestSecretFiles(t *testing.T) {
	for _, c := range []Config{
		{Webhooks: []Webhook{{URL: "http://a", SecretFile: "/does/not/exist"}}},
		{Webhooks: []Webhook{{URL: "http://a", SecretFile: "webhook_test.go"}}},
		{MQTT: MQTT{URL: "mqtt://a", PasswordFile: "/does/not/exist"}},
		{MQTT: MQTT{URL: "mqtts://a", CAFile: "webhook_test.go"}},
		{MQTT: MQTT{URL: "mqtts://a", CertFile: "webhook_test.go", KeyFile: "webhook_test.go"}},
	} {
		if _, err := New(c, Parts{}); err == nil || !strings.HasPrefix(err.Error(), "notify.") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
