package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"hailoclip/api/stream/event"
)

const (
	keepAlive     = 30               // seconds
	ackTimeout    = 10 * time.Second // of one message, and of making a connection
	maxReconnect  = time.Minute      // between two connections
	stableAfter   = 10 * time.Second // a connection that lasted so long lets the next attempt be at once
	maxReceived   = 1 << 20          // bytes of a message that the broker may send
	maxHeard      = 16 << 20         // bytes of the broker's messages that wait to be looked at
	maxShort      = 4 << 10          // bytes of a message of the broker that are kept, but for discovery
	maxThumbnails = 1024             // streams of which the newest thumbnail waits to be sent
	maxAttempts   = 3                // after so many connections that were lost while it was sent, an event or thumbnail is given up
)

// broker keeps what an MQTT broker remembers (see desired) as it should be, and sends it events. What is to be remembered is made
// anew from Parts.Streams when there is something to say, so only the newest state is ever sent; of events a bounded number waits.
type broker struct {
	cfg   MQTT
	parts Parts
	log   *slog.Logger
	topics
	client autopaho.ClientConfig
	maker  maker

	mu     sync.Mutex
	events []*event.Event          // to be sent, oldest first
	thumbs map[string]*event.Event // the newest with a thumbnail, by stream, whose thumbnail is to be sent
	heard  []heard
	waits  int  // bytes of heard
	stale  bool // streams may have changed
	wake   chan struct{}
	conn   net.Conn // the last one that was made

	up                                                chan up
	connected                                         atomic.Bool
	connections, delivered, failed, dropped, messages atomic.Uint64
	dropLog, failLog, connectLog                      sometimes
	short                                             atomic.Int32   // connections in a row that did not last
	tried                                             map[string]int // connections in a row that were lost while this was being sent
}

// heard is what the broker remembers of this service, or the start of Home Assistant.
type heard struct {
	topic   string
	payload []byte
}

// up is a connection: its context ends with it.
type up struct {
	ctx     context.Context
	largest int // bytes of a packet that the broker takes; 0: any
}

func newBroker(c MQTT, p Parts) (*broker, error) {
	password, err := c.Password.orFile(c.PasswordFile)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), schemes[u.Scheme])
	}
	encrypted, err := c.tls()
	if err != nil {
		return nil, err
	}
	if encrypted.ServerName == "" {
		encrypted.ServerName = u.Hostname()
	}
	if c.ClientID == "" {
		host, _ := os.Hostname() // without one the id is that of all such hosts
		c.ClientID = "hailo-clip-" + safe(host, "-")
	}
	b := &broker{
		cfg: c, parts: p, log: p.Log.With("broker", u.Scheme+"://"+u.Host),
		topics: topics{c.Prefix, c.DiscoveryPrefix}, thumbs: map[string]*event.Event{}, tried: map[string]int{},
		stale: true, wake: make(chan struct{}, 1), up: make(chan up, 1),
	}
	b.maker = maker{topics: b.topics, classes: c.DeviceClasses, version: p.Version}
	b.client = autopaho.ClientConfig{
		ServerUrls: []*url.URL{u}, TlsCfg: encrypted, KeepAlive: keepAlive,
		ConnectUsername: c.Username, ConnectPassword: []byte(password),
		WillMessage:    &paho.WillMessage{Topic: b.status(), Payload: []byte("offline"), QoS: 1, Retain: true},
		ConnectTimeout: ackTimeout, ReconnectBackoff: b.pause,
		OnConnectError: func(err error) { b.connectLog.log(b.log, "the broker cannot be reached", "error", err) },
		// What is not acknowledged is sent again by run, if it still holds: no session is kept, here or there.
		ConnectPacketBuilder: func(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			c.CleanStart, c.Properties = true, &paho.ConnectProperties{MaximumPacketSize: new(uint32(maxReceived)), ReceiveMaximum: new(uint16(64))}
			return c, nil
		},
		ClientConfig: paho.ClientConfig{
			ClientID: c.ClientID, PacketTimeout: ackTimeout, AuthHandler: noAuth{},
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){b.hear},
		},
	}
	b.client.AttemptConnection = b.dial
	return b, nil
}

