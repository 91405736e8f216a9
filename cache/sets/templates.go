package sets

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Built-in lists of templates. clip7 and imagenet80 are OpenAI's, from notebooks/Prompt_Engineering_for_ImageNet.ipynb of
// github.com/openai/CLIP: the 80 of the paper, and the seven that a forward selection over them chose, in its order.
var builtin = map[string][]string{
	"none": {"{}"},
	"clip7": {
		"itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
		"art of the {}.", "a photo of the small {}.",
	},
	"imagenet80": strings.Split(strings.TrimSpace(imagenet80), "\n"),
}

//go:embed imagenet80.txt
var imagenet80 string

// Templates is a built-in list of templates by its name, or a list of texts with {} once in each, for the prompt.
type Templates struct {
	Name string
	List []string // if Name is ""
}

// Texts returns the templates: with an unknown name none.
func (t *Templates) Texts() []string {
	if t.Name != "" {
		return slices.Clone(builtin[t.Name])
	}
	return t.List
}

// UnmarshalJSON reads a name or a list; anything else leaves no templates, which Validate refuses.
func (t *Templates) UnmarshalJSON(b []byte) error {
	*t = Templates{}
	if json.Unmarshal(b, &t.Name) != nil && json.Unmarshal(b, &t.List) != nil {
		*t = Templates{}
	}
	return nil
}

// MarshalJSON writes the name, or the list.
func (t Templates) MarshalJSON() ([]byte, error) { return json.Marshal(t.value()) }

// MarshalYAML is as MarshalJSON.
func (t Templates) MarshalYAML() (any, error) { return t.value(), nil }

func (t Templates) value() any {
	if t.Name != "" {
		return t.Name
	}
	return t.List
}

// readYAML is as UnmarshalJSON.
func (t *Templates) readYAML(n *yaml.Node) {
	*t = Templates{Name: n.Value}
	for _, item := range n.Content {
		t.List = append(t.List, item.Value)
	}
}
