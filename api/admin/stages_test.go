package admin

import (
	"slices"
	"testing"
	"time"

	"hailoclip/pipeline"
)

// TestStages: the sums of /v1/stats are those of what was recorded, in the order of a request, and a nil Recorder has none.
func TestStages(t *testing.T) {
	r := NewRecorder()
	r.Stage("read", 3*time.Millisecond)
	for range 2 {
		r.Line([4]pipeline.StageTime{
			{Stage: "decode", Wait: time.Millisecond, Work: 2 * time.Millisecond}, {Stage: "resize", Work: time.Millisecond},
			{Stage: "encode", Wait: 5 * time.Millisecond, Work: 20 * time.Millisecond}, {Stage: "score"},
		})
	}
	r.Line([4]pipeline.StageTime{{Stage: "elsewhere", Work: 30 * time.Millisecond}, {Stage: "score", Work: time.Millisecond}}) // waits for nothing here
	want := []StageTimes{
		{"read", 1, 0.003}, {"text", 0, 0}, {"queue", 2, 0.002}, {"decode", 2, 0.004}, {"resize-wait", 2, 0}, {"resize", 2, 0.002},
		{"encode-wait", 2, 0.010}, {"encode", 2, 0.040}, {"elsewhere", 1, 0.030}, {"score-wait", 2, 0}, {"score", 3, 0.001}, {"answer", 0, 0},
	}
	if got := r.Stages(); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := (*Recorder)(nil).Stages(); got != nil {
		t.Error(got)
	}
}
