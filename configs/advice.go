package configs

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Origin returns where the value of a key comes from: "my.yaml: line 3", the name of a variable or a flag, or "built-in".
func (l Loaded) Origin(key string) string {
	if where := l.where[key]; where != "" && !strings.HasPrefix(where, builtIn) {
		return where
	}
	return "built-in"
}

// builtInConfig is the configuration of the built-in file alone.
func builtInConfig() (c Config) {
	l := newLayers(&c)
	l.file(builtIn, Default)
	l.validate()
	return c
}

// Origins lists all settings as "key: value  # origin", *** for secrets.
func (l Loaded) Origins() (lines []string, err error) {
	for _, s := range settings("", reflect.ValueOf(&l.Config).Elem()) {
		if s.name != s.key {
			continue
		}
		var n yaml.Node
		if err := n.Encode(s.Interface()); err != nil {
			return nil, err
		}
		n.Style |= yaml.FlowStyle
		text, err := yaml.Marshal(&n)
		if err != nil {
			return nil, err
		}
		lines = append(lines, fmt.Sprintf("%s: %s  # %s", s.key, strings.Join(strings.Fields(string(text)), " "), l.Origin(s.key)))
	}
	return lines, nil
}

// Advice says what is allowed but probably not meant, each with its place and what to write instead: Warnings, Dangers, old names of
// keys, and settings that have no effect because of others.
func (l Loaded) Advice() []string {
	var all []string
	add := func(key, format string, args ...any) {
		where := l.Origin(key)
		if where == "built-in" { // another setting has made it matter
			where = l.File
		}
		all = append(all, strings.TrimPrefix(where+": ", ": ")+cmp.Or(l.old[key], key)+": "+fmt.Sprintf(format, args...))
	}
	changed := Changed(builtInConfig(), l.Config)
	for _, w := range append(l.Warnings(), l.Dangers()...) {
		key, text, _ := strings.Cut(w, ": ")
		add(key, "%s", text)
	}
	for _, s := range settings("", reflect.ValueOf(&l.Config).Elem()) {
		if old := l.old[s.key]; old != "" && s.name == s.key {
			add(s.key, "is the old name of %s: write %s: %v", s.key, s.key[strings.LastIndex(s.key, ".")+1:], s.Interface())
		}
	}
	idle := func(why string, keys ...string) {
		for _, name := range changed {
			if Among(name, keys) {
				add(name, "has no effect: %s", why)
			}
		}
	}
	if l.TextEmbedding.Mode != "precomputed" {
		idle("text_embedding.mode is "+l.TextEmbedding.Mode+"; write mode: precomputed", "text_embedding.prompt_file")
	}
	if !l.TextEmbedding.CacheEnabled {
		idle("text_embedding.cache_enabled is false", "text_embedding.cache_file", "text_embedding.cache_file_max_bytes",
			"text_embedding.cache_max_entries", "text_embedding.cache_list_bytes")
	}
	if !l.Performance.WarmupEnabled {
		idle("performance.warmup_enabled is false", "performance.warmup_iterations")
	}
	if l.CLIP.Backend == "cpu" {
		idle("clip.backend is cpu", "npu.", "clip.device", "clip.device_timeout", "clip.on_device_loss")
	}
	if l.CLIP.Backend != "sim" {
		idle("clip.backend is "+l.CLIP.Backend, "sim.")
	}
	if l.Sim.Vectors != "hash" {
		idle("sim.vectors is "+l.Sim.Vectors, "sim.serve_hash")
	}
	if !l.Compat.Immich.Enabled {
		idle("compat.immich.enabled is false", "compat.immich.listen", "compat.immich.upstream")
	}
	if l.Notify.MQTT.URL == "" {
		idle("notify.mqtt.url is empty", "notify.mqtt.")
	}
	if l.Performance.MaxWait > 0 {
		add("performance.max_wait", "has every image wait %v; batches tune their own wait; leave it at 0", l.Performance.MaxWait)
	}
	if l.Performance.BatchTimeout < l.Performance.RequestTimeout {
		add("performance.batch_timeout", "%v is less than request_timeout: requests with many images get less time than those with one", l.Performance.BatchTimeout)
	}
	if half := l.Server.MaxBodyMemoryBytes / 2; l.Server.MaxBatchBodyBytes > half {
		add("server.max_batch_body_bytes", "%d is cut to %d, half of max_body_memory_bytes", l.Server.MaxBatchBodyBytes, max(half, l.Server.MaxBodyBytes))
	}
	return all
}
