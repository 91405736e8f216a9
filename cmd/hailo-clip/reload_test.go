package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hailoclip/configs"
)

// reloading is a service whose configuration changes.
type reloading struct {
	*running
	config string // its file
	count  int    // of reloads
}

func serveConfig(t *testing.T, text string, args ...string) *reloading {
	t.Helper()
	file := configFile(t, text)
	return &reloading{running: serve(t, t.TempDir(), append([]string{"--backend", "cpu", "--model", "demo", "--config", file}, args...)...), config: file}
}

// reload writes the file, sends SIGHUP, and returns the line of the log that says what came of it.
func (r *reloading) reload(t *testing.T, text string) (line string) {
	t.Helper()
	put(t, filepath.Dir(r.config), map[string]string{filepath.Base(r.config): text})
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.count++
	until(t, "it is loaded again", func() bool {
		var ends []string
		for l := range strings.Lines(r.logged()) {
			if strings.Contains(l, "the configuration is loaded again") || strings.Contains(l, "the configuration cannot be used") {
				ends = append(ends, l)
			}
		}
		if len(ends) < r.count {
			return false
		}
		line = ends[r.count-1]
		return true
	})
	return line
}

func (r *reloading) wants(t *testing.T, line string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(line, text) {
			t.Errorf("no %q in %s", text, line)
		}
	}
}

// TestReload applies what can change while the service runs, says what cannot, again and again until there is a restart, and leaves all as it
// is where there is a fault. Flags stay on top.
func TestReload(t *testing.T) {
	t.Parallel()
	r := serveConfig(t, "server:\n  max_prompts: 1000\n")
	ask := func(prompts int) int {
		t.Helper()
		request := catRequest(t)
		request["prompts"] = strings.Split(strings.Repeat("a cat,", prompts)+"a dog", ",")
		return r.ask(t, "/v1/classify", request).status
	}
	door := func(label string) string {
		return "prompt_sets: {door: {labels: [{name: " + label + "}, {name: closed}]}}\n"
	}
	if got := ask(5); got != 200 {
		t.Fatal(got)
	}
	line := r.reload(t, "server:\n  max_prompts: 3\n  port: 1\n  idle_timeout: 1m\nclip: {fit: pad}\nlogging: {level: debug}\n"+door("open"))
	r.wants(t, line, `"applied":["logging.level","server.max_prompts","prompt_sets"]`, `"needs_restart":["server.idle_timeout","clip.fit"]`)
	if got := ask(5); got != 400 {
		t.Errorf("max_prompts is not applied: %d", got)
	}
	var set reply
	until(t, "the set is encoded", func() bool { set = r.get(t, "/v1/prompt-sets/door"); return set.body["state"] == "ready" })
	if !strings.Contains(set.raw, `"open"`) || set.body["read_only"] != true {
		t.Error(set.raw)
	}

	line = r.reload(t, "server:\n  max_prompts: 9\n  prt: 2\nclip: {fit: stretch}\n")
	r.wants(t, line, `line 3`, `unknown key \"prt\"`, `line 4`, `clip.fit`, `"level":"ERROR"`)
	if got := ask(5); got != 400 {
		t.Errorf("a file with faults is applied: %d", got)
	}
	line = r.reload(t, "server:\n  max_prompts: 9\n  idle_timeout: 1m\n")
	r.wants(t, line, `"applied":["logging.level","server.max_prompts","prompt_sets"]`, `"needs_restart":["server.idle_timeout"]`)
	if got := ask(5); got != 200 {
		t.Errorf("max_prompts is not applied: %d", got)
	}
	if set = r.get(t, "/v1/prompt-sets/door"); set.status != 404 {
		t.Error(set.raw)
	}
	r.stop(t)
}

