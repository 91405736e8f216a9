package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// alone changes the sets of a node's files as a service without a fleet does.
func (m *shareNode) alone(change func(p *clip.PromptSets)) {
	m.t.Helper()
	config, url := m.config, m.url
	m.config = func(c *Config) { c.Share = false }
	m.open()
	change(m.sets)
	m.close()
	m.config, m.url = config, url
}

// TestSetsJoin has a node with sets of its own join: those that the fleet has not are given to it, equal ones become one, and of a
// set that differs the fleet's counts, and the node's is kept under another name.
func TestSetsJoin(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	a := newShareNode(t, b.URL(), "a", nil)
	same, theirs := a.mustPut("same", labelled("x")), a.mustPut("both", labelled("theirs"))

	c := newShareNode(t, b.URL(), "c", func(cfg *Config) { cfg.Share = false })
	for name, d := range map[string]sets.Definition{"same": labelled("x"), "both": labelled("ours"), "own": labelled("own")} {
		if _, err := c.put(name, d, clip.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	ours, err := c.sets.Ready("both")
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	c.config = nil
	for range 2 { // a second start changes nothing
		c.open()
		backup := clip.BackupName("both", labelled("ours").Normalized())
		for _, m := range []*shareNode{a, c} {
			m.has("same", same.ETag)
			m.has("both", theirs.ETag)
			m.has(backup, ours.ETag)
			m.until("own", func() error { _, err := m.sets.Ready("own"); return err })
			if list, err := m.sets.List(); err != nil || len(list) != 4 {
				t.Errorf("%s: %+v, %v", m.name, list, err)
			}
		}
		c.close()
	}
}

// TestSetsAfterAbsence stops a node while others change, delete and make sets: it has all that when it is back, and nothing more.
func TestSetsAfterAbsence(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	a, c := newShareNode(t, b.URL(), "a", nil), newShareNode(t, b.URL(), "c", nil)
	for _, name := range []string{"stays", "changes", "goes"} {
		c.has(name, a.mustPut(name, labelled(name)).ETag)
	}
	c.close()
	changed, fresh := a.mustPut("changes", labelled("other")), a.mustPut("fresh", labelled("fresh"))
	if err := a.sets.Delete(t.Context(), "goes", clip.Condition{}); err != nil {
		t.Fatal(err)
	}
	c.open()
	c.has("changes", changed.ETag)
	c.has("fresh", fresh.ETag)
	c.lacks("goes")
	if list, err := c.sets.List(); err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	c.close()
	c.alone(func(p *clip.PromptSets) { // the node's own change
		if _, _, err := p.Put(t.Context(), "changes", labelled("own"), clip.Condition{}); err != nil {
			t.Error(err)
		}
	})
	c.open()
	c.has("changes", changed.ETag)
	a.until("backup", func() error {
		_, err := a.sets.Ready(clip.BackupName("changes", labelled("own").Normalized()))
		return err
	})
}

// TestSetsWithoutBroker loses the broker: sets answer, changes are refused, and both nodes give their sets to one that comes back
// empty, where of two versions the later one counts.
func TestSetsWithoutBroker(t *testing.T) {
	dir := t.TempDir()
	b := brokerIn(t, dir)
	way := newWay(t, b)
	a, c := newShareNode(t, way.url(), "a", nil), newShareNode(t, way.url(), "c", nil)
	old := a.mustPut("s", labelled("old"))
	c.has("s", old.ETag)
	kept := c.mustPut("kept", labelled("kept"))
	a.has("kept", kept.ETag)
	c.close() // it misses a version
	now := a.mustPut("s", labelled("new"))
	way.close(b)

	wait(t, "loss", func() error {
		if a.node.Connected() {
			return errors.New("connected")
		}
		return nil
	})
	if _, err := a.put("s", labelled("refused"), clip.Condition{}); !errors.Is(err, clip.ErrSetsAway) {
		t.Errorf("put: %v", err)
	}
	if err := a.sets.Delete(t.Context(), "s", clip.Condition{}); !errors.Is(err, clip.ErrSetsAway) {
		t.Errorf("delete: %v", err)
	}
	a.has("s", now.ETag)
	c.open() // it starts without the broker
	c.has("s", old.ETag)

	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	way.lead(brokerIn(t, dir))
	for _, m := range []*shareNode{a, c} {
		m.has("s", now.ETag)
		m.has("kept", kept.ETag)
	}
	last := c.mustPut("s", labelled("last"))
	a.has("s", last.ETag)
	if list, err := a.sets.List(); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestBucketMadeAnew deletes the bucket under the nodes, which keep their connection.
func TestBucketMadeAnew(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	a, c := newShareNode(t, b.URL(), "a", nil), newShareNode(t, b.URL(), "c", nil)
	etag := a.mustPut("s", labelled("x")).ETag
	c.has("s", etag)
	if err := a.node.js.DeleteKeyValue(t.Context(), SetBucket); err != nil {
		t.Fatal(err)
	}
	a.until("filled again", func() error {
		kv, err := a.node.js.KeyValue(t.Context(), SetBucket)
		if err == nil {
			_, err = kv.Get(t.Context(), setKey("s"))
		}
		return err
	})
	c.has("s", etag)
	a.has("s", c.mustPut("s", labelled("y")).ETag)
}

// TestLargeSet shares a set of more than a message holds.
func TestLargeSet(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	a, c := newShareNode(t, b.URL(), "a", nil), newShareNode(t, b.URL(), "c", nil)
	d := labelled("x")
	for i := range 16 {
		v := hashVector([]byte{byte(i)})
		e := sets.Example{Model: "fedcba9876543210", Vector: sets.FormatVector(v), Thumbnail: append([]byte{0xff, 0xd8, 0xff}, make([]byte, 60<<10)...)}
		d.Labels[0].Examples = append(d.Labels[0].Examples, e)
	}
	for i := range 3 {
		d.Labels[0].Name = "x" + strconv.Itoa(i)
		info := a.mustPut("large", d)
		c.has("large", info.ETag)
		if full, err := c.sets.Info(t.Context(), "large", true); err != nil || len(full.Labels[0].Examples) != 16 || len(full.Labels[0].Examples[15].Thumbnail) != 60<<10+3 {
			t.Fatalf("%+v, %v", full, err)
		}
	}
	objects, err := a.node.js.ObjectStore(t.Context(), SetStore)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := objects.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d objects are there: %v", len(list), err)
	}
}

// TestHostileSets has somebody write what is no set: nodes keep what they have, and follow the others.
func TestHostileSets(t *testing.T) {
	b := brokerIn(t, t.TempDir())
	a := newShareNode(t, b.URL(), "a", nil)
	etag := a.mustPut("s", labelled("x")).ETag
	kv, err := a.node.js.KeyValue(t.Context(), SetBucket)
	if err != nil {
		t.Fatal(err)
	}
	for key, text := range map[string]string{
		"s": `{"name": "other"}`, "t": "no JSON", "u": `{"name":"u","object":"../x","bytes":9}`, "v": `{"object":"x","bytes":99999999999}`,
		"w": `{"name":"w","definition":{"labels":[{"name":"l","examples":[{"id":"00"}]}]}}`, "-": `{}`,
	} {
		if _, err := kv.PutString(t.Context(), key, text); err != nil {
			t.Fatal(err)
		}
	}
	after := a.mustPut("after", labelled("y"))
	a.has("after", after.ETag)
	a.has("s", etag)
	if list, err := a.sets.List(); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := a.put("s", labelled("z"), clip.Condition{}); !errors.Is(err, clip.ErrSetsAway) {
		t.Errorf("a set of the fleet that cannot be read was changed: %v", err)
	}
}
