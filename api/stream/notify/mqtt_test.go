package notify

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// inProcess is a broker in this process, which can be restarted at its address, and then has forgotten all.
type inProcess struct {
	t       *testing.T
	address string
	server  *mochi.Server
	options func(*mochi.Options)
}

func startInProcess(t *testing.T, options func(*mochi.Options)) *inProcess {
	t.Helper()
	b := &inProcess{t: t, address: "127.0.0.1:0", options: options}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *inProcess) start() {
	b.t.Helper()
	o := &mochi.Options{Logger: slog.New(slog.DiscardHandler), Capabilities: mochi.NewDefaultServerCapabilities()}
	if b.options != nil {
		b.options(o)
	}
	b.server = mochi.New(o)
	l, err := net.Listen("tcp", b.address)
	if err == nil {
		b.address = l.Addr().String()
		err = b.server.AddHook(new(auth.AllowHook), nil)
	}
	if err == nil {
		err = b.server.AddListener(listeners.NewNet("a", l))
	}
	if err == nil {
		err = b.server.Serve()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *inProcess) stop() {
	if b.server != nil {
		_ = b.server.Close()
		b.server = nil
	}
}

// watcher hears all that a broker has. Its methods fail the test where what they wait for does not come.
type watcher struct {
	t      *testing.T
	client *paho.Client

	mu       sync.Mutex
	changed  chan struct{}
	topics   map[string]string // last message, by topic; empty ones delete theirs
	messages []string          // all, as "topic payload"
}

// watch begins to hear. It ends with the test, or close.
func watch(t *testing.T, conn net.Conn, change ...func(*paho.Connect)) *watcher {
	t.Helper()
	w := &watcher{t: t, changed: make(chan struct{}), topics: map[string]string{}}
	w.client = paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			topic, payload := p.Packet.Topic, string(p.Packet.Payload)
			if strings.HasPrefix(topic, "$SYS/") {
				return true, nil
			}
			if w.messages = append(w.messages, topic+" "+payload); payload == "" {
				delete(w.topics, topic)
			} else {
				w.topics[topic] = payload
			}
			close(w.changed)
			w.changed = make(chan struct{})
			return true, nil
		}},
	})
	c := &paho.Connect{ClientID: "watcher" + strconv.Itoa(int(time.Now().UnixNano())), CleanStart: true, KeepAlive: 30}
	for _, f := range change {
		f(c)
	}
	if _, err := w.client.Connect(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "#", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *watcher) close() {
	select {
	case <-w.client.Done():
	default:
		_ = w.client.Disconnect(&paho.Disconnect{})
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// until waits for a condition of what was heard.
func (w *watcher) until(what string, ok func() bool) {
	w.t.Helper()
	timeout := time.After(time.Minute)
	for {
		w.mu.Lock()
		met, changed := ok(), w.changed
		heard := fmt.Sprint(w.topics)
		w.mu.Unlock()
		if met {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			w.t.Fatalf("%s does not come; there is %s", what, heard)
		}
	}
}

// has waits until the topic has the payload; "": none.
func (w *watcher) has(topic, payload string) {
	w.t.Helper()
	w.until(topic+": "+payload, func() bool { return w.topics[topic] == payload })
}

// hears waits for a message with that topic and text in it, and counts how many there were.
func (w *watcher) hears(topic, text string) (n int) {
	w.t.Helper()
	w.until(topic+" with "+text, func() bool {
		n = 0
		for _, m := range w.messages {
			if strings.HasPrefix(m, topic+" ") && strings.Contains(m, text) {
				n++
			}
		}
		return n > 0
	})
	return n
}

func (w *watcher) publish(topic, payload string, retain bool) {
	w.t.Helper()
	if _, err := w.client.Publish(w.t.Context(), &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: retain}); err != nil {
		w.t.Fatal(err)
	}
}

// scene is what Parts.Streams tells.
type scene struct {
	mu      sync.Mutex
	streams []Stream
}

func (s *scene) set(streams ...Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append([]Stream{}, streams...)
}

func (s *scene) get() []Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// holds is the gate with a state.
func holds(state string) Stream {
	s := gate()
	r := &s.Regions[0]
	if r.State, r.Since = state, time.Unix(1700000000, 0); state != unknown {
		r.Score, r.Holds = 0.875, []string{state}
	}
	return s
}

// told is what the broker is told of holds.
func told(state string) string { return string(marshal(holds(state).Regions[0].state())) }

const configTopic = "homeassistant/device/hailo_clip_gate/config"

// mqttNotifier tells a broker, and comes back at once where that is lost.
func mqttNotifier(t *testing.T, s *scene, p Parts, url string, change ...func(*MQTT)) *Notifier {
	t.Helper()
	c := MQTT{URL: url, Prefix: "hailo-clip", DiscoveryPrefix: "homeassistant", DeviceClasses: map[string]string{"open": "opening"}, ClientID: "clip"}
	for _, f := range change {
		f(&c)
	}
	p.Streams, p.Version = s.get, cmp.Or(p.Version, "1.2")
	n, err := New(Config{MQTT: c}, p)
	if err != nil {
		t.Fatal(err)
	}
	n.mqtt.client.ReconnectBackoff = func(attempt int) time.Duration {
		return min(time.Duration(attempt)*10*time.Millisecond, 50*time.Millisecond)
	}
	return n
}

// exercise is what every broker is to do.
func exercise(t *testing.T, n *Notifier, s *scene, w *watcher) {
	s.set(holds(unknown))
	events, stop := start(t, n)
	defer stop()
	w.has("hailo-clip/status", "online")
	w.has("hailo-clip/gate/state", told(unknown))
	w.hears(configTopic, `"device_class":"opening"`)

	s.set(holds("open"))
	e := enter("e1")
	e.Thumbnail = true
	events <- e
	w.has("hailo-clip/gate/state", told("open"))
	w.has("hailo-clip/gate/thumb", "jpeg of e1")
	w.hears("hailo-clip/gate/event", `"id":"e1"`)

	s.set()
	n.Refresh()
	for _, topic := range []string{"hailo-clip/gate/state", "hailo-clip/gate/thumb", configTopic} {
		w.has(topic, "")
	}
	stop()
	w.has("hailo-clip/status", "offline")
	if m := n.Stats().MQTT; m.Connected || m.Connections != 1 || m.Delivered != 1 || m.Failed+m.Dropped != 0 || m.Messages < 7 {
		t.Errorf("%+v", m)
	}
}

func thumbnailOf(_ context.Context, id string) ([]byte, error) { return []byte("jpeg of " + id), nil }

func TestMQTT(t *testing.T) {
	b := startInProcess(t, nil)
	var s scene
	exercise(t, mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+b.address), &s, watch(t, dial(t, b.address)))
}
