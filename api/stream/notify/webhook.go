package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"hailoclip/api/stream/event"
)

const (
	firstPause = time.Second // before the second attempt; each later one is twice as long
	maxPause   = time.Minute // also of what Retry-After asks for
	maxAnswer  = 4 << 10     // bytes of an answer that are read, so that its connection can be used again
	maxCooling = 10000       // labels whose cooldown is remembered
)

// webhook sends events to one address, one after the other in their order.
type webhook struct {
	cfg    Webhook
	key    []byte // nil: not signed
	parts  Parts
	log    *slog.Logger
	queue  chan *event.Event
	client http.Client

	cooling map[cooled]time.Time // until when; only offer uses it

	delivered, failed, dropped, suppressed atomic.Uint64
	dropLog, failLog                       sometimes
}

// cooled is what has a cooldown: the same message about the same label.
type cooled struct {
	stream, region, label string
	kind                  event.Kind
}

func newWebhook(i int, c Webhook, p Parts) (*webhook, error) {
	secret, err := c.Secret.orFile(c.SecretFile)
	if err != nil {
		return nil, err
	}
	key, err := secret.key()
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1
	transport.MaxResponseHeaderBytes = 16 << 10
	return &webhook{
		cfg: c, key: key, parts: p, queue: make(chan *event.Event, queueLength), cooling: map[cooled]time.Time{},
		log: p.Log.With("webhook", i, "url", c.URL.String()),
		client: http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// offer queues an event that the webhook is to hear. It does not block. Not for concurrent use.
func (w *webhook) offer(e *event.Event) {
	if !slices.Contains(w.cfg.Events, string(e.Kind)) || len(w.cfg.Streams) > 0 && !slices.Contains(w.cfg.Streams, e.Stream) {
		return
	}
	what, now := cooled{e.Stream, e.Region, e.Label + e.State, e.Kind}, time.Now()
	if w.cfg.Cooldown > 0 && now.Before(w.cooling[what]) {
		w.suppressed.Add(1)
		return
	}
	select {
	case w.queue <- e:
		w.cool(what, now)
	default:
		w.missed(1)
	}
}

// cool begins a cooldown. Where too many are remembered it forgets those that are over, and if there is none any one.
func (w *webhook) cool(what cooled, now time.Time) {
	if w.cfg.Cooldown == 0 {
		return
	}
	if len(w.cooling) >= maxCooling {
		for other, until := range w.cooling {
			if !now.Before(until) {
				delete(w.cooling, other)
			}
		}
		for other := range w.cooling {
			if len(w.cooling) < maxCooling {
				break
			}
			delete(w.cooling, other)
		}
	}
	w.cooling[what] = now.Add(w.cfg.Cooldown)
}

// missed counts events that the webhook does not get because it, or all of them, were too slow.
func (w *webhook) missed(n int) {
	if n > 0 {
		w.dropped.Add(uint64(n))
		w.dropLog.log(w.log, "events are dropped: the webhook is too slow", "dropped", w.dropped.Load())
	}
}

func (w *webhook) stats() WebhookStats {
	return WebhookStats{URL: w.cfg.URL.String(), Cooldown: w.suppressed.Load(),
		Counts: Counts{Delivered: w.delivered.Load(), Failed: w.failed.Load(), Dropped: w.dropped.Load(), Queued: len(w.queue)}}
}

// run sends what is queued until ctx ends. What is being sent then has a second more.
func (w *webhook) run(ctx context.Context) {
	defer w.client.CloseIdleConnections()
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(farewell):
			cancel()
		case <-last.Done():
		}
	})()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case e := <-w.queue:
			sent := false
			guard(w.log, func() { sent = w.deliver(ctx, last, e) })
			if sent {
				w.delivered.Add(1)
				w.failLog.reset()
			} else {
				w.failed.Add(1)
			}
		}
	}
	for {
		select {
		case <-w.queue:
			w.dropped.Add(1)
		default:
			return
		}
	}
}

// message is the body of a delivery.
type message struct {
	*event.Event
	Delivery string `json:"delivery"`       // also the header webhook-id: the same in all attempts
	Attempt  int    `json:"attempt"`        // from 1
	JPEG     []byte `json:"jpeg,omitempty"` // the thumbnail, in base64
}

// deliver sends an event until it is taken, refused or the attempts are used up, and says whether it was taken. It makes no new
// attempt when ctx has ended, and the one that is being made ends with last.
func (w *webhook) deliver(ctx, last context.Context, e *event.Event) bool {
	m := message{Event: e, Delivery: "msg_" + rand.Text()}
	if w.cfg.Thumbnail == "embed" {
		m.JPEG = w.parts.thumbnail(last, e)
	}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		m.Attempt++
		again, after, err := w.post(last, m)
		if err == nil {
			return true
		}
		if !again || m.Attempt > w.cfg.Retries {
			w.failLog.log(w.log, "the webhook has not taken an event", "event", e.ID, "attempts", m.Attempt, "error", err)
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(max(pause/2+mathrand.N(pause/2), min(after, maxPause))):
		}
	}
}

// post makes one attempt. again says that another may be better, after at least so long.
func (w *webhook) post(ctx context.Context, m message) (again bool, after time.Duration, err error) {
	body, err := json.Marshal(m)
	if err != nil {
		return false, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, string(w.cfg.URL), bytes.NewReader(body))
	if err != nil {
		return false, 0, withoutURL(err)
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "hailo-clip/"+w.parts.Version)
	r.Header.Set("Webhook-Id", m.Delivery)
	r.Header.Set("Webhook-Timestamp", now)
	if w.key != nil {
		r.Header.Set("Webhook-Signature", "v1,"+sign(w.key, m.Delivery, now, body))
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return true, 0, withoutURL(err)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // the status says all
	if answer.StatusCode/100 == 2 {
		return false, 0, nil
	}
	again = answer.StatusCode/100 == 5 || answer.StatusCode == http.StatusTooManyRequests
	return again, retryAfter(answer.Header.Get("Retry-After")), fmt.Errorf("status %d", answer.StatusCode)
}

// sign is the signature of the Standard Webhooks specification: base64 of HMAC-SHA256 over id, time and body.
func sign(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// retryAfter reads the header, in seconds or as a date; 0 if it says nothing.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// withoutURL takes the address out of an error of the HTTP client: it may have credentials.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
