package main

import (
	"strings"
	"testing"

	"hailoclip/api/access"
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
