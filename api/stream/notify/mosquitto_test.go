package notify

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hailoclip/api/stream/event"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// mosquitto starts the broker of that name with more lines of configuration, and returns its address. It ends with the test.
func mosquitto(t *testing.T, config ...string) (address string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free now
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	lines := append([]string{"user root", "log_dest stderr", "listener " + port + " 127.0.0.1"}, config...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", file)
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	running, read := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.Contains(s.Text(), " running") {
				running <- true
			} else if len(running) == 0 {
				said += s.Text() + "\n"
			}
		}
		select {
		case running <- false:
		default:
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	if !<-running {
		t.Fatalf("mosquitto: %s", said)
	}
	return address
}

func TestMosquitto(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true")
	var s scene
	exercise(t, mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+address), &s, watch(t, connect(t, address)))
}

func TestMosquittoWithPassword(t *testing.T) {
	passwords := filepath.Join(t.TempDir(), "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", passwords, "clip", "right word").CombinedOutput(); err != nil {
		t.Skipf("mosquitto_passwd: %s, %v", out, err)
	}
	address := mosquitto(t, "allow_anonymous false", "password_file "+passwords)
	file := filepath.Join(t.TempDir(), "word")
	if err := os.WriteFile(file, []byte("right word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := watch(t, connect(t, address), func(c *paho.Connect) {
		c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, "clip", true, []byte("right word")
	})
	var s scene
	exercise(t, mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+address, func(c *MQTT) { c.Username, c.PasswordFile = "clip", file }), &s, w)

	logged := make(logLines, 100)
	n := mqttNotifier(t, &s, Parts{Log: slog.New(slog.NewTextHandler(logged, nil))}, "mqtt://"+address, func(c *MQTT) { c.Username, c.Password = "clip", "wrong word" })
	_, stop := start(t, n)
	line := <-logged
	stop()
	if !strings.Contains(line, "cannot be reached") || strings.Contains(line, "word") || n.Stats().MQTT.Connections != 0 {
		t.Errorf("%s%+v", line, n.Stats().MQTT)
	}
}

// logLines hands on the lines of a log.
type logLines chan string

func (l logLines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// certify makes a certificate for the names, signed by the authority, or itself one with nil, and writes both files.
func certify(t *testing.T, dir, name string, authority *tls.Certificate, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	parent, signer := c, any(key)
	if authority == nil {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	} else {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestMosquittoWithTLS(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	authority := certify(t, dir, "ca", nil)
	certify(t, dir, "broker", authority, "broker.example")
	client := certify(t, dir, "client", authority)
	address := mosquitto(t, "allow_anonymous true", "require_certificate true", "cafile "+in("ca.crt"), "certfile "+in("broker.crt"), "keyfile "+in("broker.key"))
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	connect := func() net.Conn {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "broker.example", Certificates: []tls.Certificate{*client}})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	var s scene
	right := func(c *MQTT) {
		c.CAFile, c.CertFile, c.KeyFile, c.ServerName = in("ca.crt"), in("client.crt"), in("client.key"), "broker.example"
	}
	exercise(t, mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtts://"+address, right), &s, watch(t, connect()))

	for name, wrong := range map[string]func(*MQTT){
		"another name":        func(c *MQTT) { c.ServerName = "" },
		"an unknown one":      func(c *MQTT) { c.CAFile = "" },
		"without certificate": func(c *MQTT) { c.CertFile, c.KeyFile = "", "" },
	} {
		logged := make(logLines, 100)
		n := mqttNotifier(t, &s, Parts{Log: slog.New(slog.NewTextHandler(logged, nil))}, "mqtts://"+address, right, wrong)
		_, stop := start(t, n)
		line := <-logged
		stop()
		if !strings.Contains(line, "cannot be reached") || n.Stats().MQTT.Connections != 0 {
			t.Errorf("%s: %s", name, line)
		}
	}
	n := mqttNotifier(t, &s, Parts{}, "mqtts://"+address, right, func(c *MQTT) { c.ServerName, c.CAFile, c.Insecure = "", "", true })
	w := watch(t, connect())
	_, stop := start(t, n)
	w.has("hailo-clip/status", "online")
	stop()
}

// wire is a way to a broker that can be cut.
type wire struct {
	net.Listener
	mu    sync.Mutex
	ends  []net.Conn
	pipes sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	w.pipes.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			w.mu.Lock()
			w.ends = append(w.ends, a, b)
			w.mu.Unlock()
			for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
				w.pipes.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
					pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.cut()
		w.pipes.Wait()
	})
	return w
}

// cut ends all connections without a word.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.ends {
		c.Close()
	}
	w.ends = nil
}

