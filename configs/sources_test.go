package configs

import (
	"slices"
	"strings"
	"testing"
)

// TestSources: they are read from a file, a change of them is seen, and their passwords are not shown.
func TestSources(t *testing.T) {
	const text = "streams:\n  sources:\n    porch: http://user:hush@192.168.1.20/snap.jpg\n    desk: /dev/video0\n"
	c := mustLoad(t, text)
	if len(c.Streams.Sources) != 2 || c.Streams.Sources["porch"] != "http://user:hush@192.168.1.20/snap.jpg" {
		t.Errorf("%v", c.Streams.Sources)
	}
	if changed := Changed(mustLoad(t, ""), c); !slices.Equal(changed, []string{"streams.sources"}) {
		t.Errorf("%q", changed)
	}
	if shown, err := c.YAML(); err != nil || strings.Contains(string(shown), "hush") || !strings.Contains(string(shown), "desk: /dev/video0") {
		t.Errorf("%s, %v", shown, err)
	}
	for line, want := range map[string]string{
		"{a b: http://x}":            `line 2: streams.sources: "a b" is out of bounds`,
		"{a: ftp://x}":               `line 2: streams.sources: a: "ftp" is no kind of source`,
		"{a: http://x, a: http://y}": "line 2: streams.sources: found `a` where a key belongs that does not stand there yet",
		"{a: [x]}":                   `line 2: streams.sources: found a list where the text of "a" belongs`,
		"[x]":                        "line 2: streams.sources: found a list",
		"http://x":                   "line 2: streams.sources: can be given in a file only",
		"{a: 'http://u:***@x/'}":     "line 2: streams.sources: a: has ***, which stands for what is not shown",
	} {
		if _, err := Read(write(t, "streams:\n  sources: "+line+"\n"), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}
