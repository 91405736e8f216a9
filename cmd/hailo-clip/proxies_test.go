package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hailoclip/api/client"
)

type proxyProgram struct {
	name, sample string
	args         func(file, dir string) []string
	change       func(text, dir, port string) string
}

// proxyPrograms are those of which configs/docs/proxies has a sample: what to run, and what is put in the place of what.
var proxyPrograms = []proxyProgram{
	{"nginx", "nginx.conf",
		func(file, dir string) []string { return []string{"-p", dir, "-c", file} },
		func(text, dir, port string) string {
			text = strings.NewReplacer("listen 443 ssl", "listen 127.0.0.1:"+port+" ssl", "/etc/ssl/", dir+"/").Replace(text)
			user, temp := "", ""
			for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temp += what + "_temp_path " + dir + "/" + what + ";\n"
			}
			if os.Geteuid() == 0 {
				user = "user root; " // whose the folder is
			}
			return user + "daemon off; pid " + dir + "/pid; error_log stderr; events {}\nhttp {\naccess_log off;\n" + temp + text + "}\n"
		}},
	{"caddy", "Caddyfile",
		func(file, dir string) []string { return []string{"run", "--config", file, "--adapter", "caddyfile"} },
		func(text, dir, port string) string {
			return "{\n\tadmin off\n\tauto_https off\n}\n" + strings.NewReplacer("\nclip.example.org {", "\nhttps://127.0.0.1:"+port+" {",
				"# tls /etc/ssl/clip.pem /etc/ssl/clip.key", "tls "+dir+"/clip.pem "+dir+"/clip.key").Replace(text)
		}},
	{"haproxy", "haproxy.cfg",
		func(file, dir string) []string { return []string{"-db", "-f", file} },
		func(text, dir, port string) string {
			return strings.NewReplacer("bind :443 ", "bind 127.0.0.1:"+port+" ", "/etc/haproxy/clip.pem", dir+"/both.pem").Replace(text)
		}},
}

// TestProxies has each of the sample configurations before a service: HAILO_TEST_DOCS=1, "make docs-test".
func TestProxies(t *testing.T) {
	if os.Getenv("HAILO_TEST_DOCS") == "" {
		t.Skip("make docs-test")
	}
	for _, p := range proxyPrograms {
		t.Run(p.name, func(t *testing.T) {
			r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu", "--config", configFile(t, "server:\n  trusted_proxies: [127.0.0.1]\n"))
			upstream, connections := countConnections(t, strings.TrimPrefix(r.url, "http://"))
			url, roots := p.start(t, p.sample, map[string]string{"127.0.0.1:5000": upstream})
			throughProxy(t, r, url, roots, connections)
		})
	}
}

// start runs a proxy by its sample, changed as its test needs it and with these addresses, until the end of the test.
func (p *proxyProgram) start(t *testing.T, sample string, addresses map[string]string) (url string, roots *x509.CertPool) {
	t.Helper()
	path, err := exec.LookPath(p.name)
	if err != nil {
		path = needPrograms(t, "/usr/sbin/"+p.name)
	}
	dir, port := t.TempDir(), freePort(t)
	roots = proxyCertificate(t, dir)
	text := p.change(string(must(os.ReadFile(docs+"proxies/"+sample))), dir, port)
	for from, to := range addresses {
		text = strings.ReplaceAll(text, from, to)
	}
	put(t, dir, map[string]string{sample: text})
	proxy := exec.Command(path, p.args(filepath.Join(dir, sample), dir)...)
	proxy.Env = append(os.Environ(), "HOME="+dir)
	var log bytes.Buffer
	proxy.Stdout, proxy.Stderr, proxy.WaitDelay = &log, &log, 10*time.Second
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Signal(syscall.SIGTERM) // killed, nginx would leave its workers
		end := time.AfterFunc(10*time.Second, func() { _ = proxy.Process.Kill() })
		_ = proxy.Wait()
		if end.Stop(); t.Failed() {
			t.Logf("%s\n%s", text, log.String())
		}
	})
	address := "127.0.0.1:" + port
	until(t, p.name+" listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "https://" + address, roots
}

