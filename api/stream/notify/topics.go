package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hailoclip/api/stream/event"
	"math"
	"slices"
	"strings"
	"time"
)

// topics names the topics of the broker.
type topics struct{ prefix, discovery string }

func (t topics) status() string         { return t.prefix + "/status" }
func (t topics) event(id string) string { return t.prefix + "/" + level(id) + "/event" }
func (t topics) thumb(id string) string { return t.prefix + "/" + level(id) + "/thumb" }
func (t topics) birth() string          { return t.discovery + "/status" } // of Home Assistant

func (t topics) state(id, region string) string {
	if region == "" {
		return t.prefix + "/" + level(id) + "/state"
	}
	return t.prefix + "/" + level(id) + "/" + level(region) + "/state"
}

// config is the topic of a stream's discovery. Home Assistant takes letters, digits, _ and - there.
func (t topics) config(id string) string {
	return t.discovery + "/device/" + t.node() + "_" + safe(id, "_-") + "/config"
}

func (t topics) isConfig(topic string) bool {
	return t.discovery != "" && strings.HasPrefix(topic, t.discovery+"/device/")
}

// node tells the devices of services with different prefixes apart: hailo_clip for hailo-clip.
func (t topics) node() string {
	return strings.Map(func(r rune) rune {
		if isPlain(r) {
			return r
		}
		return '_'
	}, t.prefix)
}

// filters match all that the broker may remember of this service, and the starts of Home Assistant.
func (t topics) filters() []string {
	all := []string{t.status(), t.prefix + "/+/state", t.prefix + "/+/+/state", t.prefix + "/+/thumb"}
	if t.discovery != "" {
		all = append(all, t.discovery+"/device/+/config", t.birth())
	}
	return all
}

// ours says whether a message that the broker remembers is of this service: by its topic, and discovery also by its payload.
func (t topics) ours(topic string, payload []byte) bool {
	if !t.isConfig(topic) {
		return strings.HasPrefix(topic, t.prefix+"/")
	}
	var d device
	return strings.HasPrefix(topic, t.discovery+"/device/"+t.node()+"_") && json.Unmarshal(payload, &d) == nil &&
		d.Origin.Name == product && slices.Equal(d.Availability, []availability{{t.status()}})
}

// level makes one level of a topic of a name. Valid names of streams and regions stay as they are.
func level(name string) string {
	if event.ValidName(name) {
		return name
	}
	return safe(name, "._-")
}

// safe keeps ASCII letters, digits and what is in also; a text with others gets _ for them and a hash, which tells it apart.
func safe(text, also string) string {
	changed := text == ""
	kept := strings.Map(func(r rune) rune {
		if isPlain(r) || strings.ContainsRune(also, r) {
			return r
		}
		changed = true
		return '_'
	}, text)
	if !changed {
		return kept
	}
	return strings.ToValidUTF8(kept[:min(len(kept), 64)], "") + "_" + hash(text)
}

func isPlain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// state is the payload of a region's topic.
type state struct {
	State  string    `json:"state"` // a label, or "unknown"
	Score  float64   `json:"score"` // of State, to four places; 0 with "unknown"
	Labels []string  `json:"labels"`
	Since  time.Time `json:"since,omitzero"`
	Region string    `json:"region,omitempty"`
}

// maker makes what the broker is to remember. A payload that says the same as before is the one made before: a score alone is
// no reason to tell anybody, until forget.
type maker struct {
	topics
	classes map[string]string
	version string

	states  map[string]made[state]         // by topic
	devices map[string]made[event.Watched] // by topic
}

// made is a payload and what it was made of.
type made[T any] struct {
	of      T
	payload []byte
}

// forget has states made anew, with the scores of now.
func (m *maker) forget() { m.states = nil }

// desired is what the broker is to remember of streams, and all topics that are theirs. A state comes before the announcement: when
// labels change it is mostly unknown, which is an option before and after.
func (m *maker) desired(streams []event.Watched) (all []toRemember, keep map[string]bool) {
	states, devices := map[string]made[state]{}, map[string]made[event.Watched]{}
	keep = map[string]bool{m.status(): true}
	add := func(topic string, payload []byte) {
		keep[topic] = true
		all = append(all, toRemember{topic: topic, payload: payload})
	}
	for _, s := range streams {
		keep[m.thumb(s.ID)] = true
		for _, r := range s.Regions {
			topic, now := m.state(s.ID, r.Name), stateOf(r)
			was, ok := m.states[topic]
			if !ok || was.of.State != now.State || !was.of.Since.Equal(now.Since) || !slices.Equal(was.of.Labels, now.Labels) {
				was = made[state]{now, marshal(now)}
			}
			states[topic] = was
			add(topic, was.payload)
		}
		if m.discovery != "" && len(s.Regions) > 0 {
			topic := m.config(s.ID)
			d, ok := m.devices[topic]
			if !ok || !sameShape(d.of, s) {
				d = made[event.Watched]{s, marshal(m.device(s))}
			}
			devices[topic] = d
			add(topic, d.payload)
		}
	}
	m.states, m.devices = states, devices
	return all, keep
}

// sameShape says that two streams are announced alike.
func sameShape(a, b event.Watched) bool {
	return a.ID == b.ID && a.Thumbnails == b.Thumbnails &&
		slices.EqualFunc(a.Regions, b.Regions, func(a, b event.Region) bool { return a.Name == b.Name && slices.Equal(a.Labels, b.Labels) })
}

// stateOf is what is told of r.
func stateOf(r event.Region) state {
	s := state{State: r.State, Score: math.Round(r.Score*1e4) / 1e4, Labels: slices.Clone(r.Holds), Since: r.Since.UTC(), Region: r.Name}
	if s.State == "" {
		s.State = unknown
	}
	if s.State == unknown || math.IsNaN(s.Score) || math.IsInf(s.Score, 0) {
		s.Score = 0
	}
	if s.Labels == nil {
		s.Labels = []string{}
	}
	return s
}

// marshal writes JSON of values that always have one.
func marshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}