// TestReloadCompat: other systems' interfaces go off and on, and names of the model come and go, without a restart.
func TestReloadCompat(t *testing.T) {
	t.Parallel()
	r := serveConfig(t, "compat: {aliases: [mine], ollama: false}\n")
	ask := func(path, model string) int {
		t.Helper()
		return r.ask(t, path, map[string]any{"input": "a cat", "model": model}).status
	}
	wants := func(want ...int) {
		t.Helper()
		got := []int{ask("/v1/embeddings", "mine"), ask("/v1/embeddings", "yours"), ask("/v1/embeddings", "demo"), ask("/api/embed", "demo")}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	wants(200, 404, 200, 404)
	line := r.reload(t, "compat: {aliases: [yours], immich: {listen: '127.0.0.1:0'}}\n")
	r.wants(t, line, `"applied":["compat.aliases","compat.ollama"]`, `"needs_restart":["compat.immich.listen"]`)
	wants(404, 200, 200, 200)
	line = r.reload(t, "compat: {openai: false}\n")
	r.wants(t, line, `"compat.aliases"`, `"compat.openai"`)
	wants(404, 404, 404, 200)
	r.reload(t, "compat: {aliases: ['?']}\n")
	wants(404, 404, 404, 200)
	r.stop(t)
}

// TestLiveSettings: the default file lists what a reload applies, and each of them is a setting, or a section.
func TestLiveSettings(t *testing.T) {
	var live, there []string
	for _, l := range (&service{}).live() {
		for _, key := range l.keys {
			live = append(live, strings.TrimSuffix(key, "."))
		}
	}
	slices.Sort(live)
	_, list, _ := strings.Cut(string(configs.Default), " Live:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	listed := strings.FieldsFunc(list, func(c rune) bool { return strings.ContainsRune("#, \n", c) })
	if slices.Sort(listed); !slices.Equal(live, listed) {
		t.Errorf("live: %q\nlisted: %q", live, listed)
	}
	for _, line := range must(must(configs.Read(configFile(t, ""), nil, nil)).Origins()) {
		key, _, _ := strings.Cut(line, ":")
		there = append(there, key, key[:max(strings.LastIndex(key, "."), 0)])
	}
	for _, key := range live {
		if !slices.Contains(there, key) {
			t.Errorf("%s is no setting", key)
		}
	}
}

// TestStopDoesNotWaitForReload: what the service runs with is told while a configuration is being loaded, however long that takes.
func TestStopDoesNotWaitForReload(t *testing.T) {
	p := place{cfg: must(configs.Read(configFile(t, "server: {shutdown_timeout: 7s}\n"), nil, nil)).Config}
	r := newReloader(p, slog.New(slog.DiscardHandler))
	r.mu.Lock() // as a reload does
	defer r.mu.Unlock()
	if got := r.config().Server.ShutdownTimeout; got != 7*time.Second {
		t.Error(got)
	}
}

// TestReloadOfFiles: a file that the configuration names has changed, and nothing else.
func TestReloadOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(prompts string) {
		put(t, dir, map[string]string{"prompts.txt": prompts, "secret": "whsec_" + strings.Repeat("A", 32)})
	}
	write("a cat\n")
	text := fmt.Sprintf("text_embedding: {mode: precomputed, prompt_file: %s/prompts.txt}\nnotify: {webhooks: [{url: 'http://127.0.0.1:9/', secret_file: %s/secret}]}\n", dir, dir)
	r := serveConfig(t, text)
	until(t, "prompts are encoded", func() bool { return strings.Contains(r.logged(), "prompts of the prompt file are encoded") })
	r.wants(t, r.reload(t, text), `"applied":[]`, `"needs_restart":[]`)
	write("a cat\na dog\na cow\n")
	r.wants(t, r.reload(t, text), `"applied":["text_embedding.prompt_file"]`, `"needs_restart":[]`)
	until(t, "the new prompts are encoded", func() bool { return strings.Contains(r.logged(), `"prompts":3`) })
	write("\xff\n")
	r.wants(t, r.reload(t, text), `prompts.txt:1: not UTF-8`)
	if err := os.Remove(dir + "/secret"); err != nil {
		t.Fatal(err)
	}
	r.wants(t, r.reload(t, text), `notify.webhooks[0]`)
	r.stop(t)
}

// TestReloadsLoseNoRequest reloads again and again, under load, and changes something each time.
func TestReloadsLoseNoRequest(t *testing.T) {
	t.Parallel()
	text := func(i int) string {
		return fmt.Sprintf("performance: {max_queue_size: 64, request_timeout: %ds}\nserver: {max_prompts: %d}\nlogging: {level: %s}\n"+
			"prompt_sets: {door: {labels: [{name: open %d}, {name: closed}]}}\n", 30+i%2, 100+i, []string{"info", "debug"}[i%2], i)
	}
	r := serveConfig(t, text(0))
	l := underLoad(t, r.url)
	for i := range times() {
		l.goesOn(t)
		r.wants(t, r.reload(t, text(i+1)), `"applied":["logging.level","server.max_prompts","performance.request_timeout","prompt_sets"]`)
	}
	l.goesOn(t)
	l.over(t, fmt.Sprint(times(), " reloads"))
	r.stop(t)
}

// TestReloadOverFlags: what a flag or the environment says stays, whatever the file says then.
func TestReloadOverFlags(t *testing.T) {
	t.Parallel()
	c := serveCommand(t.TempDir(), "--backend", "cpu", "--model", "demo", "--config", configFile(t, ""))
	c.Env = append(c.Env, "HAILO_CLIP_SERVER_MAX_PROMPTS=7")
	r := &reloading{running: start(t, c).serving(t), config: c.Args[len(c.Args)-1]}
	line := r.reload(t, "server: {port: 9, host: 0.0.0.0, max_prompts: 8}\nclip: {backend: sim}\n")
	r.wants(t, line, `"applied":[]`, `"needs_restart":[]`)
	r.stop(t)
}

// TestReloadByRequest: POST /admin/reload says the same in JSON, and what is wrong with a file. So it does on the service's own port.
func TestReloadByRequest(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:0", "main"} {
		r := serveConfig(t, "", "--admin-listen", listen)
		url := r.url
		if listen != "main" {
			url = r.adminURL(t)
		}
		reload := func(text string) reply {
			t.Helper()
			put(t, filepath.Dir(r.config), map[string]string{filepath.Base(r.config): text})
			return must(read(http.Post(url+"/admin/reload", "", nil)))
		}
		a := reload("\nserver: {max_prompts: 5, max_connections: 9}\nclip: {batch_size: 1}\n")
		if a.status != 200 || !strings.Contains(a.raw, `{"applied":["server.max_prompts"],"needs_restart":["server.max_connections","clip.batch_size"],"warnings":["`) ||
			!strings.Contains(a.raw, "my.yaml: line 3: clip.batch_size") {
			t.Error(a.raw)
		}
		a = reload("server:\n  max_prompts: 0\n  no: 1\n")
		if said := fmt.Sprint(a.body["error"]); a.status != 400 || a.body["code"] != "invalid_configuration" ||
			!strings.Contains(said, "my.yaml: line 2: server.max_prompts: 0 is out of bounds") || !strings.Contains(said, "my.yaml: line 3") {
			t.Errorf("%d %s", a.status, a.raw)
		}
		named := must(http.NewRequest(http.MethodGet, url+"/nowhere", nil))
		named.Host = "clip.example"
		for text, status := range map[string]int{"server: {allowed_hosts: [clip.example]}\n": 404, "server: {allowed_hosts: [other.example]}\n": 403} {
			if a := reload(text); !strings.Contains(a.raw, `"server.allowed_hosts"`) {
				t.Error(a.raw)
			}
			if got := must(read(http.DefaultClient.Do(named))); got.status != status {
				t.Errorf("%s: %s %d %.200s", listen, text, got.status, got.raw)
			}
		}
		r.stop(t)
	}
}

