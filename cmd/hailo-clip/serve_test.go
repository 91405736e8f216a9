package main

import "testing"

// TestServeFlags: what is wrong with a flag is told by its name.
func TestServeFlags(t *testing.T) {
	for _, c := range [][2]string{
		{"--set=nonsense", "--set nonsense: write KEY=VALUE"},
		{"--set=server.prot=1", `--set: unknown key "prot" of section server; did you mean "server.port"?`},
		{"--set=performance.max_queue_size=0", "--set: performance.max_queue_size: 0 is out of bounds"},
		{"--log-level=loud", `--log-level: logging.level: "loud" is out of bounds`},
		{"--log-format=xml", `--log-format: logging.format: "xml" is out of bounds`},
		{"--admin-listen=nowhere", `--admin-listen: admin.listen: "nowhere" is out of bounds`},
	} {
		hailoClip(t, "serve", c[0]).expect(t, exitUsage, c[1])
	}
}
