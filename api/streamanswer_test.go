package api

import (
	"encoding/json"
	"strings"
	"testing"

	"hailoclip/api/stream"
	"hailoclip/stages"
)

// TestAnswerWithoutMatches: a list of no matches is an empty list for clients, also where it is nil, and never null.
func TestAnswerWithoutMatches(t *testing.T) {
	for _, matches := range [][]stages.Match{nil, {}} {
		for _, names := range [][]string{{""}, {"a", "b"}} {
			a := stream.Answer{}
			for _, name := range names {
				r := stream.RegionAnswer{Name: name}
				r.Result.Matches = matches
				a.Regions = append(a.Regions, r)
			}
			text := string(AppendAnswer(nil, &a))
			if n := strings.Count(text, `"classifications":[]`); n != len(names) || !json.Valid([]byte(text)) || strings.Contains(text, "null") {
				t.Errorf("%d empty lists, want %d: %s", n, len(names), text)
			}
		}
	}
}
