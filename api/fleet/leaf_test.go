package fleet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet/broker"
	"hailoclip/api/fleet/members"
)

// Three leaves with JetStream domains of their own: nodes at any of them use the main broker's streams, and reach one another.
func TestThreeLeaves(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{Name: "main", LeavesPort: -1})
	var nodes []*Conn
	for _, site := range []string{"north", "south", "west"} {
		own, err := dir.Add(site, true, "")
		must(t, err)
		leaf := startBroker(t, broker.Config{Name: site, Leaf: &own})
		nodes = append(nodes, dial(t, Config{URL: leaf.URL(), Node: "at-" + site, Site: site}))
	}
	atHub := join(t, dir, "at-hub")
	waitFor(t, func() bool { return nodes[0].Setup(t.Context()) == nil })
	for _, n := range nodes {
		waitFor(t, func() bool { return n.Setup(t.Context()) == nil })
	}
	for _, pair := range [][2]*Conn{{nodes[0], nodes[1]}, {nodes[1], nodes[2]}, {nodes[2], atHub}, {atHub, nodes[0]}} {
		everyKindOfUse(t, pair[0], pair[1])
	}
	// None of it is at a leaf.
	local, err := jetstream.New(nodes[0].nc)
	must(t, err)
	for name := range local.StreamNames(t.Context()).Name() {
		t.Errorf("the leaf has a stream %s", name)
	}
}

// A leaf that was removed is cut off, and its nodes with it.
func TestRemovedLeafIsCut(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{Name: "main", LeavesPort: -1})
	own, err := dir.Add("north", true, "")
	must(t, err)
	leaf := startBroker(t, broker.Config{Name: "north", Leaf: &own})
	node := dial(t, Config{URL: leaf.URL(), Node: "a"})
	waitFor(t, func() bool { return node.Setup(t.Context()) == nil })
	must(t, dir.Remove("north"))
	waitFor(t, func() bool {
		_, err := node.js.Stream(t.Context(), BulkStream)
		return err != nil
	})
	if !node.Connected() {
		t.Error("the node lost its own broker")
	}
}

// A node's credentials are not those of a leaf, nor the other way round.
func TestNodeIsNoLeaf(t *testing.T) {
	_, dir := secureBroker(t, broker.Config{Name: "main", LeavesPort: -1})
	leaves, err := dir.Address(true)
	must(t, err)
	own, err := dir.Add("north", false, leaves)
	must(t, err)
	leaf := startBroker(t, broker.Config{Name: "north", Leaf: &own})
	node := dial(t, Config{URL: leaf.URL(), Node: "a"})
	if err := node.Setup(t.Context()); err == nil {
		t.Error("a node is let in as a leaf")
	}
	nodes, err := dir.Address(false)
	must(t, err)
	asNode, err := dir.Add("south", true, nodes)
	must(t, err)
	refused(t, Config{Credentials: write(t, asNode)}, "Authorization Violation")
}

// Three brokers keep three copies, and lose nothing when one of them goes.
func TestThreeBrokers(t *testing.T) {
	root := t.TempDir()
	names := []string{"one", "two", "three"}
	ports, routes := freePorts(t, len(names))
	_, err := members.Dir(filepath.Join(root, "one")).Authority()
	must(t, err)
	started := make(chan error)
	brokers := make([]*broker.Broker, len(names))
	for i, name := range names {
		dir := filepath.Join(root, name)
		if i > 0 { // they have the same authority and members
			must(t, os.Mkdir(dir, 0o700))
			must(t, copyFile(filepath.Join(root, "one", "ca.pem"), filepath.Join(dir, "ca.pem")))
			must(t, copyFile(filepath.Join(root, "one", "ca-key.pem"), filepath.Join(dir, "ca-key.pem")))
		}
		go func() {
			var err error
			brokers[i], err = broker.Start(broker.Config{
				Name: name, Dir: dir, Port: -1, Secure: true, ClusterPort: ports[i], Routes: routes, MaxStore: 1 << 30, Advertise: []string{"localhost"},
			})
			started <- err
		}()
	}
	for range names {
		must(t, <-started)
	}
	for _, b := range brokers {
		t.Cleanup(b.Close)
	}
	var addresses []string
	for _, b := range brokers {
		addresses = append(addresses, b.URL())
	}
	own, err := members.Dir(filepath.Join(root, "one")).Add("a", false, "")
	must(t, err)
	for _, name := range []string{"two", "three"} {
		must(t, copyFile(filepath.Join(root, "one", "nodes.json"), filepath.Join(root, name, "nodes.json")))
	}
	node := dial(t, Config{URL: strings.Join(addresses, ","), Credentials: write(t, own)})
	wait(t, "the streams are made", func() error { return node.Setup(t.Context()) })
	s, err := node.js.Stream(t.Context(), BulkStream)
	must(t, err)
	if n := s.CachedInfo().Config.Replicas; n != 3 {
		t.Errorf("%d copies", n)
	}
	all := uint64(0)
	for _, s := range stores {
		made, err := node.js.Stream(t.Context(), s.Name)
		must(t, err)
		if made.CachedInfo().Config.Metadata[metaGrows] != "" {
			t.Errorf("%s has no size yet", s.Name)
		}
		all += uint64(max(made.CachedInfo().Config.MaxBytes, 0))
	}
	if all > 1<<30 || all < 512<<20 {
		t.Errorf("the streams may have %d bytes, of %d", all, 1<<30)
	}
	if others := node.nc.DiscoveredServers(); len(others) > 0 { // by other names than those in addresses
		t.Errorf("the brokers tell of %s", others)
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// freePorts are ports of 127.0.0.1 that nobody listens on, and that the system gives to nobody who asks for any.
func freePorts(t *testing.T, n int) (ports []int, addresses []string) {
	for tries := 0; len(ports) < n; tries++ {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			defer l.Close()
			ports, addresses = append(ports, port), append(addresses, l.Addr().String())
		} else if tries > 1000 {
			t.Fatal(err)
		}
	}
	return ports, addresses
}
