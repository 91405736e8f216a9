package configs

import (
	"reflect"
	"slices"
	"testing"
)

// TestChangedAndTake: every setting that a file can have is seen to change, and taken over by its key.
func TestChangedAndTake(t *testing.T) {
	was := mustLoad(t, "")
	now := mustLoad(t, `
server: {port: 8080, allowed_hosts: [a.example.org]}
clip: {device_timeout_ms: 900, fit: pad}
notify: {webhooks: [{url: "https://example.org/hook"}], mqtt: {prefix: other}}
prompt_sets: {door: {labels: [{name: open}, {name: closed}]}}
logging: {level: debug}
`)
	want := []string{"server.port", "server.allowed_hosts", "clip.device_timeout", "clip.fit", "notify.webhooks",
		"notify.mqtt.prefix", "prompt_sets", "logging.level"}
	changed := Changed(was, now)
	slices.Sort(want)
	if slices.Sort(changed); !slices.Equal(changed, want) {
		t.Errorf("changed: %q, want %q", changed, want)
	}
	mixed := was
	mixed.Take(now, []string{"server.allowed_hosts", "clip.device_timeout", "prompt_sets"})
	left := Changed(mixed, now)
	if slices.Sort(left); !slices.Equal(left, []string{"clip.fit", "logging.level", "notify.mqtt.prefix", "notify.webhooks", "server.port"}) {
		t.Errorf("left: %q", left)
	}
	if len(Changed(was, was)) > 0 || !reflect.DeepEqual(mixed.PromptSets, now.PromptSets) || len(was.PromptSets) > 0 {
		t.Error("what is equal changed, or something else did")
	}
}
