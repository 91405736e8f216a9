package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"hailoclip/cache/sets"
)

var testLimits = Limits{Prompts: 3, PromptBytes: 10}

// TestParse has definitions and what they are when they are normalised.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		`{"prompt_set": "door"}`:                        `{"prompt_set":"door","policy":"latest","clock":"receive"}`,
		` {"prompts": [" a ", "b\t"]} `:                 `{"prompts":["a","b"],"policy":"latest","clock":"receive"}`,
		`{"prompts": ["a"], "policy": "queue"}`:         `{"prompts":["a"],"policy":"queue","max_in_flight":8,"clock":"receive"}`,
		`{"prompts": ["a"], "gate": {}, "regions": []}`: `{"prompts":["a"],"policy":"latest","gate":{"distance":4,"heartbeat_ms":5000},"clock":"receive"}`,
		`{"prompts": ["a"], "gate": {"distance": 0, "heartbeat_ms": 7}, "fps": 0.5, "interval_ms": 100, "frame_header": true}`: `{"prompts":["a"],` +
			`"policy":"latest","fps":0.5,"interval_ms":100,"gate":{"distance":0,"heartbeat_ms":7},"clock":"receive","frame_header":true}`,
		`{"prompts": ["a"], "events": {"thumbnails": true, "exit": 0}}`: `{"prompts":["a"],"policy":"latest",` +
			`"events":{"on":"changes","exit":0,"min_frames":3,"recheck_ms":500,"thumbnails":true,"store":true},"clock":"receive"}`,
		`{"regions": [{"name": "a", "x": 0.5, "y": 0, "w": 0.5, "h": 1, "prompt_set": "b"}], "format": "gray8; 2x2"}`: `{"policy":"latest",` +
			`"regions":[{"name":"a","x":0.5,"y":0,"w":0.5,"h":1,"prompt_set":"b"}],"clock":"receive","format":"gray8; 2x2"}`,
	} {
		d, err := Parse([]byte(text), testLimits)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _ := d.canonical(); string(got) != want {
			t.Errorf("%s:\n%s, want\n%s", text, got, want)
		}
	}
}

