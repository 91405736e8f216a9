package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/api/stream/notify"
)

func TestNotify(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, "notify:\n  webhooks:\n    - url: https://a.example/hook\n      secret_file: "+secret+"\n    - {url: 'http://b.example', events: [state], cooldown: 30, retries: 0, "+
		"streams: [a, b]}\n  mqtt:\n    url: mqtts://broker.local\n    device_classes: {open: opening, a door: door}\n    prefix: a/b\n",
		"HAILO_CLIP_NOTIFY_MQTT_PASSWORD=word", "HAILO_CLIP_NOTIFY_MQTT_CLIENT_ID=c")
	a, b, m := c.Notify.Webhooks[0], c.Notify.Webhooks[1], c.Notify.MQTT
	if a.URL != "https://a.example/hook" || !slices.Equal(a.Events, []string{"enter", "exit"}) || a.Timeout != 10*time.Second || a.Retries != 3 || a.Thumbnail != "none" {
		t.Errorf("defaults: %+v", a)
	}
	if b.Cooldown != 30*time.Second || b.Retries != 0 || !slices.Equal(b.Events, []string{"state"}) || !slices.Equal(b.Streams, []string{"a", "b"}) {
		t.Errorf("%+v", b)
	}
	if m.Password != "word" || m.ClientID != "c" || m.Prefix != "a/b" || m.DiscoveryPrefix != "homeassistant" || len(m.DeviceClasses) != 2 || m.DeviceClasses["a door"] != "door" {
		t.Errorf("%+v", m)
	}
	if _, err := notify.New(c.Notify, notify.Parts{}); err != nil {
		t.Error(err)
	}
}

// The examples in the built-in file can be taken as they are.
func TestExamplesOfNotify(t *testing.T) {
	_, section, _ := strings.Cut(string(Default), "\n  webhooks: []\n")
	section, _, _ = strings.Cut(section, "\n  mqtt:")
	c := mustLoad(t, "notify:\n  webhooks:\n"+regexp.MustCompile("(?m)^#").ReplaceAllString(section, " "))
	if w := c.Notify.Webhooks; len(w) != 1 || w[0].SecretFile != "/etc/hailo/hook" || w[0].Cooldown != 30*time.Second {
		t.Errorf("%+v", w)
	}
}

// What "config show" prints, and what a log line or an error may have, is without secrets.
func TestSecretsAreNotShown(t *testing.T) {
	const key = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	c := mustLoad(t, "notify:\n  webhooks:\n    - {url: 'https://me:word1@a.example/path2?key=word3', secret: "+key+"}\n  mqtt: {url: mqtt://b, password: word4}\n")
	shown, err := c.YAML()
	for name, text := range map[string]string{"config show": string(shown), "%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c)} {
		for _, secret := range []string{key, "word1", "path2", "word3", "word4"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s", name, secret)
			}
		}
	}
	if err != nil || !strings.Contains(string(shown), "https://a.example/***") || c.Notify.Webhooks[0].Secret != key {
		t.Errorf("%s, %v", shown, err)
	}
	_, err = Read(write(t, "notify:\n  webhooks:\n    - {url: 'ftp://me:word1@a.example', secret: word2}\n  mqtt: {url: 'mqtt://me:word3@b', password: word4, password_file: x}\n"), nil, nil)
	for _, secret := range []string{"word1", "word2", "word3", "word4"} {
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s is in %v", secret, err)
		}
	}
}

