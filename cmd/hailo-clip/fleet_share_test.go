package main

import (
	"os"
	"path/filepath"
	"testing"

	"hailoclip/api/fleet/broker"
)

// TestFleetShares gives model files and cameras to a fleet by commands, and takes them from there.
func TestFleetShares(t *testing.T) {
	t.Parallel()
	b, err := broker.Start(broker.Config{Port: -1, Dir: t.TempDir(), MaxStore: brokerRoom})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	one, two := t.TempDir(), t.TempDir()
	put(t, one, map[string]string{"models/mine/manifest.json": minimalManifest, "models/mine/t.json": "{}", "models/mine/i.onnx": "\x08i", "models/mine/t.onnx": "\x08t"})
	put(t, two, map[string]string{"models/mine/manifest.json": minimalManifest, "models/mine/t.onnx": "\x08t"})
	run := func(state string, args ...string) result {
		t.Helper()
		c := command(state, args...)
		c.Env = append(c.Env, "HAILO_CLIP_FLEET_URL="+b.URL())
		return runProgram(t, c)
	}
	run(two, "models", "pull", "mine", "--fleet").expect(t, exitFailed, "the fleet does not have the model")
	run(two, "models", "share", "none").expect(t, exitUsage, "none")
	run(one, "models", "share", "mine").expect(t, exitOK)
	run(two, "models", "pull", "mine", "--fleet", "--from-dir", one).expect(t, exitUsage)
	run(two, "models", "pull", "mine", "--fleet").expect(t, exitOK, "mine")
	for _, file := range []string{"t.json", "i.onnx", "t.onnx"} {
		want := string(must(os.ReadFile(filepath.Join(one, "models/mine", file))))
		if got, err := os.ReadFile(filepath.Join(two, "models/mine", file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(two, ".fleet-*")); err != nil || len(left) > 0 {
		t.Errorf("%q is left: %v", left, err)
	}

	put(t, one, map[string]string{
		"door.json": `{"prompts": ["a cat", "a dog"], "source": "rtsp://camera.lan/main", "fps": 2}`, "pushed.json": `{"prompts": ["a cat"]}`,
	})
	run(one, "fleet", "cameras", "add", "door", filepath.Join(one, "door.json")).expect(t, exitOK)
	run(one, "fleet", "cameras", "add", "x", filepath.Join(one, "pushed.json")).expect(t, exitFailed, "no source")
	run(two, "fleet", "cameras", "list").expect(t, exitOK, "door")
	run(two, "fleet", "cameras", "list", "--json").expect(t, exitOK, `"name":"door","definition":{`)
	run(two, "fleet", "cameras", "rm", "door").expect(t, exitOK)
	run(two, "fleet", "cameras", "rm", "door").expect(t, exitFailed, "no such camera")
	runProgram(t, command(one, "fleet", "cameras", "list")).expect(t, exitUsage, "fleet.url")
}