// TestFaults has what a definition must not be, and the field that is named.
func TestFaults(t *testing.T) {
	for fields, field := range map[string]string{
		``:                                                                          "prompt_set",
		`"prompts": []`:                                                             "prompt_set",
		`"prompts": ["a"], "prompt_set": "b"`:                                       "prompts",
		`"prompts": ["a","b","c","d"]`:                                              "prompts",
		`"prompts": ["a", " "]`:                                                     "prompts[1]",
		`"prompts": ["01234567890"]`:                                                "prompts[0]",
		`"prompts": [1]`:                                                            "prompts",
		`"prompt_set": "../a"`:                                                      "prompt_set",
		`"prompt_set": "a", "promts": []`:                                           `"promts"`,
		`"prompt_set": "a", "id": "b"`:                                              `"id"`,
		`"prompt_set": "a", "top_k": -1`:                                            "top_k",
		`"prompt_set": "a", "top_k": 1.5`:                                           "top_k",
		`"prompt_set": "a", "policy": "WAIT"`:                                       "policy",
		`"prompt_set": "a", "max_in_flight": 65`:                                    "max_in_flight",
		`"prompt_set": "a", "max_in_flight": -1`:                                    "max_in_flight",
		`"prompt_set": "a", "fps": -1`:                                              "fps",
		`"prompt_set": "a", "fps": 1e-9`:                                            "fps",
		`"prompt_set": "a", "fps": 1001`:                                            "fps",
		`"prompt_set": "a", "interval_ms": -1`:                                      "interval_ms",
		`"prompt_set": "a", "clock": "mine"`:                                        "clock",
		`"prompt_set": "a", "gate": {"distance": 33}`:                               "gate.distance",
		`"prompt_set": "a", "gate": {"distance": -1}`:                               "gate.distance",
		`"prompt_set": "a", "gate": {"heartbeat_ms": 3600001}`:                      "gate.heartbeat_ms",
		`"prompt_set": "a", "gate": {"hash": 1}`:                                    `"hash"`,
		`"prompt_set": "a", "events": {"on": "all"}`:                                "events.on",
		`"prompt_set": "a", "events": {"enter": 0.4, "exit": 0.5}`:                  "events.exit",
		`"prompt_set": "a", "events": {"enter": 1.1}`:                               "events.enter",
		`"prompt_set": "a", "events": {"hold_ms": -1}`:                              "events.hold_ms",
		`"prompt_set": "a", "events": {"min_frames": 1001}`:                         "events.min_frames",
		`"prompt_set": "a", "events": {"smoothing": 1}`:                             "events.smoothing",
		`"prompt_set": "a", "events": {"recheck_ms": -5}`:                           "events.recheck_ms",
		`"prompt_set": "a", "events": []`:                                           "events",
		`"prompt_set": "a", "format": "jpeg"`:                                       "format",
		`"prompt_set": "a", "regions": [{"name": "x y", "w": 1, "h": 1}]`:           "regions[0].name",
		`"prompt_set": "a", "regions": [{"name": "x", "w": 0, "h": 1}]`:             "regions[0]",
		`"prompt_set": "a", "regions": [{"name": "x", "x": 0.1, "w": 1, "h": 1}]`:   "regions[0]",
		`"prompt_set": "a", "regions": [{"name": "x", "x": 1e309, "w": 1, "h": 1}]`: "regions.x",
		`"prompt_set": "a", "regions": [{"name": "x", "w": 1, "h": 1}, {"name": "x", "w": 1, "h": 1}]`: "regions[1].name",
		`"regions": [{"name": "x", "w": 1, "h": 1, "prompt_set": "a"}, {"name": "y", "w": 1, "h": 1}]`: "prompt_set",
		`"prompt_set": "a", "regions": [{},{},{},{},{},{},{},{},{}]`:                                   "regions",
	} {
		_, err := Parse([]byte("{"+fields+"}"), testLimits)
		var fault sets.Fault
		if !errors.As(err, &fault) || fault.Field != field {
			t.Errorf("%s: %v, want a fault of %s", fields, err, field)
		}
	}
	for _, text := range []string{``, `[]`, `null`, `{`, `{"prompt_set": "a"} {}`, "{\"prompt_set\": \"\xff\"}", `"a"`} {
		if _, err := Parse([]byte(text), testLimits); err == nil || len(sets.Faults(err)) == 0 {
			t.Errorf("%s: %v", text, err)
		}
	}
	many := `{"prompts": [` + strings.Repeat(`"a",`, 2000) + `"a"]}`
	if _, err := Parse([]byte(many), testLimits); err == nil || !strings.Contains(err.Error(), "values") {
		t.Errorf("many values: %v", err)
	}
}

