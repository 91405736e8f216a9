package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	streams "hailoclip/api/stream"
)

// newSource answers with an image, or not any more.
func newSource(t *testing.T) *httptest.Server {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(b.Bytes())
	}))
	t.Cleanup(s.Close)
	return s
}

func withCameras(c *Config) { c.Cameras = true }

func defined(address string) []byte {
	return fmt.Appendf(nil, `{"prompts": ["red", "green"], "fps": 5, "source": %q}`, address+"/image.png")
}

// placed is where each camera runs now.
func placed(all ...*shareNode) map[string][]string {
	at := map[string][]string{}
	for _, m := range all {
		for _, s := range m.hub.Placed() {
			at[s.ID] = append(at[s.ID], m.name)
		}
	}
	return at
}

// settled waits until each camera runs at one of the nodes, and delivers.
func settled(t *testing.T, cameras int, all ...*shareNode) map[string][]string {
	t.Helper()
	var at map[string][]string
	wait(t, "cameras", func() error {
		at = placed(all...)
		for _, nodes := range at {
			if len(nodes) != 1 {
				return fmt.Errorf("%v", at)
			}
		}
		if len(at) != cameras {
			return fmt.Errorf("%v", at)
		}
		return nil
	})
	return at
}

// TestCameras adds cameras, which run at one node each, has nodes leave, come back and lose the network, and removes cameras.
func TestCameras(t *testing.T) {
	b, source := brokerIn(t, t.TempDir()), newSource(t)
	var all []*shareNode
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, newShareNode(t, b.URL(), name, withCameras))
	}
	other := dial(t, Config{URL: b.URL(), Node: "cli"})
	const cameras = 12
	for i := range cameras {
		if err := other.PutCamera(t.Context(), fmt.Sprintf("camera.%d", i), defined(source.URL)); err != nil {
			t.Fatal(err)
		}
	}
	begin := settled(t, cameras, all...)
	wait(t, "frames", func() error {
		for _, m := range all {
			for _, s := range m.hub.Placed() {
				if !s.Fed {
					return fmt.Errorf("%s at %s: %s", s.ID, m.name, s.Trouble)
				}
			}
		}
		return nil
	})
	if list, err := other.Cameras(t.Context()); err != nil || len(list) != cameras || list[0].Name != "camera.0" || len(list[0].Unreachable) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, _, err := all[0].hub.Put(t.Context(), first(begin, "a"), defined(source.URL)); !errors.Is(err, streams.ErrPlaced) {
		t.Errorf("put of a placed one: %v", err)
	}
	if err := all[0].hub.Delete(t.Context(), first(begin, "a")); !errors.Is(err, streams.ErrPlaced) {
		t.Errorf("delete of a placed one: %v", err)
	}

	all[1].close()
	at := settled(t, cameras, all[0], all[2])
	for camera, nodes := range begin {
		if nodes[0] != "b" && at[camera][0] != nodes[0] {
			t.Errorf("%s has moved from %s to %s because b has gone", camera, nodes[0], at[camera][0])
		}
	}
	all[1].open()
	wait(t, "as before", func() error {
		if at := settled(t, cameras, all...); fmt.Sprint(at) != fmt.Sprint(begin) {
			return fmt.Errorf("%v, were %v", at, begin)
		}
		return nil
	})

	all[2].node.Close() // it is cut off, and goes on
	wait(t, "taken over", func() error {
		at := placed(all[0], all[1])
		if len(at) != cameras {
			return fmt.Errorf("%v", at)
		}
		return nil
	})
	for camera, nodes := range begin {
		if nodes[0] == "c" && !slices.Contains(placed(all[2])[camera], "c") {
			t.Errorf("%s does not run any more at the node that was cut off", camera)
		}
	}
	if err := other.RemoveCamera(t.Context(), "camera.3"); err != nil {
		t.Fatal(err)
	}
	if err := other.RemoveCamera(t.Context(), "camera.3"); !errors.Is(err, ErrNoCamera) {
		t.Errorf("removed again: %v", err)
	}
	settled(t, cameras-1, all[0], all[1])
}

func first(at map[string][]string, node string) string {
	for camera, nodes := range at {
		if nodes[0] == node {
			return camera
		}
	}
	return "camera.0"
}

