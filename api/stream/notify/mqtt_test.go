package notify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	neturl "net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
	mochipackets "github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"hailoclip/api/stream/event"
)

// inProcess is a broker in this process, which can be restarted at its address, and then has forgotten all.
type inProcess struct {
	t       *testing.T
	address string
	server  *mochi.Server
	hook    mochi.Hook
}

func startInProcess(t *testing.T, hook mochi.Hook) *inProcess {
	t.Helper()
	b := &inProcess{t: t, address: "127.0.0.1:0", hook: hook}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *inProcess) start() {
	b.t.Helper()
	o := &mochi.Options{Logger: slog.New(slog.DiscardHandler), Capabilities: mochi.NewDefaultServerCapabilities()}
	b.server = mochi.New(o)
	l, err := net.Listen("tcp", b.address)
	if err == nil {
		b.address = l.Addr().String()
		err = b.server.AddHook(b.hook, nil)
	}
	if err == nil {
		err = b.server.AddListener(&listener{Listener: l})
	}
	if err == nil {
		err = b.server.Serve()
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// listener is one of the broker. Those that come with it race with themselves when they close, and let a connection that comes
// then be open. It does not have the broker take leave of its clients: v2.7.9 then locks itself out when a client comes or goes at that
// moment (Clients.GetByListener calls Len with the lock held).
type listener struct {
	net.Listener
	mu      sync.Mutex
	conns   []net.Conn
	closed  bool
	serving sync.WaitGroup
}

func (l *listener) ID() string              { return "a" }
func (l *listener) Address() string         { return l.Addr().String() }
func (l *listener) Protocol() string        { return "tcp" }
func (l *listener) Init(*slog.Logger) error { return nil }

func (l *listener) Serve(establish listeners.EstablishFn) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		if l.conns = append(l.conns, c); l.closed {
			c.Close()
		} else {
			l.serving.Go(func() { _ = establish(l.ID(), c) })
		}
		l.mu.Unlock()
	}
}

func (l *listener) Close(listeners.CloseFn) {
	l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	for _, c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.serving.Wait()
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
	w.publish("sync", "", false) // acknowledged when the broker has done with the subscription
	return w
}

func (w *watcher) close() {
	select {
	case <-w.client.Done():
	default:
		_ = w.client.Disconnect(&paho.Disconnect{})
	}
}

func connect(t *testing.T, address string) net.Conn {
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
		case <-time.After(20 * time.Millisecond): // for conditions of more than what was heard
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
	// While it is held the Notifier makes no connection. The broker in this process must not be subscribed to while it is told what
	// to remember: it reads and writes that at the same time.
	offline sync.Mutex

	mu      sync.Mutex
	streams []event.Watched
}

func (s *scene) set(streams ...event.Watched) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = append([]event.Watched{}, streams...)
}

func (s *scene) get() []event.Watched {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// holds is the gate with a state.
func holds(state string) event.Watched {
	s := gate()
	r := &s.Regions[0]
	if r.State, r.Since = state, time.Unix(1700000000, 0); state != unknown {
		r.Score, r.Holds = 0.875, []string{state}
	}
	return s
}

// told is what the broker is told of holds.
func told(state string) string { return string(marshal(stateOf(holds(state).Regions[0]))) }

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
	n.mqtt.client.AttemptConnection = func(ctx context.Context, cfg autopaho.ClientConfig, u *neturl.URL) (net.Conn, error) {
		s.offline.Lock()
		defer s.offline.Unlock()
		return n.mqtt.dial(ctx, cfg, u)
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
	b := startInProcess(t, new(auth.AllowHook))
	var s scene
	exercise(t, mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+b.address), &s, watch(t, connect(t, b.address)))
}

