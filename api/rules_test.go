package api

import (
	"hailoclip/api/compat"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestApply changes LiveSettings and time limits for requests that come from then on, and nothing else.
func TestApply(t *testing.T) {
	s := serve(t, func(c *Config, _ *Service) { c.MaxPrompts = 5 })
	classify := func(prompts int, headers ...string) reply {
		return s.post(t, "/v1/classify", classifyBody(goodImage, "", strings.Split(strings.Repeat("x ", prompts-1)+"x", " ")...), headers...)
	}
	classify(5).wantOK(t)
	classify(1, "Origin", "https://example.org").wantError(t, 403, "origin_not_allowed", "")

	c := s.cfg
	c.MaxPrompts, c.AllowedOrigins, c.TrustedProxies, c.LameDuck = 2, []string{"https://example.org"}, []string{"127.0.0.1"}, time.Nanosecond
	c.MaxBodyBytes, c.Port = 1, 1 // which need a restart
	s.Apply(c, compat.Config{}, time.Hour, time.Hour)
	classify(2).wantOK(t)
	classify(3).wantError(t, 400, "invalid_prompts", "")
	if r := classify(1, "Origin", "https://example.org"); r.status != 200 || r.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("%d %v", r.status, r.header)
	}
	if !s.rules.Load().trusts(addressOf(s.listeners[0].Addr())) {
		t.Error("the proxy is not trusted")
	}
	c.AllowedHosts = []string{"example.org"}
	s.Apply(c, compat.Config{}, time.Nanosecond, time.Hour)
	classify(1, "Host", "other.example.org") // net/http takes it from elsewhere
	s.do(t, "GET", "/health", "").wantOK(t)
	classify(1).wantError(t, 504, "deadline_exceeded", "")
}

// TestLiveSettings: Apply changes those fields, and no others.
func TestLiveSettings(t *testing.T) {
	s := newService(t, nil)
	other := s.cfg
	for _, v := range reflect.ValueOf(&other).Elem().Fields() {
		switch v.Kind() {
		case reflect.Int, reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Slice:
			v.Set(reflect.Append(v, reflect.ValueOf("x")))
		case reflect.Struct:
			v.Field(0).SetString("x")
		default:
			t.Fatal(v.Kind())
		}
	}
	s.Apply(other, compat.Config{}, time.Minute, time.Minute)
	var changed []string
	was, now := reflect.ValueOf(s.cfg), reflect.ValueOf(s.rules.Load().Config)
	for f, v := range was.Fields() {
		if !reflect.DeepEqual(v.Interface(), now.FieldByIndex(f.Index).Interface()) {
			changed = append(changed, f.Tag.Get("yaml"))
		}
	}
	slices.Sort(changed)
	if want := slices.Sorted(slices.Values(LiveSettings)); !slices.Equal(changed, want) {
		t.Errorf("%q, want %q", changed, want)
	}
}

// TestApplyWhileServing is for the race detector; every request is served by the settings of one moment.
func TestApplyWhileServing(t *testing.T) {
	s := serve(t, nil)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 30 {
				if r := s.post(t, "/v1/classify", classifyBody(goodImage, "", "a", "b", "c")); r.status != 200 && r.status != 400 && r.status != 429 {
					t.Errorf("%d %s", r.status, r.body)
				}
			}
		})
	}
	c := s.cfg
	for i := range 200 {
		c.MaxPrompts = 2 + i%2
		s.Apply(c, compat.Config{}, time.Minute, time.Minute)
	}
	clients.Wait()
}
