package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/api/fleet"
	"hailoclip/api/fleet/broker"
)

// TestIndexByFleet: the services of a fleet make the same rows as this process, with prompts too.
func TestIndexByFleet(t *testing.T) {
	dir, own, asked := madeImages(t, 100, 64), filepath.Join(t.TempDir(), "v.ndjson"), filepath.Join(t.TempDir(), "v.ndjson")
	put(t, dir, map[string]string{"broken.jpg": "no image", "again.jpg": string(must(os.ReadFile(dir + "/000/000007.jpg")))})
	aged(t, dir)
	sim := []string{"--model", "demo", "--backend", "sim"}
	index := func(out string, args ...string) result {
		return runProgram(t, command(t.TempDir(), append(append([]string{"index", dir, "--out", out}, sim...), args...)...))
	}
	index(own).expect(t, exitOK)
	index(asked, "--fleet").expect(t, exitUsage, "no fleet.url")
	f := startFleet(t)
	t.Setenv("HAILO_CLIP_FLEET_URL", f.url)
	t.Setenv("HAILO_CLIP_FLEET_NODE", "index")
	until(t, "workers are there", func() bool { return index(asked, "--fleet").code == exitOK })
	index(asked, "--fleet").expect(t, exitOK, "0 rows", "102 unchanged")
	status := func(out string, args ...string) result {
		return runProgram(t, command(t.TempDir(), append([]string{"index", "status", "--out", out}, args...)...))
	}
	status(asked).expect(t, exitOK, "complete", "broker done: 0 queued, 0 to be stored; in the last run 0 done, 0 dead", ".p1: invalid_image: ")
	var told indexStatus
	if err := json.Unmarshal([]byte(status(asked, "--json", "--errors", "5").stdout), &told); err != nil || told.Fleet == nil || told.Fleet.Error != "" ||
		told.Fleet.Job != fleetJob(told.Identity.Source, asked) || len(told.Fleet.Letters) != 1 || told.Fleet.Letters[0].Job != told.Fleet.Job {
		t.Errorf("%+v, %v", told.Fleet, err)
	}
	if alone := status(own); strings.Contains(alone.stdout, "broker") {
		t.Error(alone.stdout)
	}
	t.Run("without the broker", func(t *testing.T) {
		t.Setenv("HAILO_CLIP_FLEET_URL", "nats://127.0.0.1:1")
		away := status(asked)
		away.expect(t, exitOK, "complete", "broker not asked: the broker of the fleet cannot be reached")
		if strings.Count(away.stdout, "broker    ") != 1 || away.stderr != "" {
			t.Errorf("%+v", away)
		}
	})
	a, b := indexed(t, own), indexed(t, asked)
	for path := range a {
		if a[path].Key != b[path].Key || !reflect.DeepEqual(a[path].Embedding, b[path].Embedding) || (a[path].Error == "") != (b[path].Error == "") {
			t.Errorf("%s: %+v, %+v", path, a[path], b[path])
		}
	}
	labels := filepath.Join(t.TempDir(), "v.ndjson")
	index(labels, "--fleet", "-p", "a cat", "-p", "a dog").expect(t, exitOK, "102 rows")
	for path, row := range indexed(t, labels) {
		if row.Error == "" && len(row.Matches) != 2 {
			t.Errorf("%s: %+v", path, row)
		}
	}
	runProgram(t, command(t.TempDir(), "index", dir, "--out", labels, "--fleet", "--url", "http://127.0.0.1:1")).expect(t, exitUsage, "--fleet does not go with --url")
	broker := must(fleet.Dial(fleet.Config{URL: f.url, Node: "looks", Domain: "hub"}, slog.New(slog.DiscardHandler)))
	defer broker.Close()
	jobs := must(broker.Jobs(t.Context()))
	for _, j := range jobs { // images, of which one is there twice
		if j.State != "done" || j.Found > 101 || j.Left != 0 {
			t.Errorf("%+v", j)
		}
	}
	if len(jobs) != 2 {
		t.Errorf("%d jobs", len(jobs))
	}
}

// TestIndexEndsWhereItIsRefused: an index ends with what must be changed by hand.
func TestIndexEndsWhereItIsRefused(t *testing.T) {
	b := must(broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom}))
	defer b.Close()
	nc := must(nats.Connect(b.URL()))
	defer nc.Close()
	js := must(jetstream.New(nc))
	must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: fleet.BulkStream, Subjects: []string{"theirs.>"}, Retention: jetstream.WorkQueuePolicy}))
	t.Setenv("HAILO_CLIP_FLEET_URL", b.URL())
	out := filepath.Join(t.TempDir(), "v.ndjson")
	runProgram(t, command(t.TempDir(), "index", madeImages(t, 1, 64), "--out", out, "--fleet")).expect(t, exitFailed,
		"CLIP_BULK: the stream is not one of a fleet: it does not take clip.v1.bulk.>", "remove it at the broker")
}
