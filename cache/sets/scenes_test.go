package sets

import (
	"strings"
	"testing"
)

func TestScenes(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scenes {
		first, _, _ := strings.Cut(s, " ")
		if s != strings.ToLower(s) || s != strings.TrimSpace(s) || strings.ContainsAny(s, "{}.,") || first == "a" || first == "an" || first == "the" {
			t.Errorf("%q is not a noun without an article that fits into a template", s)
		}
		if seen[s] {
			t.Errorf("%q is there twice", s)
		}
		seen[s] = true
	}
	if n := len(Scenes); n < 40 || n > 60 {
		t.Errorf("%d scenes, want about 50", n)
	}
}
