package main

import (
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hailoclip/api/fleet"
	"hailoclip/api/fleet/broker"
	"hailoclip/api/fleet/members"
)

// twoSites are a main broker with TLS and keys, and the broker of another site, which is a leaf with a JetStream domain of its own.
// Between them is a proxy, which is all that the main broker tells leaves of itself.
type twoSites struct {
	t       *testing.T
	hub     *broker.Broker
	members members.Dir // of hub
	leaf    *broker.Broker
	link    *toxic
}

func newTwoSites(t *testing.T) *twoSites {
	t.Helper()
	dir := t.TempDir()
	hub := must(broker.Start(broker.Config{Port: -1, Dir: dir, Secure: true, LeavesPort: -1, Advertise: []string{"127.0.0.2"}}))
	t.Cleanup(hub.Close)
	at := must(url.Parse(hub.LeavesURL()))
	link := newToxicAt(t, at.Host, "127.0.0.1:"+at.Port())
	own := must(members.Dir(dir).Add("north", true, ""))
	leaf := must(broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), Name: "north", Leaf: &own}))
	t.Cleanup(leaf.Close)
	return &twoSites{t, hub, members.Dir(dir), leaf, link}
}

// join is how a process finds the broker of its site.
func (s *twoSites) join(name string, atLeaf bool) fleet.Config {
	if atLeaf {
		return fleet.Config{URL: s.leaf.URL(), Node: name, Site: "north", Domain: "hub"}
	}
	own := must(s.members.Add(name, false, fmt.Sprint("tls://127.0.0.1:", s.hub.Port()))) // not by the name for leaves
	file := filepath.Join(s.t.TempDir(), name+".creds")
	if err := members.WriteSecret(file, own.Text()); err != nil {
		s.t.Fatal(err)
	}
	return fleet.Config{Credentials: file, Domain: "hub"}
}

func (s *twoSites) startNode(name string, atLeaf bool) *fleetNode {
	c := s.join(name, atLeaf)
	return &fleetNode{name: name, running: serve(s.t, s.t.TempDir(), "--model", "demo", "--backend", "sim", "--set=fleet.url="+c.URL, "--set=fleet.node="+c.Node,
		"--set=fleet.site="+c.Site, "--set=fleet.credentials="+c.Credentials, "--set=fleet.spill=false", "--set=fleet.share=false", "--set=fleet.cameras=false")}
}

// cut ends the link, and has it come back when the leaf has tried in vain.
func (s *twoSites) cut() {
	s.link.set(func() { s.link.cut = true })
	before, _ := s.link.counts()
	until(s.t, "the leaf tries to connect", func() bool {
		refused, _ := s.link.counts()
		return refused > before+1
	})
	s.link.set(func() { s.link.cut, s.link.hole = false, false })
}

// swallow has what is sent vanish without a word, and then ends the link: neither side knows what the other has got.
func (s *twoSites) swallow() {
	_, before := s.link.counts()
	s.link.set(func() { s.link.hole = true })
	until(s.t, "something is under way", func() bool {
		_, held := s.link.counts()
		return held > before
	})
	s.cut()
}

// TestFleetLeaves indexes at the main broker with nodes at a leaf alone, and the other way round, while the link between both is cut and
// swallows what is under way: each image has one right row in the end. "make fleet-test" has more images.
func TestFleetLeaves(t *testing.T) {
	n := 1200
	if fullFleet() {
		n = 10000
	}
	r := newReferee(t)
	for name, indexAtLeaf := range map[string]bool{"nodes at the leaf": false, "nodes at the main broker": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both wait for what was lost on the way
			s := newTwoSites(t)
			nodes := []*fleetNode{s.startNode("one", !indexAtLeaf), s.startNode("two", !indexAtLeaf)}
			var troubles sync.WaitGroup
			next, over := 0, atomic.Bool{}
			over.Store(true)
			took, _, _ := r.index(t, s.join("index", indexAtLeaf), newManyImages(n, 64), func(rows int64) {
				what := []func(){s.cut, s.swallow, s.swallow}
				if next < len(what) && over.Load() && rows > int64(n*(next+1)/5) {
					over.Store(false)
					do := what[next]
					next++
					troubles.Go(func() { do(); over.Store(true) })
				}
			})
			troubles.Wait()
			refused, held := s.link.counts()
			t.Logf("%d images in %v, with %d troubles of the link: %d connections refused, %d pieces swallowed", n, took.Round(time.Second), next, refused, held)
			if next < 2 || held == 0 {
				t.Errorf("the link had %d troubles", next)
			}
			for _, node := range nodes {
				if s := node.status(t); s.Worker.Encoded == 0 {
					t.Errorf("%s has done nothing", node.name)
				}
			}
		})
	}
}