// TestRestarts: after every restart of a broker that forgets all it gets the last state, and nothing of the former connections is
// left. HAILO_TEST_RESTARTS=1000 makes so many.
func TestRestarts(t *testing.T) {
	restarts := 20
	if n, err := strconv.Atoi(os.Getenv("HAILO_TEST_RESTARTS")); err == nil {
		restarts = n
	}
	b := startInProcess(t, new(auth.AllowHook))
	before, files := goleak.IgnoreCurrent(), descriptors(t)
	var s scene
	s.set(holds(unknown))
	n := mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+b.address)
	events, stop := start(t, n)
	for i := range restarts {
		s.offline.Lock()
		if i%2 == 0 {
			b.stop()
		}
		state := []string{"open", "closed"}[i%2]
		s.set(holds(state))
		events <- &event.Event{ID: fmt.Sprint("e", i), Stream: "gate", Kind: event.State, State: state}
		if i%2 == 1 { // what is being sent may be lost
			b.stop()
		}
		b.start()
		w := watch(t, connect(t, b.address))
		s.offline.Unlock()
		w.has("hailo-clip/status", "online")
		w.has("hailo-clip/gate/state", told(state))
		w.hears(configTopic, "hailo_clip_gate_open")
		w.close()
	}
	stop()
	if m := n.Stats().MQTT; m.Connections < uint64(restarts) || m.Dropped+m.Failed != 0 || m.Delivered+uint64(m.Queued) != uint64(restarts) {
		t.Errorf("%+v", m)
	}
	b.stop()
	goleak.VerifyNone(t, before)
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors are open, %d at the beginning", now, files)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// TestQueueWhileTheBrokerIsAway: the newest events wait, and of states only the last.
func TestQueueWhileTheBrokerIsAway(t *testing.T) {
	b := startInProcess(t, new(auth.AllowHook))
	b.stop()
	var s scene
	var logged lines
	n := mqttNotifier(t, &s, Parts{Log: slog.New(slog.NewTextHandler(&logged, nil))}, "mqtt://"+b.address)
	events, stop := start(t, n)
	defer stop()
	const sent = queueLength + 44
	for i := range sent {
		s.set(holds([]string{"open", "closed"}[i%2]))
		events <- enter(fmt.Sprintf("e%03d", i))
	}
	events <- &event.Event{ID: "last", Stream: "other"} // the ones before are queued
	if m := n.Stats().MQTT; m.Connected || m.Queued != queueLength {
		t.Errorf("%+v", m)
	}
	s.offline.Lock()
	b.start()
	w := watch(t, connect(t, b.address))
	s.offline.Unlock()
	w.has("hailo-clip/gate/state", told("closed"))
	w.until("all events", func() bool { return n.Stats().MQTT.Queued == 0 })
	if m := n.Stats().MQTT; m.Dropped != sent+1-queueLength || m.Delivered != queueLength {
		t.Errorf("%+v", m)
	}
	if lines := strings.Count(logged.String(), "events are dropped"); lines != 1 {
		t.Errorf("%d lines:\n%s", lines, logged.String())
	}
	if n := w.hears("hailo-clip/gate/state", ""); n != 1 {
		t.Errorf("%d states", n)
	}
}

// TestWhatIsNoMoreIsCleared, also what is from before the start, but nothing of others.
func TestWhatIsNoMoreIsCleared(t *testing.T) {
	b := startInProcess(t, new(auth.AllowHook))
	w := watch(t, connect(t, b.address))
	m, old := testMaker(), gate()
	m.version = "0.9"
	old.Regions[0].Labels = append(old.Regions[0].Labels, "ajar")
	gone := map[string]string{
		"hailo-clip/old/state": "{}", "hailo-clip/old/left/state": "{}", "hailo-clip/old/thumb": "jpeg",
		"homeassistant/device/hailo_clip_old/config": string(marshal(m.device(event.Watched{ID: "old"}))),
	}
	other := testMaker()
	other.prefix = "hailo-clip-2"
	stay := map[string]string{
		"hailo-clip/gate/thumb": "older jpeg", "hailo-clip/gate/event": "x", "hailo-clip-2/old/state": "{}", "homeassistant/device/other/config": "{}",
		"homeassistant/device/hailo_clip_2_old/config": string(marshal(other.device(event.Watched{ID: "old"}))),
		"homeassistant/device/hailo_clip_x/config":     `{"o":{"name":"other"}}`,
	}
	for _, all := range []map[string]string{gone, stay, {configTopic: string(marshal(m.device(old))), "hailo-clip/gate/state": told("open")}} {
		for topic, payload := range all {
			w.publish(topic, payload, true)
		}
	}
	var s scene
	n := mqttNotifier(t, &s, Parts{}, "mqtt://"+b.address)
	_, stop := start(t, n)
	w.has("hailo-clip/status", "online") // streams are not known: nothing else
	w.until("the counts", func() bool { return n.Stats().MQTT.Messages == 1 })
	s.set(holds("open"))
	n.Refresh()
	for topic := range gone {
		w.has(topic, "")
	}
	w.until("the new announcement", func() bool { return !strings.Contains(w.topics[configTopic], "ajar") })
	if removed := w.hears(configTopic, `"ajar":{"p":"binary_sensor"}`); removed != 1 {
		t.Errorf("it was removed %d times", removed)
	}
	stop()
	for topic, payload := range stay {
		w.has(topic, payload)
	}
	if n := w.hears("hailo-clip/gate/state", ""); n != 1 {
		t.Errorf("a state that the broker has was told again: %d", n)
	}
}