// throughProxy asks in all the ways there are. The client comes from 127.0.0.2.
func throughProxy(t *testing.T, r *running, url string, roots *x509.CertPool, connections func() int) {
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: from.DialContext, MaxIdleConnsPerHost: 4}}
	defer h.CloseIdleConnections()
	c := must(client.New(url, client.Options{HTTP: h}))
	defer c.Close()
	cat := must(os.ReadFile(samples + "cat.jpg"))
	prompts := []string{"a photo of a dog", "a photo of a cat"}
	until(t, "the proxy finds the service", func() bool {
		_, err := c.Health(t.Context())
		return err == nil
	})
	a, err := c.Classify(t.Context(), client.Question{Image: client.Image{Data: cat}, Prompts: prompts})
	if err != nil || a.Matches[0].Text != prompts[1] {
		t.Errorf("classify: %+v, %v", a, err)
	}
	before := connections()
	const asked = 20
	for range asked {
		if _, err := c.Classify(t.Context(), client.Question{Image: client.Image{Data: cat}, Prompts: prompts}); err != nil {
			t.Error(err)
		}
	}
	if n := connections() - before; n > asked/2 { // the checks of HAProxy make some
		t.Errorf("%d new connections for %d requests", n, asked)
	}

	post := func(path, text string) (int, string, string) {
		request := must(http.NewRequest(http.MethodPost, url+path, strings.NewReader(text)))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Forwarded-For", "9.9.9.9") // as anybody may
		request.Header.Set("X-Request-Id", "mine"+strings.ReplaceAll(path, "/", "-"))
		response, err := h.Do(request)
		if err != nil {
			return 0, err.Error(), ""
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), fmt.Sprint(err)
	}
	one := string(must(json.Marshal(catRequest(t))))
	if status, body, err := post("/v1/classify", one+strings.Repeat(" ", 17<<20)); status != http.StatusRequestEntityTooLarge || !strings.Contains(body, `"body_too_large"`) {
		t.Errorf("17 MiB: %d %.300s %s", status, body, err)
	}
	batch := fmt.Sprintf(`{"images": [%q, %q], "prompts": ["a cat"]}`, sample(t, "cat.jpg"), sample(t, "dog.jpg"))
	if status, body, err := post("/v1/classify/batch", batch+strings.Repeat(" ", 60<<20)); status != http.StatusOK {
		t.Errorf("a batch of 60 MiB: %d %.300s %s", status, body, err)
	}
	if t.Failed() {
		return
	}
	until(t, "the line of the batch in the log", func() bool { return strings.Contains(r.logged(), "mine-v1-classify-batch") })
	for line := range strings.Lines(r.logged()) {
		if strings.Contains(line, "mine-v1-classify-batch") && !strings.Contains(line, `"client":"127.0.0.2"`) {
			t.Errorf("the caller is not known: %s", line)
		}
	}

	// A page that came from the proxy may ask.
	request := must(http.NewRequest(http.MethodGet, url+"/v1/prompt-sets", nil))
	request.Header.Set("Origin", url)
	if response, err := h.Do(request); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("its own page: %v %v", response, err)
	} else {
		response.Body.Close()
	}
	streamsThroughProxy(t, c, cat, prompts)
}

func streamsThroughProxy(t *testing.T, c *client.Client, cat []byte, prompts []string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := c.Stream(ctx, client.StreamOptions{StreamDefinition: client.StreamDefinition{Prompts: prompts, Policy: client.PolicyQueue}})
	if err != nil {
		t.Fatal("WebSocket: ", err)
	}
	for seq := range uint64(2) {
		if err := s.Send(cat, seq, 0); err != nil {
			t.Fatal("WebSocket: ", err)
		}
		if m, err := s.Receive(); err != nil || m.Answer == nil || m.Answer.Seq != seq || len(m.Answer.Matches) != 2 {
			t.Fatalf("WebSocket: %+v %v", m, err)
		}
	}
	s.Close()

	// An event is heard while the push that made it goes on: neither is collected on the way.
	d := client.StreamDefinition{Prompts: prompts, Policy: client.PolicyQueue, Events: &client.StreamEvents{MinFrames: 1}}
	if _, _, err := c.PutStream(ctx, "gate", d); err != nil {
		t.Fatal(err)
	}
	begun, heard := make(chan struct{}), make(chan client.Event, 16)
	listening, leave := context.WithCancel(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		for e, err := range c.Events(listening, "gate", client.EventsOptions{Begun: func() { close(begun) }}) {
			if err == nil && e.Kind == client.EventEnter {
				heard <- e
			}
		}
	}()
	select {
	case <-begun:
	case <-ctx.Done():
		t.Fatal("events: no beginning")
	}
	push := c.Push(ctx, "gate", client.PushOptions{})
	if err := push.Send(cat); err != nil {
		t.Fatal("push: ", err)
	}
	select {
	case e := <-heard:
		if e.Label != prompts[1] {
			t.Errorf("event %+v", e)
		}
	case <-ctx.Done():
		t.Error("no event while the push goes on")
	}
	if err := push.Send(cat); err != nil {
		t.Error("push: ", err)
	}
	if result, err := push.Close(); err != nil || result.Answered != 2 {
		t.Errorf("push: %+v %v", result, err)
	}
	leave()
	<-left
}

// countConnections passes connections on to an address, and counts them.
func countConnections(t *testing.T, to string) (address string, count func() int) {
	t.Helper()
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { ln.Close() })
	var n atomic.Int64
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			var both sync.WaitGroup
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				both.Go(func() {
					if _, err := io.Copy(pair[0], pair[1]); err == nil { // the end, of this direction alone
						_ = pair[0].(*net.TCPConn).CloseWrite()
					}
				})
			}
			go func() { both.Wait(); in.Close(); out.Close() }()
		}
	}()
	return ln.Addr().String(), func() int { return int(n.Load()) }
}

// freePort is a port of 127.0.0.1 that nobody has now, and that the system gives to nobody who asks for any.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(10000 + mathrand.IntN(20000))
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// certificate writes clip.pem, clip.key and both.pem for 127.0.0.1 into a folder, and returns who trusts it.
func proxyCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: must(x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key))})
	private := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(key))})
	put(t, dir, map[string]string{"clip.pem": string(cert), "clip.key": string(private), "both.pem": string(cert) + string(private)})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}