func TestErrorsOfNotify(t *testing.T) {
	hook := func(keys string) string {
		return "notify:\n  webhooks:\n    - url: https://a.example\n      " + keys + "\n"
	}
	for _, tt := range []struct{ text, want string }{
		{"notify:\n  webhooks:\n    - events: [enter]\n", "line 3: notify.webhooks[0].url: is out of bounds: an address such as https://example.org/hook"},
		{"notify:\n  webhooks:\n    -\n", "line 3: notify.webhooks[0].url: is out of bounds: an address such as https://example.org/hook"},
		{"notify:\n  webhooks: [a]\n", "line 2: notify.webhooks[0]: found `a` where a section belongs"},
		{"notify:\n  webhooks: a\n", "line 2: notify.webhooks: can be given in a file only"},
		{hook("timeout: 99ms"), "line 4: notify.webhooks[0].timeout: 99ms is out of bounds: 100ms to 1m"},
		{hook("timeout: 61s"), "line 4: notify.webhooks[0].timeout: 1m1s is out of bounds: 100ms to 1m"},
		{hook("retries: 11"), "line 4: notify.webhooks[0].retries: 11 is out of bounds: 0 to 10"},
		{hook("retries: -1"), "line 4: notify.webhooks[0].retries: -1 is out of bounds: 0 to 10"},
		{hook("cooldown: 25h"), "line 4: notify.webhooks[0].cooldown: 25h0m0s is out of bounds: 0 to 24h"},
		{hook("thumbnail: all"), `line 4: notify.webhooks[0].thumbnail: "all" is out of bounds: none, embed`},
		{hook("events: [frame]"), `line 4: notify.webhooks[0].events: "frame" is out of bounds: enter, exit, state`},
		{hook("events: []"), "line 4: notify.webhooks[0].events: is empty: leave it out for enter and exit"},
		{hook("streams: [a/b]"), `line 4: notify.webhooks[0].streams: "a/b" is no id of a stream`},
		{hook("secret: abc"), "line 4: notify.webhooks[0].secret: is out of bounds: base64 of 24 to 64 bytes, with or without whsec_ before it; " +
			`"openssl rand -base64 32" makes one`},
		{hook("uri: b"), `line 4: unknown key "webhooks[0].uri" of section notify; did you mean "notify.webhooks[0].url"?`},
		{hook("url: b"), "line 4: notify.webhooks[0].url: stands already in line 3"},
		{"notify:\n  mqtt:\n    urll: a\n", `line 3: unknown key "mqtt.urll" of section notify; did you mean "notify.mqtt.url"?`},
		{"notify:\n  mqtt: a\n", "line 2: notify.mqtt: found `a` where a section belongs"},
		{"notify.mqtt: {url: a}\n", `line 1: unknown key "mqtt" of section notify; did you mean "notify.mqtt"?`},
		{"notify:\n  mqtt.url: a\n", "line 2: notify.mqtt.url: write the section in a line of its own, and the key indented below"},
		{"notify:\n  mqtt: {url: 'http://b'}\n", "line 2: notify.mqtt.url: is out of bounds: an address such as mqtt://broker.local or " +
			`mqtts://broker.local:8883, with username and password in keys of their own; or ""`},
		{"notify:\n  mqtt: {password: a, password_file: b}\n", "line 2: notify.mqtt.password: must not be given with password_file"},
		{"notify:\n  mqtt: {password: '***'}\n", "line 2: notify.mqtt.password: is ***, which stands for what is not shown"},
		{hook("streams: [a]\n    - url: https://a.example/***"), "line 5: notify.webhooks[1].url: has ***, which stands for what is not shown"},
		{"notify:\n  mqtt: {cert_file: a}\n", "line 2: notify.mqtt.cert_file: and key_file must be given together"},
		{"notify:\n  mqtt:\n    device_classes: {a: B}\n", `line 3: notify.mqtt.device_classes: "B" of "a" is out of bounds: ` +
			"a device class of Home Assistant's binary sensors"},
		{"notify:\n  mqtt:\n    device_classes: {a: [b]}\n", "line 3: notify.mqtt.device_classes: found a list where the text of \"a\" belongs"},
		{"notify:\n  mqtt:\n    device_classes: {a: b, a: c}\n", "line 3: notify.mqtt.device_classes: found `a` where a key belongs that does not stand there yet"},
		{"notify:\n  mqtt:\n    device_classes: [a]\n", "line 3: notify.mqtt.device_classes: found a list where one value belongs"},
	} {
		_, err := Read(write(t, tt.text), nil, nil)
		if got, _, _ := strings.Cut(fmt.Sprint(err), "\n"); !strings.HasSuffix(got, "hailo-clip.yaml: "+tt.want) {
			t.Errorf("%q:\n%s\n%s", tt.text, got, tt.want)
		}
	}
	if _, err := Read(write(t, ""), []string{"HAILO_CLIP_NOTIFY_WEBHOOKS=a"}, nil); fmt.Sprint(err) !=
		"HAILO_CLIP_NOTIFY_WEBHOOKS: notify.webhooks: can be given in a file only" {
		t.Error(err)
	}
	if _, err := Read(write(t, "notify:\n  webhooks:\n"+strings.Repeat("    - url: http://a\n", 33)), nil, nil); err == nil ||
		!strings.HasSuffix(err.Error(), "line 2: notify.webhooks: has 33 items, more than 32") {
		t.Error(err)
	}
}
