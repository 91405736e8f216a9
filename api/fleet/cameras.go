package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/stream/event"
)

const (
	cameraAlive  = 5 * time.Second // after a node was heard last
	cameraSettle = 2 * time.Second // after which all nodes were heard
	cameraBytes  = 64 << 10        // of a definition
	maxCameras   = 1000
)

// Shorter in tests.
var (
	cameraDead = 15 * time.Second // for which a source gives nothing, until it counts as unreachable
	cameraMark = time.Minute      // after which an unreachable one is tried again
)

// Keys of CameraBucket: the definition of a camera, and that a node cannot reach it.
const (
	wantedKey      = "wanted."
	unreachableKey = "unreachable." // + node + "." + camera
)

// cameras is what a node knows of the streams that the fleet places.
type cameras struct {
	mu          sync.Mutex
	wanted      map[string][]byte          // definitions, by name
	unreachable map[string]map[string]bool // nodes that cannot reach it, by name
	complete    bool                       // all was told that the bucket has
	last        map[string][]byte          // wanted, when it was complete

	// Of the task alone.
	placed map[string][]byte    // what runs here, as it was placed
	failed map[string]time.Time // since when a source has given nothing
	marked map[string]time.Time // when this node has marked a camera as unreachable
}

// places says that the node takes cameras.
func (n *Node) places() bool {
	return n.Config.Cameras && n.parts.Streams != nil && n.parts.Engine != nil
}

// placeCameras runs the cameras that are this node's. While the broker is away, all stay where they are.
func (n *Node) placeCameras(ctx context.Context) error {
	c := &n.cameras
	defer func() {
		if ctx.Err() != nil { // others take them at once; the hub ends by itself
			n.clearMarks()
		}
	}()
	c.mu.Lock()
	if c.complete {
		c.last = c.wanted
	}
	c.wanted, c.unreachable, c.complete = map[string][]byte{}, map[string]map[string]bool{}, false
	if c.placed == nil {
		c.placed, c.failed, c.marked = map[string][]byte{}, map[string]time.Time{}, map[string]time.Time{}
	}
	c.mu.Unlock()
	begun := time.Now()
	decide := func() {
		if time.Since(begun) >= cameraSettle && n.Connected() {
			n.arrange(ctx)
		}
	}
	var told time.Time
	return n.watch(ctx, CameraBucket, func(e jetstream.KeyValueEntry) error {
		if e == nil {
			told = time.Now()
			return n.refill(ctx, c.last)
		}
		c.hear(e)
		decide()
		return nil
	}, func() error {
		if !told.IsZero() {
			c.mu.Lock()
			c.complete = true
			c.mu.Unlock()
			decide()
		}
		return nil
	})
}

// hear takes an entry of the bucket, which anybody may have written.
func (c *cameras) hear(e jetstream.KeyValueEntry) {
	gone := e.Operation() != jetstream.KeyValuePut
	c.mu.Lock()
	defer c.mu.Unlock()
	if key, ok := strings.CutPrefix(e.Key(), wantedKey); ok {
		camera := setName(key)
		switch {
		case gone:
			delete(c.wanted, camera)
		case event.ValidName(camera) && len(e.Value()) <= cameraBytes && (len(c.wanted) < maxCameras || c.wanted[camera] != nil):
			c.wanted[camera] = e.Value()
		}
		return
	}
	key, ok := strings.CutPrefix(e.Key(), unreachableKey)
	node, camera, found := strings.Cut(key, ".")
	if camera = setName(camera); !ok || !found || !name.MatchString(node) || !event.ValidName(camera) {
		return
	}
	if gone {
		delete(c.unreachable[camera], node)
		return
	}
	if c.unreachable[camera] == nil {
		c.unreachable[camera] = map[string]bool{}
	}
	c.unreachable[camera][node] = true
}

// refill gives a bucket that was made anew what this node knows it had.
func (n *Node) refill(ctx context.Context, before map[string][]byte) (err error) {
	n.cameras.mu.Lock()
	empty := len(n.cameras.wanted) == 0
	n.cameras.mu.Unlock()
	if !empty || len(before) == 0 {
		return nil
	}
	ctx, end := n.ask(ctx, 0)
	defer end(&err)
	stream, err := n.js.Stream(ctx, "KV_"+CameraBucket)
	if err != nil || stream.CachedInfo().State.LastSeq > 0 { // then they were removed one by one
		return err
	}
	kv, err := n.js.KeyValue(ctx, CameraBucket)
	if err != nil {
		return err
	}
	for _, camera := range slices.Sorted(maps.Keys(before)) {
		if _, err := kv.Create(ctx, wantedKey+setKey(camera), before[camera]); err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
	}
	return nil
}

