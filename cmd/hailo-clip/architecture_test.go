package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// leaf is a package that imports nothing of ours, so that others than its folder's may use it.
const leaf = "pipeline/fair"

// mayImport is the table of the README: which folder may import which of ours.
var mayImport = map[string][]string{
	"pipeline": {},
	"hailo":    {},
	"cache":    {leaf},
	"stages":   {"pipeline", "hailo"},
	"api":      {"pipeline", "stages", "hailo", "cache"},
	"configs":  {"pipeline", "hailo", "cache", "stages", "api"}, // their Config types
	"cmd":      {"pipeline", "hailo", "cache", "stages", "api", "configs", "bench"},
	"bench":    {"pipeline", "hailo", "cache", "stages", "api", "configs"},
}

// never is what a folder must not link even through others.
var never = map[string][]string{
	"pipeline": {"github.com/valyala/fasthttp", "go.etcd.io/bbolt", "image"},
	"hailo":    {"github.com/valyala/fasthttp"},
	"cache":    {"github.com/valyala/fasthttp"},
	"stages":   {"github.com/valyala/fasthttp"},
}

const module = "hailoclip/"

func folder(importPath string) string {
	top, _, _ := strings.Cut(strings.TrimPrefix(importPath, module), "/")
	return top
}

func TestFoldersImportWhatTheyMay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}|{{join .Imports \" \"}}|{{join .Deps \" \"}}", "../../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		from := folder(fields[0])
		seen[from] = true
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s is in no folder of the map", fields[0])
		}
		for _, imported := range strings.Fields(fields[1]) {
			name, ours := strings.CutPrefix(imported, module)
			to := folder(imported)
			within := to == from && fields[0] != module+leaf
			if ours && !within && !slices.Contains(allowed, to) && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", fields[0], imported)
			}
		}
		for _, linked := range strings.Fields(fields[2]) {
			if slices.Contains(never[from], linked) {
				t.Errorf("%s links %s", fields[0], linked)
			}
		}
	}
	for f := range mayImport {
		if !seen[f] {
			t.Errorf("%s has no package", f)
		}
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "bin"}
	for _, e := range entries {
		if _, ok := mayImport[e.Name()]; !ok && !slices.Contains(files, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s does not belong to the top level", e.Name())
		}
	}
}
