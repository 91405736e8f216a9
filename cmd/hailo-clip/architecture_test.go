package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is the table of folders in the README, in full: which of our packages a folder may import beside those in it. The
// longest folder that a package is in counts; below hailo each package has its own. "hailo" is that package, "hailo/..." also
// all below it.
var mayImport = map[string][]string{
	"pipeline":      {},
	"pipeline/fair": {}, // a leaf, so that others may use it
	"cache":         {"pipeline/fair"},
	"stages":        {"pipeline/...", "hailo", "hailo/dl"},
	"stages/clip":   {"pipeline/...", "hailo", "hailo/model", "hailo/npu", "hailo/safefile", "cache/...", "stages/..."},
	"api":           {"pipeline/...", "hailo", "hailo/safefile", "cache/...", "stages/..."}, // of the first three errors and types only
	"api/client":    {},
	"configs":       {"pipeline", "hailo/...", "cache/...", "stages/...", "api/..."}, // their Config types
	"cmd":           {"pipeline/...", "hailo/...", "cache/...", "stages/...", "api", "api/access", "api/admin", "api/bulk/...", "api/client", "api/compat", "api/fleet/...", "api/outbound", "api/stream/...", "configs/...", "bench/..."},
	"bench":         {"stages/clip", "stages/decode", "api/client"}, // of the first the counters of a service

	"hailo":                 {},
	"hailo/backendtest":     {"hailo", "hailo/internal/assert"},
	"hailo/demo":            {"hailo/model"},
	"hailo/device":          {"hailo/safefile"},
	"hailo/dl":              {},
	"hailo/doctor":          {"hailo/device", "hailo/model"},
	"hailo/fetch":           {"hailo/safefile"},
	"hailo/internal/assert": {},
	"hailo/model":           {"hailo/fetch", "hailo/safefile", "hailo/token"},
	"hailo/npu":             {"hailo", "hailo/npu/wire"},
	"hailo/npu/wire":        {},
	"hailo/onnx":            {"hailo", "hailo/dl", "hailo/fetch", "hailo/model", "hailo/safefile"},
	"hailo/open":            {"hailo/..."},
	"hailo/safefile":        {},
	"hailo/sim":             {"hailo/npu/wire"},
	"hailo/token":           {},

	"stages/evaluate": {}, // arithmetic
	"stages/fewshot":  {},
	"stages/track":    {"stages"},

	"api/console":       {},
	"api/access":        {"pipeline", "pipeline/fair"},                                            // for its lanes
	"api/admin":         {"pipeline", "stages/clip", "api/stream/...", "api/access", "api/fleet"}, // of all but the last the counters
	"api/outbound":      {},
	"api/rawjson":       {},
	"api/bulk":          {"api/outbound", "api/stream/source", "cache/boltfile", "hailo/safefile"},
	"api/fleet":         {"api/fleet/members", "api/bulk", "pipeline/...", "cache/...", "stages/...", "hailo/...", "api/stream/..."},
	"api/fleet/broker":  {"api/fleet/members", "hailo/safefile"},
	"api/fleet/members": {"hailo/safefile"},
	"api/compat":        {"api/rawjson", "stages"},
	"api/stream":        {"pipeline/...", "cache/...", "stages/...", "api/outbound"},
	"api/stream/event":  {"cache/boltfile"},
	"api/stream/notify": {"api/stream/event", "hailo/safefile"},
	"api/stream/source": {"api/outbound", "stages/decode"},
}

// never is what a folder must not link even through others.
var never = map[string][]string{
	"pipeline": {"github.com/valyala/fasthttp", "go.etcd.io/bbolt", "image"},
	"hailo":    {"github.com/valyala/fasthttp"},
	"cache":    {"github.com/valyala/fasthttp"},
	"stages":   {"github.com/valyala/fasthttp"},
}

const module = "hailoclip/"

// rowOf is the row of mayImport that counts for a package; "" when there is none.
func rowOf(name string) (row string) {
	for folder := range mayImport {
		if within(name, folder) && len(folder) > len(row) {
			row = folder
		}
	}
	return row
}

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

// matches says whether a package is one of the patterns.
func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		tree, all := strings.CutSuffix(pattern, "/...")
		return name == pattern || all && within(name, tree)
	})
}

func TestFoldersImportWhatTheyMay(t *testing.T) {
	out := must(exec.Command("go", "list", "-f", "{{.ImportPath}}|{{join .Imports \" \"}}|{{join .Deps \" \"}}", "../../...").Output())
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		from := strings.TrimPrefix(fields[0], module)
		row := rowOf(from)
		if seen[row] = true; row == "" {
			t.Errorf("%s is in no folder of the map", from)
		}
		for _, imported := range strings.Fields(fields[1]) {
			if name, ours := strings.CutPrefix(imported, module); ours && (!within(name, row) || row == "hailo") && !matches(name, mayImport[row]) {
				t.Errorf("%s imports %s", from, name)
			}
		}
		top, _, _ := strings.Cut(from, "/")
		for _, linked := range strings.Fields(fields[2]) {
			if slices.Contains(never[top], linked) {
				t.Errorf("%s links %s", from, linked)
			}
		}
	}
	for folder := range mayImport {
		if !seen[folder] {
			t.Errorf("%s has no package", folder)
		}
	}
}

// TestClientLinksOnlyItself: a program that asks a service is not to link what serves it.
func TestClientLinksOnlyItself(t *testing.T) {
	out := must(exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "../../api/client").Output())
	if linked := strings.Fields(string(out)); !slices.Equal(linked, []string{module + "api/client"}) {
		t.Errorf("it links %s", linked)
	}
}

// TestServiceDoesNotLinkTheBroker: it would be nine megabytes larger.
func TestServiceDoesNotLinkTheBroker(t *testing.T) {
	for line := range strings.Lines(string(must(exec.Command("go", "list", "-deps", ".").Output()))) {
		if strings.HasPrefix(line, "github.com/nats-io/nats-server/") {
			t.Errorf("it links %s", line)
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries := must(os.ReadDir("../.."))
	files := []string{"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "bin"}
	for _, e := range entries {
		if _, ok := mayImport[e.Name()]; !ok && !slices.Contains(files, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s does not belong to the top level", e.Name())
		}
	}
}
