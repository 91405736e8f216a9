package notify

import (
	"encoding/json"
	"fmt"
	"hailoclip/api/stream/event"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// golden is the payload that the design of streams asks for, with what it leaves open filled in.
const golden = `{
  "dev": {"ids": ["hailo_clip_gate"], "name": "gate", "mf": "hailo-clip", "sw": "1.2"},
  "o": {"name": "hailo-clip", "sw": "1.2"},
  "availability": [{"topic": "hailo-clip/status"}],
  "state_topic": "hailo-clip/gate/state",
  "cmps": {
    "state": {"p": "sensor", "unique_id": "hailo_clip_gate_state", "device_class": "enum", "options": ["open", "closed", "unknown"],
      "value_template": "{{ value_json.state }}"},
    "open": {"p": "binary_sensor", "unique_id": "hailo_clip_gate_open", "device_class": "opening",
      "value_template": "{{ 'ON' if value_json.state=='open' else 'OFF' }}"},
    "closed": {"p": "binary_sensor", "unique_id": "hailo_clip_gate_closed",
      "value_template": "{{ 'ON' if value_json.state=='closed' else 'OFF' }}"},
    "score": {"p": "sensor", "unique_id": "hailo_clip_gate_score", "state_class": "measurement", "value_template": "{{ value_json.score }}"},
    "snap": {"p": "image", "unique_id": "hailo_clip_gate_img", "image_topic": "hailo-clip/gate/thumb", "content_type": "image/jpeg"}
  }
}`

// gate is a stream with one region, all of the frame.
func gate() event.Watched {
	return event.Watched{ID: "gate", Thumbnails: true, Regions: []event.Region{{Labels: []string{"open", "closed"}}}}
}

func testMaker() *maker {
	return &maker{topics: topics{"hailo-clip", "homeassistant"}, classes: map[string]string{"open": "opening"}, version: "1.2"}
}

// announcement is the payload of discovery of streams, by topic.
func announcements(t *testing.T, m *maker, streams ...event.Watched) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	desired, _ := m.desired(streams)
	for _, d := range desired {
		var payload map[string]any
		if m.isConfig(d.topic) {
			if err := json.Unmarshal(d.payload, &payload); err != nil || all[d.topic] != nil {
				t.Fatalf("%s: %s, %v", d.topic, d.payload, err)
			}
			all[d.topic] = payload
		}
	}
	return all
}

// TestDiscovery compares field by field; only names of the entities, without which all would have the same, are more.
func TestDiscovery(t *testing.T) {
	var want map[string]any
	if err := json.Unmarshal([]byte(golden), &want); err != nil {
		t.Fatal(err)
	}
	got := announcements(t, testMaker(), gate())["homeassistant/device/hailo_clip_gate/config"]
	names := map[string]any{}
	for key, c := range got["cmps"].(map[string]any) {
		names[key] = c.(map[string]any)["name"]
		delete(c.(map[string]any), "name")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"state": "State", "score": "Score", "snap": "Snapshot", "open": "open", "closed": "closed"}, names); diff != "" {
		t.Error(diff)
	}
}

