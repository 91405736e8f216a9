package configs

import (
	"slices"
	"strings"
	"testing"
)

// TestAdvice names the place of each thing that is allowed but probably not meant, and has nothing to say of the default file, nor
// of a copy of it.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		text  string
		env   []string
		flags []Override
		want  []string // in their order; each begins with the place, but for the folder, and ends with a part of the rest
	}{
		{"", nil, nil, nil},
		{string(Default), nil, nil, nil},
		{"clip:\n  batch_size: 1\nresource_limits:\n  cpu_quota: 80%\n", nil, nil, []string{
			"line 2: clip.batch_size: |write batch_size: auto", `line 4: resource_limits.cpu_quota: |at least "200%"`}},
		{"", []string{"HAILO_CLIP_CLIP_BATCH_SIZE=2"}, nil, []string{"HAILO_CLIP_CLIP_BATCH_SIZE: clip.batch_size: |batch_size: auto"}},
		{"", nil, []Override{{Key: "performance.max_wait", Value: "5ms", Source: "--set"}}, []string{"--set: performance.max_wait: |leave it at 0"}},
		{"clip:\n  device_timeout_ms: 5000\n", nil, nil, []string{
			"line 2: clip.device_timeout_ms: |is the old name of clip.device_timeout: write device_timeout: 5s"}},
		{"clip:\n  device_timeout_ms: 5000\n", []string{"HAILO_CLIP_CLIP_DEVICE_TIMEOUT=4s"}, nil, nil},
		{"text_embedding:\n  prompt_file: x\n", nil, nil, []string{"line 2: text_embedding.prompt_file: |has no effect: text_embedding.mode is ondemand; write mode: precomputed"}},
		{"text_embedding:\n  cache_enabled: false\n  cache_max_entries: 5\n", nil, nil, []string{
			"line 3: text_embedding.cache_max_entries: |has no effect: text_embedding.cache_enabled is false"}},
		{"performance:\n  warmup_enabled: false\n  warmup_iterations: 9\n", nil, nil, []string{"line 3: performance.warmup_iterations: |has no effect"}},
		{"clip:\n  backend: cpu\nnpu:\n  in_flight: 2\nsim:\n  vectors: model\n", nil, nil, []string{
			"line 4: npu.in_flight: |has no effect: clip.backend is cpu", "line 6: sim.vectors: |has no effect: clip.backend is cpu"}},
		{"notify:\n  mqtt:\n    prefix: other\n", nil, nil, []string{"line 3: notify.mqtt.prefix: |has no effect: notify.mqtt.url is empty"}},
		{"compat:\n  immich:\n    enabled: false\n    upstream: http://ml:3003\n", nil, nil, []string{
			"line 4: compat.immich.upstream: |has no effect: compat.immich.enabled is false"}},
		{"clip:\n  backend: sim\nsim:\n  vectors: model\n  serve_hash: true\n", nil, nil, []string{"line 5: sim.serve_hash: |has no effect: sim.vectors is model"}},
		{"performance:\n  request_timeout: 10m\n", nil, nil, []string{"performance.batch_timeout: |5m0s is less than request_timeout"}},
		{"server:\n  max_body_memory_bytes: 40000000\n", nil, nil, []string{"server.max_batch_body_bytes: |is cut to 20000000, half of max_body_memory_bytes"}},
	} {
		l, err := Read(write(t, c.text), c.env, c.flags)
		got := l.Advice()
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%s: %q, %v; want %q", c.text, got, err, c.want)
			continue
		}
		for i, want := range c.want {
			place, rest, _ := strings.Cut(want, "|")
			said := strings.TrimPrefix(got[i], l.File+": ")
			if !strings.HasPrefix(said, place) || !strings.HasSuffix(said, rest) && !strings.Contains(said, rest) {
				t.Errorf("%s: %q, want %q", c.text, got[i], want)
			}
		}
	}
}

// TestOrigins has a line for every key, with what has set it, and no secret.
func TestOrigins(t *testing.T) {
	file := write(t, "server:\n  port: 1\n  allowed_hosts: [a.example.org, b.example.org]\nclip:\n  device_timeout_ms: 900\n"+
		"notify:\n  mqtt: {password: hunter2}\n  webhooks: [{url: \"https://u:hunter2@example.org/hook\"}]\n")
	l, err := Read(file, []string{"HAILO_CLIP_LOGGING_LEVEL=debug"}, []Override{{Key: "server.host", Value: "::1", Source: "--host"}})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := l.Origins()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"server.port: 1  # " + file + ": line 2", "server.host: ::1  # --host", "logging.level: debug  # HAILO_CLIP_LOGGING_LEVEL",
		"server.allowed_hosts: [a.example.org, b.example.org]  # " + file + ": line 3",
		"clip.device_timeout: 900ms  # " + file + ": line 5", "performance.max_queue_size: 10  # built-in",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	if all := strings.Join(lines, "\n"); strings.Contains(all, "hunter2") || strings.Count(all, "\n") != len(lines)-1 {
		t.Errorf("a secret, or a value of several lines, in\n%s", all)
	}
}

// TestFiles are those that are read, and not the one that is written.
func TestFiles(t *testing.T) {
	c := mustLoad(t, "text_embedding: {prompt_file: /p, cache_file: c.db}\nnotify: {webhooks: [{url: \"http://a/\", secret_file: /s}]}\n")
	if got := c.Files(); len(got) != 2 || got["text_embedding.prompt_file"] != "/p" || got["notify.webhooks[0].secret_file"] != "/s" {
		t.Errorf("%q", got)
	}
}