// TestCameraUnreachable has a camera that only one of two nodes may reach, and one that none can.
func TestCameraUnreachable(t *testing.T) {
	b, source := brokerIn(t, t.TempDir()), newSource(t)
	a, c := newShareNode(t, b.URL(), "a", withCameras), newShareNode(t, b.URL(), "c", withCameras)
	c.close()
	c.allow = nil
	c.open()
	const cameras = 8
	for i := range cameras {
		if err := a.node.PutCamera(t.Context(), fmt.Sprint("camera", i), defined(source.URL)); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "at a", func() error {
		if at := placed(a); len(at) != cameras {
			return fmt.Errorf("%v", at)
		}
		return nil
	})
	list, err := a.node.Cameras(t.Context())
	marked := slices.IndexFunc(list, func(one Camera) bool { return one.Unreachable["c"] != "" })
	if err != nil || len(list) != cameras || marked < 0 {
		t.Errorf("%+v, %v", list, err)
	}
	var s Status
	if err := a.node.reportCameras(t.Context(), &s); err != nil || len(s.Cameras) != cameras {
		t.Errorf("%+v, %v", s.Cameras, err)
	}
	for _, one := range s.Cameras {
		if one.Owner != "a" {
			t.Errorf("%+v", one)
		}
	}

	source.Close()
	a.until("marked", func() error { // by both, and so it is tried again
		list, err := a.node.Cameras(t.Context())
		for _, one := range list {
			if one.Unreachable["a"] == "" {
				err = errors.Join(err, fmt.Errorf("%+v", one))
			}
		}
		return err
	})
	a.until("marks expire", func() error {
		list, err := a.node.Cameras(t.Context())
		if i := slices.IndexFunc(list, func(one Camera) bool { return one.Unreachable["a"] == "" }); err == nil && i < 0 {
			err = errors.New("all are marked")
		}
		return err
	})
}

// TestCamerasComeBack loses the broker and all that it has: cameras go on, and it has them again when it is back.
func TestCamerasComeBack(t *testing.T) {
	b, source := brokerIn(t, t.TempDir()), newSource(t)
	way := newWay(t, b)
	a, c := newShareNode(t, way.url(), "a", withCameras), newShareNode(t, way.url(), "c", withCameras)
	for i := range 6 {
		if err := a.node.PutCamera(t.Context(), fmt.Sprint("camera", i), defined(source.URL)); err != nil {
			t.Fatal(err)
		}
	}
	begin := settled(t, 6, a, c)
	way.close(b)
	for end := time.Now().Add(cameraAlive + cameraSettle); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if now := placed(a, c); fmt.Sprint(now) != fmt.Sprint(begin) {
			t.Fatalf("%v without the broker, were %v", now, begin)
		}
	}
	way.lead(brokerIn(t, t.TempDir()))
	wait(t, "as before", func() error {
		list, err := a.node.Cameras(t.Context())
		if now := placed(a, c); err == nil && (len(list) != 6 || fmt.Sprint(now) != fmt.Sprint(begin)) {
			err = fmt.Errorf("%d cameras, %v, were %v", len(list), now, begin)
		}
		return err
	})
}

// TestCamerasHostile has somebody write what is no camera.
func TestCamerasHostile(t *testing.T) {
	b, source := brokerIn(t, t.TempDir()), newSource(t)
	a := newShareNode(t, b.URL(), "a", withCameras)
	if err := a.node.PutCamera(t.Context(), "good", defined(source.URL)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{}`, `no`, `{"prompts":["x"]}`} {
		if err := a.node.PutCamera(t.Context(), "bad", []byte(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if err := a.node.PutCamera(t.Context(), "../bad", defined(source.URL)); err == nil {
		t.Error("a name was taken that is none")
	}
	kv, err := a.node.js.KeyValue(t.Context(), CameraBucket)
	if err != nil {
		t.Fatal(err)
	}
	for key, text := range map[string]string{
		"wanted.bad": "no JSON", "wanted.-x": "{}", "wanted.large": string(make([]byte, cameraBytes+1)), "unreachable.": "", "other": "x",
		"unreachable.x.y.z": "{}", "wanted.file": `{"prompts":["x"],"source":"file:///etc/passwd"}`,
	} {
		_, _ = kv.PutString(t.Context(), key, text) // some are no keys
	}
	settled(t, 1, a)
	a.until("marked", func() error {
		list, err := a.node.Cameras(t.Context())
		if i := slices.IndexFunc(list, func(one Camera) bool { return one.Name == "file" && one.Unreachable["a"] != "" }); err == nil && i < 0 {
			err = fmt.Errorf("%+v", list)
		}
		return err
	})
	settled(t, 1, a)
}
