package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

func TestConfigPath(t *testing.T) {
	for name, tt := range map[string]struct {
		enabled              bool
		file, stateDir, want string
	}{
		"in the state folder": {true, "a.db", "/state", "/state/a.db"},
		"absolute":            {true, "/elsewhere/a.db", "/state", "/elsewhere/a.db"},
		"no state folder":     {true, "a.db", "", ""},
		"no file":             {true, "", "/state", ""},
		"disabled":            {false, "/elsewhere/a.db", "/state", ""},
	} {
		if got := (Config{CacheEnabled: tt.enabled, CacheFile: tt.file}).Path(tt.stateDir); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestPrecompute(t *testing.T) {
	dir := t.TempDir()
	write := func(content string) string {
		path := filepath.Join(dir, "prompts.txt")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("x", 2048)
	for _, tt := range []struct {
		name, mode, content string
		prompts             []string
		err                 string
	}{
		{"prompts", Precomputed, "\ufeffa cat\r\n\n  a dog \n猫\na cat\nlast", []string{"a cat", "a dog", "猫", "last"}, ""},
		{"more than a batch", Precomputed, strings.Join(promptList("cat", 50), "\n"), promptList("cat", 50), ""},
		{"ondemand", OnDemand, "a cat\n", nil, ""},
		{"empty", Precomputed, "", nil, ""},
		{"the longest", Precomputed, "a\n" + long + "\r\nb", []string{"a", long, "b"}, ""},
		{"the longest and spaces", Precomputed, "  " + long + strings.Repeat(" ", 5000) + "\r\nb", []string{long, "b"}, ""},
		{"too long", Precomputed, "a\n" + long + "xyz\n", nil, "prompts.txt:2: a prompt is longer than 2048 bytes"},
		{"not UTF-8", Precomputed, "a\n\n\xff\n", nil, "prompts.txt:3: not UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := memoryOnly()
			config.Mode, config.PromptFile = tt.mode, write(tt.content)
			s, _ := openStore(t, config, "")
			f := newFake("ns")
			te := embeddings(t, s, f)
			_, err := te.Precompute(t.Context(), 2048)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("%v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || f.count() != len(tt.prompts) {
				t.Fatalf("%v, %d prompts encoded, want %d", err, f.count(), len(tt.prompts))
			}
			mustGet(t, te, tt.prompts...)
			if f.count() != len(tt.prompts) {
				t.Fatal("a request encoded again")
			}
		})
	}
	config := memoryOnly()
	config.Mode, config.PromptFile = Precomputed, filepath.Join(dir, "none")
	s, _ := openStore(t, config, "")
	if _, err := embeddings(t, s, newFake("ns")).Precompute(t.Context(), 2048); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestCheckPrompts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "prompts.txt")
	if err := os.WriteFile(file, []byte("a cat \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := Config{Mode: Precomputed, PromptFile: file, CacheEnabled: true}
	for want, change := range map[string]func(c *Config, maxBytes *int){
		"":                               func(*Config, *int) {},
		"cache_enabled is false":         func(c *Config, _ *int) { c.CacheEnabled = false },
		"needs a prompt_file":            func(c *Config, _ *int) { c.PromptFile = "" },
		"no such file":                   func(c *Config, _ *int) { c.PromptFile = file + "x" },
		"not a regular file":             func(c *Config, _ *int) { c.PromptFile = dir },
		"prompts.txt:1: a prompt is lon": func(_ *Config, n *int) { *n = 4 },
	} {
		c, maxBytes := good, 5
		change(&c, &maxBytes)
		if err := CheckPrompts(c, maxBytes); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if c.Mode = OnDemand; CheckPrompts(c, maxBytes) != nil {
			t.Errorf("%q matters in mode ondemand", want)
		}
	}
}

func TestPrecomputeGivesWay(t *testing.T) {
	config := memoryOnly()
	config.Mode, config.MaxPending = Precomputed, 1
	config.PromptFile = filepath.Join(t.TempDir(), "prompts.txt")
	if err := os.WriteFile(config.PromptFile, []byte(strings.Join(promptList("cat", 10), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		precompute := func(ctx context.Context) <-chan error {
			result := make(chan error, 1)
			go func() { _, err := te.Precompute(ctx, 2048); result <- err }()
			synctest.Wait()
			return result
		}
		first, second := goGet(t.Context(), te, "a"), goGet(t.Context(), te, "b") // the line is full
		ctx, cancel := context.WithCancel(t.Context())
		cancelled, goesOn := precompute(ctx), precompute(t.Context())
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		close(f.gate)
		for _, result := range []<-chan error{first, second, goesOn} {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		if f.count() != 12 {
			t.Errorf("%d prompts encoded, want 12", f.count())
		}
	})
}
