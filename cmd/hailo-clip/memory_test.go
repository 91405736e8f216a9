package main

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hailoclip/configs"
)

// TestPlanMemory divides memory among a program that takes 100 MB, 30 of them Go's and 20 alive. All in MB.
func TestPlanMemory(t *testing.T) {
	const none = math.MaxInt64 >> 20
	cfg, _, err := configs.Load("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ limit, total, body, runtime, bodies, images int64 }{
		{64, 8192, 16, 52, 32, 0},                          // less than the program takes
		{256, 8192, 16, 170, 32, 68},                       // 256 - 70 - 16; (170 - 20 - 32 - 32) * 4/5
		{512, 8192, 16, 410, 64, 235},                      // 512 - 70 - 32; (410 - 20 - 64 - 32) * 4/5
		{3072, 8192, 16, 2810, 256, 2001},                  // max_body_memory_bytes is less than an eighth
		{3072, 2048, 16, 1850, 256, 1233},                  // a machine of 2 GB
		{3072, 0, 16, 2810, 256, 2001},                     // one that does not tell
		{512, 8192, 512, 410, 1024, 0},                     // two bodies are more than there is
		{none, 8192, 16, none, 256, 4096},                  // no limit
		{1 << 30, 1 << 31, 16, 1006632890, 256, 805306065}, // the most that can be written
	} {
		cfg := cfg
		cfg.Server.MaxBodyBytes = int(c.body) << 20
		limit := c.limit << 20
		if c.limit == none {
			limit = math.MaxInt64
		}
		p := planMemory(cfg, limit, c.total<<20, 100<<20, 30<<20, 20<<20)
		if p.runtime>>20 != c.runtime || int64(p.bodies)>>20 != c.bodies || p.images>>20 != c.images {
			t.Errorf("%+v: runtime %d, bodies %d, images %d", c, p.runtime>>20, p.bodies>>20, p.images>>20)
		}
	}
}

// TestImageBeyondMemory sends an image that is larger than memory_max leaves room for, and one that is not.
func TestImageBeyondMemory(t *testing.T) {
	t.Setenv("HAILO_CLIP_RESOURCE_LIMITS_MEMORY_MAX", "256M")
	r := serve(t, t.TempDir())
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, 7000, 7000), []color.Color{color.Black, color.White})); err != nil {
		t.Fatal(err)
	}
	a, err := r.post("/v1/embed/image", map[string]any{"image": base64.StdEncoding.EncodeToString(b.Bytes())})
	if err != nil {
		t.Fatal(err)
	}
	if said, _ := a.body["error"].(string); a.status != 413 || a.body["code"] != "image_too_large" || !strings.Contains(said, "resource_limits.memory_max") {
		t.Errorf("%d %s", a.status, a.raw)
	}
	r.classifies(t)
}

// TestAddressesLeft gives this process a limit that is far away, for a moment.
func TestAddressesLeft(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &before); err != nil {
		t.Fatal(err)
	}
	const far = 1 << 44
	if before.Max < far {
		t.Skip("the addresses of this process are limited already")
	}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: far, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	left, limited := addressesLeft()
	if err := unix.Setrlimit(unix.RLIMIT_AS, &before); err != nil {
		t.Fatal(err)
	}
	if used := int64(far) - left; !limited || used < residentBytes("self") || used > far/2 {
		t.Errorf("%d of %d are used, limited: %v", used, int64(far), limited)
	}
	if _, limited := addressesLeft(); limited != (before.Cur != unix.RLIM_INFINITY) {
		t.Error("no limit is a limit")
	}
}
