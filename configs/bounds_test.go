package configs

import (
	"fmt"
	"strings"
	"testing"
)

// TestBounds sets every key that has bounds to values within and out of them.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 64)
	cases := []struct {
		key, good, bad string // values with spaces between them
		bounds         string
	}{
		{"server.port", "0 5000 65535", "-1 65536", "0 to 65535"},
		{"server.read_timeout", "100ms 1h", "0s 99ms -1ns 1h0m1s", "100ms to 1h"},
		{"server.write_timeout", "100ms 1h", "-1ns 99ms 1h0m1s", "100ms to 1h"},
		{"server.idle_timeout", "100ms 1h", "99ms 2h0m0s", "100ms to 1h"},
		{"server.lame_duck", "0 5s 10m", "-1ns 10m0.001s", "0 to 10m"},
		{"server.shutdown_timeout", "0 0s 1h", "-1ns 1h0m1s", "0 to 1h"},
		{"server.max_body_bytes", "1024 134217728", "0 1023 1073741825", "1024 to 1073741824"},
		{"server.max_batch_body_bytes", "1024 1073741824", "0 1023 1073741825", "1024 to 1073741824"},
		{"server.max_body_memory_bytes", "33554432 17179869184", "0 1048576 33554431", "at least 2097152 and twice max_body_bytes"},
		{"server.max_header_bytes", "1024 1048576", "0 1023 1048577", "1024 to 1048576"},
		{"server.max_connections", "1 1000000", "0 1000001", "1 to 1000000"},
		{"server.max_prompts", "1 100000", "0 100001", "1 to 100000"},
		{"server.max_prompt_bytes", "1 65536", "0 65537 1048576", "1 to 65536"},
		{"server.allowed_origins", `[] ["https://a.example","null"] https://a.example:8443 "*"`, `a.example https://a.example/ [""]`,
			`"https://example.org" or with a port, "null" or "*"`},
		{"server.allowed_hosts", `[] a.example "a.example:80"`, `[""] a/b a@b "*"`, "a name, or a name and a port"},
		{"server.trusted_proxies", `[] 10.0.0.1 10.0.0.0/8 "::1" "fd00::/8" unix`,
			`[""] "*" proxy.local 10.0.0.1:80 10.0.0.0/33 "::ffff:10.0.0.0/104"`, `an address, a network such as 10.0.0.0/8, or "unix"`},
		{"server.socket", `"" /run/hailo-clip/hailo-clip.sock`, "x ./x /a/../b /a/ \"@x\" /" + long + long, "a path from the root of at most 107 bytes"},
		{"clip.model", "auto x", `""`, "auto, or the name of a model"},
		{"clip.backend", "auto npu cpu sim", `gpu "" NPU`, "auto, npu, cpu, sim"},
		{"clip.text_encoder", "auto npu cpu", `sim ""`, "auto, npu, cpu"},
		{"clip.on_device_loss", "cpu fail", `npu ""`, "cpu, fail"},
		{"clip.device", `"" 0 0001:01:00.0 ` + long[:31], long[:32], "at most 31 bytes"},
		{"clip.batch_size", "auto 0 1 32", "-1 33", "0 to 32"},
		{"clip.device_timeout", "100ms 10m", "0s 99ms 10m0.001s", "100ms to 10m"},
		{"clip.embedding_dimension", "0 8192", "-1 8193", "0 to 8192"},
		{"clip.image_size", "0 1024", "-1 1025", "0 to 1024"},
		{"clip.logit_scale", "0 0.5 1000", "-0.1 1000.1 NaN +Inf", "0 to 1000"},
		{"clip.fit", "crop squash pad", `stretch ""`, "crop, squash, pad"},
		{"clip.jpeg_scale", "exact fast", `half ""`, "exact, fast"},
		{"clip.max_pixels", "1 2147483648", "-1 0 2147483649", "1 to 2147483648"},
		{"text_embedding.mode", "ondemand", `sometimes ""`, "ondemand, precomputed"},
		{"text_embedding.cache_max_entries", "1 1000000", "0 1000001", "1 to 1000000"},
		{"text_embedding.cache_list_bytes", "65536 17179869184", "1 65535 17179869185", "65536 to 17179869184"},
		{"text_embedding.cache_file_max_bytes", "4194304 68719476736", "4194303 68719476737", "4194304 to 68719476736"},
		{"text_embedding.max_pending", "1 1000000", "-1 0 1000001", "1 to 1000000"},
		{"performance.worker_threads", "1 256", "0 257 1000", "1 to 256"},
		{"performance.max_queue_size", "1 100000", "0 100001", "1 to 100000"},
		{"performance.request_timeout", "1ms 1h", "-1ns 0s 999µs 1h0m1s", "1ms to 1h"},
		{"performance.batch_timeout", "1ms 1h", "0s 999µs 1h0m1s", "1ms to 1h"},
		{"performance.max_wait", "0 1s", "-1ns 1.001s", "0 to 1s"},
		{"performance.warmup_iterations", "0 1000", "-1 1001", "0 to 1000"},
		{"streams.max_streams", "1 1000", "0 1001", "1 to 1000"},
		{"streams.max_listeners", "1 1000", "0 1001", "1 to 1000"},
		{"streams.linger", "0 1h", "-1ns 1h0m1s", "0 to 1h"},
		{"health.probe_interval", "0 1s 1h", "-1s 1ms 999ms 1h0m1s", "1s to 1h, or 0 for never"},
		{"events.max_bytes", "1048576 68719476736", "0 -1 1048575 68719476737", "1048576 to 68719476736"},
		{"events.max_age", "1m 720h 87600h", "0s 59s 87600h0m1s", "1m to 87600h"},
		{"cpu.threads", "0 256", "-1 257", "0 to 256"},
		{"cpu.batch", "0 32", "-1 33", "0 to 32"},
		{"npu.group", `"" UNIQUE ` + long[:63], long, "at most 63 bytes"},
		{"npu.in_flight", "1 64", "0 65", "1 to 64"},
		{"npu.text_batch", "1 16", "0 17", "1 to 16"},
		{"npu.start_timeout", "1s 10m", "0s 999ms 10m0.001s", "1s to 10m"},
		{"sim.vectors", "hash model", `none ""`, "hash, model"},
		{"resource_limits.memory_max", `"" infinity 64M 1024T 3G`, "1K -1 3GB lots 2000T 99999999999T",
			`a size from 64M to 1024T, such as "3G" or "512M", or "infinity"`},
		{"resource_limits.cpu_quota", `"" 80% 300%`, "80 -1% 0% lots", `a percentage such as "80%"`},
		{"notify.mqtt.client_id", `"" a ` + long, long + "x", "at most 64 bytes"},
		{"notify.mqtt.prefix", "hailo-clip a/b", `"" a/ /a a//b a+ a/# $SYS ` + long + long + "x",
			"levels with / between them, without + # $ and control characters, at most 128 bytes"},
		{"notify.mqtt.discovery_prefix", `"" homeassistant a/b`, "a/ + $a",
			`levels with / between them, without + # $ and control characters, at most 128 bytes; or ""`},
		{"logging.level", "debug INFO warn warning error critical", `loud ""`, "debug, info, warning, error"},
		{"fetch.allow", `[] camera.local "*.example.org:80" 192.168.1.20 192.168.1.0/24 "[fd00::1]:80"`, `"*" [""] a/b a@b a:0 10.0.0.1/8`,
			`a name, "*." and a name, an address, each with or without a port, or a network such as 10.0.0.0/8`},
		{"fleet.url", `"" nats://broker:4222 tls://a.example,tls://b.example:4222`, "broker:4222 http://broker nats://", "nats://host:4222 or tls://host:4222, several separated by commas, without a password"},
		{"fleet.node", `"" kitchen a-1_b`, "a.b -a a/b", "up to 64 letters, digits, - and _"},
		{"fleet.domain", `"" hub`, "a.b", "up to 64 letters, digits, - and _"},
		{"fleet.site", `"" home`, "a.b", "up to 64 letters, digits, - and _"},
		{"compat.aliases", `[] clip ViT-B-32__openai openai/clip:1`, `[""] -a a?b`, "1 to 128 letters, digits and ._:/@-, the first a letter or a digit"},
		{"compat.immich.listen", `"" 0.0.0.0:3003 :0 "[::]:3003" localhost:3003`, "3003 127.0.0.1 127.0.0.1:65536 example.org:80 127.0.0.1:03003",
			`an address and a port such as 0.0.0.0:3003, or ""`},
		{"compat.immich.upstream", `"" http://immich-machine-learning:3003 https://a.example/ml/ http://[fd00::1]:3003`,
			"x a.example:3003 ftp://a.example http:///a http:a http://a.example:0 http://a.example:65536 http://a?b http://a#b http://a?",
			`an address such as http://immich-machine-learning:3003, without credentials and query, or ""`},
		{"logging.format", "auto json text", `xml ""`, "auto, json, text"},
		{"logging.requests", "0 1 100 1000000000", "-1 1000000001", "0 to 1000000000"},
		{"admin.listen", `"" main 127.0.0.1:5001 ":0" "[::1]:5001" localhost:80`, "5001 127.0.0.1 127.0.0.1:65536 example.org:80 127.0.0.1:05001",
			`an address and a port such as 127.0.0.1:5001, "main" for the service's own port, or ""`},
	}
	load := func(key, value string) string {
		section, name, _ := strings.Cut(key, ".")
		inner, nested, isNested := strings.Cut(name, ".")
		line := name + ": " + value
		if isNested {
			line = inner + ": {" + nested + ": '" + strings.Trim(value, `"`) + "'}"
		}
		_, err := Read(write(t, section+":\n  "+line+"\n"), nil, nil)
		return fmt.Sprint(err)
	}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.key] = true
		for _, value := range strings.Fields(c.good) {
			if got := load(c.key, value); got != "<nil>" {
				t.Error(got)
			}
		}
		for _, value := range strings.Fields(c.bad) {
			got := load(c.key, value)
			value = strings.Trim(value, `"[]`)
			number := fmt.Sprintf("hailo-clip.yaml: line 2: %s: %s is out of bounds: %s", c.key, value, c.bounds)
			text := fmt.Sprintf("hailo-clip.yaml: line 2: %s: %q is out of bounds: %s", c.key, value, c.bounds)
			if first, _, _ := strings.Cut(got, "\n"); !strings.HasSuffix(first, number) && !strings.HasSuffix(first, text) {
				t.Errorf("%s: %s: %s", c.key, value, got)
			}
		}
	}
	for _, s := range newLayers(new(Config)).settings {
		if (s.bounds != "" || s.CanInt() || s.CanFloat()) && !tested[s.key] {
			t.Errorf("the bounds of %s are not tested", s.key)
		}
	}
}