// candidates are the nodes that may have a camera: healthy ones that were heard lately.
func (n *Node) candidates() (all []candidate) {
	for _, p := range n.Peers() {
		if p.Cameras && p.Age < cameraAlive && p.Health == healthy {
			all = append(all, candidate{p.Node, weightOf(p.Rate)})
		}
	}
	return all
}

// owner is the node that has a camera. Nodes that cannot reach it do not count, unless no one can. The caller holds mu.
func (c *cameras) owner(camera string, all []candidate) string {
	able := slices.DeleteFunc(slices.Clone(all), func(o candidate) bool { return c.unreachable[camera][o.node] })
	if len(able) == 0 {
		able = all
	}
	return owner(camera, able)
}

// arrange begins the cameras that are this node's and do not run, and ends those that are not.
func (n *Node) arrange(ctx context.Context) {
	c, all := &n.cameras, n.candidates()
	c.mu.Lock()
	ours := map[string][]byte{}
	for camera, definition := range c.wanted {
		if c.owner(camera, all) == n.Config.Node {
			ours[camera] = definition
		}
	}
	complete := c.complete
	c.mu.Unlock()
	for camera := range c.placed {
		if _, ok := ours[camera]; ok || !complete {
			continue
		}
		if err := n.parts.Streams.Displace(ctx, camera); err == nil {
			delete(c.placed, camera)
			delete(c.failed, camera)
		}
	}
	for _, camera := range slices.Sorted(maps.Keys(ours)) {
		if string(c.placed[camera]) == string(ours[camera]) {
			continue
		}
		if err := n.parts.Streams.Place(ctx, camera, ours[camera]); err != nil {
			n.mark(ctx, camera, err.Error())
			continue
		}
		c.placed[camera] = ours[camera]
		delete(c.failed, camera)
		n.log.Info("a camera of the fleet runs here", "stream", camera)
	}
	n.judge(ctx)
}

// judge marks the cameras that give nothing here, and takes marks away that are old.
func (n *Node) judge(ctx context.Context) {
	c := &n.cameras
	for _, s := range n.parts.Streams.Placed() {
		switch since, failing := c.failed[s.ID]; {
		case s.Fed || s.Trouble == "":
			delete(c.failed, s.ID)
		case !failing:
			c.failed[s.ID] = time.Now()
		case time.Since(since) >= cameraDead:
			n.mark(ctx, s.ID, s.Trouble)
		}
	}
	c.mu.Lock()
	for camera, nodes := range c.unreachable {
		if _, ok := c.marked[camera]; nodes[n.Config.Node] && !ok {
			c.marked[camera] = time.Now() // by a former process
		}
	}
	c.mu.Unlock()
	for camera, since := range c.marked {
		if time.Since(since) >= cameraMark && n.unmark(ctx, camera) == nil {
			delete(c.marked, camera)
			delete(c.failed, camera)
		}
	}
}

// mark says to the others that a camera cannot be reached here. It stays so for cameraMark.
func (n *Node) mark(ctx context.Context, camera, why string) {
	c := &n.cameras
	if _, ok := c.marked[camera]; ok {
		return
	}
	n.trouble.warn("camera "+camera, "a camera of the fleet cannot be reached here", "stream", camera, "error", why)
	ctx, end := n.ask(ctx, 0)
	kv, err := n.js.KeyValue(ctx, CameraBucket)
	if err == nil {
		text, _ := json.Marshal(map[string]string{"error": why}) // for people
		_, err = kv.Put(ctx, unreachableKey+n.Config.Node+"."+setKey(camera), text)
	}
	end(&err)
	if err == nil {
		c.marked[camera] = time.Now()
	}
}

func (n *Node) unmark(ctx context.Context, camera string) (err error) {
	ctx, end := n.ask(ctx, 0)
	defer end(&err)
	kv, err := n.js.KeyValue(ctx, CameraBucket)
	if err != nil {
		return err
	}
	return kv.Delete(ctx, unreachableKey+n.Config.Node+"."+setKey(camera))
}

// clearMarks takes the marks of this node away, which does not run any more.
func (n *Node) clearMarks() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for camera := range n.cameras.marked {
		if !n.Connected() || n.unmark(ctx, camera) != nil {
			return
		}
	}
}

// reportCameras adds the cameras to a status.
func (n *Node) reportCameras(_ context.Context, s *Status) error {
	c, all := &n.cameras, n.candidates()
	c.mu.Lock()
	defer c.mu.Unlock()
	for camera := range c.wanted {
		one := CameraStatus{Name: camera, Owner: c.owner(camera, all)}
		for node, bad := range c.unreachable[camera] {
			if bad {
				one.Unreachable = append(one.Unreachable, node)
			}
		}
		slices.Sort(one.Unreachable)
		s.Cameras = append(s.Cameras, one)
	}
	return nil
}
