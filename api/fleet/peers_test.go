package fleet

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func loadOf(node, instance string) Load {
	return Load{
		Node: node, Instance: instance, Model: "m", Digests: []string{"d"}, Prep: "p", Rate: 335, Batch: 8, Free: 10,
		Health: healthy, Spill: true,
	}
}

func newPeers() *peers {
	return &newMembership(Config{Node: "own"}, slog.New(slog.DiscardHandler)).peers
}

// TestPeersAge: a node counts as alive for a second by our clock, whatever its own says, and is forgotten after a minute.
func TestPeersAge(t *testing.T) {
	p, now := newPeers(), time.Unix(1000, 0)
	for _, node := range []string{"b", "a", "own"} {
		l := loadOf(node, "1")
		l.UnixMs = 1_002_000
		p.hear(now, l)
	}
	for _, c := range []struct {
		after time.Duration
		alive []bool
	}{{0, []bool{true, true}}, {aliveFor - 1, []bool{true, true}}, {aliveFor, []bool{false, false}}, {knownFor, nil}} {
		var alive []bool
		for i, peer := range p.list(now.Add(c.after)) {
			alive = append(alive, peer.Alive())
			if peer.Node != []string{"a", "b"}[i] || peer.Clock != 2*time.Second || peer.Twice {
				t.Errorf("after %v: %+v", c.after, peer)
			}
		}
		if !slices.Equal(alive, c.alive) {
			t.Errorf("after %v: %v, want %v", c.after, alive, c.alive)
		}
	}
	for i := range 2 * maxPeers {
		p.hear(now, loadOf("n"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+string(rune('a'+i/26%26)), "1"))
	}
	if len(p.nodes) > maxPeers {
		t.Errorf("%d nodes are kept", len(p.nodes))
	}
	p.hear(now.Add(knownFor), loadOf("late", "1"))
	if _, ok := p.nodes["late"]; !ok {
		t.Error("those that are gone keep out others")
	}
}

// TestPeersTwice: two processes that call themselves the same are found; one that has been started again is not taken for two.
func TestPeersTwice(t *testing.T) {
	p, now := newPeers(), time.Unix(1000, 0)
	hear := func(node string, instances ...string) {
		for _, i := range instances {
			now = now.Add(100 * time.Millisecond)
			p.hear(now, loadOf(node, i))
		}
	}
	hear("restarted", "1", "1", "2", "2")
	hear("twice", "1", "2", "1")
	for _, peer := range p.list(now) {
		if peer.Twice != (peer.Node == "twice") {
			t.Errorf("%+v", peer)
		}
	}
	if p.double(now) {
		t.Error("nobody has our name")
	}
	if hear("own", "x"); !p.double(now) || p.double(now.Add(twiceFor)) {
		t.Error("another one has our name")
	}
}

// TestLoadsOfOthers: what others tell is taken only as far as it can be true.
func TestLoadsOfOthers(t *testing.T) {
	good, _ := json.Marshal(loadOf("a", "1"))
	if l, err := parseLoad("a", good); err != nil || l.Rate != 335 {
		t.Fatalf("%+v, %v", l, err)
	}
	if _, err := parseLoad("b", good); err == nil {
		t.Error("the load of another node")
	}
	for what, change := range map[string]map[string]any{
		"digests": {"digests": []string{}}, "many digests": {"digests": make([]string, 9)}, "rate": {"rate": -1}, "high rate": {"rate": 1e9},
		"queued": {"queued": -1}, "free": {"free": 1 << 40}, "health": {"health": "fine"}, "site": {"site": "a.b"},
		"text": {"version": strings.Repeat("x", 300)}, "control": {"model": "a\x1b[2J"}, "time": {"unix_ms": -5}, "type": {"rate": "x"},
		"size": {"more": strings.Repeat("x", maxLoadBytes)},
	} {
		var fields map[string]any
		_ = json.Unmarshal(good, &fields)
		maps.Copy(fields, change)
		b, _ := json.Marshal(fields)
		if _, err := parseLoad("a", b); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	for _, data := range []string{"", "null", "[]", string(good) + string(good), string(good[:50])} {
		if _, err := parseLoad("a", []byte(data)); err == nil {
			t.Errorf("%.60q: taken", data)
		}
	}
}

func FuzzLoad(f *testing.F) {
	good, _ := json.Marshal(loadOf("a", "1"))
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLoad("a", b); err == nil && (l.Rate < 0 || l.Free < 0 || l.Node != "a" || len(l.Digests) == 0) {
			t.Errorf("%+v", l)
		}
	})
}

// TestSilentNodesAreTold: a node that is silent is in the list for longer than the alert of it takes to fire.
func TestSilentNodesAreTold(t *testing.T) {
	rules, err := os.ReadFile("../../configs/monitoring/alerts.yml")
	must(t, err)
	found := regexp.MustCompile(`alert: HailoClipFleetNodeSilent\n.*\n +for: (\S+)\n`).FindSubmatch(rules)
	if found == nil {
		t.Fatal("there is no such alert")
	}
	after, err := time.ParseDuration(string(found[1]))
	if must(t, err); knownFor < 2*after {
		t.Errorf("it fires after %v, and a silent node is forgotten after %v", after, knownFor)
	}
}
