package clip

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"hailoclip/cache"
	"hailoclip/pipeline/fair"
)

func TestReadPrompts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "prompts.txt")
	long := strings.Repeat("x", 2048)
	nothing := func(*cache.Config) {}
	for name, tt := range map[string]struct {
		content string
		change  func(*cache.Config)
		prompts []string
		err     string
	}{
		"prompts":            {"\ufeffa cat\r\n\n  a dog \n猫\na cat\nlast", nothing, []string{"a cat", "a dog", "猫", "a cat", "last"}, ""},
		"empty":              {"", nothing, nil, ""},
		"longest":            {"a\n" + long + "\r\nb", nothing, []string{"a", long, "b"}, ""},
		"longest and spaces": {"  " + long + strings.Repeat(" ", 5000) + "\r\nb", nothing, []string{long, "b"}, ""},
		"too long":           {"a\n" + long + "xyz\n", nothing, nil, "prompts.txt:2: a prompt is longer than 2048 bytes"},
		"endless":            {"a\n" + strings.Repeat(" ", maxPromptLine+1), nothing, nil, "prompts.txt:2: a line is longer than 1048576 bytes"},
		"as many as go":      {strings.Repeat("a\n", maxPrompts), nothing, slices.Repeat([]string{"a"}, maxPrompts), ""},
		"too many":           {strings.Repeat("a\n", maxPrompts+1), nothing, nil, "prompts.txt: more than 1000000 prompts"},
		"not UTF-8":          {"a\n\n\xff\n", nothing, nil, "prompts.txt:3: not UTF-8"},
		"cache disabled":     {"a", func(c *cache.Config) { c.CacheEnabled = false }, nil, "cache_enabled is false"},
		"no file named":      {"a", func(c *cache.Config) { c.PromptFile = "" }, nil, "needs a prompt_file"},
		"no file":            {"a", func(c *cache.Config) { c.PromptFile += "x" }, nil, "no such file"},
		"folder":             {"a", func(c *cache.Config) { c.PromptFile = dir }, nil, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c := cache.Config{Mode: cache.Precomputed, PromptFile: file, CacheEnabled: true}
			tt.change(&c)
			prompts, err := ReadPrompts(c, 2048)
			if !slices.Equal(prompts, tt.prompts) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%d prompts, %v, want %d, %q", len(prompts), err, len(tt.prompts), tt.err)
			}
			c.Mode = cache.OnDemand
			if prompts, err := ReadPrompts(c, 2048); prompts != nil || err != nil {
				t.Errorf("in mode ondemand: %q, %v", prompts, err)
			}
		})
	}
}

// TestPrecomputeGivesWay has requests that fill the queue of texts: the prompts of the file wait until there is room.
func TestPrecomputeGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &device{hangTexts: make(chan struct{})}
		e := newEngine(t, d)
		shades := func(colour string, n int) (texts []string) {
			for i := range n {
				texts = append(texts, fmt.Sprint(colour, " ", i))
			}
			return texts
		}
		start := func(do func() error) <-chan error {
			result := make(chan error, 1)
			go func() { result <- do() }()
			synctest.Wait()
			return result
		}
		precompute := func(ctx context.Context) <-chan error {
			return start(func() error { _, err := e.Precompute(ctx, shades("green", 30)); return err })
		}
		request := start(func() error { _, err := e.EmbedTexts(t.Context(), fair.Caller{}, shades("red", 200)); return err })
		ctx, cancel := context.WithCancel(t.Context())
		cancelled, goesOn := precompute(ctx), precompute(t.Context())
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if n := d.texts.Load(); n != 0 {
			t.Errorf("%d texts encoded too early", n)
		}
		close(d.hangTexts)
		if err := errors.Join(<-request, <-goesOn); err != nil || d.texts.Load() != 230 {
			t.Errorf("%d texts encoded: %v", d.texts.Load(), err)
		}
		if n, err := e.Precompute(t.Context(), []string{"blue", "mauve"}); n != 0 || !errors.Is(err, ErrEncodeText) {
			t.Errorf("a prompt that cannot be encoded: %d done, %v", n, err)
		}
	})
}
