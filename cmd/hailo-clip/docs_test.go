package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The pages of the documentation. A fenced block for a shell is
//
//	```sh       read: its commands of hailo-clip must be good command lines
//	```sh run   run by this test, against a service with the demo model on the CPU
//	```sh long  run by "make docs-test" (HAILO_TEST_DOCS=1)
//
// The blocks of a page are run in turn, in one folder with the sample images, and each must succeed. /etc is in that folder, and
// has the former service's configuration. What a block ```output has is in what the block before it prints, line by line; "..." in
// it is anything.
const (
	docs       = "../../configs/docs/"
	docAddress = "http://127.0.0.1:5000" // of the service, in the pages
)

type docBlock struct {
	page, kind, text, output string
	line                     int
}

// docPages are README.md and the pages in configs/docs.
func docPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"../../README.md": ""}
	for _, path := range must(filepath.Glob(docs + "*.md")) {
		pages[path] = ""
	}
	for path := range pages {
		pages[path] = string(must(os.ReadFile(path)))
	}
	return pages
}

// docBlocks are the fenced blocks of a page.
func docBlocks(t *testing.T, page, text string) (blocks []docBlock) {
	t.Helper()
	var open *docBlock
	for i, line := range strings.Split(text, "\n") {
		kind, fence := strings.CutPrefix(strings.TrimLeft(line, " "), "```") // in a list, it is indented
		switch {
		case fence && open == nil:
			open = &docBlock{page: page, kind: kind, line: i + 1}
		case fence && open.kind == "output" && len(blocks) > 0:
			blocks[len(blocks)-1].output = open.text
			open = nil
		case fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Errorf("%s:%d: a block without an end", page, open.line)
	}
	return blocks
}

// TestDocsCommands: what the pages have people type are good command lines.
func TestDocsCommands(t *testing.T) {
	found := 0
	for page, text := range docPages(t) {
		for _, b := range docBlocks(t, page, text) {
			if strings.HasPrefix(b.kind, "sh") {
				found += checkCommands(t, fmt.Sprintf("%s:%d", page, b.line), b.text)
			}
		}
	}
	if found == 0 {
		t.Error("no commands found")
	}
}

func checkCommands(t *testing.T, where, script string) (found int) {
	t.Helper()
	commands := commandLines(strings.ReplaceAll(script, "\\\n", " "))
	for _, words := range commands {
		if _, err := newGrammar(t).Parse(words[1:]); err != nil {
			t.Errorf("%s: %q: %v", where, words, err)
		}
	}
	return len(commands)
}

// TestDocs runs what the pages say.
func TestDocs(t *testing.T) {
	t.Parallel()
	for page, text := range docPages(t) {
		var blocks []docBlock
		for _, b := range docBlocks(t, page, text) {
			if b.kind == "sh run" || b.kind == "sh long" && os.Getenv("HAILO_TEST_DOCS") != "" {
				blocks = append(blocks, b)
			}
		}
		if len(blocks) > 0 {
			t.Run(filepath.Base(page), func(t *testing.T) {
				t.Parallel()
				needPrograms(t, "bash", "curl", "jq")
				runBlocks(t, blocks)
			})
		}
	}
}

func runBlocks(t *testing.T, blocks []docBlock) {
	state, dir, bin := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Symlink(must(filepath.Abs(os.Args[0])), filepath.Join(bin, "hailo-clip")); err != nil {
		t.Fatal(err)
	}
	for _, path := range must(filepath.Glob(samples + "*.jpg")) {
		image := string(must(os.ReadFile(path)))
		put(t, dir, map[string]string{filepath.Base(path): image, filepath.Join("photos", filepath.Base(path)): image})
	}
	put(t, dir, map[string]string{"etc/hailo/hailo-clip.yaml": string(must(os.ReadFile("../../configs/testdata/former-service.yaml")))})
	r := serve(t, state, "--model", "demo", "--backend", "cpu")
	for _, b := range blocks {
		script := strings.NewReplacer(docAddress, r.url, "sudo ", "", "/etc/", dir+"/etc/").Replace(b.text)
		c := exec.Command("bash", "-eu", "-o", "pipefail", "-c", script)
		c.Dir = dir
		c.Env = append(os.Environ(), asProgram+"=1", "HAILO_CLIP_STATE_DIR="+state, "HAILO_CLIP_SERVER_PORT="+r.url[strings.LastIndexByte(r.url, ':')+1:],
			"HAILO_CLIP_SERVER_HOST=127.0.0.1", "DOCS="+must(filepath.Abs(docs)), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		where := fmt.Sprintf("%s:%d", b.page, b.line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", where, err, out)
		}
		for line := range strings.Lines(b.output) {
			line = strings.TrimSpace(line)
			want := strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*")
			if !regexp.MustCompile(want).Match(out) {
				t.Errorf("%s: no %q in\n%s", where, line, out)
			}
		}
	}
	r.stop(t)
}

var (
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	docCode    = regexp.MustCompile("(?ms)^```.*?^```$")
	notAnchor  = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// anchors are those that GitHub gives the headings of a page.
func anchors(text string) (all []string) {
	for _, h := range docHeading.FindAllStringSubmatch(docCode.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}

// TestDocsLinks: files and headings that the pages lead to are there.
func TestDocsLinks(t *testing.T) {
	pages := docPages(t)
	for page, text := range pages {
		for _, m := range docLink.FindAllStringSubmatch(docCode.ReplaceAllString(text, ""), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			b, err := os.Stat(target)
			switch {
			case err != nil:
				t.Errorf("%s: %s: %v", page, m[1], err)
			case anchor != "" && (b.IsDir() || !slices.Contains(anchors(string(must(os.ReadFile(target)))), anchor)):
				t.Errorf("%s: %s: no such heading", page, m[1])
			}
		}
	}
	readme := pages["../../README.md"]
	for page := range pages {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(readme, "configs/docs/"+name) && !strings.Contains(readme, "configs/docs)") {
			t.Errorf("README.md does not lead to %s", name)
		}
	}
}

// sourceNames are the first groups of a pattern in the Go files of folders, without tests.
func sourceNames(t *testing.T, pattern string, folders ...string) (names []string) {
	t.Helper()
	for _, folder := range folders {
		for _, path := range must(filepath.Glob("../../" + folder + "/*.go")) {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(must(os.ReadFile(path))), -1) {
				names = append(names, m[1])
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestTroubleshootingIsComplete: every error code of the API and every check of doctor has its place there.
func TestTroubleshootingIsComplete(t *testing.T) {
	page := string(must(os.ReadFile(docs + "troubleshooting.md")))
	codes := sourceNames(t, `kind\{[1-5]\d\d, "([a-z_]+)"`, "api")
	checks := sourceNames(t, `\{"([a-z-]+)", (?:nothing|chip|stack|built|driver|booted|hasNode), `, "hailo/doctor")
	found := sourceNames(t, `\.(?:add|stops)\("([a-z-]+)",`, "cmd/hailo-clip")
	troubles := sourceNames(t, `code\w+ += "([a-z_]+)"`, "api/stream/source")
	for name, n := range map[string]int{"error codes": len(codes), "checks": len(checks), "findings": len(found), "troubles": len(troubles)} {
		if n < 7 {
			t.Errorf("%d %s found in the source", n, name)
		}
	}
	for _, name := range slices.Concat(codes, checks, found, troubles) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("troubleshooting.md says nothing of `%s`", name)
		}
	}
}
