package configs

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"hailoclip/cache/sets"
)

const setsKey = "prompt_sets"

// promptSets is where a file has its prompt sets, which only a file can have.
type promptSets struct {
	file string
	node *yaml.Node
}

// readPromptSets sets Config.PromptSets, when the bounds of prompts are known.
func (l *layers) readPromptSets() {
	l.config.PromptSets = map[string]sets.Definition{}
	n, limits := l.sets.node, sets.Limits{PromptBytes: l.config.Server.MaxPromptBytes, NoImages: true}
	if n == nil || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		l.fault("%s: %s: found %s where a section belongs", l.where[setsKey], setsKey, describe(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		where := func(line int) string {
			return fmt.Sprintf("%s: line %d: %s.%.64s", l.sets.file, max(line, name.Line), setsKey, name.Value)
		}
		_, twice := l.config.PromptSets[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode || !sets.ValidName(name.Value):
			l.fault("%s: found %s where the name of a prompt set belongs: 1 to 64 of A-Z a-z 0-9 . _ -, the first one a letter or digit",
				where(name.Line), describe(name))
			continue
		case twice:
			l.fault("%s: stands twice", where(name.Line))
			continue
		case len(l.config.PromptSets) == sets.MaxSets:
			l.fault("%s: is one more than %d prompt sets", where(name.Line), sets.MaxSets)
			return
		}
		d, err := sets.FromYAML(n.Content[i+1], limits)
		for _, f := range sets.Faults(err) {
			at := where(f.Line)
			f.Line = 0
			l.fault("%s: %w", at, f)
		}
		l.config.PromptSets[name.Value] = d
	}
}
