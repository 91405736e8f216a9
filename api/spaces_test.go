package api

import "testing"

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
