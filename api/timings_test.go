package api

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hailoclip/pipeline"
	"hailoclip/stages/clip"
)

// TestTimings: with ?timings=1 the body has what the header Server-Timing has, and of batches also the stages of each image.
func TestTimings(t *testing.T) {
	s := serve(t, nil)
	stages := []string{"decode", "encode", "encode_wait", "queue", "resize", "resize_wait", "score", "score_wait"}
	one := slices.Sorted(slices.Values(append([]string{"answer", "read", "text"}, stages...)))
	many := []string{"answer", "read", "text"}
	duration := regexp.MustCompile(`([a-z-]+);dur=([0-9.]+)`)
	type item struct{ Timings map[string]float64 }
	for _, c := range []struct {
		path, body string
		want       []string
		items      int // that have timings of their own
	}{
		{"/v1/classify", classifyBody(goodImage, "", "x"), one, 0},
		{"/v1/embed/image", `{"image":"` + b64(goodImage) + `"}`, nil, 0},
		{"/v1/embed/text", `{"text":"x"}`, many, 0},
		{"/v1/classify/batch", batchBody(`,"prompts":["x"]`, goodImage, notAnImage, goodImage), many, 2},
		{"/v1/embed/batch", batchBody(`,"texts":["x"]`, goodImage), many, 1},
	} {
		for _, query := range []string{"?timings=1", "?timings=true"} {
			r := s.post(t, c.path+query, c.body)
			var got struct {
				Timings         map[string]float64
				Results, Images []item
			}
			noError(t, json.Unmarshal(r.body, &got))
			if names := slices.Sorted(maps.Keys(got.Timings)); c.want != nil && !slices.Equal(names, c.want) || len(names) == 0 {
				t.Errorf("%s: timings of %v, want %v", c.path, names, c.want)
			}
			header := map[string]float64{}
			for _, m := range duration.FindAllStringSubmatch(r.header.Get("Server-Timing"), -1) {
				header[strings.ReplaceAll(m[1], "-", "_")] = must(strconv.ParseFloat(m[2], 64))
			}
			if !maps.Equal(header, got.Timings) {
				t.Errorf("%s: %v in the header, %v in the body", c.path, header, got.Timings)
			}
			found := 0
			for _, i := range append(got.Results, got.Images...) {
				if _, decoded := i.Timings["decode"]; decoded && i.Timings["answer"] == 0 {
					found++
				}
			}
			if found != c.items {
				t.Errorf("%s: %d images with timings: %s", c.path, found, r.body)
			}
		}
		for _, query := range []string{"", "?timings=0", "?timings=false", "?timings="} {
			if r := s.post(t, c.path+query, c.body); r.status != 200 || strings.Contains(string(r.body), "timings") {
				t.Errorf("%s%s: %d %s", c.path, query, r.status, r.body)
			}
		}
		s.post(t, c.path+"?timings=yes", c.body).wantError(t, 400, "invalid_request", "timings")
	}
}

// TestTimingsElsewhere: an image that another node has encoded has waited for no stage here, and passed none but the last.
func TestTimingsElsewhere(t *testing.T) {
	times := []pipeline.StageTime{{Stage: clip.StageElsewhere, Work: 30 * time.Millisecond}, {Stage: "score", Work: 2 * time.Millisecond}, {}, {}}
	if got := string(appendTimings(nil, func(do timing) { eachStage(times, do) })); got != `,"timings":{"elsewhere":30,"score":2}` {
		t.Error(got)
	}
}