// noAuth answers a broker that asks for what nobody has configured; without it paho would panic.
type noAuth struct{}

func (noAuth) Authenticate(*paho.Auth) *paho.Auth { return &paho.Auth{} }
func (noAuth) Authenticated()                     {}

// offer takes an event, and with it the knowledge that its stream has changed. It does not block.
func (b *broker) offer(e *event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) == queueLength {
		b.events = b.events[1:]
		b.missedOne()
	}
	b.events = append(b.events, e)
	if _, known := b.thumbs[e.Stream]; e.Thumbnail && (known || len(b.thumbs) < maxThumbnails) {
		b.thumbs[e.Stream] = e
	}
	b.changed()
}

// missed counts events that were lost before offer.
func (b *broker) missed(n int) {
	if n <= 0 {
		return
	}
	b.dropped.Add(uint64(n - 1))
	b.missedOne()
	b.refresh()
}

func (b *broker) missedOne() {
	b.dropLog.log(b.log, "events are dropped: the broker is away, or too slow", "dropped", b.dropped.Add(1))
}

// refresh has the streams looked at.
func (b *broker) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed()
}

// changed is refresh; the caller holds mu.
func (b *broker) changed() {
	b.stale = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// hear takes a message of the broker. It does not block.
func (b *broker) hear(m paho.PublishReceived) (bool, error) {
	topic, payload := m.Packet.Topic, m.Packet.Payload
	if topic == b.birth() {
		if m.Packet.Retain || string(payload) != "online" {
			return true, nil
		}
	} else if !m.Packet.Retain || !b.ours(topic, payload) {
		return true, nil
	}
	if len(payload) > maxShort && !b.isConfig(topic) {
		payload = bytes.Clone(payload[:maxShort])
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if size := len(topic) + len(payload); b.waits+size <= maxHeard {
		b.heard, b.waits = append(b.heard, heard{topic, payload}), b.waits+size
		b.changed()
	}
	return true, nil
}

func (b *broker) stats() MQTTStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return MQTTStats{Connected: b.connected.Load(), Connections: b.connections.Load(), Messages: b.messages.Load(),
		Counts: Counts{Delivered: b.delivered.Load(), Failed: b.failed.Load(), Dropped: b.dropped.Load(), Queued: len(b.events)}}
}

// pause is how long to wait before an attempt to connect. A broker that ends each connection at once, as one does where two
// clients have one id, is not asked again at once.
func (b *broker) pause(attempt int) time.Duration {
	n := attempt + int(b.short.Load())
	if n == 0 {
		return 0
	}
	longest := min(time.Second<<min(n-1, 10), maxReconnect)
	return longest/2 + mathrand.N(longest/2)
}

// run tells the broker until ctx ends, then that it is offline. A broker that does not read is not waited for.
func (b *broker) run(ctx context.Context) {
	client := b.client
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var began time.Time
	down := func() {}
	client.OnConnectionUp = func(_ *autopaho.ConnectionManager, c *paho.Connack) {
		began = time.Now()
		u := up{}
		u.ctx, down = context.WithCancel(life)
		if c.Properties != nil && c.Properties.MaximumPacketSize != nil {
			u.largest = int(*c.Properties.MaximumPacketSize)
		}
		select { // run may not have taken the one before
		case <-b.up:
		default:
		}
		b.up <- u
		b.connections.Add(1)
		b.connected.Store(true)
		b.connectLog.reset()
		b.log.Info("connected to the broker")
	}
	client.OnConnectionDown = func() bool {
		down()
		b.connected.Store(false)
		if b.short.Add(1); time.Since(began) >= stableAfter {
			b.short.Store(0)
		}
		b.connectLog.log(b.log, "the broker has ended the connection")
		return true
	}
	manager, err := autopaho.NewConnection(life, client)
	if err != nil {
		b.log.Error("the broker is not told", "error", err)
		return
	}
	ended := make(chan struct{})
	defer func() {
		end()
		<-manager.Done()
		close(ended)
		down()
		b.connected.Store(false)
		b.drop()
	}()
	context.AfterFunc(ctx, func() {
		select {
		case <-time.After(farewell):
			b.hangUp()
		case <-ended:
		}
	})
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case u := <-b.up:
			for u.ctx.Err() == nil && ctx.Err() == nil {
				guard(b.log, func() { b.serve(ctx, manager, u) })
				select { // after a panic
				case <-u.ctx.Done():
				case <-ctx.Done():
				case <-time.After(refresh):
				}
			}
		}
	}
	if b.connected.Load() {
		last, cancel := context.WithTimeout(life, farewell)
		defer cancel()
		offline := &paho.Publish{Topic: b.status(), Payload: []byte("offline"), QoS: 1, Retain: true}
		_, _ = manager.Publish(last, offline) // where it fails the broker sends the will
	}
}