// faults is a hook of the broker that makes trouble with messages.
type faults struct {
	mochi.HookBase
	refuse func(topic string) bool
	cut    func(topic string, payload []byte) bool
}

func (f *faults) ID() string { return "faults" }
func (f *faults) Provides(b byte) bool {
	return b == mochi.OnACLCheck || b == mochi.OnPublish || b == mochi.OnConnectAuthenticate
}
func (f *faults) OnConnectAuthenticate(*mochi.Client, mochipackets.Packet) bool {
	return true
}
func (f *faults) OnACLCheck(_ *mochi.Client, topic string, write bool) bool {
	return !write || f.refuse == nil || !f.refuse(topic)
}
func (f *faults) OnPublish(c *mochi.Client, p mochipackets.Packet) (mochipackets.Packet, error) {
	if f.cut != nil && f.cut(p.TopicName, p.Payload) {
		c.Stop(io.EOF)
		return p, mochipackets.ErrRejectPacket
	}
	return p, nil
}

// TestRefusedMessages are counted, and the others go on.
func TestRefusedMessages(t *testing.T) {
	b := startInProcess(t, &faults{refuse: func(topic string) bool { return topic == "hailo-clip/gate/event" || topic == configTopic }})
	w := watch(t, connect(t, b.address))
	var s scene
	s.set(holds("open"))
	n := mqttNotifier(t, &s, Parts{}, "mqtt://"+b.address)
	events, stop := start(t, n)
	defer stop()
	w.has("hailo-clip/gate/state", told("open"))
	events <- enter("e1")
	s.set(holds("closed"))
	events <- &event.Event{ID: "e2", Stream: "yard", Kind: event.Enter, Label: "a"}
	w.hears("hailo-clip/yard/event", "e2")
	w.has("hailo-clip/gate/state", told("closed"))
	w.until("the counts", func() bool { return n.Stats().MQTT.Queued == 0 })
	if m := n.Stats().MQTT; m.Failed != 1 || m.Delivered != 1 || !m.Connected || m.Connections != 1 {
		t.Errorf("%+v", m)
	}
}

// TestMessagesThatEndTheConnection are not sent for ever: neither an event nor a thumbnail.
func TestMessagesThatEndTheConnection(t *testing.T) {
	b := startInProcess(t, &faults{cut: func(topic string, payload []byte) bool {
		return topic == "hailo-clip/gate/thumb" || strings.Contains(string(payload), `"id":"e1"`)
	}})
	w := watch(t, connect(t, b.address))
	var s scene
	s.set(holds("open"))
	n := mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+b.address)
	events, stop := start(t, n)
	defer stop()
	e := enter("e1")
	e.Thumbnail = true
	events <- e
	events <- enter("e2")
	w.hears("hailo-clip/gate/event", "e2")
	w.has("hailo-clip/gate/state", told("open"))
	w.until("the counts", func() bool { return n.Stats().MQTT.Queued == 0 })
	if m := n.Stats().MQTT; m.Failed != 1 || m.Delivered != 1 || m.Connections > 2*maxAttempts+1 {
		t.Errorf("%+v", m)
	}
}

// TestStrangeBroker asks for authentication that nobody has configured, and then sends what is no MQTT.
func TestStrangeBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections := make(chan struct{}, 100)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte{0x20, 7, 0, 0, 4, 0x15, 0, 1, 'x'})    // CONNACK with an authentication method
			_, _ = c.Write([]byte{0xf0, 6, 0x18, 4, 0x15, 0, 1, 'x'})    // AUTH: continue
			_, _ = c.Write([]byte{0x30, 0xff, 0xff, 0xff, 0x7f, 0, 200}) // a message of 256 MiB
			select {
			case connections <- struct{}{}:
			default:
			}
			c.Close()
		}
	})
	var s scene
	_, stop := start(t, mqttNotifier(t, &s, Parts{}, "mqtt://"+l.Addr().String()))
	for range 5 {
		<-connections
	}
	stop()
	l.Close()
	serving.Wait()
}

