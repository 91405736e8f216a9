package configs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPromptSets(t *testing.T) {
	c := mustLoad(t, "prompt_sets:\n  door:\n    labels:\n      - name: yes\n      - {name: no, prompts: [a wall]}\nserver:\n  max_prompt_bytes: 10\n")
	if d := c.PromptSets["door"]; len(c.PromptSets) != 1 || d.Labels[0].Name != "yes" || d.Labels[1].Prompts[0] != "a wall" || d.Activation != "softmax" {
		t.Errorf("%+v", c.PromptSets)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, mustLoad(t, string(text))); diff != "" {
		t.Errorf("shown as\n%s\nwhich is read as %s", text, diff)
	}
	for _, none := range []string{"", "prompt_sets:\n", "prompt_sets: {}\n"} {
		if c := mustLoad(t, none); len(c.PromptSets) != 0 {
			t.Errorf("%q: %v", none, c.PromptSets)
		}
	}
}

// The example in the built-in file is one that can be taken as it is.
func TestExampleOfPromptSets(t *testing.T) {
	_, section, _ := strings.Cut(string(Default), "\nprompt_sets: {}\n")
	c := mustLoad(t, "prompt_sets:\n"+regexp.MustCompile("(?m)^#").ReplaceAllString(section, ""))
	if d := c.PromptSets["door"]; len(d.Labels) != 2 || d.Templates.Name != "clip7" || !d.Background.Auto || *d.MinMargin != 0.2 {
		t.Errorf("%+v", c.PromptSets)
	}
}

func TestErrorsOfPromptSets(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"prompt_sets: [a]\n", "line 1: prompt_sets: found a list where a section belongs"},
		{"prompt_sets:\n  a/b: {labels: [{name: a}]}\n", "line 2: prompt_sets.a/b: found `a/b` where the name of a prompt set belongs: " +
			"1 to 64 of A-Z a-z 0-9 . _ -, the first one a letter or digit"},
		{"prompt_sets:\n  a: {labels: [{name: a}]}\n  a: {labels: [{name: a}]}\n", "line 3: prompt_sets.a: stands twice"},
		{"prompt_sets:\n  a:\n    labels:\n      - name: a\n        prompt: b\n", "line 5: prompt_sets.a: labels[0].prompt is no key of prompt sets"},
		{"prompt_sets:\n  a:\n    labels:\n      - name: a\n        prompts: [b,\n          '']\n", "line 6: prompt_sets.a: labels[0].prompts[1] is empty"},
		{"prompt_sets:\n  a:\n", "line 2: prompt_sets.a: labels must have a label that is not negative"},
		{"prompt_sets:\n  a:\n    labels: [{name: a, images: [eA==]}]\n", "line 3: prompt_sets.a: labels[0].images must not be here: " +
			"add them by the API, and export the set to get their examples"},
		{"prompt_sets: {}\nprompt_sets: {}\n", "line 2: prompt_sets: stands already in line 1"},
		{"prompt_sets:\n  a: {labels: [{name: abcdef}]}\nserver: {max_prompt_bytes: 5}\n", "line 2: prompt_sets.a: labels[0].name is longer than 5 bytes"},
		{"prompt_set: {}\n", `line 1: unknown key "prompt_set"; did you mean "prompt_sets"?`},
	} {
		_, err := Read(write(t, tt.text), nil, nil)
		if got := fmt.Sprint(err); !strings.HasSuffix(got, "hailo-clip.yaml: "+tt.want) {
			t.Errorf("%q:\n%s\n%s", tt.text, got, tt.want)
		}
	}
	var many strings.Builder
	for i := range 1001 {
		fmt.Fprintf(&many, "  s%d: {labels: [{name: a}]}\n", i)
	}
	if _, err := Read(write(t, "prompt_sets:\n"+many.String()), nil, nil); err == nil ||
		!strings.HasSuffix(err.Error(), "line 1002: prompt_sets.s1000: is one more than 1000 prompt sets") {
		t.Error(err)
	}
	for variable, want := range map[string]string{
		"HAILO_CLIP_PROMPT_SETS={}":     "HAILO_CLIP_PROMPT_SETS: prompt_sets: can be given in a file only",
		"HAILO_CLIP_PROMPT_SETS_DOOR=1": `HAILO_CLIP_PROMPT_SETS_DOOR: unknown key "door" of section prompt_sets`,
	} {
		if _, err := Read(write(t, ""), []string{variable}, nil); fmt.Sprint(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