// drop forgets what is queued.
func (b *broker) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropped.Add(uint64(len(b.events)))
	b.events = nil
}

// connection is what is known of a broker while a connection lasts.
type connection struct {
	*broker
	up
	manager *autopaho.ConnectionManager
	told    map[string][]byte // what the broker remembers, by topic
	refused map[string][]byte // what it has refused since the last tick
}

// serve brings what the broker remembers up to date and sends events until the connection or ctx ends.
func (b *broker) serve(ctx context.Context, manager *autopaho.ConnectionManager, u up) {
	var cancel context.CancelFunc
	u.ctx, cancel = context.WithCancel(u.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	c := &connection{b, u, manager, map[string][]byte{}, map[string][]byte{}}
	c.subscribe()
	b.refresh()
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	var todo []toRemember
	for c.ctx.Err() == nil {
		if c.listen() {
			todo = c.differences()
		}
		e := c.first()
		if len(todo) > 0 {
			c.remember(todo[0])
			todo = todo[1:]
		} else if e == nil {
			select {
			case <-b.wake:
			case <-c.ctx.Done():
			case <-tick.C:
				b.maker.forget()
				clear(c.refused)
				b.refresh()
			}
		}
		if e != nil && c.ctx.Err() == nil {
			c.send(e)
		}
	}
}

// subscribe asks for what the broker remembers of this service, also from before its start, and for starts of Home Assistant.
func (c *connection) subscribe() {
	s := &paho.Subscribe{}
	for _, filter := range c.filters() {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: filter})
	}
	if _, err := c.manager.Subscribe(c.ctx, s); err != nil && c.ctx.Err() == nil {
		c.log.Warn("what the broker remembers cannot be read: it may keep states of streams that are no more", "error", err)
	}
}

// listen looks at what the broker has said, and says whether there may be something to tell it.
func (c *connection) listen() bool {
	c.mu.Lock()
	all, stale := c.heard, c.stale
	c.heard, c.waits, c.stale = nil, 0, false
	c.mu.Unlock()
	for _, h := range all {
		if h.topic != c.birth() {
			c.told[h.topic] = h.payload
			continue
		}
		for topic := range c.told {
			if c.isConfig(topic) {
				delete(c.told, topic) // Home Assistant hears all again
			}
		}
	}
	return stale
}

// toRemember is a message that the broker is to remember; an empty one makes it forget what it has.
type toRemember struct {
	topic     string
	payload   []byte
	thumbnail *event.Event // whose thumbnail is the payload
}

// differences are the messages that make the broker remember what it should.
func (c *connection) differences() (todo []toRemember) {
	add := func(m toRemember) {
		told := bytes.Equal(c.told[m.topic], m.payload) // or forgotten
		refused, ok := c.refused[m.topic]
		refusedIt := ok && bytes.Equal(refused, m.payload)
		if m.thumbnail != nil || !told && !refusedIt {
			todo = append(todo, m)
		}
	}
	add(toRemember{topic: c.status(), payload: []byte("online")})
	if c.parts.Streams == nil {
		return todo
	}
	streams := c.parts.Streams()
	if streams == nil {
		return todo
	}
	desired, keep := c.maker.desired(streams)
	for _, m := range desired {
		if with := withRemoved(c.told[m.topic], m.payload); with != nil && c.isConfig(m.topic) {
			add(toRemember{topic: m.topic, payload: with})
		}
		add(m)
	}
	for _, e := range c.newThumbnails(keep) {
		add(toRemember{topic: c.thumb(e.Stream), thumbnail: e})
	}
	for topic := range c.told {
		if !keep[topic] {
			add(toRemember{topic: topic})
		}
	}
	return todo
}