// entities are the components by unique id, each with its topic.
func entities(t *testing.T, all map[string]map[string]any) map[string]component {
	t.Helper()
	found := map[string]component{}
	for topic, payload := range all {
		var d device
		if err := json.Unmarshal(marshal(payload), &d); err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^homeassistant/device/[a-zA-Z0-9_-]+/config$`).MatchString(topic) {
			t.Errorf("Home Assistant does not look at %s", topic)
		}
		for key, c := range d.Components {
			if c.StateTopic == "" && c.Platform != "image" {
				c.StateTopic = d.StateTopic
			}
			if _, twice := found[c.UniqueID]; twice || c.UniqueID == "" || !regexp.MustCompile(`^[a-zA-Z0-9_-]+$`).MatchString(key) {
				t.Errorf("%s: %s has the id %q", topic, key, c.UniqueID)
			}
			found[c.UniqueID] = c
		}
	}
	return found
}

func TestRegionsHaveTopicsOfTheirOwn(t *testing.T) {
	all := announcements(t, testMaker(), event.Watched{ID: "yard", Regions: []event.Region{{Name: "left", Labels: []string{"cat"}}, {Name: "right", Labels: []string{"cat", "unknown"}}}})
	if _, root := all["homeassistant/device/hailo_clip_yard/config"]["state_topic"]; root || len(all) != 1 {
		t.Error(all)
	}
	found := entities(t, all)
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []string{"hailo_clip_yard_left_cat", "hailo_clip_yard_left_score", "hailo_clip_yard_left_state",
		"hailo_clip_yard_right_cat", "hailo_clip_yard_right_score", "hailo_clip_yard_right_state", "hailo_clip_yard_right_unknown"}) {
		t.Error(got)
	}
	right := found["hailo_clip_yard_right_state"]
	if right.StateTopic != "hailo-clip/yard/right/state" || right.Name != "right State" || !slices.Equal(right.Options, []string{"cat", "unknown"}) {
		t.Errorf("%+v", right)
	}
}

// TestIDsAreUnique: of streams, regions and labels whose names meet, and of labels of any text.
func TestIDsAreUnique(t *testing.T) {
	labels := []string{"state", "score", "snap", "img", "open", "a b", "a_b", "a-b", "it's", `back\slash`, "日本", "", strings.Repeat("long ", 50), "door_open", "two\nlines"}
	m := testMaker()
	all := announcements(t, m,
		event.Watched{ID: "front", Thumbnails: true, Regions: []event.Region{{Labels: labels}, {Name: "door", Labels: labels}, {Name: "door_open", Labels: labels}}},
		event.Watched{ID: "front_door", Thumbnails: true, Regions: []event.Region{{Labels: labels}, {Name: "open", Labels: labels}}},
		event.Watched{ID: "front.door", Regions: []event.Region{{Labels: labels}}}, event.Watched{ID: "front-door", Regions: []event.Region{{Labels: labels}}})
	if len(all) != 4 {
		t.Error(slices.Collect(maps.Keys(all)))
	}
	if got, want := len(entities(t, all)), 7*(2+len(labels))+2; got != want {
		t.Errorf("%d entities, want %d", got, want)
	}
	for id, c := range entities(t, all) {
		if c.Platform == "binary_sensor" && !slices.ContainsFunc(labels, func(l string) bool { return c.ValueTemplate == render(l) }) {
			t.Errorf("%s: %s", id, c.ValueTemplate)
		}
	}
}

// render is the template of a label's binary sensor.
func render(label string) string {
	label = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(label, `\`, `\\`), `'`, `\'`), "\n", `\n`)
	return "{{ 'ON' if value_json.state=='" + label + "' else 'OFF' }}"
}

func TestManyLabels(t *testing.T) {
	var labels []string
	for i := range 1000 {
		labels = append(labels, fmt.Sprint("label", i))
	}
	found := entities(t, announcements(t, testMaker(), event.Watched{ID: "a", Regions: []event.Region{{Name: "b", Labels: labels[:60]}, {Name: "c", Labels: labels}}}))
	if len(found) != maxSensors+4 || len(found["hailo_clip_a_c_state"].Options) != 1001 {
		t.Errorf("%d entities", len(found))
	}
}

// TestRemovedComponents: they are told with their platform alone, once.
func TestRemovedComponents(t *testing.T) {
	m := testMaker()
	was, now := marshal(m.device(gate())), gate()
	now.Regions[0].Labels, now.Thumbnails = []string{"open", "ajar"}, false
	is := marshal(m.device(now))
	with := withRemoved(was, is)
	var d struct {
		Components map[string]map[string]any `json:"cmps"`
	}
	if err := json.Unmarshal(with, &d); err != nil {
		t.Fatal(err)
	}
	for key, platform := range map[string]string{"closed": "binary_sensor", "snap": "image"} {
		if diff := cmp.Diff(map[string]any{"p": platform}, d.Components[key]); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
	if len(d.Components) != 6 || d.Components["ajar"]["unique_id"] != "hailo_clip_gate_ajar" {
		t.Errorf("%s", with)
	}
	for _, was := range [][]byte{with, is, nil, []byte("{"), []byte(`{"cmps": 5}`)} {
		if again := withRemoved(was, is); again != nil {
			t.Errorf("%s: %s", was, again)
		}
	}
}

// TestStatesAreMadeAnewWhenTheyChange: a score alone is told once in a while.
func TestStatesAreMadeAnewWhenTheyChange(t *testing.T) {
	m, s, began := testMaker(), gate(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	payload := func(state string, score float64, since time.Time, holds ...string) string {
		s.Regions[0].State, s.Regions[0].Score, s.Regions[0].Since, s.Regions[0].Holds = state, score, since, holds
		desired, keep := m.desired([]event.Watched{s})
		if len(desired) != 2 || !keep["hailo-clip/gate/thumb"] || !keep["hailo-clip/gate/state"] {
			t.Errorf("%v, %v", desired, keep)
		}
		return string(desired[0].payload)
	}
	for _, tt := range []struct{ got, want string }{
		{payload("", 0.3, began), `{"state":"unknown","score":0,"labels":[],"since":"2026-01-02T03:04:05Z"}`},
		{payload("open", 0.81239, began, "open"), `{"state":"open","score":0.8124,"labels":["open"],"since":"2026-01-02T03:04:05Z"}`},
		{payload("open", 0.9, began, "open"), `{"state":"open","score":0.8124,"labels":["open"],"since":"2026-01-02T03:04:05Z"}`},
		{payload("open", 0.9, began, "open", "ajar"), `{"state":"open","score":0.9,"labels":["open","ajar"],"since":"2026-01-02T03:04:05Z"}`},
		{payload("open", 0.7, began.Add(time.Second), "open", "ajar"), `{"state":"open","score":0.7,"labels":["open","ajar"],"since":"2026-01-02T03:04:06Z"}`},
	} {
		if tt.got != tt.want {
			t.Errorf("%s, want %s", tt.got, tt.want)
		}
	}
	payload("open", 0.6, began, "open")
	m.forget()
	if got := payload("open", 0.5, began, "open"); !strings.Contains(got, `"score":0.5`) {
		t.Error(got)
	}
}