// TestFaultsOfMessages: a message that may have an id names its fields as others do.
func TestFaultsOfMessages(t *testing.T) {
	for text, want := range map[string]string{
		`{"prompts": ["a"], "fps": "fast"}`:            "fps",
		`{"prompts": ["a"], "gate": {"distance": ""}}`: "gate.distance",
		`{"prompts": ["a"], "id": 1}`:                  "id",
	} {
		_, err := Definition{}.merge([]byte(text), testLimits, true)
		if found := sets.Faults(err); len(found) != 1 || found[0].Field != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestMerge changes a definition field by field; the one before stays as it is.
func TestMerge(t *testing.T) {
	const before = `{"prompts":["a","b"],"top_k":1,"policy":"latest","regions":[{"name":"x","x":0,"y":0,"w":1,"h":0.5}],` +
		`"gate":{"distance":3,"heartbeat_ms":9},"events":{"on":"changes","enter":0.9,"min_frames":3,"recheck_ms":500},"clock":"receive"}`
	d, err := Parse([]byte(before), testLimits)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][2]string{ // what of before, and by what
		`{}`:                                {"", ""},
		`{"prompt_set": "c"}`:               {`"prompts":["a","b"]`, `"prompt_set":"c"`},
		`{"prompts": ["c"]}`:                {`"prompts":["a","b"]`, `"prompts":["c"]`},
		`{"top_k": 0}`:                      {`"top_k":1,`, ``},
		`{"gate": {"distance": 7}}`:         {`"distance":3`, `"distance":7`},
		`{"gate": null}`:                    {`"gate":{"distance":3,"heartbeat_ms":9},`, ``},
		`{"events": {"enter": 0.8}}`:        {`"enter":0.9`, `"enter":0.8`},
		`{"events": {"enter": null}}`:       {`"enter":0.9,`, ``},
		`{"regions": []}`:                   {`"regions":[{"name":"x","x":0,"y":0,"w":1,"h":0.5}],`, ``},
		`{"regions": null, "policy": null}`: {"", ""},
		`{"regions": [{"name": "y", "w": 0.5, "h": 1}]}`: {`{"name":"x","x":0,"y":0,"w":1,"h":0.5}`, `{"name":"y","x":0,"y":0,"w":0.5,"h":1}`},
	} {
		n, err := d.Merge([]byte(text), testLimits)
		got, _ := n.canonical()
		if want := strings.Replace(before, want[0], want[1], 1); err != nil || string(got) != want {
			t.Errorf("%s: %v:\n%s, want\n%s", text, err, got, want)
		}
		if now, _ := d.canonical(); string(now) != before {
			t.Fatalf("%s: it has changed: %s", text, now)
		}
	}
	if _, err := d.Merge([]byte(`{"prompts": ["c"], "prompt_set": "c"}`), testLimits); err == nil {
		t.Error("both are good")
	}
}

// FuzzDefinition: what is read is written alike and read again, and changes nothing of what it is merged with.
func FuzzDefinition(f *testing.F) {
	for _, seed := range []string{
		`{"prompt_set": "door", "fps": 2.5, "gate": {}, "events": {"on": "frames", "enter": 0.5, "hold_ms": 100}}`,
		`{"prompts": ["a", "b"], "policy": "queue", "max_in_flight": 4, "clock": "frame", "format": "nv12; 640x480; stride=640"}`,
		`{"id": "x", "regions": [{"name": "a", "x": 0.1, "y": 0.2, "w": 0.3, "h": 0.4, "prompt_set": "b"}], "gate": null}`,
		`{"Prompts": ["\u0061"], "prompts": null, "gate": {"distance": null}}`,
	} {
		f.Add([]byte(seed), []byte(`{"gate": {"distance": 1}, "events": {}}`))
	}
	f.Fuzz(func(t *testing.T, text, change []byte) {
		d, err := Definition{}.merge(text, testLimits, true)
		if err != nil {
			if len(sets.Faults(err)) == 0 {
				t.Errorf("%v is no fault", err)
			}
			return
		}
		written, err := d.canonical()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written, testLimits)
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Fatalf("%v: %+v, want %+v", err, again, d)
		}
		newPlan(d)
		if n, err := d.Merge(change, testLimits); err == nil {
			newPlan(n)
			if _, err := json.Marshal(n); err != nil {
				t.Error(err)
			}
		}
		if now, _ := d.canonical(); !bytes.Equal(now, written) {
			t.Errorf("%s has become %s", written, now)
		}
	})
}

// TestMergeLeaves: what frames are still compared with is not written to, which the race detector would see only by chance.
func TestMergeLeaves(t *testing.T) {
	d := Definition{Prompts: []string{" a ", "b"}, Regions: []Region{{Name: "x", W: 1, H: 1}}}
	n, err := d.Merge([]byte(`{"fps": 2}`), Limits{Prompts: 10, PromptBytes: 100})
	if err != nil || n.Prompts[0] != "a" || n.FPS != 2 {
		t.Fatalf("%+v, %v", n, err)
	}
	n.Regions[0].Name = "y"
	if d.Prompts[0] != " a " || d.Regions[0].Name != "x" {
		t.Errorf("%+v", d)
	}
}
