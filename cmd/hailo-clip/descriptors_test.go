package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"hailoclip/api"
)

// TestLowerConnections: as many connections as the limit of open files leaves room for, and an error below one.
func TestLowerConnections(t *testing.T) {
	const others = 30
	for _, c := range []struct {
		wanted int
		limit  uint64
		error  bool
	}{
		{1024, 1 << 20, false}, {1024, 1024, false}, {1024, 64, false}, {8, 256, false}, {1_000_000, 4096, false},
		{1024, others + 17, false}, {1024, others + 16, true}, {1024, 3, true},
	} {
		var log bytes.Buffer
		got, err := lowerConnections(api.Config{MaxConnections: c.wanted}, 1, c.limit, others, slog.New(slog.NewTextHandler(&log, nil)))
		if c.error {
			if err == nil || !strings.Contains(err.Error(), "LimitNOFILE") {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		needed := uint64(got.Descriptors() + others)
		one := api.Config{MaxConnections: got.MaxConnections + 1}
		fits := needed <= c.limit && (got.MaxConnections == c.wanted || uint64(one.Descriptors()+others) > c.limit)
		if err != nil || !fits {
			t.Errorf("%+v: %d connections, %v", c, got.MaxConnections, err)
		}
		if warned := strings.Contains(log.String(), "max_connections"); warned != (got.MaxConnections < c.wanted) {
			t.Errorf("%+v: lowered to %d, log %q", c, got.MaxConnections, log.String())
		}
	}
}

// TestOtherFiles: each stream's source has room for the pipes of ffmpeg, and connections keep half of a low limit.
func TestOtherFiles(t *testing.T) {
	for _, c := range []struct {
		streams int
		limit   uint64
		want    int
	}{{64, 1 << 20, 416}, {1000, 1 << 20, 4160}, {64, 256, 128}, {1000, 1024, 512}} {
		if got := otherFiles(c.streams, c.limit); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
