package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hailoclip/api/access"
	"hailoclip/hailo/doctor"
)

func TestReadKey(t *testing.T) {
	good := access.NewKey()
	for text, want := range map[string]string{
		good: good, good + "\n": good, good + "\r\n": good,
		"": "", "\n": "", "short\n": "", good + "\n" + good + "\n": "", " " + good: "", good + "ä": "", strings.Repeat("x", 1<<20): "",
	} {
		got, err := readKey(strings.NewReader(text))
		if got != want || (err == nil) != (want != "") || want == "" && strings.Contains(err.Error(), "hc_") {
			t.Errorf("%.60q: %q %v", text, got, err)
		}
	}
}

// putCertificate writes cert.pem and key.pem for this machine.
func putCertificate(t *testing.T, dir string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(1000 * time.Hour), DNSNames: []string{"clip.example"}}
	made := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	put(t, dir, map[string]string{
		"cert.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})),
		"key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})),
	})
}

// TestAccess: a service with a key, TLS and a Unix socket, the commands that ask it, and what a reload does.
func TestAccess(t *testing.T) {
	dir := must(os.MkdirTemp("", "clip")) // whose name is short enough for a socket
	t.Cleanup(func() { os.RemoveAll(dir) })
	putCertificate(t, dir)
	socket := filepath.Join(dir, "clip.sock")
	made := hailoClip(t, "keys", "new", "door")
	made.expect(t, exitOK, "name: door", "hash: sha256:")
	key := strings.TrimSpace(made.stdout)
	put(t, dir, map[string]string{"door.key": made.stdout, "eve.key": access.NewKey() + "\n"})
	_, keys, _ := strings.Cut(made.stderr, "\n\n")
	server := fmt.Sprintf("server:\n  socket: %s\n  tls: {cert_file: %s, key_file: %s}\n", socket, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	s := serveConfig(t, keys+"\n"+server, "--host", "127.0.0.1")
	if !strings.HasPrefix(s.url, "https://127.0.0.1:") {
		t.Fatal(s.url)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // of this test
	defer transport.CloseIdleConnections()
	status := func(path, key string) int {
		request := must(http.NewRequest(http.MethodGet, s.url+path, nil))
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		a, err := read((&http.Client{Transport: transport}).Do(request))
		if err != nil {
			t.Fatal(err)
		}
		return a.status
	}
	if none, health, right := status("/v1/stats", ""), status("/health", ""), status("/v1/stats", key); none != 401 || health != 200 || right != 200 {
		t.Errorf("without a key %d, /health %d, with the key %d", none, health, right)
	}
	list := func(code int, says string, args ...string) {
		t.Helper()
		hailoClip(t, append([]string{"prompt-sets", "list", "--url", "unix:" + socket}, args...)...).expect(t, code, says)
	}
	list(exitFailed, "unauthorized")
	list(exitFailed, "unauthorized", "--key-file", filepath.Join(dir, "eve.key"))
	list(exitUsage, "this is no key", "--key-file", filepath.Join(dir, "cert.pem"))
	list(exitOK, "", "--key-file", filepath.Join(dir, "door.key"))
	c := command(t.TempDir(), "prompt-sets", "list", "--url", "unix:"+socket)
	c.Env = append(c.Environ(), "HAILO_CLIP_KEY="+key)
	runProgram(t, c).expect(t, exitOK)
	c = command(t.TempDir(), "verify", "--json", "--config", s.config) // takes the service's own certificate, and the key
	c.Env = append(c.Environ(), "HAILO_CLIP_KEY="+key, "HAILO_CLIP_SERVER_HOST=127.0.0.1", "HAILO_CLIP_SERVER_PORT="+s.url[strings.LastIndexByte(s.url, ':')+1:])
	report := runProgram(t, c).report(t)
	for _, check := range []string{"port", "health", "ready", "classify"} {
		if l, what := level(report, check); l != doctor.OK {
			t.Errorf("%s is %q: %s", check, l, what)
		}
	}

	putCertificate(t, dir) // is taken, and so is the end of the key
	line := s.reload(t, strings.Replace(keys, "door", "gate", 1)+"\n"+server)
	s.wants(t, line, "access.keys", "server.tls.cert_file")
	if status("/v1/stats", key) != 200 {
		t.Error("the key has another name only")
	}
	s.reload(t, "access: {keys: [{name: eve, hash: "+access.Sum([]byte("x")).Text()+"}]}\n"+server)
	if status("/v1/stats", key) != 401 {
		t.Error("the key still opens")
	}
	put(t, dir, map[string]string{"key.pem": "nonsense"})
	s.wants(t, s.reload(t, "access: {keys: [{name: eve, hash: "+access.Sum([]byte("x")).Text()+"}]}\n"+server), "server.tls")
	if status("/health", "") != 200 {
		t.Error("a bad certificate ends the service")
	}
	s.stop(t)
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
	if log := s.logged(); strings.Contains(log, key) || strings.Contains(log, "Bearer") {
		t.Error("a key is in the log")
	}
}

// TestDangersAreSaid at the start, and by config check.
func TestDangersAreSaid(t *testing.T) {
	file := configFile(t, "access: {keys: [{name: a, hash: "+access.Sum([]byte("x")).Text()+"}]}\nserver: {host: 0.0.0.0}\n")
	hailoClip(t, "config", "check", file).expect(t, exitOK, "warning: ", "access.keys: keys are sent in the clear", "; write server.tls")
	hailoClip(t, "config", "check", configFile(t, "")).expect(t, exitOK, "note: everybody who reaches this machine by network may use the service")
	hailoClip(t, "config", "check", configFile(t, "server: {tls: {cert_file: /does/not/exist, key_file: /x}}\n")).expect(t, exitUsage, "server.tls.cert_file")
	s := serve(t, t.TempDir(), "--backend", "cpu", "--model", "demo", "--set", "server.allowed_origins=*")
	s.logs(t, "the configuration lets others do what they should not", "server.allowed_origins")
	s.stop(t)
}
