package api

import (
	"slices"
	"testing"
)

// TestSpacesDoNotCount: those around a prompt, which no tokenizer sees, are not part of its length.
func TestSpacesDoNotCount(t *testing.T) {
	for prompt, ok := range map[string]bool{"a cat": true, "  a cat   \\n ": true, "a cats": false, "  a cats": false} {
		var in input
		if err := in.parse([]byte(`{"prompts": ["` + prompt + `"], "text": "` + prompt + `"}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := in.prompts(1, 5); (err == nil) != ok {
			t.Errorf("prompt %q: %v", prompt, err)
		}
		if _, err := in.text(5); (err == nil) != ok {
			t.Errorf("text %q: %v", prompt, err)
		}
	}
}

// TestSpacesAreNotEncoded: a text that is over the limit with the spaces around it reaches the encoder
// without them, at either end, and any other as it came.
func TestSpacesAreNotEncoded(t *testing.T) {
	texts := []string{"   a cat", "a cat   ", "  a cat  ", " cat ", "a cat"}
	before := slices.Clone(texts)
	if got, want := trimmed(texts, 5), []string{"a cat", "a cat", "a cat", " cat ", "a cat"}; !slices.Equal(got, want) {
		t.Errorf("encoded: %q", got)
	}
	if !slices.Equal(texts, before) {
		t.Errorf("changed: %q", texts)
	}
}