// TestWill: who watches hears of a service that is gone without a word, and that it is there again.
func TestWill(t *testing.T) {
	broker := mosquitto(t, "allow_anonymous true")
	between := newWire(t, broker)
	w := watch(t, connect(t, broker))
	var s scene
	s.set(holds("open"))
	_, stop := start(t, mqttNotifier(t, &s, Parts{}, "mqtt://"+between.Addr().String()))
	defer stop()
	w.has("hailo-clip/status", "online")
	between.cut()
	w.hears("hailo-clip/status", "offline")
	w.has("hailo-clip/status", "online")
}

// TestLargeMessages: what the broker says it does not take is not sent, and the others go on.
func TestLargeMessages(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true", "max_packet_size 2000")
	w := watch(t, connect(t, address))
	var s scene
	s.set(holds("open"))
	large := func(context.Context, string) ([]byte, error) { return make([]byte, 5000), nil }
	n := mqttNotifier(t, &s, Parts{Thumbnail: large}, "mqtt://"+address)
	events, stop := start(t, n)
	defer stop()
	e := enter("e1")
	e.Thumbnail, e.Answer = true, json.RawMessage(`"`+strings.Repeat("x", 3000)+`"`)
	events <- e
	events <- enter("e2")
	w.hears("hailo-clip/gate/event", "e2")
	w.has("hailo-clip/gate/state", told("open"))
	w.until("the counts", func() bool { return n.Stats().MQTT.Delivered == 1 })
	if m := n.Stats().MQTT; m.Failed != 1 || m.Connections != 1 {
		t.Errorf("%+v", m)
	}
}

// homeAssistant is what Home Assistant makes of the messages, in their order: entities by unique id with their values. A component
// stays until it is removed by its platform alone, or its device by an empty message.
func homeAssistant(t *testing.T, messages []string) map[string]string {
	t.Helper()
	devices, topics := map[string]map[string]component{}, map[string]string{}
	for _, m := range messages {
		topic, payload, _ := strings.Cut(m, " ")
		if topics[topic] = payload; !strings.HasSuffix(topic, "/config") {
			continue
		}
		if payload == "" {
			delete(devices, topic)
			continue
		}
		var d device
		if err := json.Unmarshal([]byte(payload), &d); err != nil || d.Origin.Name == "" || len(d.Device.IDs) == 0 {
			t.Fatalf("%s: %v", m, err)
		}
		if devices[topic] == nil {
			devices[topic] = map[string]component{}
		}
		for key, c := range d.Components {
			if c.StateTopic == "" {
				c.StateTopic = d.StateTopic
			}
			if c.UniqueID != "" {
				devices[topic][key] = c
			} else {
				delete(devices[topic], key)
			}
		}
		if topics[d.Availability[0].Topic] == "" {
			t.Errorf("%s: availability is not told", topic)
		}
	}
	values := map[string]string{}
	for _, components := range devices {
		for _, c := range components {
			values[c.UniqueID] = value(t, c, topics)
		}
	}
	return values
}