// newThumbnails are the events whose thumbnails are to be sent. Those of streams whose topic is not kept are forgotten.
func (c *connection) newThumbnails(keep map[string]bool) (all []*event.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.thumbs {
		if keep[c.thumb(id)] {
			all = append(all, e)
		} else {
			delete(c.thumbs, id)
		}
	}
	return all
}

// remember has the broker remember a message. What a lost connection interrupts is among the differences of the next one.
func (c *connection) remember(m toRemember) {
	if m.thumbnail != nil {
		m.payload = c.parts.thumbnail(c.ctx, m.thumbnail)
	}
	became := done
	if m.thumbnail == nil || len(m.payload) > 0 {
		became = c.publish(&paho.Publish{Topic: m.topic, Payload: m.payload, QoS: 1, Retain: true})
	}
	if m.thumbnail != nil && c.over(m.thumbnail.ID+" thumbnail", became) {
		c.mu.Lock()
		if c.thumbs[m.thumbnail.Stream] == m.thumbnail {
			delete(c.thumbs, m.thumbnail.Stream)
		}
		c.mu.Unlock()
	}
	switch {
	case became == failed:
		c.refused[m.topic] = m.payload
	case became == done && len(m.payload) == 0:
		delete(c.told, m.topic)
	case became == done:
		c.told[m.topic] = m.payload
	}
	if became == done {
		c.messages.Add(1)
	}
}

// first is the event to be sent next; nil: none.
func (c *connection) first() *event.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) == 0 {
		return nil
	}
	return c.events[0]
}

// send sends the first event. It stays the first when the connection is lost, but not for ever: it may be why.
func (c *connection) send(e *event.Event) {
	became := failed
	if text, err := json.Marshal(e); err == nil {
		became = c.publish(&paho.Publish{Topic: c.event(e.Stream), Payload: text, QoS: 1})
	}
	if !c.over(e.ID, became) {
		return
	}
	c.mu.Lock()
	if len(c.events) > 0 && c.events[0] == e { // else it was dropped, and counted as that
		c.events = c.events[1:]
		if became == done {
			c.delivered.Add(1)
		} else {
			c.failed.Add(1)
		}
	}
	c.mu.Unlock()
}

// over says that there is nothing more to do for a message: it is done, failed, or has ended maxAttempts connections.
func (c *connection) over(what string, became outcome) bool {
	if became == lost && c.tried[what]+1 < maxAttempts {
		if len(c.tried) > maxTried {
			clear(c.tried) // of what is not sent any more, in part
		}
		c.tried[what]++
		return false
	}
	delete(c.tried, what)
	return true
}

// maxTried bounds the messages whose attempts are counted; more than can wait with an event each.
const maxTried = 1024

// outcome is what became of a message.
type outcome int

const (
	done   outcome = iota // the broker has it
	failed                // it does not take it
	lost                  // the connection has ended, or ends now; the broker may have it
)

// publish sends a message and waits for its acknowledgement, for ackTimeout at most.
func (c *connection) publish(m *paho.Publish) outcome {
	err := fmt.Errorf("it is larger than the %d bytes that the broker takes", c.largest)
	if size := len(m.Topic) + len(m.Payload) + 32; c.largest == 0 || size <= c.largest {
		var r *paho.PublishResponse
		r, err = c.manager.Publish(c.ctx, m)
		switch {
		case err == nil:
			c.failLog.reset()
			return done
		case r == nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, paho.ErrInvalidArguments):
			select {
			case <-c.ctx.Done():
			case <-time.After(ackTimeout):
			}
			return lost
		case c.ctx.Err() != nil:
			return lost
		}
	}
	c.failLog.log(c.log, "the broker does not take a message", "topic", m.Topic, "error", err)
	return failed
}
