package client

import (
	"context"
	"net/http"
)

// Health is how a service is doing. The reasons are sentences, which may be "".
type Health struct {
	Service     string `json:"service"` // hailo-clip
	Version     string `json:"version"`
	Status      string `json:"status"` // healthy, degraded or unhealthy
	Reason      string `json:"reason"` // "" when healthy
	Model       string `json:"model"`
	ModelLoaded bool   `json:"model_loaded"`
	ModelWhy    string `json:"model_reason"`
	Backend     string `json:"backend"`      // npu, cpu or sim
	RuntimeMode string `json:"runtime_mode"` // real or simulated
	BackendWhy  string `json:"backend_reason"`
	Uptime      int64  `json:"uptime_seconds"`
	ImageDigest string `json:"image_digest"` // of the image encoder; "" by services before there was an index
	// ImagePreparation names how images are prepared for it: vectors are equal only with the same. "" by older services.
	ImagePreparation string `json:"image_preparation"`
}

// Health returns how the service is doing. One that is unhealthy (503) and says so is no error.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	a, err := c.send(ctx, call{method: http.MethodGet, path: "/health"})
	if err != nil {
		return h, err
	}
	err = a.read(&h)
	switch {
	case a.status == http.StatusOK, a.status == http.StatusServiceUnavailable && err == nil && h.Status != "":
		return h, err
	}
	return Health{}, a.fault()
}

// Stats reads the counters of the service into v: a pointer to a struct that has those which are wanted, such as
// stages/clip.Stats, which is all of them.
func (c *Client) Stats(ctx context.Context, v any) error {
	return c.getJSON(ctx, call{method: http.MethodGet, path: "/v1/stats"}, v)
}

// Fleet reads what the service knows of its fleet into v: a pointer to a struct such as api/fleet.Status. Of a service that is in none
// its "enabled" is false.
func (c *Client) Fleet(ctx context.Context, v any) error {
	return c.getJSON(ctx, call{method: http.MethodGet, path: "/v1/fleet"}, v)
}