// value is what a component shows: its template is one of the two that there are.
func value(t *testing.T, c component, topics map[string]string) string {
	t.Helper()
	if c.Platform == "image" {
		return topics[c.ImageTopic]
	}
	if topics[c.StateTopic] == "" {
		return "" // nothing has come yet
	}
	var payload map[string]any
	if err := json.Unmarshal([]byte(topics[c.StateTopic]), &payload); err != nil {
		t.Errorf("%s: %q in %s: %v", c.UniqueID, topics[c.StateTopic], c.StateTopic, err)
	}
	expression := strings.TrimSuffix(strings.TrimPrefix(c.ValueTemplate, "{{ "), " }}")
	choice, isChoice := strings.CutPrefix(expression, "'ON' if ")
	path, then, _ := strings.Cut(strings.TrimSuffix(choice, " else 'OFF'"), "==")
	name, ok := strings.CutPrefix(path, "value_json.")
	got, there := payload[name]
	switch {
	case !ok || !there:
		t.Errorf("%s: %s is not in %v", c.UniqueID, c.ValueTemplate, payload)
	case isChoice && "'"+fmt.Sprint(got)+"'" == then:
		return "ON"
	case isChoice:
		return "OFF"
	case c.DeviceClass == "enum" && !slices.Contains(c.Options, fmt.Sprint(got)):
		t.Errorf("%s: %v is no option of %s", c.UniqueID, got, c.Options)
	}
	return fmt.Sprint(got)
}

// TestHomeAssistant plays its part against a real broker.
func TestHomeAssistant(t *testing.T) {
	address := mosquitto(t, "allow_anonymous true")
	var s scene
	s.set(holds("open"))
	n := mqttNotifier(t, &s, Parts{Thumbnail: thumbnailOf}, "mqtt://"+address)
	events, stop := start(t, n)
	defer stop()
	w := watch(t, connect(t, address))
	shows := func(want string) {
		t.Helper()
		w.until(want, func() bool {
			return w.topics["hailo-clip/gate/state"] != "" && fmt.Sprint(homeAssistant(t, w.messages)) == want
		})
	}
	e := enter("e1")
	e.Thumbnail = true
	events <- e
	shows("map[hailo_clip_gate_closed:OFF hailo_clip_gate_img:jpeg of e1 hailo_clip_gate_open:ON hailo_clip_gate_score:0.875 hailo_clip_gate_state:open]")

	w.hears(configTopic, "{")
	w.mu.Lock()
	w.messages = slices.DeleteFunc(w.messages, func(m string) bool { return strings.HasPrefix(m, configTopic) })
	w.mu.Unlock()
	w.publish("homeassistant/status", "online", false)
	w.hears(configTopic, "{") // again

	next := holds("closed") // another set of labels
	next.Regions[0].Labels = []string{"closed", "ajar"}
	s.set(next)
	n.Refresh()
	shows("map[hailo_clip_gate_ajar:OFF hailo_clip_gate_closed:ON hailo_clip_gate_img:jpeg of e1 hailo_clip_gate_score:0.875 hailo_clip_gate_state:closed]")

	next.Regions = []event.Region{{Name: "left", Labels: []string{"cat"}, State: "cat", Score: 1}, {Name: "right", Labels: []string{"cat"}}}
	s.set(next)
	n.Refresh()
	w.has("hailo-clip/gate/state", "")
	w.until("regions", func() bool {
		return w.topics["hailo-clip/gate/right/state"] != "" && fmt.Sprint(homeAssistant(t, w.messages)) == "map[hailo_clip_gate_img:jpeg of e1 "+
			"hailo_clip_gate_left_cat:ON hailo_clip_gate_left_score:1 hailo_clip_gate_left_state:cat "+
			"hailo_clip_gate_right_cat:OFF hailo_clip_gate_right_score:0 hailo_clip_gate_right_state:unknown]"
	})

	s.set()
	n.Refresh()
	w.until("no device", func() bool { return len(homeAssistant(t, w.messages)) == 0 })
	w.has("hailo-clip/gate/thumb", "")
}