// TestReloadTellsSystemd what a unit of Type=notify-reload waits for.
func TestReloadTellsSystemd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	said := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))
	defer said.Close()
	file := configFile(t, "")
	c := serveCommand(t.TempDir(), "--backend", "cpu", "--model", "demo", "--config", file)
	c.Env = append(c.Env, "NOTIFY_SOCKET="+path)
	r := &reloading{running: start(t, c), config: file}
	next := func(want ...string) {
		t.Helper()
		b := make([]byte, 4096)
		n, err := said.Read(b)
		for _, text := range want {
			if err != nil || !strings.Contains(string(b[:n]), text) {
				t.Errorf("told %q, %v; want %q", b[:n], err, text)
			}
		}
	}
	next("STATUS=the model is being loaded\n", "EXTEND_TIMEOUT_USEC=")
	next("READY=1\n", "STATUS=demo at http://127.0.0.1:")
	r.serving(t)
	r.reload(t, "")
	next("RELOADING=1\n", "MONOTONIC_USEC=")
	next("READY=1\n")
	if err := errors.Join(r.cmd.Process.Signal(syscall.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	next("STOPPING=1\n", "EXTEND_TIMEOUT_USEC=45000000")
	<-r.ended
}

// TestNohupStays: a service that was started under nohup is not ended by SIGHUP, nor does it reload.
func TestNohupStays(t *testing.T) {
	t.Parallel()
	needPrograms(t, "nohup")
	r := start(t, by(serveCommand(t.TempDir(), "--backend", "cpu", "--model", "demo"), "nohup")).serving(t)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.classifies(t)
	r.stop(t)
	if strings.Contains(r.logged(), "loaded again") {
		t.Error("it has reloaded")
	}
}
