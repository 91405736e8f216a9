package notify

import (
	"encoding/json"
	"hailoclip/api/stream/event"
	"maps"
	"slices"
	"strings"
)

const (
	unknown    = "unknown"    // the state where no label holds
	product    = "hailo-clip" // of the devices
	maxSensors = 100          // binary sensors of a stream; further labels are options of its state alone
)

// device is the payload of Home Assistant's device discovery, in its abbreviations:
// https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload.
type device struct {
	Device       about                `json:"dev"`
	Origin       origin               `json:"o"`
	Availability []availability       `json:"availability"`
	StateTopic   string               `json:"state_topic,omitempty"` // of components that have none
	Components   map[string]component `json:"cmps"`
}

type about struct {
	IDs     []string `json:"ids"`
	Name    string   `json:"name"`
	Maker   string   `json:"mf"`
	Version string   `json:"sw,omitempty"`
}

type origin struct {
	Name    string `json:"name"`
	Version string `json:"sw,omitempty"`
}

type availability struct {
	Topic string `json:"topic"`
}

// component is an entity. One that is removed has a platform and nothing else.
type component struct {
	Platform      string   `json:"p"`
	Name          string   `json:"name,omitempty"`
	UniqueID      string   `json:"unique_id,omitempty"`
	DeviceClass   string   `json:"device_class,omitempty"`
	StateClass    string   `json:"state_class,omitempty"`
	Options       []string `json:"options,omitempty"`
	StateTopic    string   `json:"state_topic,omitempty"`
	ValueTemplate string   `json:"value_template,omitempty"`
	ImageTopic    string   `json:"image_topic,omitempty"`
	ContentType   string   `json:"content_type,omitempty"`
}

// device announces a stream: for each region its state, its score and one binary sensor a label, and the newest thumbnail.
func (m *maker) device(s event.Watched) device {
	d := device{
		Device:       about{IDs: []string{m.node() + "_" + safe(s.ID, "_-")}, Name: s.ID, Maker: product, Version: m.version},
		Origin:       origin{Name: product, Version: m.version},
		Availability: []availability{{m.status()}},
		Components:   map[string]component{},
	}
	id := m.node() + "_" + safe(s.ID, "-") + "_" // "_" in an id gets a hash, so that region b of stream a is not stream a_b
	if s.Thumbnails {
		d.Components["snap"] = component{Platform: "image", Name: "Snapshot", UniqueID: id + "img", ImageTopic: m.thumb(s.ID), ContentType: "image/jpeg"}
	}
	sensors := map[string][]component{} // of labels, by key; unique ids are still hashes
	part := func(r event.Region) (key, name, topic string) {
		if r.Name == "" {
			return "", "", "" // the device's topic
		}
		return safe(r.Name, "_-") + "_", r.Name + " ", m.state(s.ID, r.Name)
	}
	for _, r := range s.Regions {
		key, name, topic := part(r)
		if topic == "" {
			d.StateTopic = m.state(s.ID, "")
		}
		options := slices.Clone(r.Labels)
		if !slices.Contains(options, unknown) {
			options = append(options, unknown)
		}
		d.Components[key+"state"] = component{Platform: "sensor", Name: name + "State", UniqueID: id + key + "state", DeviceClass: "enum",
			Options: options, StateTopic: topic, ValueTemplate: "{{ value_json.state }}"}
		d.Components[key+"score"] = component{Platform: "sensor", Name: name + "Score", UniqueID: id + key + "score", StateClass: "measurement",
			StateTopic: topic, ValueTemplate: "{{ value_json.score }}"}
	}
	left := maxSensors
	for _, r := range s.Regions {
		key, name, topic := part(r)
		for _, label := range r.Labels[:min(len(r.Labels), left)] {
			left--
			sensors[key+safe(label, "_-")] = append(sensors[key+safe(label, "_-")], component{
				Platform: "binary_sensor", Name: name + label, UniqueID: hash(r.Name + "\x00" + label), DeviceClass: m.classes[label],
				StateTopic: topic, ValueTemplate: "{{ 'ON' if value_json.state==" + quote(label) + " else 'OFF' }}",
			})
		}
	}
	for key, all := range sensors {
		_, taken := d.Components[key]
		taken = taken || key == "snap" || key == "img" || len(all) > 1
		for _, c := range all {
			k := key
			if taken {
				k += "_" + c.UniqueID
			}
			c.UniqueID = id + k
			d.Components[k] = c
		}
	}
	return d
}

// quote writes a text of Jinja, the language of the templates.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`).Replace(text) + "'"
}

// withRemoved is the announcement now, in which the components that only was has are removed; nil if there are none.
func withRemoved(was, now []byte) []byte {
	var old, d device
	if json.Unmarshal(was, &old) != nil || json.Unmarshal(now, &d) != nil {
		return nil
	}
	maps.DeleteFunc(old.Components, func(key string, c component) bool {
		_, stays := d.Components[key]
		return stays || c.UniqueID == "" || c.Platform == ""
	})
	if len(old.Components) == 0 {
		return nil
	}
	for key, c := range old.Components {
		d.Components[key] = component{Platform: c.Platform}
	}
	return marshal(d)
}
