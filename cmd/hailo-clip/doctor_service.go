package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"hailoclip/api"
	"hailoclip/hailo/doctor"
)

// askService returns what the service on the configured address tells of the chip; nil if none
// answers, or it encodes elsewhere.
func askService(ctx context.Context, c api.Config) *doctor.Service {
	health, ok := askHealth(ctx, c)
	var s stats
	if !ok || health.Backend != "npu" || health.RuntimeMode != "real" || !ask(ctx, c.URL()+"/v1/stats", &s) || s.NPU == nil {
		return nil
	}
	answer := &doctor.Service{Reason: health.Reason, Throttling: s.NPU.Throttling, Zone: s.NPU.Zone, Rate: s.NPU.ImagesPerSec}
	for _, t := range s.NPU.Temperature {
		if t != nil {
			answer.Temperature = append(answer.Temperature, *t)
		}
	}
	return answer
}

type healthAnswer struct {
	Service     string `json:"service"`
	Reason      string `json:"reason"`
	Backend     string `json:"backend"`
	RuntimeMode string `json:"runtime_mode"`
}

// askHealth says whether the service is there on the configured address, well or not.
func askHealth(ctx context.Context, c api.Config) (h healthAnswer, ok bool) {
	ok = ask(ctx, c.URL()+"/health", &h) && h.Service == "hailo-clip"
	return h, ok
}

// ask decodes the JSON at url, whatever the status: /health is 503 when the chip is lost. It waits a second.
func ask(ctx context.Context, url string, to any) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy: it is this machine
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(to) == nil
}