// TestPacketConn: a length is looked at before it is believed, in whatever pieces it comes.
func TestPacketConn(t *testing.T) {
	long := append([]byte{0x30, 0xff, 0xff, 0x3f}, make([]byte, maxReceived-1)...) // 1<<20 - 1 bytes
	good := slices.Concat([]byte{0xd0, 0}, long, []byte{0x30, 2, 'a', 'b', 0xd0, 0})
	for name, piece := range map[string]func(int) int{"bytes": func(int) int { return 1 }, "pieces": func(i int) int { return 1 + i%7 }, "all": func(int) int { return len(good) }} {
		read := func(data []byte) (int, error) {
			c, all := &packetConn{Conn: fixed{Reader: bytes.NewReader(data)}}, 0
			for i := 0; ; i++ {
				n, err := c.Read(make([]byte, piece(i)))
				if all += n; err != nil {
					return all, err
				}
			}
		}
		if n, err := read(good); n != len(good) || !errors.Is(err, io.EOF) {
			t.Errorf("%s: %d of %d, %v", name, n, len(good), err)
		}
		for _, bad := range [][]byte{{0x30, 0x81, 0x80, 0x40}, {0x30, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0x80, 0x80, 0x80, 0x80, 0}, {0xd0, 0, 0x30, 0xff, 0xff, 0xff, 0xff, 0xff}} {
			if n, err := read(bad); !errors.Is(err, errLongPacket) || n >= len(bad) {
				t.Errorf("%s: %x: %d, %v", name, bad, n, err)
			}
		}
	}
}

// fixed is a connection that can only be read.
type fixed struct {
	io.Reader
	net.Conn
}

func (f fixed) Read(p []byte) (int, error) { return f.Reader.Read(p) }

// TestStopDoesNotWaitForABroker that has stopped reading, in the middle of a message.
func TestStopDoesNotWaitForABroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for announced := false; !announced; {
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			switch m := p.Content.(type) {
			case *packets.Connect:
				_, _ = c.Write([]byte{0x20, 3, 0, 0, 0})
			case *packets.Subscribe:
				_, _ = c.Write([]byte{0x90, 9, byte(m.PacketID >> 8), byte(m.PacketID), 0, 0, 0, 0, 0, 0, 0})
			case *packets.Publish:
				_, _ = c.Write([]byte{0x40, 2, byte(m.PacketID >> 8), byte(m.PacketID)})
				announced = m.Topic == configTopic
			}
		}
		<-asked
		<-t.Context().Done()
	}()
	var s scene
	s.set(holds("open"))
	n := mqttNotifier(t, &s, Parts{Thumbnail: func(context.Context, string) ([]byte, error) {
		close(asked)
		return make([]byte, 64<<20), nil // more than sockets take
	}}, "mqtt://"+l.Addr().String())
	events, stop := start(t, n)
	e := enter("e1")
	e.Thumbnail = true
	events <- e
	<-asked
	began := time.Now()
	stop()
	if took := time.Since(began); took > keepAlive*time.Second/2 { // not only when a ping has no answer
		t.Errorf("it took %s", took)
	}
	t.Cleanup(func() { <-ended })
}

// TestPause: a broker that ends each connection at once is asked again after longer and longer.
func TestPause(t *testing.T) {
	b := new(broker)
	if b.pause(0) != 0 {
		t.Error(b.pause(0))
	}
	for attempt, longest := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1000: time.Minute} {
		for range 100 {
			if p := b.pause(attempt); p < longest/2 || p > longest {
				t.Errorf("%d: %s", attempt, p)
			}
		}
	}
	b.short.Store(3)
	if p := b.pause(0); p < 2*time.Second || p > 4*time.Second {
		t.Error(p)
	}
}

// TestRunHearsTheBus.
func TestRunHearsTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collector
		bus := event.NewBus(10)
		n := notifier(t, Parts{Bus: bus}, hook(nil))
		n.hooks[0].client.Transport = &c
		ctx, cancel := context.WithCancel(t.Context())
		go n.Run(ctx)
		synctest.Wait()
		bus.Publish(enter("a"))
		synctest.Wait()
		cancel()
		synctest.Wait()
		if len(c.got) != 1 {
			t.Error(c.got)
		}
	})
	notifier(t, Parts{}).Run(t.Context()) // without targets it returns
}
