package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"hailoclip/api/compat"
	"hailoclip/configs"
)

// TestWorksWith: each dialect has a row in works-with.md, with paths that it has, and every block of configuration there can be read.
func TestWorksWith(t *testing.T) {
	const page = docs + "works-with.md"
	text := string(must(os.ReadFile(page)))
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			setting := strings.Trim(cells[2], " `")
			rows[setting] += cells[3]
		}
	}
	for _, d := range compat.Dialects {
		said := rows[d.Name]
		if said == "" {
			t.Errorf("%s has no row", d.Name)
		}
		for _, m := range regexp.MustCompile("`(/[^`]*)`").FindAllStringSubmatch(said, -1) {
			has := false
			for _, r := range d.Routes {
				has = has || r.Path == m[1]
			}
			if !has {
				t.Errorf("%s has no path %s", d.Name, m[1])
			}
		}
	}
	kinds := map[string]int{}
	for _, b := range docBlocks(t, page, text) {
		kinds[b.kind]++
		if err := parseBlock(t, b); err != nil {
			t.Errorf("%s:%d: %v", page, b.line, err)
		}
	}
	for _, kind := range []string{"yaml", "json", "py", "js", "sh"} {
		if kinds[kind] == 0 {
			t.Errorf("no block of %s", kind)
		}
	}
}

// parseBlock reads a block as the program does that it is for; Python and JavaScript where those are there.
func parseBlock(t *testing.T, b docBlock) error {
	var program []string
	switch b.kind {
	case "yaml":
		var c map[string]any
		if err := yaml.Unmarshal([]byte(b.text), &c); err != nil || len(c) == 0 {
			return fmt.Errorf("no configuration: %w", err)
		}
		if c["compat"] != nil {
			_, err := configs.Read(configFile(t, b.text), nil, nil)
			return err
		}
		return nil
	case "json":
		var c map[string]any
		return json.Unmarshal([]byte(b.text), &c)
	case "py":
		program = []string{"python3", "-c", "import sys; compile(sys.stdin.read(), 'block', 'exec')"}
	case "js":
		program = []string{"node", "--input-type=module", "--check", "-"}
	case "sh":
		program = []string{"bash", "-n"}
	default:
		return fmt.Errorf("a block of %q, which nobody checks", b.kind)
	}
	path, err := exec.LookPath(program[0])
	if err != nil {
		return nil //nolint:nilerr // it is not needed for anything else
	}
	c := exec.Command(path, program[1:]...)
	c.Stdin = strings.NewReader(b.text)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
